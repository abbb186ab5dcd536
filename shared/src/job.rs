//! What a host tells about one run of a scheduled job: that it started, and how it ended.
//!
//! Promises: every text in a record is bounded by its type, so a record is at most about 70 KiB whoever made it.
//! Not here: how a record travels (each socket and file has its own encoding), what a schedule expected, and
//! the redaction of texts (`redact`), which happens before a record is made.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::time::Duration;

use uuid::Uuid;

use crate::time::Timestamp;

/// The longest job name, in bytes. It becomes a label value; people read it in a table's column.
pub const JOB_NAME_BYTES_MAX: usize = 200;

/// A job as its schedule names it: 1 to 200 bytes of UTF-8 without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobName(Box<str>);

/// Why a text is not a job's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJobName {
    #[error("job name is {0} bytes long, expected 1 to 200")]
    Length(usize),
    #[error("job name contains {0:?}, which does not print; use letters, digits and punctuation")]
    Character(char),
}

impl JobName {
    /// Reads a name; spaces are allowed, invisible characters are not.
    pub fn parse(raw: &str) -> Result<Self, InvalidJobName> {
        if raw.is_empty() || raw.len() > JOB_NAME_BYTES_MAX {
            return Err(InvalidJobName::Length(raw.len()));
        }
        match raw.chars().find(|c| matches!(c, '\n' | '\t') || crate::sanitize::is_unprintable(*c)) {
            Some(c) => Err(InvalidJobName::Character(c)),
            None => Ok(Self(raw.into())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for JobName {
    type Err = InvalidJobName;
    fn from_str(raw: &str) -> Result<Self, InvalidJobName> {
        Self::parse(raw)
    }
}

/// One run of a job, drawn at random by whoever starts it. Records of one run meet by it, in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub Uuid);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// A text of at most `MAX` bytes of UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BoundedText<const MAX: usize>(String);

/// Why a text does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("text is {length} bytes long, expected at most {max}")]
pub struct TextTooLong {
    /// Its length in bytes.
    pub length: usize,
    /// The bound in bytes.
    pub max: usize,
}

impl<const MAX: usize> BoundedText<MAX> {
    /// The bound in bytes.
    pub const MAX: usize = MAX;

    /// Takes the text whole, or refuses it.
    pub fn parse(text: String) -> Result<Self, TextTooLong> {
        if text.len() > MAX {
            return Err(TextTooLong { length: text.len(), max: MAX });
        }
        Ok(Self(text))
    }

    /// Keeps the first `MAX` bytes, cut where a character ends.
    pub fn keep_start(text: &str) -> Self {
        Self(text[..text.floor_char_boundary(MAX)].to_owned())
    }

    /// Keeps the last `MAX` bytes, cut where a character starts.
    pub fn keep_end(text: &str) -> Self {
        let from = text.ceil_char_boundary(text.len().saturating_sub(MAX));
        Self(text[from..].to_owned())
    }

    /// The text as an owned string.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl<const MAX: usize> Deref for BoundedText<MAX> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Display for BoundedText<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A command line after redaction.
pub type CommandLine = BoundedText<4096>;
/// The end of what a job wrote to stdout and stderr, after redaction. Not safe for a terminal: see `sanitize`.
pub type OutputTail = BoundedText<65_536>;
/// The name of a user of the host.
pub type UserName = BoundedText<256>;
/// One sentence about a failure.
pub type Message = BoundedText<1024>;
/// The kernel's random name of a boot; empty where it is not known.
pub type BootId = BoundedText<64>;

/// A run has started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobStarted {
    pub run_id: RunId,
    pub job: JobName,
    /// The job's process on its host.
    pub pid: u32,
    pub user: UserName,
    pub uid: u32,
    pub command: CommandLine,
    /// The host's wall clock.
    pub started_at: Timestamp,
    /// `CLOCK_BOOTTIME` in milliseconds.
    pub started_boot_ms: u64,
    /// The boot in which it started.
    pub started_boot: BootId,
}

/// A run has ended. Says everything a verdict needs, also when the start was never heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEnded {
    pub run_id: RunId,
    pub job: JobName,
    pub uid: u32,
    pub user: UserName,
    /// The host's wall clock.
    pub started_at: Timestamp,
    /// The host's wall clock; before `started_at` when the clock was set back in between.
    pub ended_at: Timestamp,
    /// `CLOCK_BOOTTIME` in milliseconds.
    pub started_boot_ms: u64,
    /// `CLOCK_BOOTTIME` in milliseconds.
    pub ended_boot_ms: u64,
    /// The boot in which it started.
    pub started_boot: BootId,
    /// The boot in which it ended; another one only when it was interrupted.
    pub ended_boot: BootId,
    /// Measured on `CLOCK_BOOTTIME`: includes suspend, ignores steps of the wall clock.
    pub duration: Duration,
    pub outcome: Outcome,
    pub output_tail: OutputTail,
    /// All that was written to the captured outputs, in bytes.
    pub output_bytes: u64,
    /// Whether `output_tail` is less than all of it.
    pub truncated: bool,
    /// Whether a process that outlived the job still held its output.
    pub background_children: bool,
    /// Further runs by the same user and with the same outcome that are counted here and not told one by one.
    pub alike: u64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The job's own exit status.
    Exited(u8),
    /// Killed by a signal, by its Linux number; perhaps by the kernel for want of memory.
    Signalled { signal: i32, core: bool, out_of_memory: bool },
    /// The command was never run.
    CouldNotStart { errno: i32, message: Message },
    /// It is over, and nobody saw how.
    Interrupted { reason: Message },
}

impl Outcome {
    /// Exit status zero, and nothing else.
    pub fn is_success(&self) -> bool {
        *self == Self::Exited(0)
    }
}

/// What a host reports about a run. The two arrive in either order, and either may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobRecord {
    Started(JobStarted),
    Ended(JobEnded),
}

impl JobRecord {
    /// The run it is about.
    pub fn run_id(&self) -> RunId {
        match self {
            Self::Started(started) => started.run_id,
            Self::Ended(ended) => ended.run_id,
        }
    }

    /// The job it is about.
    pub fn job(&self) -> &JobName {
        match self {
            Self::Started(started) => &started.job,
            Self::Ended(ended) => &ended.job,
        }
    }

    /// The user the run claims to be of.
    pub fn uid(&self) -> u32 {
        match self {
            Self::Started(started) => started.uid,
            Self::Ended(ended) => ended.uid,
        }
    }

    /// The same record with the name that the host gives its uid.
    #[must_use]
    pub fn with_user(mut self, name: UserName) -> Self {
        match &mut self {
            Self::Started(started) => started.user = name,
            Self::Ended(ended) => ended.user = name,
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_jobs_may_have() {
        for (raw, expected) in [
            ("backup", Ok(())),
            ("nightly backup (eu) €", Ok(())),
            ("", Err(InvalidJobName::Length(0))),
            ("two\nlines", Err(InvalidJobName::Character('\n'))),
            ("a\tb", Err(InvalidJobName::Character('\t'))),
            ("esc\u{1b}[31m", Err(InvalidJobName::Character('\u{1b}'))),
            ("rtl\u{202e}", Err(InvalidJobName::Character('\u{202e}'))),
        ] {
            assert_eq!(JobName::parse(raw).map(|_| ()), expected, "{raw:?}");
        }
        assert!(JobName::parse(&"x".repeat(200)).is_ok());
        assert_eq!(JobName::parse(&"x".repeat(201)), Err(InvalidJobName::Length(201)));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        for (text, start, end) in
            [("abc", "abc", "abc"), ("abcdefgh", "abcd", "efgh"), ("€€", "€", "€"), ("", "", "")]
        {
            assert_eq!(&*BoundedText::<4>::keep_start(text), start);
            assert_eq!(&*BoundedText::<4>::keep_end(text), end);
        }
        assert_eq!(BoundedText::<4>::parse("abcde".into()), Err(TextTooLong { length: 5, max: 4 }));
    }

    #[test]
    fn only_exit_zero_is_success() {
        for (outcome, success) in [
            (Outcome::Exited(0), true),
            (Outcome::Exited(1), false),
            (Outcome::Signalled { signal: 15, core: false, out_of_memory: false }, false),
            (Outcome::CouldNotStart { errno: 2, message: Message::default() }, false),
        ] {
            assert_eq!(outcome.is_success(), success, "{outcome:?}");
        }
    }
}
