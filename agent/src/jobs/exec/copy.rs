//! ⇄ Output from the job's pipe to where it was meant to go, byte for byte, its end remembered on the way.
//!
//! One thread per pipe, so that a consumer that is slow with one stream does not hold up the other. Everything the
//! job wrote before it ended is in the pipe when it ends, so "ended" is: the pipe was read empty, or as much as it can
//! hold was read. What a process that outlives the job writes later is copied by a relay (see `outputs`).

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::tail::Tail;

/// What Linux gives a pipe unless asked otherwise; one read takes it all.
const PIPE_BYTES: usize = 64 * 1024;
/// After the job's end, for its last children (`> >(tee log)`) to end as well.
const GRACE: Duration = Duration::from_millis(10);

/// The end of a copy.
#[derive(Debug)]
pub(crate) enum CopyEnd {
    /// Nobody writes any more, or nobody reads.
    Closed,
    /// The job has ended, and another process still holds the pipe.
    StillOpen(PipeReader, File),
}

/// A pipe to copy.
#[derive(Debug)]
pub(crate) struct Copier {
    pub source: PipeReader,
    pub sink: File,
    pub tail: Arc<Mutex<Tail>>,
    /// Hangs up when the job has ended.
    pub ended: PipeReader,
}

impl Copier {
    /// Copies until the pipe is closed or, once the job has ended, holds nothing more of it.
    pub(crate) fn run(mut self) -> CopyEnd {
        let mut buffer = vec![0; PIPE_BYTES];
        let (mut ended, mut copied_since) = (None, 0);
        loop {
            let wait = match ended {
                None => PollTimeout::NONE,
                Some(at) => remaining(at),
            };
            let readable = match self.wait(ended.is_none(), wait) {
                Ok(Ready { readable, has_ended }) => {
                    if has_ended {
                        ended = ended.or(Some(Instant::now()));
                    }
                    readable
                }
                Err(_) => true, // Cannot wait for both; reading alone is right, if slower to notice the end.
            };
            if let Some(at) = ended
                && at.elapsed() >= GRACE
                && (!readable || copied_since >= self.capacity())
            {
                return CopyEnd::StillOpen(self.source, self.sink);
            }
            if !readable {
                continue;
            }
            match self.copy_once(&mut buffer) {
                Ok(0) | Err(_) => return CopyEnd::Closed, // Dropping the source tells the job: EPIPE, as without us.
                Ok(count) if ended.is_some() => copied_since += count,
                Ok(_) => {}
            }
        }
    }

    fn wait(&self, for_end: bool, timeout: PollTimeout) -> nix::Result<Ready> {
        let mut fds = [
            PollFd::new(self.source.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.ended.as_fd(), PollFlags::POLLIN),
        ];
        let watched = if for_end { 2 } else { 1 };
        match poll(&mut fds[..watched], timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error),
        }
        let [source, ended] = fds.map(|fd| fd.any().unwrap_or(false));
        Ok(Ready { readable: source, has_ended: for_end && ended })
    }

    fn copy_once(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = loop {
            match self.source.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => break done?,
            }
        };
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..count]);
        write_all(&mut self.sink, &buffer[..count])?;
        Ok(count)
    }

    fn capacity(&self) -> usize {
        let size = fcntl(&self.source, FcntlArg::F_GETPIPE_SZ).ok();
        size.and_then(|size| usize::try_from(size).ok()).unwrap_or(PIPE_BYTES)
    }
}

struct Ready {
    readable: bool,
    has_ended: bool,
}

fn remaining(ended: Instant) -> PollTimeout {
    // Rounded up: a wait of zero would spin through the last millisecond.
    let left = GRACE.saturating_sub(ended.elapsed());
    PollTimeout::try_from(left.as_micros().div_ceil(1000) as i32).unwrap_or(PollTimeout::ZERO)
}

/// Writes all of it, also to a descriptor that someone else has made non-blocking.
fn write_all(sink: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match sink.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut fds = [PollFd::new(sink.as_fd(), PollFlags::POLLOUT)];
                match poll(&mut fds, PollTimeout::NONE) {
                    Ok(_) | Err(nix::Error::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The relay process: copies stdin to stdout until either is closed.
pub(crate) fn relay() -> ExitCode {
    let (Ok(mut source), Ok(mut sink)) =
        (io::stdin().as_fd().try_clone_to_owned().map(File::from), own_stdout())
    else {
        return ExitCode::FAILURE;
    };
    let mut buffer = vec![0; PIPE_BYTES];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return ExitCode::SUCCESS,
            Ok(count) if write_all(&mut sink, &buffer[..count]).is_ok() => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return ExitCode::FAILURE,
        }
    }
}

fn own_stdout() -> io::Result<File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rig {
        writer: Option<io::PipeWriter>,
        ended: Option<io::PipeWriter>,
        out: PipeReader,
        tail: Arc<Mutex<Tail>>,
        thread: std::thread::JoinHandle<CopyEnd>,
    }

    fn rig() -> Rig {
        let (source, writer) = io::pipe().unwrap();
        let (out, sink) = io::pipe().unwrap();
        let (ended_reader, ended) = io::pipe().unwrap();
        let tail = Arc::default();
        let sink = File::from(std::os::fd::OwnedFd::from(sink));
        let copier = Copier { source, sink, tail: Arc::clone(&tail), ended: ended_reader };
        let thread = std::thread::spawn(|| copier.run());
        Rig { writer: Some(writer), ended: Some(ended), out, tail, thread }
    }

    #[test]
    fn a_closed_pipe_ends_the_copy() {
        let mut rig = rig();
        rig.writer.take().unwrap().write_all(b"all of it").unwrap();
        assert!(matches!(rig.thread.join().unwrap(), CopyEnd::Closed));
        let mut text = String::new();
        rig.out.read_to_string(&mut text).unwrap();
        assert_eq!(text, "all of it");
        assert_eq!(&*rig.tail.lock().unwrap().show().text, "all of it");
    }

    #[test]
    fn the_jobs_end_leaves_a_held_pipe_open_and_empty() {
        let mut rig = rig();
        let held = rig.writer.as_mut().unwrap();
        held.write_all(b"before the end").unwrap();
        drop(rig.ended.take());
        let CopyEnd::StillOpen(mut source, sink) = rig.thread.join().unwrap() else { panic!("pipe is held") };
        let mut text = [0; 14];
        rig.out.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"before the end");
        rig.writer.take().unwrap().write_all(b"later").unwrap(); // No EPIPE.
        let mut rest = String::new();
        source.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "later");
        drop(sink);
    }

    #[test]
    fn a_flooding_child_does_not_hold_the_wrapper() {
        let mut rig = rig();
        let mut held = rig.writer.take().unwrap();
        let flood = std::thread::spawn(move || while held.write_all(&[b'x'; 4096]).is_ok() {});
        let drain = std::thread::spawn(move || io::copy(&mut rig.out, &mut io::sink()));
        drop(rig.ended.take());
        assert!(matches!(rig.thread.join().unwrap(), CopyEnd::StillOpen(..)));
        flood.join().unwrap(); // The pipe was dropped with the result above.
        drain.join().unwrap().unwrap();
    }

    // Cases: P6
    #[test]
    fn a_reader_that_left_is_told_to_the_writer() {
        let Rig { mut writer, out, thread, ended, .. } = rig();
        drop(out);
        writer.as_mut().unwrap().write_all(b"x").unwrap();
        assert!(matches!(thread.join().unwrap(), CopyEnd::Closed));
        assert_eq!(writer.unwrap().write_all(b"y").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        drop(ended);
    }
}
