//! What can go wrong in a command, in a line that says what to do, and the exit code scripts act on.
//!
//! 0 it worked, 1 it failed or was refused, 2 the command line is wrong (clap says so, too), 3 no collector answered.

use std::path::PathBuf;

use tocsin_proto::connect::ConnectError;
use tocsin_shared::sanitize::for_terminal;
use tonic::{Code, Status};

use crate::credential::CredentialError;

/// Longest text of a collector that is shown in a line; more is not a message.
const MESSAGE_CHARS_MAX: usize = 500;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// The collector answered with an error.
    #[error("{}", refusal(.0))]
    Refused(Box<Status>),
    #[error("the collector did not answer within {seconds} s; try again, and look at `tocsin status`")]
    Late { seconds: u64 },
    /// A part of the answer is not there although the collector promises it.
    #[error("the collector's answer has no {what}; collector and `tocsin` may be of different versions")]
    Incomplete { what: &'static str },
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    #[error("cannot read {path}: {reason}; check the path and its permissions")]
    Read { path: PathBuf, reason: String },
    #[error("cannot write the output: {0}; check that there is room where it goes")]
    Output(#[source] std::io::Error),
    /// What there is to say has been printed already: mistakes in rule files.
    #[error("{0}")]
    Mistakes(String),
    /// A part of `tocsin up` did not start or did not end well.
    #[error("{part}: {reason}")]
    Part { part: &'static str, reason: String },
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl Failure {
    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Connect(_) | Self::Late { .. } => 3,
            Self::Refused(status) if matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded) => 3,
            _ => 1,
        }
    }

    /// The line for stderr, harmless for a terminal.
    pub fn line(&self) -> String {
        let text = format!("tocsin: {self}");
        for_terminal(&text.replace(['\n', '\t'], " ")).into_owned()
    }
}

/// What a refusal means and what to do about it; the collector's own words come first, they know more.
fn refusal(status: &Status) -> String {
    let said: String = status.message().chars().take(MESSAGE_CHARS_MAX).collect();
    let said = if said.is_empty() { format!("{:?}", status.code()) } else { said };
    match status.code() {
        Code::Unauthenticated => {
            format!(
                "the collector does not take this credential ({said}); name a valid one with --credential"
            )
        }
        Code::PermissionDenied => {
            format!("not allowed: {said}; use the credential of a principal whose role may do this")
        }
        Code::Unavailable => format!("the collector is not available: {said}; try again shortly"),
        Code::Unimplemented => {
            format!("the collector does not know this call ({said}); it may be older than this `tocsin`")
        }
        Code::Aborted => format!("refused: {said}; look at it again, somebody else was faster"),
        Code::ResourceExhausted => format!("too much: {said}; ask for less, or try again later"),
        Code::Internal | Code::Unknown | Code::DataLoss => {
            format!("the collector failed: {said}; its log says more")
        }
        _ => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_one_line_with_its_exit_code() {
        for (failure, line, code) in [
            (
                Failure::from(Status::not_found(
                    "there is no incident 7; `tocsin incidents --all` lists them",
                )),
                "tocsin: there is no incident 7; `tocsin incidents --all` lists them",
                1,
            ),
            (
                Status::unauthenticated("expired").into(),
                "tocsin: the collector does not take this credential (expired); name a valid one with --credential",
                1,
            ),
            (
                Status::permission_denied("\"ann\" with the role viewer may not call Resolve").into(),
                "tocsin: not allowed: \"ann\" with the role viewer may not call Resolve; use the credential of a principal whose role may do this",
                1,
            ),
            (
                Status::unavailable("stopping").into(),
                "tocsin: the collector is not available: stopping; try again shortly",
                3,
            ),
            (Status::invalid_argument("").into(), "tocsin: InvalidArgument", 1),
            (Status::not_found("a\nb\u{1b}[2J\u{202e}c").into(), "tocsin: a b\\u{1b}[2J\\u{202e}c", 1),
            (
                Failure::Late { seconds: 30 },
                "tocsin: the collector did not answer within 30 s; try again, and look at `tocsin status`",
                3,
            ),
            (Failure::Usage("no".into()), "tocsin: no", 2),
        ] {
            assert_eq!(failure.line(), line);
            assert_eq!(failure.exit_code(), code, "{line}");
        }
    }

    #[test]
    fn a_long_refusal_is_cut() {
        assert!(Failure::from(Status::not_found("x".repeat(100_000))).line().len() < 600);
    }
}
