//! The end of a job's output, in the order in which it was written, in bounded memory. Pure.

use tocsin_shared::job::OutputTail;
use tocsin_shared::redact::redact;

/// What a report may hold, and some before it, so that a secret that straddles the cut is still seen as one.
pub(crate) const KEPT_BYTES: usize = OutputTail::MAX + 4096;

/// The last `KEPT_BYTES` of all that was pushed. Memory grows with the output, up to that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    bytes: std::collections::VecDeque<u8>,
    /// All that was ever pushed, in bytes.
    total: u64,
}

/// A tail as it may leave the process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub text: OutputTail,
    pub total: u64,
    pub truncated: bool,
}

impl Tail {
    /// Appends output; what is too old falls off.
    pub(crate) fn push(&mut self, output: &[u8]) {
        self.total += output.len() as u64;
        let output = &output[output.len().saturating_sub(KEPT_BYTES)..];
        let overflow = (self.bytes.len() + output.len()).saturating_sub(KEPT_BYTES);
        self.bytes.drain(..overflow);
        self.bytes.extend(output);
    }

    /// Notes output of which only the end, already pushed, could be had.
    pub(crate) fn skip(&mut self, bytes: u64) {
        self.total += bytes;
    }

    /// As text without secrets: invalid UTF-8 replaced, redacted, then cut.
    pub(crate) fn show(&mut self) -> Shown {
        let kept = self.bytes.len() as u64;
        let text = String::from_utf8_lossy(self.bytes.make_contiguous());
        let clean = redact(&text);
        let truncated = self.total > kept || clean.len() > OutputTail::MAX;
        Shown { text: OutputTail::keep_end(&clean), total: self.total, truncated }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[&[u8]]) -> Shown {
        let mut tail = Tail::default();
        pieces.iter().for_each(|piece| tail.push(piece));
        tail.show()
    }

    // Cases: P5
    #[test]
    fn short_output_is_kept_whole() {
        for (pieces, text, total) in [
            (&[][..], "", 0),
            (&[&b"one\n"[..], b"two\n"], "one\ntwo\n", 8),
            (&[&b"bad \xff\0\x1b[0m"[..]], "bad \u{fffd}\0\u{1b}[0m", 10),
            (&[&b"\xe2\x82"[..], b"\xac split"], "€ split", 9),
            (&[&b"PASSWORD=hunter2\n"[..]], "PASSWORD=[redacted]\n", 17),
        ] {
            let shown = shown(pieces);
            assert_eq!((&*shown.text, shown.total, shown.truncated), (text, total, false));
        }
    }

    // Cases: P5
    #[test]
    fn a_flood_leaves_its_end() {
        let mut tail = Tail::default();
        for line in 0..200_000 {
            tail.push(format!("{line:07}\n").as_bytes());
        }
        tail.push(&[b'x'; 100]);
        assert!(tail.bytes.len() <= KEPT_BYTES);
        let shown = tail.show();
        assert_eq!((shown.text.len(), shown.total, shown.truncated), (65_536, 1_600_100, true));
        assert!(shown.text.ends_with(&format!("0199999\n{}", "x".repeat(100))));
    }

    // Cases: P5
    #[test]
    fn one_huge_piece_is_cut_before_it_is_copied() {
        let shown = shown(&[b"first", &[b'y'; 3 * KEPT_BYTES]]);
        assert_eq!((shown.text.len(), shown.truncated), (OutputTail::MAX, true));
    }

    // Cases: C-X5
    #[test]
    fn a_secret_across_the_cut_does_not_leak_its_end() {
        let secret = format!("password={}", "S".repeat(2000));
        let rest = "z".repeat(OutputTail::MAX - 1000);
        let shown = shown(&[secret.as_bytes(), b"\n", rest.as_bytes()]);
        assert!(!shown.text.contains('S'));
    }

    // Cases: P5
    #[test]
    fn bytes_that_grow_as_text_still_fit() {
        let shown = shown(&[&[0xff; 60_000]]);
        assert!(shown.text.len() <= OutputTail::MAX && shown.truncated);
    }
}
