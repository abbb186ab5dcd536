//! The built programs as processes: started, watched, killed; their words kept for whoever has to find out why.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::wait_until;

/// Where else the programs are: of a package or a release build.
const PROGRAMS: &str = "TOCSIN_PROGRAMS";
/// How many of a program's last lines a failure shows.
const LINES: usize = 40;
/// The longest a call inside the kernel keeps a thread from stopping.
const STANDS_STILL: Duration = Duration::from_secs(10);

/// The path of a built program.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let dir = match std::env::var_os(PROGRAMS) {
        Some(dir) => PathBuf::from(dir),
        // Test executables are in `deps/` below the directory of the programs of the same profile.
        None => std::env::current_exe()?.ancestors().nth(2).context("a test without a directory")?.to_owned(),
    };
    let path = dir.join(name);
    if !path.is_file() {
        bail!("{} is not built: `cargo build --workspace --bins`, or run tests/run", path.display());
    }
    Ok(path)
}

/// A command that starts a program with nothing of this process's own settings and without input.
fn command(name: &str, arguments: &[&str]) -> anyhow::Result<Command> {
    command_under(&[], name, arguments)
}

/// The same as the last words of another command, `under`: a tracer's.
fn command_under(under: &[String], name: &str, arguments: &[&str]) -> anyhow::Result<Command> {
    let program = program(name)?;
    let mut command = match under {
        [] => Command::new(program),
        [tracer, rest @ ..] => {
            let mut command = Command::new(tracer);
            command.args(rest).arg(program);
            command
        }
    };
    command.args(arguments).stdin(Stdio::null()).env_remove("RUST_LOG").env("NO_COLOR", "1");
    Ok(command)
}

/// Runs a program to its end.
pub fn output(name: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    command(name, arguments)?.output().with_context(|| format!("cannot run {name}"))
}

/// A running program; it ends with this value, at the latest.
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program; what it says is added to `log`.
    pub fn start(name: &'static str, arguments: &[&str], log: &Path) -> anyhow::Result<Self> {
        Self::launch(&[], name, arguments, log, &[])
    }

    /// The same under a tracer that steps aside: the program is this process's own child.
    pub fn start_under(
        under: &[String],
        name: &'static str,
        arguments: &[&str],
        log: &Path,
    ) -> anyhow::Result<Self> {
        Self::launch(under, name, arguments, log, &[])
    }

    /// The same under a tracer, if one is given, and with more in its environment.
    pub fn launch(
        under: &[String],
        name: &'static str,
        arguments: &[&str],
        log: &Path,
        environment: &[(&'static str, PathBuf)],
    ) -> anyhow::Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        let mut command = command_under(under, name, arguments)?;
        command.stdout(out.try_clone()?).stderr(out).envs(environment.iter().cloned());
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child, log: log.to_owned() })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error with the program's last words if it has ended.
    pub fn still_runs(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}; it said:\n{}", self.name, self.last_words()),
        }
    }

    /// SIGKILL, and gone when this returns.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.still_runs()?; // One that has ended by itself was not killed.
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// SIGKILL, if it has not ended by itself; how it ended.
    pub fn end(mut self) -> anyhow::Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// Stops it where it is: it holds what it holds and does nothing. A thread that is inside the kernel, in the middle
    /// of a sync, comes out of it first: from here on nothing changes.
    pub async fn freeze(&self) -> anyhow::Result<()> {
        kill(Pid::from_raw(i32::try_from(self.pid())?), Signal::SIGSTOP)?;
        let pid = self.pid();
        let what = format!("every thread of {} standing still", self.name);
        wait_until(&what, STANDS_STILL, async || stands_still(pid).then_some(())).await
    }

    /// SIGTERM; how it ended, if it did within the time.
    pub async fn terminate(mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        kill(Pid::from_raw(i32::try_from(self.pid())?), Signal::SIGTERM)?;
        let what = format!("the end of {} after SIGTERM", self.name);
        wait_until(&what, within, async || self.child.try_wait().ok().flatten()).await
    }

    /// How it ends by itself, if it does within the time.
    pub async fn ends(mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait_until(&what, within, async || self.child.try_wait().ok().flatten()).await
    }

    fn last_words(&self) -> String {
        let said = std::fs::read(&self.log).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

/// Whether every thread of a process is stopped, by a signal or a tracer.
fn stands_still(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The name before it may hold anything, a parenthesis too. A thread that has just ended does nothing either.
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        state.is_none_or(|state| matches!(state, 'T' | 't' | 'Z' | 'X'))
    })
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            println!("--- {} ({}) said last:\n{}", self.name, self.log.display(), self.last_words());
        }
    }
}
