//! What a spool operation can fail at, one variant for each thing its owner can do about it.

use std::io;
use std::path::{Path, PathBuf};

use tocsin_shared::identity::AgentId;
use tocsin_shared::lane::Lane;
use tocsin_shared::log::LogError;

/// What a spool operation failed at.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("the spool in {} is in use by another agent (process {holder}): stop it, or give this one a directory of its own", dir.display())]
    Locked { dir: PathBuf, holder: String },
    #[error("cannot {doing} {}", path.display())]
    Disk { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("lane {lane}")]
    Log { lane: Lane, source: LogError },
    #[error("the records are kept in another place now: their session begins anew")]
    Moved,
    #[error("no room for a record of lane {lane}: {why}")]
    NoRoom { lane: Lane, why: &'static str },
    #[error("acknowledgement of record {acked} in lane {lane}, which ends at {end}: nothing was removed")]
    AckBeyondEnd { lane: Lane, acked: u64, end: u64 },
    #[error("{} holds no epoch: restore it, or move the spool directory away to start a new one", path.display())]
    InvalidEpoch { path: PathBuf },
    #[error("{} names no agent: restore it, or move the spool directory away to start a new one", path.display())]
    InvalidOwner { path: PathBuf },
    #[error(
        "the spool holds the records of agent {owner}, and this host is agent {agent} now: restart the agent, and they are set aside"
    )]
    OtherOwner { owner: AgentId, agent: AgentId },
    #[error("{} has version {found}, this agent knows up to {known}: start a newer agent, the file is untouched", path.display())]
    Newer { path: PathBuf, found: u8, known: u8 },
    #[error(
        "a spool of {max_bytes} bytes is too small, expected at least {needed} for its reserve and segments"
    )]
    TooSmall { max_bytes: u64, needed: u64 },
}

impl SpoolError {
    /// For `map_err`: what was being done to which file.
    pub(super) fn disk(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Disk { doing, path: path.clone(), source }
    }

    pub(super) fn log(lane: Lane) -> impl Fn(LogError) -> Self {
        move |source| Self::Log { lane, source }
    }

    /// Whether the cause is that there is no room, on the disk or in the spool.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Disk { source, .. } => tocsin_shared::disk::is_full(source),
            Self::Log { source, .. } => source.is_full(),
            Self::NoRoom { .. } => true,
            _ => false,
        }
    }
}
