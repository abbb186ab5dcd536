//! ⇄ The job's stdout and stderr: which it gets untouched, which go through a pipe, and what becomes of both at its end.
//!
//! A regular file is handed over as it is and read back afterwards: nothing in between, and a child that outlives the
//! job keeps writing to it. So is anything that is not a stream of bytes to someone else (terminal, /dev/full): there
//! the difference between it and a pipe would show. Pipes, sockets and /dev/null go through a pipe of ours. stdout and
//! stderr that are one (`2>&1`) share one pipe, so that their order stays.
//!
//! When a child outlives the job and holds such a pipe, closing it would kill the child by SIGPIPE, leaving it unread
//! would block it, and waiting would hold up the job's starter. Therefore, only then, a relay (this program, one process
//! per pipe, gone when the last writer is) goes on copying.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::stat::{major, minor};

use super::Capture;
use super::copy::{Copier, CopyEnd};
use super::tail::{KEPT_BYTES, Tail};

/// A copier works from a small stack: its buffer is on the heap.
const STACK_BYTES: usize = 64 * 1024;

/// What a descriptor leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Regular,
    PipeOrSocket,
    Null,
    Terminal,
    Other,
}

/// How output gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Untouched,
    ReadBack,
    Piped,
}

fn route(kind: Kind, capture: Capture) -> Route {
    match (capture, kind) {
        (Capture::Never, _) | (_, Kind::Other) | (Capture::Auto, Kind::Terminal) => Route::Untouched,
        (_, Kind::Regular) => Route::ReadBack,
        (_, Kind::PipeOrSocket | Kind::Null) | (Capture::Always, Kind::Terminal) => Route::Piped,
    }
}

/// The outputs of one run.
#[derive(Debug)]
pub(crate) struct Outputs {
    tail: Arc<Mutex<Tail>>,
    files: Vec<Written>,
    copies: Receiver<CopyEnd>,
    running: usize,
    held: Vec<(PipeReader, File)>,
    /// Dropped to tell the copiers that the job has ended.
    until_end: Vec<PipeWriter>,
}

/// A regular file that the job writes to, and how long it was before.
#[derive(Debug)]
pub(crate) struct Written {
    file: File,
    from: u64,
}

/// What was captured, to be made into a report.
#[derive(Debug)]
pub(crate) struct Captured {
    tail: Tail,
    files: Vec<Written>,
    pub background_children: bool,
}

impl Outputs {
    /// Looks at this process's stdout and stderr and sets the command's. Whatever does not work out is left
    /// untouched: an output without a tail is better than a job without its output.
    pub(crate) fn attach(capture: Capture, command: &mut Command) -> Self {
        let (sender, copies) = mpsc::channel();
        let (tail, files, held) = (Arc::default(), Vec::new(), Vec::new());
        let mut outputs = Self { tail, files, copies, running: 0, held, until_end: Vec::new() };
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let same = identity(stdout.as_fd()).is_some() && identity(stdout.as_fd()) == identity(stderr.as_fd());
        let writer = outputs.set_up(stdout.as_fd(), capture, &sender);
        let second = if same {
            writer.as_ref().and_then(|writer| writer.try_clone().ok())
        } else {
            outputs.set_up(stderr.as_fd(), capture, &sender)
        };
        if let Some(writer) = writer {
            command.stdout(writer);
        }
        if let Some(writer) = second {
            command.stderr(writer);
        }
        outputs
    }

    fn set_up(
        &mut self,
        fd: BorrowedFd<'_>,
        capture: Capture,
        sender: &Sender<CopyEnd>,
    ) -> Option<PipeWriter> {
        let file = File::from(fd.try_clone_to_owned().ok()?);
        match route(kind(&file)?, capture) {
            Route::Untouched => None,
            Route::ReadBack => {
                self.files.extend(written(fd));
                None
            }
            Route::Piped => self.start_copy(file, sender).ok(),
        }
    }

    fn start_copy(&mut self, sink: File, sender: &Sender<CopyEnd>) -> io::Result<PipeWriter> {
        let (source, writer) = io::pipe()?;
        let (ended, until_end) = io::pipe()?;
        let copier = Copier { source, sink, tail: Arc::clone(&self.tail), ended };
        let done = sender.clone();
        // Before the job starts: a copier that cannot start must leave it its own output.
        std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || done.send(copier.run()))?;
        self.running += 1;
        self.until_end.push(until_end);
        Ok(writer)
    }

    /// Waits for the copiers: all the job wrote has gone on when they are done. False when time was up first.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) -> bool {
        self.until_end.clear();
        while self.running > 0 {
            let end = match deadline {
                None => self.copies.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => self.copies.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match end {
                Ok(CopyEnd::Closed) => self.running -= 1,
                Ok(CopyEnd::StillOpen(source, sink)) => {
                    self.running -= 1;
                    self.held.push((source, sink));
                }
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => self.running = 0,
            }
        }
        true
    }

    /// What is there to report by now.
    pub(crate) fn captured(&mut self) -> Captured {
        Captured {
            tail: self.tail.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            files: std::mem::take(&mut self.files),
            background_children: !self.held.is_empty(),
        }
    }

    /// Lets the rest go its way: waits for a consumer that is still reading what the job wrote, and starts a relay for each
    /// pipe that outlives the job.
    pub(crate) fn hand_over(mut self) {
        self.wait(None);
        for (source, sink) in self.held.drain(..) {
            if let Err(error) = start_relay(source, sink) {
                super::report::tell_journal(&format!(
                    "cannot relay the output of a background process: {error}"
                ));
            }
        }
    }
}

