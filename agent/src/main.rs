//! `tocsin-agent`: arguments, logging, signals. Everything else is in the library.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use tocsin_agent::cli::{Cli, Command, EnrollArgs, RecoverArgs, RunArgs};
use tocsin_agent::config::{Config, LogLevel};
use tocsin_agent::enroll::{self, Enrolled};
use tocsin_agent::explain::one_line;
use tocsin_agent::{jobs, recover, run};
use tocsin_shared::log_limit::Limited;
use tocsin_shared::supervise::Manager;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;

/// What it says in a day at most: the host's disk is not the agent's.
const LOG_BYTES_A_DAY: u64 = 10 << 20;
/// Threads for waiting on files at once: looking up users and reading the drop-box.
const BLOCKING_THREADS: usize = 4;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        // First of all, before there is any thread: the job gets this process's own signals and descriptors.
        Command::Exec(args) => return jobs::exec::exec_main(args),
        Command::Enroll(args) => enroll(args),
        Command::Recover(args) => recover(args),
        Command::Run(args) => run_agent(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tocsin-agent: {}", one_line(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build()
}

fn enroll(args: EnrollArgs) -> anyhow::Result<()> {
    let EnrollArgs { collector, token, hostname, split, place } = args;
    let token = match token.strip_prefix('@') {
        None => token,
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?,
    };
    let options = enroll::Options { collector, token, data_dir: place.load()?.data_dir, hostname, split };
    let Enrolled { agent, instance, env, collector } = runtime()?.block_on(enroll::enroll(options))?;
    println!("enrolled as {instance} ({env}), agent {agent}; it will stream to {collector}");
    Ok(())
}

fn recover(args: RecoverArgs) -> anyhow::Result<()> {
    let RecoverArgs { pin, collector, place } = args;
    let data_dir = place.load()?.data_dir;
    let identity = runtime()?.block_on(recover::with_pin(&data_dir, pin, collector))?;
    println!(
        "recovered as agent {} with a certificate until {}; a running agent connects within ten minutes, or when it is restarted",
        identity.place.agent, identity.not_after
    );
    Ok(())
}

fn run_agent(args: RunArgs) -> anyhow::Result<()> {
    // The host's key is in memory: no core dump, and no other process of this user looks in.
    nix::sys::prctl::set_dumpable(false)?;
    let config = args.place.load()?;
    log(&config);
    let manager = Arc::new(Manager::from_environment());
    runtime()?.block_on(async {
        let stop = CancellationToken::new();
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (stopping, told) = (stop.clone(), manager.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping");
            told.stopping();
            stopping.cancel();
        });
        Ok(run::run_for(config, stop, manager).await?)
    })
}

/// One line an event on stderr, which journald stamps with the time.
fn log(config: &Config) {
    let level = match config.log_level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let lines = tracing_subscriber::fmt().with_max_level(level).with_target(false).with_ansi(false);
    let lines = lines.with_writer(Limited::new(LOG_BYTES_A_DAY));
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        lines.without_time().init();
    } else {
        lines.init();
    }
}
