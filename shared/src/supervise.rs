//! ⇄ What a service tells its manager: that it runs, that it still gets on, that it is about to end.
//!
//! systemd's protocol: one datagram of `NAME=VALUE` lines to the socket that `NOTIFY_SOCKET` names. Without a manager
//! that asks, nothing is sent and nothing fails.
//! Not here: what "gets on" means; each program knows its own parts and feeds the watchdog only when they answered.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::time::Duration;

/// The manager of this process, if it has one that asks.
#[derive(Debug, Default)]
pub struct Manager {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// The manager that the environment names. Once, at the start: children shall not speak for this process, and the
    /// manager does not listen to them.
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var(name).ok();
        Self::new(
            variable("NOTIFY_SOCKET").as_deref(),
            variable("WATCHDOG_USEC").as_deref(),
            variable("WATCHDOG_PID").as_deref(),
            std::process::id(),
        )
    }

    fn new(socket: Option<&str>, watchdog_usec: Option<&str>, watchdog_pid: Option<&str>, pid: u32) -> Self {
        let mine = watchdog_pid.is_none_or(|of| of.parse() == Ok(pid));
        let watchdog = watchdog_usec.filter(|_| mine).and_then(|text| text.parse().ok()).filter(|us| *us > 0);
        let to = socket.and_then(address).and_then(|to| Some((UnixDatagram::unbound().ok()?, to)));
        if let Some((socket, _)) = &to {
            socket.set_nonblocking(true).ok(); // A manager that does not read must not hold the service up.
        }
        Self { to, watchdog: watchdog.map(Duration::from_micros) }
    }

    fn tell(&self, what: &str) {
        if let Some((socket, to)) = &self.to
            && let Err(error) = socket.send_to_addr(what.as_bytes(), to)
        {
            tracing::debug!(what, %error, "the service manager was not told");
        }
    }

    /// The service runs.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The service ends by itself or because it was told to.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// The service still gets on.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// How often to say so, if the manager watches: thrice in the time that it waits.
    pub fn alive_every(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.to.is_some()).map(|waits| waits / 3)
    }
}

/// `/a/path`, or `@name` for a socket without a file.
fn address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name).ok(),
        None => SocketAddr::from_pathname(PathBuf::from(text)).ok().filter(|_| text.starts_with('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Cases: C12
    #[test]
    fn what_it_says_arrives_as_the_manager_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::new(path.to_str(), Some("30000000"), Some("7"), 7);
        assert_eq!(manager.alive_every(), Some(Duration::from_secs(10)));
        manager.ready();
        manager.alive();
        manager.stopping();
        let said = (0..3).map(|_| {
            let mut bytes = [0; 64];
            let length = socket.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        });
        assert_eq!(said.collect::<Vec<_>>(), ["READY=1", "WATCHDOG=1", "STOPPING=1"]);
    }

    #[test]
    fn without_a_manager_nothing_is_said_and_nothing_fails() {
        for (socket, usec, pid) in [
            (None, Some("30000000"), None),
            (Some("relative"), Some("30000000"), None),
            (Some(""), None, None),
            (Some("@tocsin-test-nobody"), Some("30000000"), Some("8")),
            (Some("@tocsin-test-nobody"), Some("0"), None),
            (Some("@tocsin-test-nobody"), Some("often"), None),
        ] {
            let manager = Manager::new(socket, usec, pid, 7);
            manager.ready();
            assert_eq!(manager.alive_every(), None, "{socket:?} {usec:?} {pid:?}");
        }
    }
}
