//! Which events a subscriber wants. Internal kinds cannot be wanted.
//!
//! A filter has a checksum of its words, not of the kinds that they select: a version that knows more kinds does not
//! make another filter of it.

use tocsin_shared::event::EventKind;

/// How many kinds a subscriber may list: more than there are.
const KINDS_MAX: usize = 64;

/// A set of public kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    kinds: Vec<EventKind>,
    checksum: u32,
}

/// Why a list of kinds is refused. One that selects nothing is a slip, and would be silence where a page is expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    #[error(
        "no event of the feed is called {0:?}; write a kind like incident.triggered, or a prefix like incident."
    )]
    Unknown(String),
    #[error("{0} kinds are listed, at most {KINDS_MAX} are taken")]
    TooMany(usize),
}

fn public() -> impl Iterator<Item = EventKind> {
    EventKind::ALL.iter().copied().filter(|kind| kind.is_public())
}

impl Filter {
    /// Reads a list of kinds and of prefixes that end in a dot; an empty list wants all public kinds.
    pub fn parse<T: AsRef<str>>(kinds: &[T]) -> Result<Self, InvalidFilter> {
        if kinds.len() > KINDS_MAX {
            return Err(InvalidFilter::TooMany(kinds.len()));
        }
        if kinds.is_empty() {
            return Ok(Self { kinds: public().collect(), checksum: 0 });
        }
        let mut wanted = Vec::new();
        for text in kinds.iter().map(AsRef::as_ref) {
            let fits = |kind: &EventKind| {
                kind.as_str() == text || (text.ends_with('.') && kind.as_str().starts_with(text))
            };
            let before = wanted.len();
            wanted.extend(public().filter(fits));
            if wanted.len() == before {
                return Err(InvalidFilter::Unknown(text.chars().take(64).collect()));
            }
        }
        let mut words: Vec<&str> = kinds.iter().map(AsRef::as_ref).collect();
        words.sort_unstable();
        words.dedup();
        // Not 0, which is everything.
        let checksum = crc32fast::hash(words.join("\n").as_bytes()).max(1);
        Ok(Self { kinds: wanted, checksum })
    }

    /// Tells filters of other words apart; the order of the words is none of it.
    pub fn checksum(&self) -> u32 {
        self.checksum
    }

    /// Whether an event of this kind is wanted.
    pub fn takes(&self, kind: EventKind) -> bool {
        self.kinds.contains(&kind)
    }

    /// Whether some kind of a family is wanted; `family` is a prefix that ends in a dot.
    pub fn takes_family(&self, family: &str) -> bool {
        self.kinds.iter().any(|kind| kind.as_str().starts_with(family))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_take_kinds_and_prefixes_and_never_internal_ones() {
        use EventKind::*;
        // The columns: AlertTriggered, AlertPending, IncidentNoted, JobFailed, ConsumerMoved.
        for (kinds, expected) in [
            (&[][..], Ok([true, false, true, true, false])),
            (&["alert."], Ok([true, false, false, false, false])),
            (&["incident.noted", "job."], Ok([false, false, true, true, false])),
            (&["alert.pending"], Err("alert.pending")),
            (&["consumer."], Err("consumer.")),
            (&["incident"], Err("incident")),
            (&["incident.triggered", "no.such"], Err("no.such")),
            (&[""], Err("")),
        ] {
            let takes = Filter::parse(kinds).map(|filter| {
                [AlertTriggered, AlertPending, IncidentNoted, JobFailed, ConsumerMoved]
                    .map(|kind| filter.takes(kind))
            });
            let expected = expected.map_err(|kind: &str| InvalidFilter::Unknown(kind.into()));
            assert_eq!(takes, expected, "{kinds:?}");
        }
        assert_eq!(Filter::parse(&["job."; 65]), Err(InvalidFilter::TooMany(65)));
    }

    // Cases: F7
    #[test]
    fn a_checksum_is_of_the_words_in_any_order() {
        let of = |kinds: &[&str]| Filter::parse(kinds).unwrap().checksum();
        assert_eq!(of(&["job.", "incident."]), of(&["incident.", "job.", "job."]));
        let others = [of(&[]), of(&["job."]), of(&["incident."]), of(&["incident.", "job."])];
        let different: std::collections::HashSet<_> = others.iter().collect();
        assert_eq!(different.len(), others.len(), "{others:?}");
    }

    #[test]
    fn families_are_told_apart() {
        let filter = Filter::parse(&["incident.resolved"]).unwrap();
        assert!(filter.takes_family("incident.") && !filter.takes_family("alert."));
    }
}
