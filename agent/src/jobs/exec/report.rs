//! ⇄ Tells the agent, beside the job: a thread that may be slow, and a main thread that waits for it only so long.
//!
//! The start is sent without waiting for an answer. The end is sent and waited for; without "durable" it goes to the
//! drop-box. What could be told to neither is said in the journal, and changes nothing else.
//! Promise: the wrapper never stays longer than it was given, whatever happens. On a host too busy for that an outcome
//! may be lost: the journal says so at once, and the agent, which knows the start, counts it and says so as well.

mod deliver;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use tocsin_shared::job::{BootId, CommandLine, JobEnded, JobName, JobRecord, JobStarted, RunId, UserName};
use tocsin_shared::redact::redact;

use super::run::{Ending, Started};
use super::tail::Shown;
use crate::jobs::envelope;

pub(crate) use self::deliver::tell_journal;

/// Of the time to report, what the agent gets to answer; then there is enough left for the drop-box.
const ANSWER_WAIT: Duration = Duration::from_millis(20);

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
    /// How it ended.
    told: Receiver<Result<(), deliver::NotStored>>,
}

impl Reporter {
    /// Reports the start, if there was one, and waits for the end.
    pub(crate) fn start(report: Report) -> Self {
        let subject = format!("outcome of job {:?}, run {}", report.job.as_str(), report.run_id);
        let (end, ending) = mpsc::sync_channel(1);
        let (tell, told) = mpsc::sync_channel(1); // Room for the one answer, so that telling never waits.
        let thread = std::thread::Builder::new().spawn(move || {
            report.tell_start();
            if let Ok(ending) = ending.recv() {
                tell.send(report.tell_end(ending)).unwrap_or_default(); // Nobody listens when it took too long.
            }
        });
        if let Err(error) = thread {
            tell_journal(&format!("{subject} will not be reported: {error}"));
        }
        Self { subject, end, told }
    }

    /// Reports the end; returns when it is stored, or `within` after the job's end, whichever comes first.
    pub(crate) fn finish(self, ending: Ending, within: Duration) {
        let deadline = ending.since + within;
        if self.end.send(ending).is_err() {
            return; // The thread never started, which has been said.
        }
        if let Some(why) = self.missed(deadline, within) {
            tell_journal(&why);
        }
    }

    /// What there is to say when the outcome was not stored, or not by the deadline.
    fn missed(&self, deadline: Instant, within: Duration) -> Option<String> {
        match self.told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Ok(())) | Err(RecvTimeoutError::Disconnected) => None,
            Ok(Err(error)) => Some(format!("{} not stored: {error}", self.subject)),
            Err(RecvTimeoutError::Timeout) => {
                Some(format!("{} perhaps not stored within {within:?}", self.subject))
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
            started_boot: boot(),
        });
        // Without an agent the end tells when it started.
        deliver::send(&self.destination.socket, &envelope::encode(&record)).map(drop).unwrap_or_default();
    }

    fn tell_end(&self, ending: Ending) -> Result<(), deliver::NotStored> {
        let record = envelope::encode(&JobRecord::Ended(self.ended(ending)));
        if deliver::hand_in(&self.destination.socket, &record, ANSWER_WAIT)? {
            return Ok(());
        }
        deliver::drop_into(&self.destination.drop_box, self.run_id, &record)
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
            started_boot: boot(),
            ended_boot: boot(),
            alike: 0,
        }
    }
}

/// The boot that all of this is in.
fn boot() -> BootId {
    BootId::keep_start(&crate::inventory::boot_id())
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
    fn a_report_that_hangs_is_left_at_the_deadline_and_said() {
        let ((end, _ending), (_tell, told)) = (mpsc::sync_channel(1), mpsc::sync_channel(1));
        let reporter = Reporter { subject: "outcome of job \"backup\"".into(), end, told };
        let within = Duration::from_millis(50);
        let said = reporter.missed(Instant::now() - within, within);
        assert_eq!(said.unwrap(), "outcome of job \"backup\" perhaps not stored within 50ms");
    }

    // Cases: C-X5
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
