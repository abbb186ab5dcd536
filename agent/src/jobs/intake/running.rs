//! Runs whose start was stored and whose end was not: when such a process is gone, its outcome was missed.
//!
//! A wrapper that could neither reach the agent nor write to the drop-box in its time leaves nothing but its start.
//! Pure; the caller says which processes are there. A process id that is used again hides a miss; runs that started
//! before the agent, or in another process namespace, are not followed.

use std::collections::HashMap;

use tocsin_shared::job::{JobName, RunId};

/// Far more jobs than a host runs at a time; beyond it new ones are not followed.
const FOLLOWED_MAX: usize = 4096;

#[derive(Debug)]
struct Run {
    job: JobName,
    pid: u32,
    /// Whether its process was gone at the last look: its wrapper or the drop-box may still tell.
    gone: bool,
}

/// Runs that are followed.
#[derive(Debug, Default)]
pub(crate) struct Running(HashMap<RunId, Run>);

impl Running {
    /// A start was stored; it counts only if its process is there.
    pub(crate) fn started(&mut self, run_id: RunId, job: JobName, pid: u32, is_there: impl Fn(u32) -> bool) {
        if self.0.len() < FOLLOWED_MAX && is_there(pid) {
            self.0.insert(run_id, Run { job, pid, gone: false });
        }
    }

    /// An end was stored.
    pub(crate) fn ended(&mut self, run_id: RunId) {
        self.0.remove(&run_id);
    }

    /// The runs that are gone for the second look in a row; they are told once.
    pub(crate) fn missed(&mut self, is_there: impl Fn(u32) -> bool) -> Vec<(RunId, JobName)> {
        let mut missed = Vec::new();
        self.0.retain(|run_id, run| {
            let gone_before = std::mem::replace(&mut run.gone, !is_there(run.pid));
            let is_missed = run.gone && gone_before;
            if is_missed {
                missed.push((*run_id, run.job.clone()));
            }
            !is_missed
        });
        missed
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    // Cases: P2 (partly)
    #[test]
    fn a_run_is_missed_when_its_process_is_gone_twice_without_an_end() {
        let (run, job) = (RunId(Uuid::from_u128(7)), JobName::parse("backup").unwrap());
        let (there, gone) = (|_: u32| true, |_: u32| false);
        let mut running = Running::default();
        running.started(run, job.clone(), 42, there);
        assert!(running.missed(there).is_empty());
        assert!(running.missed(gone).is_empty(), "its end may be on the way");
        assert_eq!(running.missed(gone), [(run, job.clone())]);
        assert!(running.missed(gone).is_empty(), "told once");

        running.started(run, job.clone(), 42, there);
        assert!(running.missed(gone).is_empty());
        running.ended(run);
        assert!(running.missed(gone).is_empty(), "it ended");

        running.started(run, job, 42, gone);
        assert!(running.missed(gone).is_empty() && running.missed(gone).is_empty(), "never seen here");
    }
}
