//! Runs of jobs.

use std::time::Duration;

use tocsin_shared::run::{JobRun, RunResult};

use super::{InvalidMessage, Number, must, parse, time, time_in, time_out};
use crate::pb;

impl From<&RunResult> for pb::RunResult {
    fn from(result: &RunResult) -> Self {
        use pb::run_result::{CouldNotStart, Failed, Interrupted, Killed, Kind, Running, Succeeded};
        let kind = match result {
            RunResult::Running => Kind::Running(Running {}),
            RunResult::Succeeded => Kind::Succeeded(Succeeded {}),
            RunResult::Failed { exit_code } => Kind::Failed(Failed { exit_code: *exit_code }),
            RunResult::Killed { signal, core_dumped, out_of_memory } => Kind::Killed(Killed {
                signal: *signal,
                core_dumped: *core_dumped,
                out_of_memory: *out_of_memory,
            }),
            RunResult::CouldNotStart { errno, message } => {
                Kind::CouldNotStart(CouldNotStart { errno: *errno, message: message.clone() })
            }
            RunResult::Interrupted { reason } => Kind::Interrupted(Interrupted { reason: reason.clone() }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::RunResult> for RunResult {
    type Error = InvalidMessage;
    fn try_from(result: pb::RunResult) -> Result<Self, InvalidMessage> {
        use pb::run_result::{CouldNotStart, Failed, Interrupted, Killed, Kind, Running, Succeeded};
        let pb::RunResult { kind } = result;
        Ok(match must("run.result", kind)? {
            Kind::Running(Running {}) => Self::Running,
            Kind::Succeeded(Succeeded {}) => Self::Succeeded,
            Kind::Failed(Failed { exit_code }) => Self::Failed { exit_code },
            Kind::Killed(Killed { signal, core_dumped, out_of_memory }) => {
                Self::Killed { signal, core_dumped, out_of_memory }
            }
            Kind::CouldNotStart(CouldNotStart { errno, message }) => Self::CouldNotStart { errno, message },
            Kind::Interrupted(Interrupted { reason }) => Self::Interrupted { reason },
        })
    }
}

impl From<&JobRun> for pb::JobRun {
    fn from(run: &JobRun) -> Self {
        let JobRun {
            run_id,
            job_name,
            agent,
            instance,
            env,
            result,
            started_at,
            ended_at,
            duration,
            user,
            uid,
            command,
            output_tail,
            output_bytes,
            alike,
            output_dropped,
        } = run;
        Self {
            run_id: run_id.to_string(),
            job_name: job_name.clone(),
            agent: agent.to_string(),
            instance: instance.clone(),
            env: env.number(),
            result: Some(result.into()),
            started_at_ms: started_at.as_millis(),
            ended_at_ms: time_out(*ended_at),
            duration_ms: duration.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
            user: user.clone(),
            uid: *uid,
            command: command.clone(),
            output_tail: output_tail.clone(),
            output_bytes: *output_bytes,
            alike: *alike,
            output_dropped: *output_dropped,
        }
    }
}

impl TryFrom<pb::JobRun> for JobRun {
    type Error = InvalidMessage;
    fn try_from(run: pb::JobRun) -> Result<Self, InvalidMessage> {
        let pb::JobRun {
            run_id,
            job_name,
            agent,
            instance,
            env,
            result,
            started_at_ms,
            ended_at_ms,
            duration_ms,
            user,
            uid,
            command,
            output_tail,
            output_bytes,
            alike,
            output_dropped,
        } = run;
        Ok(Self {
            run_id: parse("run.run_id", &run_id)?,
            job_name,
            agent: parse("run.agent", &agent)?,
            instance,
            env: Number::from_number(env)?,
            result: must("run.result", result)?.try_into()?,
            started_at: time(started_at_ms),
            ended_at: time_in(ended_at_ms),
            duration: duration_ms.map(Duration::from_millis),
            user,
            uid,
            command,
            output_tail,
            output_bytes,
            alike,
            output_dropped,
        })
    }
}