impl Captured {
    /// Reads the files' ends. May take as long as their disk does, so it is called off the main thread.
    pub(crate) fn into_tail(mut self) -> Tail {
        for Written { mut file, from } in self.files {
            // A file that cannot be read any more has no tail; its job's outcome matters more.
            if let Ok((skipped, bytes)) = read_back(&mut file, from) {
                self.tail.skip(skipped);
                self.tail.push(&bytes);
            }
        }
        self.tail
    }
}

/// The last bytes written since `from`, and how many came before them. A file cut short meanwhile is read from its start.
fn read_back(file: &mut File, from: u64) -> io::Result<(u64, Vec<u8>)> {
    let length = file.metadata()?.len();
    let from = if length < from { 0 } else { from };
    let start = from.max(length.saturating_sub(KEPT_BYTES as u64));
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(KEPT_BYTES as u64).read_to_end(&mut bytes)?;
    Ok((start - from, bytes))
}

/// Opens the file behind a descriptor a second time, for reading; `None` when its owner does not let us.
fn written(fd: BorrowedFd<'_>) -> Option<Written> {
    use std::os::fd::AsRawFd;
    let file = File::open(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
    let from = file.metadata().ok()?.len();
    Some(Written { file, from })
}

fn start_relay(source: PipeReader, sink: File) -> io::Result<()> {
    let own: Vec<OsString> = std::env::args_os().skip(1).take_while(|argument| argument != "--").collect();
    let mut command = Command::new("/proc/self/exe");
    command.args(own).arg("--relay").current_dir("/");
    // A group of its own: what is sent to the job's group must not end it before the process it serves.
    command.stdin(source).stdout(sink).stderr(Stdio::null()).process_group(0).spawn().map(drop)
}

fn identity(fd: BorrowedFd<'_>) -> Option<(u64, u64)> {
    let facts = File::from(fd.try_clone_to_owned().ok()?).metadata().ok()?;
    Some((facts.dev(), facts.ino()))
}

fn kind(file: &File) -> Option<Kind> {
    let facts = file.metadata().ok()?;
    let kind = facts.file_type();
    let device = (major(facts.rdev()), minor(facts.rdev()));
    Some(match () {
        () if kind.is_file() => Kind::Regular,
        () if kind.is_fifo() || kind.is_socket() => Kind::PipeOrSocket,
        () if kind.is_char_device() && device == (1, 3) => Kind::Null,
        () if io::IsTerminal::is_terminal(file) => Kind::Terminal,
        () => Kind::Other,
    })
}

/// How long the copiers get before the report goes out without the last of the output.
pub(crate) const DRAIN_BEFORE_REPORT: Duration = Duration::from_millis(25);

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn every_kind_of_output_has_its_route() {
        use Capture::{Always, Auto, Never};
        for (kind, capture, expected) in [
            (Kind::Regular, Auto, Route::ReadBack),
            (Kind::PipeOrSocket, Auto, Route::Piped),
            (Kind::Null, Auto, Route::Piped),
            (Kind::Terminal, Auto, Route::Untouched),
            (Kind::Terminal, Always, Route::Piped),
            (Kind::Regular, Always, Route::ReadBack),
            (Kind::Other, Always, Route::Untouched),
            (Kind::PipeOrSocket, Never, Route::Untouched),
            (Kind::Regular, Never, Route::Untouched),
        ] {
            assert_eq!(route(kind, capture), expected, "{kind:?} {capture:?}");
        }
    }

    #[test]
    fn descriptors_are_told_apart() {
        let (reader, _writer) = io::pipe().unwrap();
        let pipe = File::from(std::os::fd::OwnedFd::from(reader));
        for (file, expected) in [
            (tempfile::tempfile().unwrap(), Kind::Regular),
            (pipe, Kind::PipeOrSocket),
            (File::open("/dev/null").unwrap(), Kind::Null),
            (File::open("/dev/zero").unwrap(), Kind::Other),
            (File::open("/").unwrap(), Kind::Other),
        ] {
            assert_eq!(kind(&file), Some(expected), "{file:?}");
        }
    }

    #[test]
    fn only_what_the_job_wrote_is_read_back() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"before|").unwrap();
        let written = written(file.as_file().as_fd()).unwrap();
        file.write_all(b"by the job").unwrap();
        let captured = Captured { tail: Tail::default(), files: vec![written], background_children: false };
        let shown = captured.into_tail().show();
        assert_eq!((&*shown.text, shown.total), ("by the job", 10));

        file.write_all(&[b'x'; 2 * KEPT_BYTES]).unwrap();
        let (skipped, bytes) = read_back(&mut file.reopen().unwrap(), 7).unwrap();
        assert_eq!((skipped, bytes.len()), (10 + KEPT_BYTES as u64, KEPT_BYTES));
        file.as_file().set_len(3).unwrap();
        assert_eq!(read_back(&mut file.reopen().unwrap(), 7).unwrap(), (0, b"bef".to_vec()), "rotated");
    }
}
