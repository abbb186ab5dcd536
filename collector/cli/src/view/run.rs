//! Jobs and their runs.

use std::time::Duration;

use serde::Serialize;
use tocsin_proto::pb;

use super::{Moment, fields, maybe, moment, time_cells, when, word};
use crate::figures;
use crate::screen::{Paint, Style, clean, clean_block};
use crate::table::{Cell, Table};

/// `tocsin jobs`.
#[derive(Clone, Debug, Serialize)]
pub struct JobsView {
    pub jobs: Vec<JobView>,
}

/// A job on a host, and how it has been going.
#[derive(Clone, Debug, Serialize)]
pub struct JobView {
    pub job_name: String,
    pub instance: String,
    pub env: String,
    pub last_run: Option<RunView>,
    /// Ended runs among those kept.
    pub runs: u32,
    pub failures: u32,
}

/// `tocsin job runs`.
#[derive(Clone, Debug, Serialize)]
pub struct RunsView {
    pub runs: Vec<RunView>,
}

/// `tocsin job show`.
#[derive(Clone, Debug, Serialize)]
pub struct RunDocument {
    pub run: RunView,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct RunView {
    pub run_id: String,
    pub job_name: String,
    pub instance: String,
    pub agent: String,
    pub env: String,
    pub result: ResultView,
    pub started_at: Moment,
    pub ended_at: Option<Moment>,
    pub duration_ms: Option<u64>,
    pub user: String,
    pub uid: u32,
    pub command: String,
    /// The end of its output; null in lists.
    pub output_tail: Option<String>,
    /// How much it wrote in all.
    pub output_bytes: u64,
    /// Whether its host gave the output up for want of room.
    pub output_dropped: bool,
    /// Further runs with the same result that are counted here and not told one by one.
    pub alike: u64,
}

/// How a run stands or ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ResultView {
    /// `running`, `succeeded`, `failed`, `killed`, `could_not_start`, `interrupted`, `unknown`.
    pub state: &'static str,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub core_dumped: Option<bool>,
    pub out_of_memory: Option<bool>,
    pub errno: Option<i32>,
    pub message: Option<String>,
}

impl From<Option<pb::RunResult>> for ResultView {
    fn from(result: Option<pb::RunResult>) -> Self {
        use pb::run_result::{CouldNotStart, Failed, Interrupted, Killed, Kind};
        let state = |state| Self { state, ..Self::default() };
        match result.and_then(|result| result.kind) {
            Some(Kind::Running(_)) => state("running"),
            Some(Kind::Succeeded(_)) => state("succeeded"),
            Some(Kind::Failed(Failed { exit_code })) => {
                Self { exit_code: Some(exit_code), ..state("failed") }
            }
            Some(Kind::Killed(Killed { signal, core_dumped, out_of_memory })) => Self {
                signal: Some(signal),
                core_dumped: Some(core_dumped),
                out_of_memory: Some(out_of_memory),
                ..state("killed")
            },
            Some(Kind::CouldNotStart(CouldNotStart { errno, message })) => {
                Self { errno: Some(errno), message: Some(message), ..state("could_not_start") }
            }
            Some(Kind::Interrupted(Interrupted { reason })) => {
                Self { message: Some(reason), ..state("interrupted") }
            }
            None => state("unknown"),
        }
    }
}

impl ResultView {
    /// For people: `failed with 3`, `killed by SIGKILL`.
    pub fn shown(&self) -> String {
        match (self.state, self.exit_code, self.signal) {
            ("failed", Some(code), _) => format!("failed with {code}"),
            ("killed", _, Some(_)) if self.out_of_memory == Some(true) => "killed for want of memory".into(),
            ("interrupted", ..) => {
                format!("interrupted: {}", self.message.as_deref().unwrap_or("no reason given"))
            }
            ("killed", _, Some(signal)) => {
                let name = tocsin_shared::run::signal_name(signal);
                format!(
                    "killed by {name}{}",
                    if self.core_dumped == Some(true) { ", core dumped" } else { "" }
                )
            }
            ("could_not_start", ..) => {
                format!("could not start: {}", self.message.as_deref().unwrap_or("no reason given"))
            }
            (state, ..) => state.to_owned(),
        }
    }

    /// Its colour.
    pub fn paint(&self) -> Option<Paint> {
        match self.state {
            "succeeded" => Some(Paint::Good),
            "running" => None,
            _ => Some(Paint::Bad),
        }
    }
}

impl RunView {
    /// From the wire; `with_output` when the call gives the output.
    pub fn new(run: pb::JobRun, with_output: bool) -> Self {
        Self {
            env: word(run.env().as_str_name(), "ENV_"),
            run_id: run.run_id,
            job_name: run.job_name,
            instance: run.instance,
            agent: run.agent,
            result: run.result.into(),
            started_at: moment(run.started_at_ms),
            ended_at: maybe(run.ended_at_ms),
            duration_ms: run.duration_ms,
            user: run.user,
            uid: run.uid,
            command: run.command,
            output_tail: with_output.then_some(run.output_tail),
            output_bytes: run.output_bytes,
            output_dropped: run.output_dropped,
            alike: run.alike,
        }
    }

