//! ⇄ Signals meant for the job: received, and handed on once.
//!
//! The signals are blocked and read from a descriptor, which tells who sent them. Only while the job is started is the mask
//! as the wrapper found it, because the job inherits it; handlers, which it does not inherit, note what comes in that
//! moment. One that was ignored (`nohup`) stays ignored for both. The job runs in the wrapper's process group, as it would
//! without it, so what a terminal sends to the group has reached it already and is not sent again.

use std::io;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, getpid, getsid};
use signal_hook::flag::{register, register_conditional_default};

/// What a job expects to receive when its starter sends it.
const FORWARDED: [Signal; 9] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGCONT,
    Signal::SIGTSTP,
    Signal::SIGWINCH,
];

/// `si_code` of a signal that the kernel sent, which for these means a terminal.
const SI_KERNEL: i32 = 0x80;

/// The signals of this process, taken from their default actions.
#[derive(Debug)]
pub(crate) struct Signals {
    descriptor: SignalFd,
    blocked: SigSet,
    found: SigSet,
    /// What came while the job was started.
    noted: Vec<(Signal, Arc<AtomicBool>)>,
    given_back: Arc<AtomicBool>,
    is_session_leader: bool,
}

impl Signals {
    /// Takes them. Must run before any thread starts: threads inherit what is blocked. `None`: the system does not
    /// let us; then the job runs all the same and signals reach it only by its group.
    pub(crate) fn take() -> Option<Self> {
        let ignored = ignored_signals();
        let found = SigSet::thread_get_mask().ok()?;
        let given_back = Arc::default();
        let (mut blocked, mut noted) = (SigSet::empty(), Vec::new());
        for signal in FORWARDED.into_iter().filter(|signal| ignored & bit(*signal) == 0) {
            let flag = Arc::default();
            register_conditional_default(signal as i32, Arc::clone(&given_back)).ok()?;
            register(signal as i32, Arc::clone(&flag)).ok()?;
            blocked.add(signal);
            noted.push((signal, flag));
        }
        // Children of a process that ignores this vanish without a status; a handler, even one that does nothing, keeps them.
        register(Signal::SIGCHLD as i32, Arc::default()).ok()?;
        blocked.add(Signal::SIGCHLD);
        let descriptor = SignalFd::with_flags(&blocked, SfdFlags::SFD_CLOEXEC).ok()?;
        blocked.thread_block().ok()?;
        let is_session_leader = getsid(None).is_ok_and(|session| session == getpid());
        Some(Self { descriptor, blocked, found, noted, given_back, is_session_leader })
    }

    /// Starts the job with the mask that the wrapper found, and hands on what came meanwhile.
    pub(crate) fn start(&self, command: &mut Command) -> io::Result<Child> {
        self.found.thread_set_mask()?;
        let child = command.spawn();
        self.blocked.thread_block()?;
        if let Ok(child) = &child {
            for (signal, _) in self.noted.iter().filter(|(_, came)| came.load(Ordering::SeqCst)) {
                send(child, *signal);
            }
        }
        child
    }

    /// Waits for one signal and hands it on if the job has not got it already.
    pub(crate) fn pass_one(&self, child: &Child) {
        // An interrupted or failed read is met again in the next turn of the caller's loop.
        let Ok(Some(info)) = self.descriptor.read_signal() else { return };
        let Some(signal) = known(&info) else { return };
        if signal == Signal::SIGCHLD {
            stop_with(child);
        } else if must_forward(signal, info.ssi_code, self.is_session_leader) {
            send(child, signal);
        }
    }

    /// Gives the signals back their actions: from now on they are for the wrapper itself.
    pub(crate) fn give_back(&self) {
        self.given_back.store(true, Ordering::SeqCst);
        if let Err(error) = self.blocked.thread_unblock() {
            // A late signal then waits until the wrapper has ended, which it is about to do.
            super::report::tell_journal(&format!("cannot unblock signals: {error}"));
        }
    }
}

/// Whether a job that shares the wrapper's process group still needs to be told.
fn must_forward(signal: Signal, code: i32, is_session_leader: bool) -> bool {
    let from_terminal = code == SI_KERNEL;
    // A terminal that hangs up tells only the leader of its session; all else it tells the group.
    !from_terminal || (signal == Signal::SIGHUP && is_session_leader)
}

/// When the job was stopped from its terminal, stops the wrapper as well, so that the shell sees its job stopped.
fn stop_with(child: &Child) {
    let stopped = waitid(Id::Pid(pid(child)), WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG);
    if let Ok(WaitStatus::Stopped(_, Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU)) = stopped
        && raise(Signal::SIGSTOP).is_err()
    {
        // Not stopping is the lesser harm; the shell then waits for a job that is stopped.
    }
}

fn send(child: &Child, signal: Signal) {
    // The job is not reaped yet, so its number is still its own; if it is a zombie nothing happens.
    if let Err(error) = kill(pid(child), signal) {
        super::report::tell_journal(&format!("cannot pass {signal} on to the job: {error}"));
    }
}

fn known(info: &siginfo) -> Option<Signal> {
    i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok())
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

fn bit(signal: Signal) -> u64 {
    1 << (signal as u32 - 1)
}

/// The signals this process was started to ignore, as a mask; none when /proc is not there.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    parse_ignored(&status).unwrap_or(0)
}

fn parse_ignored(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        let status = "Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        let mask = parse_ignored(status).unwrap();
        for (signal, ignored) in [
            (Signal::SIGHUP, true),
            (Signal::SIGPIPE, true),
            (Signal::SIGINT, false),
            (Signal::SIGTERM, false),
        ] {
            assert_eq!(mask & bit(signal) != 0, ignored, "{signal}");
        }
        assert_eq!(parse_ignored("Name:\tx\n"), None);
    }

    #[test] // `si_code` 0 is kill(2), -6 tgkill(2), 0x80 the kernel.
    fn a_terminals_signals_are_not_sent_twice() {
        for (signal, code, leader, forwarded) in [
            (Signal::SIGINT, SI_KERNEL, false, false),
            (Signal::SIGINT, SI_KERNEL, true, false),
            (Signal::SIGINT, 0, false, true),
            (Signal::SIGTERM, 0, true, true),
            (Signal::SIGTSTP, SI_KERNEL, false, false),
            (Signal::SIGWINCH, SI_KERNEL, true, false),
            (Signal::SIGHUP, SI_KERNEL, false, false),
            (Signal::SIGHUP, SI_KERNEL, true, true),
            (Signal::SIGUSR1, -6, false, true),
        ] {
            assert_eq!(must_forward(signal, code, leader), forwarded, "{signal} code {code} leader {leader}");
        }
    }
}
