//! The runs of the state: the last ones of every job, and the output of those that people ask for.

use std::collections::{BTreeMap, HashMap};

use tocsin_shared::identity::AgentId;
use tocsin_shared::run::JobRun;
use tocsin_shared::time::Timestamp;
use uuid::Uuid;

use super::index::Index;

/// How many runs of a job stay: what a person scrolls through; older ones are in the events journal.
pub(crate) const RUNS_PER_JOB_MAX: usize = 20;

/// How many job names of an agent stay: beyond a large crontab; names come from the host, so they are bounded.
pub(crate) const JOBS_PER_AGENT_MAX: usize = 500;

/// Runs by `run_id`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Runs {
    by_id: HashMap<Uuid, JobRun>,
    by_job: BTreeMap<AgentId, BTreeMap<String, Vec<(Timestamp, Uuid)>>>,
    /// The last start of each job: the job that has not run for longest leaves first.
    by_last_start: Index<AgentId, (Timestamp, String)>,
}

impl Runs {
    pub(crate) fn put(&mut self, run: JobRun) {
        self.remove(run.run_id);
        let (agent, job_name) = (run.agent, run.job_name.clone());
        let jobs = self.by_job.entry(agent).or_default();
        let order = jobs.entry(job_name.clone()).or_default();
        if let Some((last, _)) = order.last() {
            self.by_last_start.remove(&agent, &(*last, job_name.clone()));
        }
        let place = (run.started_at, run.run_id);
        order.insert(order.partition_point(|other| *other < place), place);
        self.by_id.insert(run.run_id, run);
        if order.len() > RUNS_PER_JOB_MAX {
            let (_, oldest) = order.remove(0);
            self.by_id.remove(&oldest);
        }
        if let Some((last, _)) = order.last() {
            self.by_last_start.insert(agent, (*last, job_name.clone()));
        }
        self.drop_old_output(agent, &job_name);
        if self.by_last_start.count(&agent) > JOBS_PER_AGENT_MAX {
            self.forget_oldest_job(agent);
        }
    }

    /// Only the run that ended last and the last failed one keep their output: 64 KiB for each run would be gigabytes.
    fn drop_old_output(&mut self, agent: AgentId, job_name: &str) {
        let order =
            self.by_job.get(&agent).and_then(|jobs| jobs.get(job_name)).map_or(&[][..], Vec::as_slice);
        let newest = |wanted: fn(&JobRun) -> bool| {
            order.iter().rev().map(|(_, id)| *id).find(|id| self.by_id.get(id).is_some_and(wanted))
        };
        let kept = [newest(|run| run.ended_at.is_some()), newest(|run| run.result.is_failure())];
        for (_, id) in order.iter().filter(|(_, id)| !kept.contains(&Some(*id))) {
            if let Some(run) = self.by_id.get_mut(id) {
                run.output_tail = String::new();
            }
        }
    }

    fn forget_oldest_job(&mut self, agent: AgentId) {
        let Some((start, job_name)) = self.by_last_start.get(&agent).next().cloned() else { return };
        let runs = self.by_job.get_mut(&agent).and_then(|jobs| jobs.remove(&job_name)).unwrap_or_default();
        for (_, id) in runs {
            self.by_id.remove(&id);
        }
        self.by_last_start.remove(&agent, &(start, job_name));
    }

    fn remove(&mut self, run_id: Uuid) {
        let Some(old) = self.by_id.remove(&run_id) else { return };
        let Some(jobs) = self.by_job.get_mut(&old.agent) else { return };
        let Some(order) = jobs.get_mut(&old.job_name) else { return };
        if let Some((last, _)) = order.last() {
            self.by_last_start.remove(&old.agent, &(*last, old.job_name.clone()));
        }
        order.retain(|(_, id)| *id != run_id);
        match order.last() {
            Some((last, _)) => self.by_last_start.insert(old.agent, (*last, old.job_name)),
            None => {
                jobs.remove(&old.job_name);
            }
        }
    }

    pub(crate) fn get(&self, run_id: Uuid) -> Option<&JobRun> {
        self.by_id.get(&run_id)
    }

    /// Ordered, so that equal states write equal checkpoints.
    pub(crate) fn all(&self) -> impl Iterator<Item = &JobRun> {
        self.by_job.values().flat_map(BTreeMap::values).flatten().filter_map(|(_, id)| self.by_id.get(id))
    }

    pub(crate) fn of_job(&self, agent: AgentId, job_name: &str) -> impl DoubleEndedIterator<Item = &JobRun> {
        let order = self.by_job.get(&agent).and_then(|jobs| jobs.get(job_name));
        order.into_iter().flatten().filter_map(|(_, id)| self.by_id.get(id))
    }

    pub(crate) fn jobs(&self) -> impl Iterator<Item = (AgentId, &str, &JobRun)> {
        self.by_job.iter().flat_map(|(agent, jobs)| {
            jobs.iter().filter_map(|(name, order)| {
                let (_, id) = order.last()?;
                Some((*agent, name.as_str(), self.by_id.get(id)?))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use tocsin_shared::run::RunResult;

    use super::*;
    use crate::state::testing;

    #[test]
    fn a_job_keeps_its_last_runs_and_two_outputs() {
        let mut runs = Runs::default();
        for n in 0..30u128 {
            let mut run = testing::run(Uuid::from_u128(n), n as i64);
            if n == 15 {
                run.result = RunResult::Failed { exit_code: 1 };
            }
            runs.put(run);
        }
        let agent = testing::agent(1);
        let kept: Vec<_> = runs.of_job(agent, "backup").map(|run| run.run_id.as_u128()).collect();
        assert_eq!(kept, (10..30).collect::<Vec<_>>());
        let outputs: Vec<_> = runs
            .of_job(agent, "backup")
            .filter(|run| !run.output_tail.is_empty())
            .map(|r| r.run_id.as_u128())
            .collect();
        assert_eq!(outputs, [15, 29], "the newest failure and the newest run");
    }

    #[test]
    fn job_names_of_an_agent_are_bounded() {
        let mut runs = Runs::default();
        for n in 0..=JOBS_PER_AGENT_MAX {
            let mut run = testing::run(Uuid::from_u128(n as u128), n as i64);
            run.job_name = format!("job-{n}");
            runs.put(run);
        }
        assert_eq!(runs.jobs().count(), JOBS_PER_AGENT_MAX);
        assert!(runs.get(Uuid::from_u128(0)).is_none(), "the job that has not run for longest left");
    }
}
