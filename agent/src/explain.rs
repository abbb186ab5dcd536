//! An error with its causes in one line, for the log and for the last line before the end.
//!
//! Some messages hold their cause's already; what has been said is not said again.

use std::error::Error;

/// The message and those of its causes that add something.
pub fn one_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("cannot start")]
        Silent(#[source] std::io::Error),
        #[error("cannot start: {0}")]
        Telling(#[source] std::io::Error),
    }

    #[test]
    fn each_cause_is_said_once() {
        let cause = || std::io::Error::other("disk full");
        for error in [Outer::Silent(cause()), Outer::Telling(cause())] {
            assert_eq!(one_line(&error), "cannot start: disk full");
        }
    }
}
