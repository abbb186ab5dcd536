//! ⇄ Tells the agent, beside the job: a thread that may be slow, and a main thread that waits for it only so long.
//!
//! The start is sent without waiting for an answer. The end is sent and waited for; without "durable" it goes to the
//! drop-box. What could be told to neither is said in the journal, and changes nothing else.
//! Promise: on a host too busy to report within the time given, the wrapper stays until the drop-box has the outcome in
//! writing, `LAST_WAIT` at most: a failure that is lost helps nobody, and busy hosts are where jobs fail.

mod deliver;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use tocsin_shared::job::{CommandLine, JobEnded, JobName, JobRecord, JobStarted, RunId, UserName};
use tocsin_shared::redact::redact;

use super::run::{Ending, Started};
use super::tail::Shown;
use crate::jobs::envelope;

pub(crate) use self::deliver::tell_journal;

/// Of the time to report, what the agent gets to answer; then there is enough left for the drop-box.
const ANSWER_WAIT: Duration = Duration::from_millis(20);

/// What a wrapper stays beyond its time while the outcome is nowhere yet. A busy host needs tens of milliseconds, a
/// full scheduling queue hundreds; a disk that hangs longer than this would hang the job's caller as well.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Where a report goes.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    pub socket: PathBuf,
    pub drop_box: PathBuf,
}

/// What is known of a run when it starts.
#[derive(Debug)]
pub(crate) struct Report {
    pub run_id: RunId,
    pub job: JobName,
    pub started: Started,
    pub destination: Destination,
}

/// The thread that reports a run.
#[derive(Debug)]
pub(crate) struct Reporter {
    subject: String,
    end: SyncSender<Ending>,
    /// First that the outcome is written down, if it came to that; then how it ended.
    told: Receiver<Told>,
}

/// How far a report has come.
#[derive(Debug)]
enum Told {
    /// It is in the drop-box, and outlives this process, not yet a power cut.
    Written,
    Done(Result<(), deliver::NotStored>),
}

impl Reporter {
    /// Reports the start, if there was one, and waits for the end.
    pub(crate) fn start(report: Report) -> Self {
        let subject = format!("outcome of job {:?}, run {}", report.job.as_str(), report.run_id);
        let (end, ending) = mpsc::sync_channel(1);
        let (tell, told) = mpsc::sync_channel(2); // One of each, so that telling never waits.
        let thread = std::thread::Builder::new().spawn(move || {
            report.tell_start();
            if let Ok(ending) = ending.recv() {
                // Nobody listens any more when it took too long.
                let done = report.tell_end(ending, || tell.send(Told::Written).unwrap_or_default());
                tell.send(Told::Done(done)).unwrap_or_default();
            }
        });
        if let Err(error) = thread {
            tell_journal(&format!("{subject} will not be reported: {error}"));
        }
        Self { subject, end, told }
    }

    /// Reports the end; returns when it is stored, or `within` after the job's end, later only while it is nowhere.
    pub(crate) fn finish(self, ending: Ending, within: Duration) {
        let deadline = ending.since + within;
        if self.end.send(ending).is_err() {
            return; // The thread never started, which has been said.
        }
        let mut written = false;
        loop {
            let until = if written { deadline } else { deadline + LAST_WAIT };
            match self.told.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Told::Written) => written = true,
                Ok(Told::Done(Err(error))) => {
                    return tell_journal(&format!("{} not stored: {error}", self.subject));
                }
                Ok(Told::Done(Ok(()))) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if written => return, // The system syncs it in its own time.
                Err(RecvTimeoutError::Timeout) => {
                    let waited = within + LAST_WAIT;
                    return tell_journal(&format!("{} perhaps not stored in {waited:?}", self.subject));
                }
            }
        }
    }
}

impl Report {
    fn tell_start(&self) {
        let Some(pid) = self.started.pid else { return };
        let record = JobRecord::Started(JobStarted {
            run_id: self.run_id,
            job: self.job.clone(),
            pid,
            user: UserName::default(), // The agent knows it from the uid.
            uid: nix::unistd::getuid().as_raw(),
            command: command_line(&self.started.command),
            started_at: self.started.at.wall,
            started_boot_ms: self.started.at.boot_ms,
        });
        // Without an agent the end tells when it started.
        deliver::send(&self.destination.socket, &envelope::encode(&record)).map(drop).unwrap_or_default();
    }

    fn tell_end(&self, ending: Ending, written: impl FnOnce()) -> Result<(), deliver::NotStored> {
        let record = envelope::encode(&JobRecord::Ended(self.ended(ending)));
        if deliver::hand_in(&self.destination.socket, &record, ANSWER_WAIT)? {
            return Ok(());
        }
        deliver::drop_into(&self.destination.drop_box, self.run_id, &record, written)
    }

    fn ended(&self, ending: Ending) -> JobEnded {
        let Ending { at, since: _, outcome, captured } = ending;
        let (start, background_children) = (self.started.at, captured.background_children);
        let Shown { text, total, truncated } = captured.into_tail().show();
        JobEnded {
            run_id: self.run_id,
            job: self.job.clone(),
            uid: nix::unistd::getuid().as_raw(),
            user: UserName::default(),
            started_at: start.wall,
            ended_at: at.wall,
            started_boot_ms: start.boot_ms,
            ended_boot_ms: at.boot_ms,
            duration: Duration::from_millis(at.boot_ms.saturating_sub(start.boot_ms)),
            outcome,
            output_tail: text,
            output_bytes: total,
            truncated,
            background_children,
        }
    }
}

/// The command as one line, quoted as a shell would read it, without secrets.
fn command_line(argv: &[OsString]) -> CommandLine {
    let words: Vec<String> = argv.iter().map(|word| quoted(&word.to_string_lossy())).collect();
    CommandLine::keep_start(&redact(&words.join(" ")))
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_read_as_typed_but_for_secrets() {
        for (argv, line) in [
            (&["backup", "--all", "/data"][..], "backup --all /data"),
            (&["sh", "-c", "echo 'hi' >&2"], r"sh -c 'echo '\''hi'\'' >&2'"),
            (&["run", ""], "run ''"),
            (&["mysqldump", "--password=hunter2", "db"], "mysqldump --password=[redacted] db"),
            (&["login", "--token", "a b"], "login --token [redacted]"),
        ] {
            let argv: Vec<OsString> = argv.iter().map(OsString::from).collect();
            assert_eq!(&*command_line(&argv), line);
        }
        assert_eq!(command_line(&["x".repeat(9000).into()]).len(), 4096);
    }
}
