//! What a sub-collector is, and how it fails.

use std::path::{Path, PathBuf};

use tocsin_shared::time::Timestamp;

use super::fields::Malformed;
use super::section::Section;

/// One sub-collector: reads its part of the host and says its series. It owns its open files and caches.
pub(crate) trait Source: Send {
    /// Says every series of this tick, or fails as a whole. `now` is the tick's time on the grid.
    fn read(&mut self, now: Timestamp, out: &mut Section) -> Result<(), CollectError>;
}

/// Why a sub-collector said nothing in a tick.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CollectError {
    /// The kernel, the hardware or the configuration has no such thing; usual, not a fault.
    #[error("nothing to collect: this host has no {0}")]
    Absent(&'static str),
    /// A file is there and cannot be read.
    #[error("cannot read {path}: {source}; check the agent's permissions")]
    Read { path: PathBuf, source: std::io::Error },
    /// A file has a shape this agent does not know.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A system call failed.
    #[error("{call} failed: {source}")]
    Call { call: &'static str, source: nix::errno::Errno },
    /// More series than a host can sensibly have.
    #[error("more than {0} series in one collector; exclude devices in the agent's configuration")]
    TooMany(usize),
}

/// Turns "no such file" into `Absent`, all else into `Read`.
pub(crate) fn absent_or(error: CollectError, what: &'static str) -> CollectError {
    match error {
        CollectError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            CollectError::Absent(what)
        }
        other => other,
    }
}

/// Where the host's trees are: below `/`, or below a fixture or a container's mount of the host.
#[derive(Clone, Debug)]
pub(crate) struct Roots {
    root: PathBuf,
}

impl Roots {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// A path below the host's `/proc`.
    pub(crate) fn proc(&self, path: &str) -> PathBuf {
        self.root.join("proc").join(path)
    }

    /// A path below the host's `/sys`.
    pub(crate) fn sys(&self, path: &str) -> PathBuf {
        self.root.join("sys").join(path)
    }

    /// Any absolute path of the host, as seen from here.
    pub(crate) fn host(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}
