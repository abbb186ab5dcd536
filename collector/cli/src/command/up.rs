//! ⇄ `tocsin up`: a collector and an agent for this host in one process, for a first look and for small sites.
//!
//! Promise: the agent is enrolled like any other, through the API and with a token of its own; the data of both stay
//! apart, so that either can be moved to its own program later. Stopping stops the agent first, so that what it
//! measured last is taken, and then the collector; a second signal does not wait.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use tocsin_agent::enroll::{self, Options};
use tocsin_agent::identity::IdentityDir;
use tocsin_collector::run::Running;
use tocsin_proto::pb;
use tocsin_shared::log_limit::Limited;
use tocsin_shared::private_file;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::Context;
use crate::arguments::Up;
use crate::client::{Client, answer};
use crate::credential::{self, CredentialError};
use crate::failure::Failure;
use crate::screen::note;
use crate::view::up::{UpView, draw_up};

/// A screen that somebody looks at.
const LOG_BYTES_A_DAY: u64 = 10 << 20;
/// The token is used at once; this is time for a slow disk.
const TOKEN_TTL: Duration = Duration::from_secs(600);
/// The exit code of a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// Runs both until a signal or until one of them ends.
pub(super) fn up(context: &Context, up: Up) -> Result<(), Failure> {
    log_to_stderr();
    let data = credential::data_dir(&context.global, &context.places)?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| failed("the runtime", &error))?;
    runtime.block_on(run(context, up, &data))
}

/// The collector's and the agent's warnings; RUST_LOG asks for more.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // A subscriber that is there already is as good.
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Limited::new(LOG_BYTES_A_DAY))
        .with_target(false)
        .with_ansi(colour)
        .try_init()
        .ok();
}

async fn run(context: &Context, up: Up, data: &Path) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let (stop_agent, stop_collector) = (CancellationToken::new(), CancellationToken::new());
    let places = Own::make(data)?;
    let rules = std::iter::once(places.rules).chain(up.rules.iter().cloned()).collect();
    let config = tocsin_collector::config::Config::for_up(data.join("collector"), up.listen, rules);
    let running = tocsin_collector::run::start(config, stop_collector.clone())
        .await
        .map_err(|error| failed("the collector", &error))?;
    let started = Started::new(&running, data);
    let mut collector = pin!(running.wait());

    let result = tokio::select! {
        result = run_agent(context, &up, &started, &stop_agent, &mut signals) => result,
        ended = collector.as_mut() => {
            return ended.map_err(|reason| Failure::Part { part: "the collector", reason });
        }
    };
    stop_collector.cancel();
    let ended = signals.unless_forced(collector).await;
    result.and(ended.map_err(|reason| Failure::Part { part: "the collector", reason }))
}

/// The directories that people put things into: rules of their own, and metrics for the agent to read.
struct Own {
    rules: PathBuf,
}

impl Own {
    fn make(data: &Path) -> Result<Self, Failure> {
        let rules = data.join("rules");
        for dir in [&rules, &data.join("agent").join("textfile")] {
            private_file::create_dir(dir).map_err(|error| failed("the data directory", &error))?;
        }
        Ok(Self { rules })
    }
}

/// Enrols the agent if need be, runs it until a signal, and stops it.
async fn run_agent(
    context: &Context,
    up: &Up,
    started: &Started,
    stop: &CancellationToken,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let data = started.data.join("agent");
    tokio::select! {
        enrolled = enroll_once(up, started, &data) => enrolled?,
        () = signals.next() => return Ok(()),
    }
    let config = tocsin_agent::config::Config::for_up(data, up.interval);
    let mut agent = pin!(tocsin_agent::run::run(config, stop.clone()));
    context.screen.show(&started.view(context, up), draw_up)?;
    let ended = tokio::select! {
        ended = agent.as_mut() => ended,
        () = signals.next() => {
            note("stopping; press Ctrl-C again to force it");
            stop.cancel();
            signals.unless_forced(agent).await
        }
    };
    ended.map_err(|error| failed("the agent", &error))
}

/// Makes a token and enrols with it, unless this host has an identity of this collector.
async fn enroll_once(up: &Up, started: &Started, data: &Path) -> Result<(), Failure> {
    let missing = || CredentialError::Nowhere { looked: vec![started.credential_file.clone()] };
    let connection = credential::read(&started.credential_file)?.ok_or_else(missing)?;
    let identity = IdentityDir::open(data).and_then(|dir| dir.load());
    let identity = identity.map_err(|error| failed("the agent", &error))?;
    let client = Client::connect(&connection).await?;
    if let Some(identity) = identity {
        let cluster = answer(client.admin().get_status(pb::GetStatusRequest {})).await?.cluster_id;
        return same_cluster(&identity.place.cluster.to_string(), &cluster, data);
    }
    let request = pb::CreateTokenRequest {
        env: pb::Env::from(up.env).into(),
        labels: Vec::new(),
        host_pattern: String::new(),
        ttl_ms: u64::try_from(TOKEN_TTL.as_millis()).unwrap_or(u64::MAX),
    };
    let token = answer(client.admin().create_token(request)).await?.token;
    let collector = connection.endpoint.clone();
    enroll::enroll(Options { collector, token, data_dir: data.to_owned(), hostname: None, split: false })
        .await
        .map_err(|error| failed("enrolling the agent", &error))?;
    Ok(())
}

/// An agent of another collector would be refused for ever: better to say so at once.
fn same_cluster(agents: &str, collectors: &str, data: &Path) -> Result<(), Failure> {
    if agents == collectors {
        return Ok(());
    }
    let place = data.display();
    let reason = format!(
        "it belongs to another collector (cluster {agents}, this is {collectors}); move {place} away and it enrols anew"
    );
    Err(Failure::Part { part: "the agent", reason })
}

fn failed(part: &'static str, error: &dyn std::fmt::Display) -> Failure {
    Failure::Part { part, reason: error.to_string() }
}

/// What is known of the collector once it runs.
struct Started {
    front: String,
    agents: String,
    local: String,
    credential_file: PathBuf,
    data: PathBuf,
}

impl Started {
    fn new(running: &Running, data: &Path) -> Self {
        Self {
            front: running.front.to_string(),
            agents: running.agents.to_string(),
            local: running.local.to_string(),
            credential_file: running.credential_file.clone(),
            data: data.to_owned(),
        }
    }

    fn view(&self, context: &Context, up: &Up) -> UpView {
        UpView {
            front: self.front.clone(),
            agents: self.agents.clone(),
            local: self.local.clone(),
            data_dir: self.data.display().to_string(),
            credential_file: self.credential_file.display().to_string(),
            env: pb::Env::from(up.env).as_str_name().trim_start_matches("ENV_").to_lowercase(),
            interval: tocsin_shared::time::format_duration(up.interval),
            program: std::env::args().next().unwrap_or_else(|| "tocsin".into()),
            usual_place: context.global.data.is_none(),
        }
    }
}

/// Ctrl-C and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let of = |kind| signal(kind).map_err(|error| failed("signals", &error));
        Ok(Self { interrupt: of(SignalKind::interrupt())?, terminate: of(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Waits for a part to end; a further signal ends the process here and now. That is safe: what was acknowledged
    /// is on disk.
    async fn unless_forced<T>(&mut self, part: impl Future<Output = T>) -> T {
        tokio::select! {
            ended = part => ended,
            () = self.next() => std::process::exit(INTERRUPTED),
        }
    }
}
