//! Runs whose start was stored and whose end was not: when nobody is left who could tell, they were interrupted.
//!
//! A run is over without an outcome when the host was booted since, or when neither its process nor its wrapper is
//! there for two looks in a row: a wrapper that was killed, or that could neither reach the agent nor write to the
//! drop-box in its time. Each run is noted in a file before its start is stored, so that also the next agent, after a
//! power cut, knows every run that a collector may believe to be going on. A process is known by its id and the moment
//! it began, so that an id that is used again is no sign of life.
//! Left out: whether the outcome is on its way (the caller looks into the drop-box first), and runs in another process
//! namespace, whose processes cannot be seen: only a new boot ends them.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tocsin_shared::job::{JobRecord, JobStarted, RunId};
use tracing::{info, warn};

use super::process::Process;
use crate::jobs::envelope;

/// Far more jobs than a host runs at a time; beyond it new ones are not followed.
const FOLLOWED_MAX: usize = 4096;

/// Why a run has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It was going on when the host went down.
    Rebooted,
    /// Its process and its wrapper are gone.
    Gone,
}

impl Lost {
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Rebooted => "the host was rebooted",
            Self::Gone => "its wrapper is gone and told no outcome",
        }
    }
}

#[derive(Clone, Debug)]
struct Run {
    started: JobStarted,
    /// Its process and its wrapper, as far as they are visible; none of them there means that it is over.
    watched: Vec<Process>,
    /// Whether they were gone at the last look: the wrapper or the drop-box may still tell.
    gone: bool,
}

/// Runs that are followed.
#[derive(Debug, Default)]
pub(crate) struct Running {
    runs: HashMap<RunId, Run>,
    /// Where they are noted; without it they are known to this process alone.
    dir: Option<PathBuf>,
    boot_id: String,
}

impl Running {
    /// Reads what an earlier agent noted in `dir`, which is made. `boot_id` is the kernel's name of this boot.
    pub(crate) fn open(dir: Option<PathBuf>, boot_id: &str) -> io::Result<Self> {
        let mut running = Self { runs: HashMap::new(), dir, boot_id: boot_id.to_owned() };
        let Some(dir) = &running.dir else { return Ok(running) };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        for entry in fs::read_dir(dir)?.take(FOLLOWED_MAX) {
            let path = entry?.path();
            match fs::read(&path).ok().as_deref().and_then(decode) {
                Some(run) => drop(running.runs.insert(run.started.run_id, run)),
                None => {
                    // A power cut while it was written; its start was not stored yet.
                    info!(path = ?path, "removed a note of a running job that is not whole");
                    forget(&path);
                }
            }
        }
        Ok(running)
    }

    /// A start is about to be stored. `wrapper` is who speaks, if the kernel says so.
    pub(crate) fn started(&mut self, started: &JobStarted, wrapper: Option<u32>) {
        if self.runs.len() >= FOLLOWED_MAX || self.runs.contains_key(&started.run_id) {
            return;
        }
        // One that is gone already can tell no more; one without an id is in a namespace that cannot be seen.
        let gone = |id| Process { id, ..Process::default() };
        let wrapper = wrapper.filter(|id| *id > 0).map(|id| Process::find(id).unwrap_or(gone(id)));
        // In another process namespace the job's id means some other process here.
        let job =
            Process::find(started.pid).filter(|job| wrapper.is_some_and(|wrapper| job.parent == wrapper.id));
        let watched = job.into_iter().chain(wrapper).collect();
        let run = Run { started: started.clone(), watched, gone: false };
        if let Some(dir) = &self.dir
            && let Err(error) = note(dir, &run)
        {
            // It is followed all the same, by this process.
            warn!(%error, dir = %dir.display(), "cannot note a running job: if the host goes down now, it stays running at the collector");
        }
        self.runs.insert(started.run_id, run);
    }

    /// Whether the start of a run was stored and its end was not.
    pub(crate) fn is_followed(&self, run_id: RunId) -> bool {
        self.runs.contains_key(&run_id)
    }

    /// An end was stored.
    pub(crate) fn ended(&mut self, run_id: RunId) {
        if self.runs.remove(&run_id).is_some()
            && let Some(dir) = &self.dir
        {
            // A power cut may bring it back: then an interruption is told after the true end, which counts.
            forget(&dir.join(run_id.to_string()));
        }
    }

    /// The runs that are over for the second look in a row, until they have `ended`.
    pub(crate) fn lost(&mut self, is_there: impl Fn(&Process) -> bool) -> Vec<(JobStarted, Lost)> {
        let mut lost = Vec::new();
        for run in self.runs.values_mut() {
            let boot = &run.started.started_boot;
            let rebooted = !boot.is_empty() && !self.boot_id.is_empty() && **boot != *self.boot_id;
            let left = !run.watched.is_empty() && !run.watched.iter().any(&is_there);
            let gone_before = std::mem::replace(&mut run.gone, rebooted || left);
            if run.gone && gone_before {
                let why = if rebooted { Lost::Rebooted } else { Lost::Gone };
                lost.push((run.started.clone(), why));
            }
        }
        lost
    }
}

