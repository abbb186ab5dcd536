//! The journal: the truth that everything else is a view of. Two logs of the same make.
//!
//! *events* holds every change of state, for as long as the feed and the audit reach back. *samples* holds rows as
//! the agents sent them, until they are sealed into blocks. Each has one writer that groups what waits: the next
//! `fdatasync` starts when the last one ends and takes everything that arrived meanwhile. Nothing is acknowledged,
//! shown or evaluated before that. A writer whose disk fails takes nothing more and stops the collector.

pub mod checkpoint;
pub mod ledger;
pub mod rows;

use std::path::PathBuf;

use tocsin_shared::log::{Config, Format, LogError};

/// The events journal's files.
pub const EVENTS_FORMAT: Format = Format { name: "tocsin-events", version: 1 };
/// The samples journal's files.
pub const SAMPLES_FORMAT: Format = Format { name: "tocsin-samples", version: 3 };

/// 16 MiB hold some 30,000 events: small enough to scan in a moment when a reader seeks.
pub const EVENTS_SEGMENT: Config = Config { segment_bytes: 16 << 20, scan_all: false };
/// 64 MiB are two minutes of a thousand hosts at one tick a second, and cheap to scan.
pub const SAMPLES_SEGMENT: Config = Config { segment_bytes: 64 << 20, scan_all: false };

/// What a journal failed at. All of these stop the collector: what is durable stays, a start goes on from it.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("journal: {0}")]
    Log(#[from] LogError),
    #[error("checkpoint {path}: {why}")]
    Checkpoint { path: PathBuf, why: String },
    #[error("checkpoint {path}: there is no room for it: {why}")]
    CheckpointFull { path: PathBuf, why: String },
    #[error("event {seq} of the journal can't be read: {why}")]
    Event { seq: u64, why: String },
    #[error(
        "the events journal starts at {first}, the newest usable checkpoint ends at {last}: events between are missing"
    )]
    Hole { first: u64, last: u64 },
}

/// A row's journal writer or the state's owner has ended; the collector is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the collector is stopping")]
pub struct Stopping;
