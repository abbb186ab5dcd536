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
    let mut command = Command::new(program(name)?);
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
        Self::start_command(name, command(name, arguments)?, log)
    }

    fn start_command(name: &'static str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        command.stdout(out.try_clone()?).stderr(out);
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
