//! What an agent may send: bounds on tables and labels, checked before anything is kept.

use std::sync::Arc;

use tocsin_proto::convert::labels_in;
use tocsin_proto::pb;
use tocsin_shared::chain::WIDTH_MAX;
use tocsin_shared::labels::{Labels, METRIC_NAME};

const LABELS_MAX: usize = 32;
const NAME_BYTES_MAX: usize = 256;
const VALUE_BYTES_MAX: usize = 1024;
/// The collector sets these; an agent that could would speak for another host.
const RESERVED: [&str; 3] = ["instance", "job", "env"];

/// Stands in for a series whose labels are refused: its place in the table stays, its labels go nowhere.
const REFUSED: &str = "tocsin_refused_series";

/// A table of series. One that is too long is refused whole; a series with labels out of bounds loses them, so that
/// one odd file on a host silences nothing else. Says why the first of those was refused.
pub(super) fn table(series: Vec<pb::Series>) -> Result<(Arc<[Labels]>, Option<String>), String> {
    if series.len() > WIDTH_MAX {
        return Err(format!("{} series in a table, at most {WIDTH_MAX}", series.len()));
    }
    let mut first_refused = None;
    let labels = series.into_iter().enumerate().map(|(place, pb::Series { labels })| {
        labels_of(labels).unwrap_or_else(|why| {
            first_refused.get_or_insert(why);
            Labels::series(REFUSED, &[("place", &place.to_string())])
        })
    });
    Ok((labels.collect(), first_refused))
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
    if labels.metric().is_empty() { Err("a series without a metric name".into()) } else { Ok(labels) }
}

fn check(pb::Label { name, value }: &pb::Label) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(format!(
            "label name of {} bytes is empty, too long or has control characters",
            name.len()
        ));
    }
    if value.len() > VALUE_BYTES_MAX || value.chars().any(char::is_control) {
        return Err(format!(
            "value of label {name} is longer than {VALUE_BYTES_MAX} bytes or has control characters"
        ));
    }
    let reserved = RESERVED.contains(&name.as_str()) || (name.starts_with("__") && name != METRIC_NAME);
    if reserved { Err(format!("label {name} is set by the collector")) } else { Ok(()) }
}

/// Facts of a host: at most 64, each within the bounds of labels; others are left out.
pub(super) fn facts(labels: Vec<pb::Label>) -> Labels {
    labels_in(labels.into_iter().filter(|label| check(label).is_ok()).take(64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        ] {
            let (table, refused) = series(pairs).unwrap();
            assert_eq!((table[0].metric() != REFUSED, refused.is_none()), (ok, ok), "{pairs:?}");
        }
        assert!(table(vec![pb::Series::default(); WIDTH_MAX + 1]).is_err());
    }
}