    fn took(&self) -> String {
        self.duration_ms.map(|millis| figures::run_time(Duration::from_millis(millis))).unwrap_or_default()
    }
}

impl From<pb::JobSummary> for JobView {
    fn from(job: pb::JobSummary) -> Self {
        Self {
            env: word(job.env().as_str_name(), "ENV_"),
            job_name: job.job_name,
            instance: job.instance,
            last_run: job.last_run.map(|run| RunView::new(run, false)),
            runs: job.runs,
            failures: job.failures,
        }
    }
}

/// The list of jobs.
pub fn draw_jobs(view: &JobsView, style: &Style) -> String {
    if view.jobs.is_empty() {
        return "no job has run yet; run one on a host with `tocsin-agent exec --job NAME -- COMMAND`\n"
            .into();
    }
    let mut table =
        Table::new(&["JOB", "HOST", "ENV", "LAST RUN", "STARTED", ">AGE", ">TOOK", ">RUNS", ">FAILED"]);
    for job in &view.jobs {
        let (result, started, took) = match &job.last_run {
            Some(run) => {
                let result = Cell::painted(run.result.shown(), run.result.paint());
                (result, time_cells(Some(run.started_at), style), run.took())
            }
            None => (Cell::default(), time_cells(None, style), String::new()),
        };
        let [started, age] = started;
        let failed = Some(Paint::Warn).filter(|_| job.failures > 0);
        table.row([
            job.job_name.as_str().into(),
            job.instance.as_str().into(),
            job.env.as_str().into(),
            result,
            started,
            age,
            took.into(),
            job.runs.to_string().into(),
            Cell::painted(job.failures.to_string(), failed),
        ]);
    }
    table.draw(style)
}

/// The list of runs.
pub fn draw_runs(view: &RunsView, style: &Style) -> String {
    if view.runs.is_empty() {
        return "no run of this job is kept; `tocsin jobs` lists the jobs\n".into();
    }
    let mut table = Table::new(&["RUN", "HOST", "RESULT", "STARTED", ">AGE", ">TOOK", "USER"]);
    for run in &view.runs {
        let [started, age] = time_cells(Some(run.started_at), style);
        table.row([
            run.run_id.as_str().into(),
            run.instance.as_str().into(),
            Cell::painted(run.result.shown(), run.result.paint()),
            started,
            age,
            run.took().into(),
            run.user.as_str().into(),
        ]);
    }
    table.draw(style)
}

/// One run with its output.
pub fn draw_run(view: &RunDocument, style: &Style) -> String {
    let run = &view.run;
    let mut text = format!(
        "{} on {}  {}\n",
        style.strong(&clean(&run.job_name)),
        clean(&run.instance),
        style.paint(run.result.paint(), &clean(&run.result.shown()))
    );
    text.push_str(&fields(
        vec![
            ("run", run.run_id.clone()),
            ("command", run.command.clone()),
            ("user", format!("{} ({})", run.user, run.uid)),
            ("environment", run.env.clone()),
            ("started", when(Some(run.started_at), style)),
            ("ended", run.ended_at.map(|_| when(run.ended_at, style)).unwrap_or_default()),
            ("took", run.took()),
            ("alike", counted(run.alike)),
        ],
        style,
    ));
    let tail = run.output_tail.as_deref().unwrap_or_default();
    if run.output_dropped {
        let bytes = figures::bytes(run.output_bytes);
        text.push_str(&format!("its host gave its output of {bytes} up for want of room\n"));
        return text;
    }
    if tail.is_empty() {
        text.push_str("it wrote no output\n");
        return text;
    }
    let shown = tail.len() as u64;
    let of = match run.output_bytes > shown {
        true => format!("OUTPUT, the last {} of {}", figures::bytes(shown), figures::bytes(run.output_bytes)),
        false => "OUTPUT".to_owned(),
    };
    text.push_str(&format!("\n{}\n{}", style.strong(&of), clean_block(tail, "  ")));
    text
}

/// A line of the feed about a run.
pub fn told(run: &RunView) -> String {
    let took = run.duration_ms.map(|_| format!(" after {}", run.took())).unwrap_or_default();
    let alike = Some(counted(run.alike)).filter(|more| !more.is_empty());
    let alike = alike.map(|more| format!(" ({more})")).unwrap_or_default();
    format!("{} on {} {}{took}{alike}", run.job_name, run.instance, run.result.shown())
}

/// How many runs this one stands for besides itself; empty when there are none.
fn counted(alike: u64) -> String {
    if alike == 0 { String::new() } else { format!("and {alike} more with the same result") }
}
