//! ⇄ The ways out of the wrapper: the agent's socket, the drop-box, and a line in the journal.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use tocsin_shared::job::RunId;

use crate::jobs::envelope::Answer;
use crate::jobs::intake::{COMPLETE_SUFFIX, PARTIAL_PREFIX};

/// Where syslog or journald listens.
const SYSLOG_SOCKET: &str = "/dev/log";
/// Facility user, severity warning.
const SYSLOG_PRIORITY: u8 = 12;

/// Why the outcome is nowhere on this host.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotStored {
    #[error("the agent refused it; are wrapper and agent of the same release?")]
    Refused,
    #[error("the agent did not take it and {path} cannot be written: {source}")]
    DropBox { path: PathBuf, source: io::Error },
}

/// Sends a record and leaves the answer to the caller. Never waits: a full backlog or buffer is an error.
pub(crate) fn send(path: &Path, record: &[u8]) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    let mut stream = UnixStream::from(fd);
    stream.write_all(record)?; // A record is smaller than an empty socket's buffer.
    Ok(stream)
}

/// Hands a record to the agent; true when it said in time that the record is on disk.
pub(crate) fn hand_in(path: &Path, record: &[u8], wait: Duration) -> Result<bool, NotStored> {
    match send(path, record).and_then(|stream| answer(stream, wait)) {
        Ok(byte) if byte == Answer::Refused.byte() => Err(NotStored::Refused),
        Ok(byte) => Ok(byte == Answer::Durable.byte()),
        Err(_) => Ok(false), // No agent, or not in time: that is what the drop-box is for.
    }
}

fn answer(mut stream: UnixStream, wait: Duration) -> io::Result<u8> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(wait))?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// Writes a record to the drop-box. Renamed before it is synced: from then on the agent can take it, which checks it by
/// its checksum, and a wrapper that runs out of time during the sync loses it only to a power cut. One sync is enough,
/// and is of the file, because its user may not open the directory; on the journaling file systems of Linux it makes
/// the name durable as well.
pub(crate) fn drop_into(directory: &Path, run_id: RunId, record: &[u8]) -> Result<(), NotStored> {
    let partial = directory.join(format!("{PARTIAL_PREFIX}{run_id}"));
    let complete = directory.join(format!("{run_id}{COMPLETE_SUFFIX}"));
    let result = write_new(&partial, &complete, record).and_then(|file| file.sync_all());
    result.map_err(|source| {
        // What is left of it, if anything, the agent clears away.
        fs::remove_file(&partial).unwrap_or_default();
        NotStored::DropBox { path: directory.to_owned(), source }
    })
}

fn write_new(partial: &Path, complete: &Path, record: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(partial)?;
    file.write_all(record)?;
    fs::rename(partial, complete)?;
    Ok(file)
}

/// Says it in the system's log, if there is one and it takes it at once.
pub(crate) fn tell_journal(line: &str) {
    let line = tocsin_shared::sanitize::for_terminal(line).replace('\n', " ");
    let message = format!("<{SYSLOG_PRIORITY}>tocsin-agent[{}]: exec: {line}", std::process::id());
    let sent = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.send_to(message.as_bytes(), SYSLOG_SOCKET)
    });
    sent.map(drop).unwrap_or_default(); // Nobody is left to be told.
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;
    use uuid::Uuid;

    // Cases: P1
    #[test]
    fn a_dropped_record_is_complete_private_and_alone() {
        let dir = tempfile::tempdir().unwrap();
        let run_id = RunId(Uuid::from_u128(7));
        drop_into(dir.path(), run_id, b"record").unwrap();
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(names, [dir.path().join(format!("{run_id}.job"))]);
        assert_eq!(fs::read(&names[0]).unwrap(), b"record");
        assert_eq!(fs::metadata(&names[0]).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(matches!(
            drop_into(&dir.path().join("gone"), run_id, b"record"),
            Err(NotStored::DropBox { .. })
        ));
    }

    // Cases: C-A1
    #[test] // One row: what the agent answers before it hangs up; None answers nothing and keeps the connection.
    fn only_durable_is_stored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let wait = Duration::from_millis(5);
        assert!(!hand_in(&path, b"x", wait).unwrap(), "no agent");
        let listener = UnixListener::bind(&path).unwrap();
        assert!(!hand_in(&path, b"x", wait).unwrap(), "no answer");
        drop(listener.accept().unwrap());
        for (answer, expected) in [
            (&b"D"[..], Some(true)),
            (b"L", Some(false)),
            (b"", Some(false)),
            (b"?", Some(false)),
            (b"R", None),
        ] {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let (mut stream, _) = listener.accept().unwrap();
                    stream.read_exact(&mut [0]).unwrap(); // Hanging up earlier would break the sending.
                    stream.write_all(answer).unwrap();
                });
                let stored = hand_in(&path, b"x", Duration::from_secs(10)).ok();
                assert_eq!(stored, expected, "{answer:?}");
            });
        }
    }
}
