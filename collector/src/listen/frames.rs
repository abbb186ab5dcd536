//! HTTP/2 frames, counted as they come in: what costs work and carries nothing has a budget.
//!
//! Pure. The HTTP/2 library answers each PING and SETTINGS, keeps a place for each DATA frame that nobody has read,
//! however empty, and opens and resets streams as fast as they are asked for. Here frames are only counted, before
//! the library sees them. Promise: a client that calls, streams, cancels and pings as clients do stays far below the
//! budgets; one that floods is over them within a second, and costs no more than the budgets until then.
//! Not here: what frames mean.

use std::time::Instant;

use crate::rate::{Allowance, Rate};

/// The client's opening of HTTP/2.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER: usize = 9;
/// SETTINGS, PING, RST_STREAM, PRIORITY, CONTINUATION, what is unknown, and DATA with next to nothing in it. Clients
/// send some at the start, one for each cancelled call, and one ping a few seconds.
const IDLE: Rate = Rate { burst: 300.0, per_second: 30.0 };
/// New streams beside those that are answered: what is opened only to be reset, or all at once.
const CALLS: Rate = Rate { burst: 2_000.0, per_second: 500.0 };
/// The least answer to a call, with its headers and trailers; a reset takes a third of it.
const WRITTEN_PER_CALL: f64 = 40.0;
/// WINDOW_UPDATE comes as answers are read, so answers earn more of it.
const UPDATES: Rate = Rate { burst: 1_000.0, per_second: 100.0 };
const WRITTEN_PER_UPDATE: f64 = 512.0;
/// Clients that measure the link ping while they read; half of a default frame earns one.
const WRITTEN_PER_IDLE: f64 = 8_192.0;
/// DATA below this that ends no stream counts as idle: the smallest message that an agent repeats is a heartbeat.
const TINY: usize = 64;

/// Calls that may owe their message at once: ten times what a connection may have open.
const UNSAID_MAX: u32 = 1_000;

/// Which budget a peer has used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    #[error("the peer floods with frames that carry nothing")]
    Idle,
    #[error("the peer opens streams too fast")]
    Calls,
    #[error("the peer floods with window updates")]
    Updates,
}

/// What is known of a connection's frames.
#[derive(Debug)]
pub struct Frames {
    header: [u8; HEADER],
    filled: usize,
    payload: usize,
    /// A header block whose end has not come.
    in_block: bool,
    since: Instant,
    /// When the frame or header block began that is not whole yet.
    begun: Option<Instant>,
    calls_seen: bool,
    idle: Allowance,
    calls: Allowance,
    updates: Allowance,
    /// Calls whose message has not come: one small frame each is that, and no idleness.
    unsaid: u32,
}

impl Frames {
    /// Of a connection that began at `since` and has said its opening.
    pub fn new(since: Instant, now: Instant) -> Self {
        Self {
            header: [0; HEADER],
            filled: 0,
            payload: 0,
            in_block: false,
            since,
            begun: None,
            calls_seen: false,
            idle: Allowance::new(IDLE, now),
            calls: Allowance::new(CALLS, now),
            updates: Allowance::new(UPDATES, now),
            unsaid: 0,
        }
    }

    /// Since when the peer has owed the rest of what it began: its opening and first call, a frame, a header block.
    pub fn owed_since(&self) -> Option<Instant> {
        if self.calls_seen { self.begun } else { Some(self.since) }
    }

    /// Bytes went out to the peer.
    pub fn wrote(&mut self, bytes: usize) {
        let bytes = bytes as f64;
        self.updates.earn(bytes / WRITTEN_PER_UPDATE);
        self.idle.earn(bytes / WRITTEN_PER_IDLE);
        self.calls.earn(bytes / WRITTEN_PER_CALL);
    }

