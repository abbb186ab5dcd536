//! Conversions between the wire and the vocabulary. Every conversion takes a message apart field by field, so that
//! a new field does not compile unnoticed. What comes in is checked here, once: past this point a record is valid.

mod access;
mod alert;
mod enums;
mod event;
mod host;
mod incident;
mod lanes;
mod run;

use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;

pub use enums::Number;
pub use lanes::epoch_in;

use crate::pb;

/// Why a message is not a record.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct InvalidMessage {
    pub field: &'static str,
    pub why: String,
}

impl InvalidMessage {
    /// A field and what is wrong with it.
    pub fn new(field: &'static str, why: impl std::fmt::Display) -> Self {
        Self { field, why: why.to_string() }
    }

    fn missing(field: &'static str) -> Self {
        Self::new(field, "missing")
    }
}

/// Labels as the wire has them.
pub fn labels_out(labels: &Labels) -> Vec<pb::Label> {
    labels.iter().map(|(name, value)| pb::Label { name: name.into(), value: value.into() }).collect()
}

/// Labels from the wire; bounds and character rules are the ingest's (`limits`).
pub fn labels_in(labels: Vec<pb::Label>) -> Labels {
    Labels::new(labels.into_iter().map(|pb::Label { name, value }| (name, value)))
}

fn time(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// 0 is "not yet".
fn time_in(millis: i64) -> Option<Timestamp> {
    (millis != 0).then_some(Timestamp::from_millis(millis))
}

fn time_out(at: Option<Timestamp>) -> i64 {
    at.map_or(0, Timestamp::as_millis)
}

fn digest(field: &'static str, bytes: Vec<u8>) -> Result<[u8; 32], InvalidMessage> {
    bytes
        .try_into()
        .map_err(|bytes: Vec<u8>| InvalidMessage::new(field, format!("{} bytes, not 32", bytes.len())))
}

/// No bytes are "none".
fn maybe_digest(field: &'static str, bytes: Vec<u8>) -> Result<Option<[u8; 32]>, InvalidMessage> {
    if bytes.is_empty() { Ok(None) } else { digest(field, bytes).map(Some) }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
    field: &'static str,
    text: &str,
) -> Result<T, InvalidMessage> {
    text.parse().map_err(|error| InvalidMessage::new(field, error))
}

fn must<T>(field: &'static str, value: Option<T>) -> Result<T, InvalidMessage> {
    value.ok_or_else(|| InvalidMessage::missing(field))
}
