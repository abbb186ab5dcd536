//! ⇄ How much a program writes into its own log: a place in the code that has something to say a thousand times a
//! second must not fill the disk that it complains of.
//!
//! Each place gets 50 lines in 30 s, and the whole program a number of bytes a day; what is held back is counted, and
//! the next line of that place says how many there were. `Limiter` is pure; `Limited` is the writer for `tracing`.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Metadata;
use tracing::callsite::Identifier;
use tracing_subscriber::fmt::MakeWriter;

/// Lines of one place in one period.
const LINES: u32 = 50;
const PERIOD: Duration = Duration::from_secs(30);
/// The part of a day's bytes that may be written at once: what a start and a bad hour say.
const BURST_PARTS: u64 = 8;
/// With less than this left of the day's bytes a line waits: about as long as one gets.
const LINE_BYTES: u64 = 1_024;

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// It is written, after so many of its place that were not.
    Written {
        held_back: u64,
    },
    HeldBack,
}

/// Lines of one place.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    began: Duration,
    lines: u32,
    held_back: u64,
}

/// Decides about each line. Places are those in the program's text, so there are not many.
#[derive(Debug)]
pub struct Limiter<Key> {
    places: HashMap<Key, Place>,
    /// Bytes a day.
    daily: u64,
    /// Bytes that may be written now, as they stood at `filled`.
    bytes: u64,
    filled: Duration,
}

impl<Key: std::hash::Hash + Eq> Limiter<Key> {
    /// A limiter of a program that writes at most so many bytes a day.
    pub fn new(daily: u64) -> Self {
        let bytes = daily / BURST_PARTS;
        Self { places: HashMap::new(), daily, bytes, filled: Duration::ZERO }
    }

    /// Decides about a line of a place; `now` is time since the program's start.
    pub fn line(&mut self, key: Key, now: Duration) -> Line {
        self.fill(now);
        let enough = self.bytes >= LINE_BYTES;
        let place = self.places.entry(key).or_default();
        if now.saturating_sub(place.began) >= PERIOD {
            (place.began, place.lines) = (now, 0);
        }
        if place.lines >= LINES || !enough {
            place.held_back += 1;
            return Line::HeldBack;
        }
        place.lines += 1;
        Line::Written { held_back: std::mem::take(&mut place.held_back) }
    }

    /// So many bytes were written.
    pub fn spent(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn fill(&mut self, now: Duration) {
        let seconds = now.saturating_sub(self.filled).as_secs();
        let burst = self.daily / BURST_PARTS;
        // The burst is part of the day's bytes.
        let more = (self.daily - burst) / 86_400 * seconds;
        if more > 0 {
            (self.bytes, self.filled) = ((self.bytes + more).min(burst), now);
        }
    }
}

/// Writes to standard error, within limits.
#[derive(Debug)]
pub struct Limited {
    began: Instant,
    limiter: Mutex<Limiter<Identifier>>,
}

impl Limited {
    /// At most so many bytes a day.
    pub fn new(daily: u64) -> Self {
        Self { began: Instant::now(), limiter: Mutex::new(Limiter::new(daily)) }
    }

    fn limiter(&self) -> std::sync::MutexGuard<'_, Limiter<Identifier>> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line on its way.
#[derive(Debug)]
pub struct LineWriter<'a> {
    log: &'a Limited,
    line: Line,
}

impl<'a> MakeWriter<'a> for Limited {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter { log: self, line: Line::Written { held_back: 0 } }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        let line = self.limiter().line(meta.callsite(), self.began.elapsed());
        LineWriter { log: self, line }
    }
}

impl Write for LineWriter<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let Line::Written { held_back } = &mut self.line else { return Ok(text.len()) };
        let mut out = io::stderr().lock();
        let held_back = std::mem::take(held_back);
        let mut bytes = text.len();
        if held_back > 0 {
            let note = format!("({held_back} lines like the next one were held back)\n");
            out.write_all(note.as_bytes())?;
            bytes += note.len();
        }
        out.write_all(text)?;
        self.log.limiter().spent(bytes as u64);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 10 << 20;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    // Cases: S25
    #[test]
    fn a_place_says_fifty_lines_in_thirty_seconds_and_how_many_it_did_not() {
        let mut limiter = Limiter::new(DAY);
        for _ in 0..50 {
            assert_eq!(limiter.line("disk", at(1)), Line::Written { held_back: 0 });
        }
        for second in 1..30 {
            assert_eq!(limiter.line("disk", at(second)), Line::HeldBack, "at {second}");
        }
        assert_eq!(limiter.line("other", at(29)), Line::Written { held_back: 0 }, "another place");
        assert_eq!(limiter.line("disk", at(31)), Line::Written { held_back: 29 });
        assert_eq!(limiter.line("disk", at(32)), Line::Written { held_back: 0 }, "said once");
    }

    // Cases: S25
    #[test]
    fn a_flood_of_lines_from_every_place_is_less_than_ten_mebibytes_a_day() {
        let mut limiter = Limiter::new(DAY);
        let (mut written, mut lines) = (0, 0);
        for second in 0..86_400 {
            for place in 0..10 {
                let now = at(second);
                if let Line::Written { .. } = limiter.line(place, now) {
                    limiter.spent(200);
                    written += 200;
                    lines += 1;
                }
            }
        }
        assert!(written <= DAY, "{written} bytes");
        assert!(lines > 10_000, "{lines} lines: it does not fall silent");
    }
}
