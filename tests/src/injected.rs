//! System calls of a running program that fail or take long, by `strace` attached to it.
//!
//! Needs `strace` and the right to trace; where these are missing, that is printed and the test is skipped.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::wait::wait_until;

/// For `strace` to attach to all threads.
const ATTACHED: Duration = Duration::from_secs(10);

/// An injection that lasts as long as this value.
pub struct Injected(Child);

impl Injected {
    /// Injects into calls of a process from now on: `calls` as strace names them, `what` such as `error=EIO` or
    /// `delay_exit=2000000`. `None`, with the reason printed, where this cannot be done.
    pub async fn into(pid: u32, calls: &str, what: &str) -> anyhow::Result<Option<Self>> {
        let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:{what}"));
        let arguments = ["-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject, "-p", &pid.to_string()];
        let started =
            Command::new("strace").args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut strace = match started {
            Ok(strace) => strace,
            Err(error) => {
                println!("skipped: strace cannot be run: {error}");
                return Ok(None);
            }
        };
        let attached = wait_until("strace attached to all threads", ATTACHED, async || {
            if strace.try_wait().ok()?.is_some() {
                return Some(false);
            }
            is_traced(pid).then_some(true)
        });
        if !attached.await? {
            println!("skipped: strace may not trace here");
            return Ok(None);
        }
        Ok(Some(Self(strace)))
    }
}

/// Whether every thread of a process has a tracer.
fn is_traced(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.is_some_and(|tracer| tracer.trim() != "0")
    })
}

impl Drop for Injected {
    fn drop(&mut self) {
        // SIGTERM, so that it lets go of the program before it ends.
        let pid = i32::try_from(self.0.id()).map(nix::unistd::Pid::from_raw);
        if let Ok(pid) = pid {
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        }
        self.0.wait().ok();
    }
}
