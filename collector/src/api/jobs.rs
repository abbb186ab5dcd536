//! Jobs: how they go from the ledger, their runs from the store.

use std::collections::BTreeMap;

use tocsin_proto::convert::Number;
use tocsin_proto::pb;
use tocsin_proto::pb::job_service_server::JobService;
use tocsin_shared::run::JobRun;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Api, limit};
use crate::state::State;

/// What a list gives unless asked for another number, and at most.
const LISTED: usize = 100;
const LISTED_MAX: usize = 1_000;

#[tonic::async_trait]
impl JobService for Api {
    async fn list_jobs(
        &self,
        _: Request<pb::ListJobsRequest>,
    ) -> Result<Response<pb::ListJobsResponse>, Status> {
        let jobs = self.read(summaries).await?;
        Ok(Response::new(pb::ListJobsResponse { jobs }))
    }

    async fn list_runs(
        &self,
        request: Request<pb::ListRunsRequest>,
    ) -> Result<Response<pb::ListRunsResponse>, Status> {
        let pb::ListRunsRequest { job_name, limit: asked } = request.into_inner();
        let wanted = limit(asked, LISTED, LISTED_MAX);
        let runs = self.stored(move |store| store.runs(&job_name, wanted)).await?;
        Ok(Response::new(pb::ListRunsResponse { runs }))
    }

    async fn get_run(
        &self,
        request: Request<pb::GetRunRequest>,
    ) -> Result<Response<pb::GetRunResponse>, Status> {
        let pb::GetRunRequest { run_id } = request.into_inner();
        let id: Uuid = run_id
            .parse()
            .map_err(|_| Status::invalid_argument(format!("not a run's id: {run_id:?}; it is a uuid")))?;
        let run = self.stored(move |store| store.run(id)).await?;
        let run = run.ok_or_else(|| Status::not_found(format!("no such run: {id}")))?;
        Ok(Response::new(pb::GetRunResponse { run: Some(run) }))
    }
}

/// A line for each job, by name and then by host.
fn summaries(state: &State) -> Vec<pb::JobSummary> {
    let lines = state.jobs().map(|(agent, job_name, last)| {
        let (mut runs, mut failures) = (0, 0);
        for run in state.runs_of_job(agent, job_name) {
            runs += u32::from(run.ended_at.is_some());
            failures += u32::from(run.result.is_failure());
        }
        let summary = pb::JobSummary {
            job_name: job_name.to_owned(),
            instance: last.instance.clone(),
            env: last.env.number(),
            last_run: Some(without_output(last)),
            runs,
            failures,
        };
        ((job_name.to_owned(), last.instance.clone(), agent), summary)
    });
    lines.collect::<BTreeMap<_, _>>().into_values().collect()
}

/// Output is for responders, who ask for the run.
fn without_output(run: &JobRun) -> pb::JobRun {
    pb::JobRun { output_tail: String::new(), ..run.into() }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::super::testing::{Collector, call};
    use super::*;
    use crate::state::Command;
    use crate::state::testing::{place, run_end};

    #[tokio::test(flavor = "multi_thread")]
    async fn jobs_have_a_line_each_and_runs_their_output_when_asked() {
        let collector = Collector::start().await;
        let mut events = Vec::new();
        for (id, job_name, exit_code) in [(1, "backup", 0), (2, "backup", 3), (3, "audit", 0)] {
            let started = id as i64 * 100;
            let run = run_end(id, job_name, started, started + 5, exit_code);
            let command = Command::JobEnded { run, place: place(id as u64) };
            events = collector.submit(command).await;
        }
        collector.api.stored_through(&events).await;
        let api = &collector.api;
        let jobs = api.list_jobs(call(pb::ListJobsRequest {})).await.unwrap().into_inner().jobs;
        let lines: Vec<_> =
            jobs.iter().map(|job| (job.job_name.as_str(), &*job.instance, job.runs, job.failures)).collect();
        assert_eq!(lines, [("audit", "web-1", 1, 0), ("backup", "web-1", 2, 1)]);
        assert!(jobs.iter().all(|job| job.last_run.as_ref().unwrap().output_tail.is_empty()));

        for (job_name, limit, expected) in
            [("", 0, vec![3, 2, 1]), ("backup", 0, vec![2, 1]), ("", 1, vec![3]), ("none", 0, vec![])]
        {
            let request = pb::ListRunsRequest { job_name: job_name.into(), limit };
            let runs = api.list_runs(call(request)).await.unwrap().into_inner().runs;
            let ids: Vec<_> = runs.iter().map(|run| run.run_id.clone()).collect();
            let expected: Vec<_> = expected.into_iter().map(|id| Uuid::from_u128(id).to_string()).collect();
            assert_eq!(ids, expected, "{job_name:?} {limit}");
        }

        let get = |id: &str| call(pb::GetRunRequest { run_id: id.into() });
        let run = api.get_run(get(&Uuid::from_u128(2).to_string())).await.unwrap().into_inner().run.unwrap();
        assert_eq!(run.output_tail, "out");
        assert_eq!(api.get_run(get("2")).await.unwrap_err().code(), Code::InvalidArgument);
        let unknown = Uuid::from_u128(9).to_string();
        assert_eq!(api.get_run(get(&unknown)).await.unwrap_err().code(), Code::NotFound);
        collector.stop().await;
    }
}