/// Durable on return: the two watched processes, and the start as its wrapper sent it.
fn note(dir: &Path, run: &Run) -> io::Result<()> {
    let mut bytes = Vec::new();
    for at in 0..2 {
        let process = run.watched.get(at).copied().unwrap_or_default();
        bytes.extend(process.id.to_le_bytes());
        bytes.extend(process.since.to_le_bytes());
    }
    bytes.extend(envelope::encode(&JobRecord::Started(run.started.clone())));
    let path = dir.join(run.started.run_id.to_string());
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    File::open(dir)?.sync_all()
}

fn decode(mut bytes: &[u8]) -> Option<Run> {
    let mut watched = Vec::new();
    for _ in 0..2 {
        let (id, rest) = bytes.split_first_chunk()?;
        let (since, rest) = rest.split_first_chunk()?;
        bytes = rest;
        let process = Process { id: u32::from_le_bytes(*id), since: u64::from_le_bytes(*since), parent: 0 };
        watched.extend((process.id > 0).then_some(process));
    }
    match envelope::decode(bytes).ok()? {
        JobRecord::Started(started) => Some(Run { started, watched, gone: false }),
        JobRecord::Ended(_) => None,
    }
}

fn forget(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        warn!(%error, path = %path.display(), "cannot remove the note of a job");
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn started(run: u128, boot: &str) -> JobStarted {
        let JobRecord::Started(started) = crate::jobs::envelope::tests::started(0) else { panic!("a start") };
        let started_boot = tocsin_shared::job::BootId::keep_start(boot);
        JobStarted { run_id: RunId(Uuid::from_u128(run)), pid: std::process::id(), started_boot, ..started }
    }

    fn lost(running: &mut Running, is_there: bool) -> Vec<(u128, Lost)> {
        let mut lost: Vec<_> =
            running.lost(|_| is_there).into_iter().map(|(run, why)| (run.run_id.0.as_u128(), why)).collect();
        lost.sort_by_key(|(run, _)| *run);
        lost
    }

    // Cases: P2
    #[test]
    fn a_run_is_lost_when_nobody_is_left_twice_without_an_end() {
        let mut running = Running::open(None, "now").unwrap();
        let wrapper = Some(std::process::id());
        running.started(&started(7, "now"), wrapper);
        assert_eq!(lost(&mut running, true), []);
        assert_eq!(lost(&mut running, false), [], "its end may be on the way");
        assert_eq!(lost(&mut running, true), [], "it was there after all");
        assert_eq!(lost(&mut running, false), []);
        assert_eq!(lost(&mut running, false), [(7, Lost::Gone)]);
        assert_eq!(lost(&mut running, false), [(7, Lost::Gone)], "until that is stored");
        running.ended(RunId(Uuid::from_u128(7)));
        assert_eq!(lost(&mut running, false), []);

        running.started(&started(8, "now"), None);
        assert_eq!(
            (lost(&mut running, false), lost(&mut running, false)),
            (vec![], vec![]),
            "never seen here"
        );
    }

    // Cases: P2
    #[test]
    fn the_next_agent_knows_what_was_running() {
        let home = tempfile::tempdir().unwrap();
        let dir = || Some(home.path().join("running"));
        let mut running = Running::open(dir(), "one").unwrap();
        for (run, boot) in [(1, "one"), (2, "one"), (3, "")] {
            running.started(&started(run, boot), Some(std::process::id()));
        }
        running.ended(RunId(Uuid::from_u128(1)));
        drop(running);
        fs::write(home.path().join("running/torn"), "half a no").unwrap();

        let mut same_boot = Running::open(dir(), "one").unwrap();
        assert!(!home.path().join("running/torn").exists());
        assert!(!same_boot.is_followed(RunId(Uuid::from_u128(1))));
        assert_eq!((lost(&mut same_boot, true), lost(&mut same_boot, true)), (vec![], vec![]));
        lost(&mut same_boot, false);
        assert_eq!(lost(&mut same_boot, false), [(2, Lost::Gone), (3, Lost::Gone)]);
        drop(same_boot);

        let mut rebooted = Running::open(dir(), "two").unwrap();
        lost(&mut rebooted, true);
        let expected = [(2, Lost::Rebooted)];
        assert_eq!(lost(&mut rebooted, true), expected, "an older wrapper does not say its boot");
        rebooted.ended(RunId(Uuid::from_u128(2)));
        drop(rebooted);
        let mut again = Running::open(dir(), "two").unwrap();
        lost(&mut again, true);
        assert_eq!(lost(&mut again, true), [], "told once");
    }

    #[test]
    fn a_wrapper_that_left_before_anybody_looked_is_gone() {
        let mut running = Running::open(None, "now").unwrap();
        running.started(&started(7, "now"), Some(u32::MAX));
        running.lost(Process::is_there);
        assert_eq!(running.lost(Process::is_there).len(), 1);
    }

    #[test]
    fn the_runs_are_bounded() {
        let mut running = Running::open(None, "now").unwrap();
        for run in 0..FOLLOWED_MAX as u128 + 10 {
            running.started(&started(run, "now"), None);
        }
        assert_eq!(running.runs.len(), FOLLOWED_MAX);
    }
}
