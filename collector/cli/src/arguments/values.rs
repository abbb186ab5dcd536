//! The values of arguments: words with a fixed choice, and texts that are read into what they mean.

use std::time::Duration;

use clap::ValueEnum;
use tocsin_proto::pb;
use tocsin_shared::time::{Timestamp, parse_duration};

/// How an incident ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum ResolutionCode {
    Fixed,
    Workaround,
    FalsePositive,
    Duplicate,
    Other,
}

impl ResolutionCode {
    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Workaround => "workaround",
            Self::FalsePositive => "false_positive",
            Self::Duplicate => "duplicate",
            Self::Other => "other",
        }
    }
}

/// The environment a host serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EnvName {
    Prod,
    Uat,
    Dr,
    Test,
}

impl From<EnvName> for pb::Env {
    fn from(name: EnvName) -> Self {
        match name {
            EnvName::Prod => Self::Prod,
            EnvName::Uat => Self::Uat,
            EnvName::Dr => Self::Dr,
            EnvName::Test => Self::Test,
        }
    }
}

/// What a principal may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    Viewer,
    Responder,
    Operator,
    Admin,
    Consumer,
    Writer,
}

impl From<RoleName> for pb::Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Viewer => Self::Viewer,
            RoleName::Responder => Self::Responder,
            RoleName::Operator => Self::Operator,
            RoleName::Admin => Self::Admin,
            RoleName::Consumer => Self::Consumer,
            RoleName::Writer => Self::Writer,
        }
    }
}

/// `12`, `#12`, `INC-12`.
pub(super) fn incident_number(text: &str) -> Result<u64, String> {
    let prefix = text.get(..4).filter(|prefix| prefix.eq_ignore_ascii_case("INC-"));
    let digits = match prefix {
        Some(_) => &text[4..],
        None => text.strip_prefix('#').unwrap_or(text),
    };
    match digits.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("an incident is named like 12 or INC-12".into()),
    }
}

pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text).map_err(|error| error.to_string())? {
        Duration::ZERO => Err("it must be longer than nothing, like 30s or 1h".into()),
        span => Ok(span),
    }
}

/// `name=value` with a Prometheus label name.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write LABEL=VALUE, like team=payments")?;
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let valid = name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit());
    if !valid {
        return Err(format!("{name:?} is not a label name; it has letters, digits and `_`, no digit first"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// A point in time as people give it: RFC 3339, Unix seconds, `now`, or an age such as `10m`.
pub fn time(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if text == "now" {
        return Ok(now);
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let age = text.strip_prefix('-').unwrap_or(text);
    parse_duration(age).map(|age| now.minus(age)).map_err(|_| {
        format!("not a time: {text:?}; write 2026-11-23T10:00:00Z, Unix seconds, or an age like 10m")
    })
}
