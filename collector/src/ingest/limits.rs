//! What an agent may send: bounds on tables and labels, checked before anything is kept.

use std::collections::HashSet;

use tocsin_proto::convert::labels_in;
use tocsin_proto::pb;
use tocsin_shared::chain::WIDTH_MAX;
use tocsin_shared::labels::{Labels, METRIC_NAME};

const LABELS_MAX: usize = 32;
const NAME_BYTES_MAX: usize = 256;
const VALUE_BYTES_MAX: usize = 1024;
const WORD_BYTES_MAX: usize = 128;
const NOTE_BYTES_MAX: usize = 512;
/// The collector sets these; an agent that could would speak for another host.
const RESERVED: [&str; 3] = ["instance", "job", "env"];

/// Stands in for a series whose labels are refused: its place in the table stays, its labels go nowhere.
const REFUSED: &str = "tocsin_refused_series";

/// A table of series. One that is too long is refused whole; a series with labels out of bounds loses them, so that
/// one odd file on a host silences nothing else. Says why the first of those was refused.
pub(super) fn table(series: Vec<pb::Series>) -> Result<(Vec<Labels>, Option<String>), String> {
    if series.len() > WIDTH_MAX {
        return Err(format!("{} series in a table, at most {WIDTH_MAX}", series.len()));
    }
    let (mut first_refused, mut seen) = (None, HashSet::with_capacity(series.len()));
    let labels = series.into_iter().enumerate().map(|(place, pb::Series { labels })| {
        let labels = labels_of(labels).and_then(|labels| {
            let is_new = seen.insert(labels.clone());
            is_new.then_some(labels).ok_or_else(|| "a series is twice in its table".to_owned())
        });
        labels.unwrap_or_else(|why| {
            first_refused.get_or_insert(why);
            refused(place)
        })
    });
    Ok((labels.collect(), first_refused))
}

/// What stands in a table for a series that is not taken.
pub(super) fn refused(place: usize) -> Labels {
    Labels::series(REFUSED, &[("place", &place.to_string())])
}

/// Labels within bounds; `__name__` is required.
fn labels_of(labels: Vec<pb::Label>) -> Result<Labels, String> {
    if labels.len() > LABELS_MAX {
        return Err(format!("{} labels on a series, at most {LABELS_MAX}", labels.len()));
    }
    for label in &labels {
        check(label)?;
    }
    let labels = labels_in(labels);
    match labels.metric() {
        "" => Err("a series without a metric name".into()),
        REFUSED => Err(format!("{REFUSED} is the collector's own")),
        _ => Ok(labels),
    }
}

fn check(pb::Label { name, value }: &pb::Label) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(is_hidden) {
        return Err(format!(
            "label name of {} bytes is empty, too long or has control characters",
            name.len()
        ));
    }
    if value.len() > VALUE_BYTES_MAX || value.chars().any(is_hidden) {
        return Err(format!(
            "value of label {name} is longer than {VALUE_BYTES_MAX} bytes or has control characters"
        ));
    }
    let reserved = RESERVED.contains(&name.as_str()) || (name.starts_with("__") && name != METRIC_NAME);
    if reserved { Err(format!("label {name} is set by the collector")) } else { Ok(()) }
}

/// What moves a cursor or shows another text than it is: control characters, and those that turn the direction.
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What an agent says of itself in one word: its version, its boot. Longer ones are of no agent of ours.
pub(super) fn word(what: &str, text: &str) -> Result<(), String> {
    if text.len() > WORD_BYTES_MAX || text.chars().any(is_hidden) {
        return Err(format!("{what} is longer than {WORD_BYTES_MAX} bytes or has control characters"));
    }
    Ok(())
}

/// A reason or a note, cut to what a person reads.
pub(super) fn note(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(NOTE_BYTES_MAX));
    text
}

/// Facts of a host: at most 64, each within the bounds of labels; others are left out.
pub(super) fn facts(labels: Vec<pb::Label>) -> Labels {
    labels_in(labels.into_iter().filter(|label| check(label).is_ok()).take(64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Cases: H11, C-X1 (partly)
    #[test]
    fn only_what_is_within_bounds_comes_in() {
        let series = |pairs: &[(&str, &str)]| {
            let label =
                |(name, value): &(&str, &str)| pb::Label { name: (*name).into(), value: (*value).into() };
            table(vec![pb::Series { labels: pairs.iter().map(label).collect() }])
        };
        let long = "x".repeat(1025);
        for (pairs, ok) in [
            (&[("__name__", "node_load1")][..], true),
            (&[("__name__", "m"), ("device", "größe")], true),
            (&[("device", "sda")], false),
            (&[("__name__", "m"), ("instance", "other")], false),
            (&[("__name__", "m"), ("env", "prod")], false),
            (&[("__name__", "m"), ("__meta", "x")], false),
            (&[("__name__", "m"), ("a", "\u{1b}[2J")], false),
            (&[("__name__", "m"), ("a", long.as_str())], false),
            (&[("__name__", "m"), ("a", "b\u{202e}c")], false),
            (&[("__name__", "m"), ("job", "other")], false),
            (&[("__name__", REFUSED), ("place", "0")], false),
        ] {
            let (table, refused) = series(pairs).unwrap();
            assert_eq!((table[0].metric() != REFUSED, refused.is_none()), (ok, ok), "{pairs:?}");
        }
        assert!(table(vec![pb::Series::default(); WIDTH_MAX + 1]).is_err());
        let one = pb::Series { labels: vec![pb::Label { name: "__name__".into(), value: "m".into() }] };
        let (twice, refused) = table(vec![one.clone(), one]).unwrap();
        assert_eq!((twice[0].metric(), twice[1].metric()), ("m", REFUSED), "the rows of the host stay");
        assert!(refused.unwrap().contains("twice"));
    }
}
