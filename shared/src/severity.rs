//! How bad an alert is, in the four words paging tools share.

use std::fmt;
use std::str::FromStr;

/// The severity of an alert, mildest first, so that `max` is the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Info,
    Warning,
    Error,
    Critical,
}

impl Severity {
    /// The value of the `severity` label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is not a severity.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a severity: {0:?}; it is one of info, warning, error, critical")]
pub struct InvalidSeverity(String);

impl FromStr for Severity {
    type Err = InvalidSeverity;
    fn from_str(text: &str) -> Result<Self, InvalidSeverity> {
        [Self::Info, Self::Warning, Self::Error, Self::Critical]
            .into_iter()
            .find(|severity| severity.as_str() == text)
            .ok_or_else(|| InvalidSeverity(text.into()))
    }
}
