//! From what the collector's parts refuse or fail at to gRPC's codes: the one place.
//!
//! A caller learns from the code whether to change the call, to look again, or to try later.

use tonic::Status;

use crate::feed::InvalidCursor;
use crate::journal::{JournalError, Stopping};
use crate::state::Refusal;
use crate::store::StoreError;

/// Longer texts do not fit into the headers that carry them.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// A text that fits; what callers gave may be in it, and may be long.
fn cut(text: impl ToString) -> String {
    let mut text = text.to_string();
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
    }
    text
}

pub(super) fn refused(refusal: Refusal) -> Status {
    let text = cut(&refusal);
    match refusal {
        Refusal::NotFound { .. } => Status::not_found(text),
        Refusal::Conflict { .. } => Status::aborted(text),
        Refusal::Invalid { .. } => Status::invalid_argument(text),
        Refusal::Denied { .. } => Status::permission_denied(text),
        Refusal::Degraded { .. } | Refusal::Precondition { .. } | Refusal::SeqConflict { .. } => {
            Status::failed_precondition(text)
        }
        Refusal::AlreadyExists { .. } => Status::already_exists(text),
        Refusal::Exhausted { .. } | Refusal::NoRoom => Status::resource_exhausted(text),
    }
}

/// Something wrong with what the caller gave.
pub(super) fn invalid(why: impl ToString) -> Status {
    Status::invalid_argument(cut(why))
}

/// Nothing has this key.
pub(super) fn unknown(what: &str, key: impl std::fmt::Display) -> Status {
    Status::not_found(cut(format!("no such {what}: {key}")))
}

pub(super) fn stopping(stopping: Stopping) -> Status {
    Status::unavailable(stopping.to_string())
}

pub(super) fn stored(error: StoreError) -> Status {
    if let StoreError::Building { .. } = error {
        return Status::unavailable(cut(error));
    }
    tracing::error!(%error, "the store does not answer");
    Status::internal(cut(format!("the store does not answer: {error}; nothing is lost, it is built again")))
}

pub(super) fn journal(error: JournalError) -> Status {
    tracing::error!(%error, "the feed cannot read its journal");
    Status::internal(cut(error))
}

pub(super) fn invalid_cursor(error: InvalidCursor) -> Status {
    match error {
        InvalidCursor::Malformed(_) => invalid(error),
        InvalidCursor::OtherStore(_)
        | InvalidCursor::Beyond { .. }
        | InvalidCursor::Replaced { .. }
        | InvalidCursor::OtherFilter { .. } => Status::failed_precondition(cut(error)),
    }
}

/// Mistakes in rule files, a line each and many perhaps.
pub(super) fn mistakes(text: String) -> Status {
    let whole = text.len() <= TEXT_BYTES_MAX;
    let more = "\nand more: run `tocsin rules check` for all of them";
    Status::invalid_argument(if whole { text } else { cut(text) + more })
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn every_refusal_has_its_code() {
        for (refusal, code) in [
            (Refusal::not_found("incident", 7), Code::NotFound),
            (Refusal::Conflict { current: 3 }, Code::Aborted),
            (Refusal::invalid("no"), Code::InvalidArgument),
            (Refusal::denied("no"), Code::PermissionDenied),
            (Refusal::Degraded { first: 1, last: 2 }, Code::FailedPrecondition),
            (Refusal::Precondition { what: "no".into() }, Code::FailedPrecondition),
            (Refusal::AlreadyExists { what: "it".into() }, Code::AlreadyExists),
            (Refusal::Exhausted { what: "things".into(), max: 1 }, Code::ResourceExhausted),
        ] {
            assert_eq!(refused(refusal.clone()).code(), code, "{refusal:?}");
        }
        assert_eq!(stopping(Stopping).code(), Code::Unavailable);
        assert_eq!(stored(StoreError::Record("x".into())).code(), Code::Internal);
    }

    #[test]
    fn long_texts_are_cut_and_say_so() {
        let status = mistakes("é".repeat(TEXT_BYTES_MAX));
        assert!(status.message().len() < TEXT_BYTES_MAX + 100);
        assert!(status.message().ends_with("for all of them"));
        assert_eq!(mistakes("f:1:1: no".into()).message(), "f:1:1: no");
        let status = unknown("host", "x".repeat(1 << 20));
        assert!(status.message().len() < TEXT_BYTES_MAX + 100);
        assert!(
            refused(Refusal::not_found("consumer", "x".repeat(1 << 20))).message().len()
                < TEXT_BYTES_MAX + 100
        );
    }
}
