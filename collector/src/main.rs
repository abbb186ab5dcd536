//! `tocsin-collector`: arguments, logging, signals; the rest is the library.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use tocsin_collector::config::{self, Config};
use tocsin_collector::run::{self, Pulse};
use tocsin_shared::log_limit::Limited;
use tocsin_shared::supervise::Manager;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What it says in a day at most: connections of ten thousand agents, and still nothing that fills a disk.
const LOG_BYTES_A_DAY: u64 = 100 << 20;

/// Tocsin's collector: takes the agents' streams, keeps samples, evaluates rules, opens incidents, serves the feed.
#[derive(Parser)]
#[command(name = "tocsin-collector", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run until SIGTERM or Ctrl-C.
    Run(Settings),
    /// Read the configuration and tell every mistake in it.
    Check(Settings),
    /// Say that the data directory is an older copy, put back from a backup. Do this before the next start: consumers of
    /// the feed are then told to begin with a snapshot, and the feed says that what came after the copy is void.
    Restored(Settings),
}

#[derive(Args)]
struct Settings {
    /// The configuration file (TOML); without it the defaults are in force.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything is kept; over the file's `data_dir`.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let outcome = match command {
        Command::Run(settings) => read(&settings).and_then(run_until_stopped),
        Command::Check(settings) => read(&settings).map(|_| say("the configuration has no mistakes")),
        Command::Restored(settings) => read(&settings).and_then(|config| {
            run::mark_restored(&config.data_dir).map_err(|error| error.to_string())?;
            say("the next start begins a new life of the feed");
            Ok(())
        }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "the answer of a command")]
fn say(text: &str) {
    println!("{text}");
}

#[allow(clippy::print_stderr, reason = "the one place where a failure is told to the caller")]
fn complain(why: &str) {
    eprintln!("tocsin-collector: {why}");
}

fn read(Settings { config, data }: &Settings) -> Result<Config, String> {
    let mut read = match config {
        None => Config::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            config::parse(&text).map_err(|mistakes| {
                let lines: Vec<String> = mistakes.iter().map(|mistake| format!("\n  {mistake}")).collect();
                format!("{} has {} mistake(s):{}", path.display(), mistakes.len(), lines.concat())
            })?
        }
    };
    if let Some(data) = data {
        read.data_dir.clone_from(data);
    }
    Ok(read)
}

/// Tells the service manager that the collector is alive for as long as its writers answer and its rules are evaluated.
async fn feed_the_watchdog(manager: Arc<Manager>, pulse: Pulse) {
    let Some(every) = manager.alive_every() else { return };
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if pulse.beats().await {
            manager.alive();
        }
    }
}

fn run_until_stopped(config: Config) -> Result<(), String> {
    // Keys and credentials are in memory: no core dump, and no other process of this user looks in.
    nix::sys::prctl::set_dumpable(false).map_err(|error| format!("cannot forbid core dumps: {error}"))?;
    let manager = Arc::new(Manager::from_environment());
    let filter =
        tracing_subscriber::EnvFilter::try_new(&config.log).map_err(|error| format!("log: {error}"))?;
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Limited::new(LOG_BYTES_A_DAY))
        .with_ansi(colours)
        .with_target(false)
        .init();
    let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let failed = |error: std::io::Error| format!("cannot listen for signals: {error}");
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let running = run::start(config, stop.clone()).await.map_err(|error| error.to_string())?;
        manager.ready();
        tokio::spawn(feed_the_watchdog(manager.clone(), running.pulse()));
        tracing::info!(front = %running.front, agents = %running.agents, local = %running.local, "collector is running");
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::info!("stopping");
            manager.stopping();
            stop.cancel();
        });
        running.wait().await
    })
}