    /// Bytes came in, after the opening.
    pub fn read(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Excess> {
        while !bytes.is_empty() {
            if self.payload == 0 {
                self.begun = self.begun.or(Some(now));
                let taken = (HEADER - self.filled).min(bytes.len());
                self.header[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
                self.filled += taken;
                bytes = &bytes[taken..];
                if self.filled < HEADER {
                    return Ok(());
                }
                self.filled = 0;
                self.frame(now)?;
            }
            let passed = self.payload.min(bytes.len());
            self.payload -= passed;
            bytes = &bytes[passed..];
            if self.payload == 0 && !self.in_block {
                self.begun = None;
            }
        }
        Ok(())
    }

    /// A frame begins.
    fn frame(&mut self, now: Instant) -> Result<(), Excess> {
        const END_STREAM: u8 = 1;
        const END_HEADERS: u8 = 4;
        const PADDED: u8 = 8;
        let [a, b, c, kind, flags, ..] = self.header;
        self.payload = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let has = |flag: u8| flags & flag != 0;
        if let 1 | 9 = kind {
            self.in_block = !has(END_HEADERS);
            self.calls_seen |= !self.in_block;
        }
        match kind {
            // Padding is given back to the window at once, so that padded nothing would be free.
            0 if (TINY <= self.payload || has(END_STREAM)) && !has(PADDED) => Ok(()),
            0 if 0 < self.payload && 0 < self.unsaid && !has(PADDED) => {
                self.unsaid -= 1;
                Ok(())
            }
            1 => {
                self.unsaid = (self.unsaid + 1).min(UNSAID_MAX);
                self.calls.take(1.0, now).map_err(|_| Excess::Calls)
            }
            8 => self.updates.take(1.0, now).map_err(|_| Excess::Updates),
            _ => self.idle.take(1.0, now).map_err(|_| Excess::Idle),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.resize(HEADER + payload, 0);
        frame
    }

    fn opened(now: Instant) -> Frames {
        let mut frames = Frames::new(now, now);
        frames.read(&frame(1, 5, 20), now).unwrap();
        frames
    }

    // Cases: H1, H2, H3, H4
    #[test]
    fn floods_are_over_their_budget_and_clients_are_not() {
        let begun = Instant::now();
        let second = Duration::from_secs(1);
        // So many frames a second, written bytes with each, for a minute; the excess, if any.
        for (name, frame, each_second, written, want) in [
            ("pings", frame(6, 0, 8), 1_000, 0, Some(Excess::Idle)),
            ("settings", frame(4, 0, 0), 1_000, 0, Some(Excess::Idle)),
            ("empty data", frame(0, 0, 0), 1_000, 0, Some(Excess::Idle)),
            ("padded data", frame(0, 8, 200), 1_000, 0, Some(Excess::Idle)),
            ("resets", frame(3, 0, 4), 1_000, 0, Some(Excess::Idle)),
            ("priorities", frame(2, 0, 5), 1_000, 0, Some(Excess::Idle)),
            ("continuations", frame(9, 0, 1), 1_000, 0, Some(Excess::Idle)),
            ("unknown frames", frame(77, 0, 1), 1_000, 0, Some(Excess::Idle)),
            ("calls", frame(1, 5, 30), 5_000, 0, Some(Excess::Calls)),
            ("calls that are reset", frame(1, 5, 30), 5_000, 13, Some(Excess::Calls)),
            ("questions as fast as answers", frame(1, 5, 30), 5_000, 44, None),
            ("window updates", frame(8, 0, 4), 5_000, 0, Some(Excess::Updates)),
            ("a dashboard", frame(1, 5, 30), 100, 200, None),
            ("small questions", [frame(1, 4, 30), frame(0, 0, 43), frame(0, 1, 0)].concat(), 400, 200, None),
            (
                "bits of questions",
                [frame(1, 4, 30), frame(0, 0, 1).repeat(9)].concat(),
                100,
                0,
                Some(Excess::Idle),
            ),
            ("cancelled calls", frame(3, 0, 4), 20, 0, None),
            ("rows", frame(0, 0, 1_200), 2_000, 0, None),
            ("heartbeats each second", frame(0, 0, 30), 1, 0, None),
            ("reading a large answer", frame(8, 0, 4), 10_000, 16_384, None),
            ("pings while reading", frame(6, 0, 8), 1_000, 16_384, None),
        ] {
            let mut frames = opened(begun);
            let excess = (0..60 * each_second).find_map(|sent| {
                frames.wrote(written);
                frames.read(&frame, begun + second * sent / each_second).err()
            });
            assert_eq!(excess, want, "{name}");
        }
    }

    // Cases: H5
    #[test]
    fn what_is_begun_is_owed_until_it_is_whole() {
        let begun = Instant::now();
        let later = |seconds| begun + Duration::from_secs(seconds);
        let mut frames = Frames::new(begun, later(1));
        frames.read(&frame(4, 0, 6), later(2)).unwrap();
        assert_eq!(frames.owed_since(), Some(begun), "no call yet");
        let call = frame(1, 4, 20);
        frames.read(&call[..12], later(3)).unwrap();
        frames.read(&call[12..], later(4)).unwrap();
        assert_eq!(frames.owed_since(), None);
        for (part, why) in [(&call[..5], "half a header"), (&call[..12], "half a payload")] {
            let mut frames = opened(begun);
            frames.read(part, later(5)).unwrap();
            assert_eq!(frames.owed_since(), Some(later(5)), "{why}");
        }
        let mut frames = opened(begun);
        frames.read(&frame(1, 0, 20), later(6)).unwrap();
        frames.read(&frame(9, 0, 20), later(7)).unwrap();
        assert_eq!(frames.owed_since(), Some(later(6)), "the block goes on");
        frames.read(&frame(9, 4, 20), later(8)).unwrap();
        assert_eq!(frames.owed_since(), None);
        let upload = frame(0, 0, 16_384).repeat(10);
        for (at, part) in upload.chunks(10_000).enumerate() {
            frames.read(part, later(10 + at as u64)).unwrap();
            let since = frames.owed_since().unwrap_or(later(10 + at as u64));
            assert!(later(8 + at as u64) <= since, "each frame has its own time");
        }
    }

    #[test]
    fn bytes_one_by_one_are_the_same_frames() {
        let begun = Instant::now();
        let mut frames = opened(begun);
        let bytes = [frame(0, 0, 0), frame(4, 0, 12), frame(0, 0, 100)].concat().repeat(140);
        for byte in &bytes {
            frames.read(&[*byte], begun).unwrap();
        }
        assert!(frames.idle.take(20.0, begun).is_ok());
        assert!(frames.idle.take(1.0, begun).is_err(), "280 of 300 were counted");
    }
}
