//! Label sets: what names a series, an alert, a rule's result.
//!
//! A set is sorted by name, has no name twice and no empty value (an empty value is an absent label, as in the
//! Prometheus data model). Cloning is cheap: the set is shared. Names and values are any UTF-8 here; the limits
//! of the wire (`limits`) are checked where bytes come in.

use std::fmt;
use std::sync::Arc;

/// The label that carries the metric's name.
pub const METRIC_NAME: &str = "__name__";

/// A sorted set of labels, the metric's name among them as `__name__`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// The empty set.
    pub fn empty() -> Self {
        Self::default()
    }

    /// From pairs in any order. Of a repeated name the last value stays; empty values are dropped.
    pub fn new<N: Into<Arc<str>>, V: Into<Arc<str>>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut pairs: Vec<(Arc<str>, Arc<str>)> =
            pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0)); // Stable: the last of equal names is the last given.
        let mut kept: Vec<(Arc<str>, Arc<str>)> = Vec::with_capacity(pairs.len());
        for pair in pairs {
            match kept.last_mut() {
                Some(last) if last.0 == pair.0 => *last = pair,
                _ => kept.push(pair),
            }
        }
        kept.retain(|(_, value)| !value.is_empty());
        Self(kept.into())
    }

    /// A series: its metric name and its other labels.
    pub fn series(metric: &str, pairs: &[(&str, &str)]) -> Self {
        Self::new(std::iter::once((METRIC_NAME, metric)).chain(pairs.iter().copied()))
    }

    /// The value of a label, if it is there.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.binary_search_by(|(n, _)| (**n).cmp(name)).ok().map(|at| &*self.0[at].1)
    }

    /// The metric's name; empty when there is none.
    pub fn metric(&self) -> &str {
        self.get(METRIC_NAME).unwrap_or("")
    }

    /// Names and values in the order of names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The shared pairs themselves, for building another set without copying text.
    pub fn pairs(&self) -> &[(Arc<str>, Arc<str>)] {
        &self.0
    }

    /// How many clones of this set there are, it included: 1 when nobody else has it.
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same set with these labels set, each over an older one of its name; an empty value removes.
    pub fn with<'a>(&self, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let new = pairs.into_iter().map(|(n, v)| (Arc::from(n), Arc::from(v)));
        Self::new(self.0.iter().cloned().chain(new))
    }

    /// The same set without the labels that `drop` names.
    pub fn without(&self, drop: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|(name, _)| !drop(name)).cloned().collect())
    }
}

/// The exposition form: `up{instance="a",job="node"}`, values escaped.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.iter().filter(|(name, _)| *name != METRIC_NAME).peekable();
        let metric = self.metric();
        write!(f, "{metric}")?;
        if rest.peek().is_none() {
            return if metric.is_empty() { write!(f, "{{}}") } else { Ok(()) };
        }
        for (at, (name, value)) in rest.enumerate() {
            write!(f, "{}{name}=\"", if at == 0 { "{" } else { ", " })?;
            for c in value.chars() {
                match c {
                    '\\' => write!(f, "\\\\")?,
                    '"' => write!(f, "\\\"")?,
                    '\n' => write!(f, "\\n")?,
                    c => write!(f, "{c}")?,
                }
            }
            write!(f, "\"")?;
        }
        write!(f, "}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_sorted_unique_and_without_empty_values() {
        let labels = Labels::new([("b", "2"), ("a", "1"), ("c", ""), ("a", "3")]);
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "3"), ("b", "2")]);
        assert_eq!(labels.get("b"), Some("2"));
        assert_eq!(labels.get("c"), None);
        assert_eq!(labels.with([("a", ""), ("z", "9")]).to_string(), r#"{b="2", z="9"}"#);
    }

    #[test]
    fn series_print_as_in_the_exposition_format() {
        let up = Labels::series("up", &[("job", "node"), ("path", "a\"\\\n")]);
        assert_eq!(up.to_string(), r#"up{job="node", path="a\"\\\n"}"#);
        assert_eq!(Labels::series("up", &[]).to_string(), "up");
        assert_eq!(Labels::empty().to_string(), "{}");
    }
}
