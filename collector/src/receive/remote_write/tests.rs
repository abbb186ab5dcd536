//! Messages that are cut or changed anywhere.

use std::collections::HashSet;
use std::sync::Arc;

use prost::Message as _;
use tocsin_shared::time::Timestamp;

use super::*;
use crate::receive::book::{Book, Judge};
use crate::receive::tests::{pb, series};
use crate::samples::Store;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn read_into(book: &mut Book, store: &Store, version: Version, message: &[u8]) -> Result<usize, Malformed> {
    let agents = HashSet::new();
    let mut intake = book.intake(Judge { now: NOW, keep_from: Timestamp::MIN, agents: &agents, store });
    read(version, message, &mut intake)?;
    Ok(intake.finish().0.len())
}

// Cases: H11
#[test]
fn a_message_is_taken_whole_or_not_at_all_wherever_it_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap().0;
    let at = NOW.as_millis();
    let timeseries =
        (0..3).map(|n| series(&format!("__name__=m n={n}"), &[(at, 1.0), (at + 1, 2.0)])).collect();
    let message = pb::WriteRequest { timeseries, metadata: Vec::new() }.encode_to_vec();
    let mut book = Book::new("s".into(), 100);
    let whole = (0..=message.len()).filter(|cut| {
        let read = read_into(&mut book, &store, Version::One, &message[..*cut]);
        assert!(read.is_err() || read.as_ref().is_ok_and(|samples| samples % 2 == 0), "{cut}: {read:?}");
        read.is_ok()
    });
    assert_eq!(whole.count(), 4, "nothing, and after each series");
    for at in 0..message.len() {
        for bit in 0..8 {
            let mut changed = message.clone();
            changed[at] ^= 1 << bit;
            for version in [Version::One, Version::Two] {
                read_into(&mut book, &store, version, &changed).ok(); // It must only not panic.
            }
        }
    }
    assert!(book.series() <= 100);
}

#[test]
fn a_series_that_does_not_come_makes_room_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap().0;
    let mut book = Book::new("s".into(), 2);
    let agents = HashSet::new();
    let mut take = |hours: i64, n: usize| {
        let now = Timestamp::from_millis(NOW.as_millis() + hours * 3_600_000);
        let mut intake =
            book.intake(Judge { now, keep_from: Timestamp::MIN, agents: &agents, store: &store });
        let (n, instance) = (n.to_string(), format!("i{n}"));
        let labels = [("__name__", "m"), ("instance", &instance), ("n", &n)];
        let mut labels = labels.map(|(name, value)| (name.as_bytes(), value.as_bytes())).to_vec();
        intake.take(&mut labels, std::iter::once((now.as_millis(), 1.0)));
        let (samples, refused) = intake.finish();
        (samples.len(), refused.count(Reason::SeriesLimit), book.series(), book.origins())
    };
    assert_eq!([take(0, 1), take(0, 2), take(0, 3)], [(1, 0, 1, 1), (1, 0, 2, 2), (0, 1, 2, 2)]);
    assert_eq!(take(2, 2), (1, 0, 2, 2));
    assert_eq!(take(2, 3), (1, 0, 2, 2), "the first did not come for an hour");
    assert_eq!(take(2, 1), (0, 1, 2, 2));
}

#[test]
fn samples_of_a_scrape_stand_together_and_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap().0;
    let mut book = Book::new(Arc::from("s"), 100);
    let agents = HashSet::new();
    let mut intake =
        book.intake(Judge { now: NOW, keep_from: Timestamp::MIN, agents: &agents, store: &store });
    for (instance, n, at) in
        [("b", "1", 20), ("a", "1", 10), ("b", "2", 20), ("b", "1", 10), ("a", "2", 10), ("a", "1", 10)]
    {
        let labels = [("__name__", "m"), ("instance", instance), ("n", n)];
        let mut labels = labels.map(|(name, value)| (name.as_bytes(), value.as_bytes())).to_vec();
        intake.take(&mut labels, std::iter::once((NOW.as_millis() + at, at as f64)));
    }
    let (samples, _) = intake.finish();
    let runs = samples.chunk_by(|a, b| a.series.origin.key == b.series.origin.key && a.at == b.at);
    let mut lengths = runs.map(<[_]>::len).collect::<Vec<_>>();
    lengths.sort_unstable();
    assert_eq!(lengths, [1, 2, 3], "a at 10, b at 10, b at 20");
}
