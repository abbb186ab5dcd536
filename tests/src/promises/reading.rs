//! What consumers saw, against the whole feed as it is in the end.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use prost::Message as _;
use tocsin_proto::pb;

/// One subscription of a consumer from its beginning to its end.
#[derive(Clone, Debug)]
pub struct Reading {
    pub consumer: String,
    /// The last position whose acknowledgement was answered: nothing up to here may come again.
    pub answered: u64,
    /// The last position that was to be acknowledged; the answer may have got lost.
    pub asked: u64,
    /// What came, in the order in which it came.
    pub seqs: Vec<u64>,
}

/// Every event that anybody saw, and what it looked like.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeMap<u64, u64>);

impl Seen {
    pub(super) fn add(&mut self, event: &pb::Event) -> Result<(), String> {
        let looks = looks(event);
        match self.0.insert(event.seq, looks) {
            Some(before) if before != looks => Err(format!("event {} looks different again", event.seq)),
            _ => Ok(()),
        }
    }
}

fn looks(event: &pb::Event) -> u64 {
    let mut hasher = DefaultHasher::new();
    event.encode_to_vec().hash(&mut hasher);
    hasher.finish()
}

/// Nothing seen is gone, no reading skips, none begins before what was acknowledged or after what follows it.
pub(super) fn check(readings: &[Reading], seen: &Seen, events: &[&pb::Event]) -> Vec<String> {
    let there: BTreeMap<u64, u64> = events.iter().map(|event| (event.seq, looks(event))).collect();
    let changed = seen.0.iter().filter(|(seq, looks)| there.get(seq) != Some(looks));
    let mut broken: Vec<String> = changed
        .map(|(seq, _)| format!("event {seq} was seen and is not there, or looks different"))
        .collect();
    let seqs: Vec<u64> = there.keys().copied().collect();
    broken.extend(readings.iter().filter_map(|reading| skips(reading, &seqs)));
    broken
}

fn skips(reading: &Reading, all: &[u64]) -> Option<String> {
    let Reading { consumer, answered, asked, seqs } = reading;
    let first = *seqs.first()?;
    let after = |seq: u64| all.partition_point(|known| *known <= seq);
    let begins = all.binary_search(&first).ok()?; // One that is not there has been told already.
    if begins < after(*answered) {
        return Some(format!("{consumer} sees event {first} again after {answered} was acknowledged"));
    }
    if begins > after(*asked) {
        let next = all[after(*asked)];
        return Some(format!("{consumer} goes on with event {first} after {asked}, and misses {next}"));
    }
    let gap = seqs.iter().zip(&all[begins..]).find(|(seen, there)| seen != there)?;
    Some(format!("{consumer} sees event {} where {} comes", gap.0, gap.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_begins_where_it_should_and_skips_nothing() {
        let all = [2, 4, 5, 9, 11];
        for (answered, asked, seqs, whole, why) in [
            (0, 0, &[2, 4, 5][..], true, "from the first"),
            (4, 4, &[5, 9], true, "after what was acknowledged"),
            (4, 9, &[11], true, "the lost answer was a yes"),
            (4, 9, &[5, 9, 11], true, "or it was not"),
            (4, 4, &[4, 5], false, "again"),
            (4, 4, &[9], false, "a gap at the beginning"),
            (4, 9, &[], true, "nothing yet"),
            (2, 2, &[4, 9], false, "a gap inside"),
            (2, 2, &[4, 5, 5], false, "twice"),
        ] {
            let reading = Reading { consumer: "c".into(), answered, asked, seqs: seqs.to_vec() };
            let found = skips(&reading, &all);
            assert_eq!(found.is_none(), whole, "{why}: {found:?}");
        }
    }

    #[test]
    fn an_event_looks_the_same_for_ever() {
        let event = pb::Event { seq: 1, kind: "a".into(), ..Default::default() };
        let mut seen = Seen::default();
        seen.add(&event).unwrap();
        seen.add(&event).unwrap();
        assert!(check(&[], &seen, &[&event]).is_empty());
        let other = pb::Event { kind: "b".into(), ..event };
        assert_eq!(check(&[], &seen, &[&other]).len(), 1, "another one");
        assert_eq!(check(&[], &seen, &[]).len(), 1, "gone");
        assert!(seen.add(&other).is_err());
    }
}
