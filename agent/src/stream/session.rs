//! What to send next on one connection, what is still unanswered, and when the connection is of no use any more.
//!
//! Pure: numbers and moments in, decisions out; `now` is time since any fixed moment. Promises: outcomes go before
//! state, state before rows; a new row goes at once, unless the window is full or 64 ranges are open, and after a
//! connection the newest row goes first, so that the collector knows what is true now and what is past; holes are filled
//! from the floor upwards, one batch at a time, resting as long as each took, so that a backlog takes at most half of
//! the link; a message is as large as the link carries in a second or two, so that an outcome never waits long behind
//! another, and each message can be answered before the connection counts as dead; at most four messages and 4 MiB are
//! unanswered. An acknowledgement of what was not sent, or of another
//! session, is an error and settles nothing.

use std::collections::VecDeque;
use std::time::Duration;

use tocsin_shared::lane::Lane;
use tocsin_shared::ranges::Ranges;

/// Messages without an answer; rows leave one of them to outcomes.
const IN_FLIGHT_MAX: usize = 4;
const ROWS_IN_FLIGHT_MAX: usize = 3;
/// Bytes without an answer: with the collector's buffers this bounds what a reconnect sends twice.
const BYTES_IN_FLIGHT_MAX: usize = 4 << 20;
/// Without any progress for this long while something is in flight, the connection is dead, whatever TCP says.
pub(crate) const PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);
/// A series table is one message of up to megabytes and is not acknowledged: it gets the time that 64 kbit/s take.
const TABLE_BYTES_PER_SECOND: u32 = 8 << 10;
/// The size of a message starts here and follows the link: on 64 kbit/s this takes 2 s, so that an outcome never waits
/// long behind it. A message that needs longer than `PROGRESS_TIMEOUT` would never be acknowledged at all.
const SIZE_BYTES: (usize, usize, usize) = (8 << 10, 16 << 10, 1 << 20);
/// A message that took less may be doubled, one that took more is halved.
const QUICK: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(2);
/// The longest rest between two batches.
const FILL_REST_MAX: Duration = Duration::from_secs(10);
/// Rows that are sent in their order after a short break. Of more, the newest goes first: an agent that was silent for
/// longer than three ticks counts as unreachable, and what it saw meanwhile as past.
const IN_ORDER_MAX: u64 = 3;
/// How often the collector may want to hear of us.
const HEARTBEATS: (u32, u32, u32) = (1_000, 10_000, 60_000);

/// Why a connection must end, though the network says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionError {
    #[error(
        "the collector acknowledged record {acked} of lane {lane}, and only {sent} were sent: nothing was removed"
    )]
    AckBeyondSent { lane: Lane, acked: u64, sent: u64 },
    #[error("the collector acknowledged in session {got}, this is session {expected}: nothing was removed")]
    OtherSession { got: u64, expected: u64 },
    #[error("the collector acknowledged nothing for {} s", PROGRESS_TIMEOUT.as_secs())]
    NoProgress,
}

/// The next thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Heartbeat,
    /// Send the records of a lane from a number on, about so many bytes.
    Records {
        lane: Lane,
        first: u64,
        bytes: usize,
    },
    /// Send rows of this hole, about so many bytes.
    Fill {
        first: u64,
        last: u64,
        bytes: usize,
    },
    /// Nothing before this moment, unless something happens.
    Wait {
        until: Duration,
    },
}

/// How many bytes a message has: as many as the link carries in a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size(usize);

impl Size {
    fn follow(&mut self, took: Duration) {
        if took < QUICK {
            self.0 = (self.0 * 2).min(SIZE_BYTES.2);
        } else if took > SLOW {
            self.0 = (self.0 / 2).max(SIZE_BYTES.0);
        }
    }
}

/// A message without an answer.
#[derive(Clone, Debug)]
struct Flight {
    lane: Lane,
    /// Its numbers, as closed ranges.
    numbers: Vec<(u64, u64)>,
    bytes: usize,
    is_fill: bool,
    sent_at: Duration,
}

/// One connection after its Welcome.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    number: u64,
    /// The next record of the outcomes and of the state lane.
    next: [u64; 2],
    /// Rows that were sent here, or need not be.
    rows: Ranges,
    /// Rows that the collector has.
    taken: Ranges,
    /// The highest number of each lane that the collector may know.
    highest: [u64; 3],
    flights: VecDeque<Flight>,
    progress_at: Duration,
    /// What tables on their way get on top of `PROGRESS_TIMEOUT`.
    tables_take: Duration,
    quiet_until: Duration,
    /// Of messages of records, and of batches of a hole.
    records_size: Size,
    fill_size: Size,
    fill_at: Duration,
    heartbeat_every: Duration,
    heartbeat_at: Duration,
}

impl Session {
    /// A session that the collector calls `number`, with what is settled of each lane.
    pub(crate) fn new(number: u64, settled: [Ranges; 3], now: Duration) -> Self {
        let highest = settled.each_ref().map(Ranges::highest);
        let [outcomes, state, rows] = settled;
        Self {
            number,
            next: [outcomes.floor() + 1, state.floor() + 1],
            taken: rows.clone(),
            rows,
            highest,
            flights: VecDeque::new(),
            progress_at: now,
            tables_take: Duration::ZERO,
            quiet_until: Duration::ZERO,
            records_size: Size(SIZE_BYTES.1),
            fill_size: Size(SIZE_BYTES.1),
            fill_at: Duration::ZERO,
            heartbeat_every: Duration::from_millis(HEARTBEATS.1.into()),
            heartbeat_at: now,
        }
    }

    /// The collector's wish; what is out of range is brought into it.
    pub(crate) fn set_heartbeat(&mut self, millis: u32, now: Duration) {
        let millis = if millis == 0 { HEARTBEATS.1 } else { millis.clamp(HEARTBEATS.0, HEARTBEATS.2) };
        self.heartbeat_every = Duration::from_millis(millis.into());
        self.heartbeat_at = self.heartbeat_at.min(now + self.heartbeat_every);
    }

    /// What to do now. `durable` is the end of each lane.
    pub(crate) fn action(&self, durable: [u64; 3], now: Duration) -> Result<Action, SessionError> {
        if !self.flights.is_empty() && now >= self.dead_at() {
            return Err(SessionError::NoProgress);
        }
        if now >= self.heartbeat_at {
            return Ok(Action::Heartbeat);
        }
        for lane in [Lane::Outcomes, Lane::State] {
            let first = self.next[lane.index()];
            if first <= durable[lane.index()] && self.has_room(IN_FLIGHT_MAX) {
                return Ok(Action::Records { lane, first, bytes: self.records_size.0 });
            }
        }
        if let (Some((first, last)), true) = (self.unsent(durable[2]), self.may_fill(now)) {
            let bytes = self.fill_size.0.min(BYTES_IN_FLIGHT_MAX - self.bytes());
            return Ok(Action::Fill { first, last, bytes });
        }
        Ok(Action::Wait { until: self.next_moment(now) })
    }

    fn dead_at(&self) -> Duration {
        self.progress_at + PROGRESS_TIMEOUT + self.tables_take
    }

    fn may_fill(&self, now: Duration) -> bool {
        let one_at_a_time = !self.flights.iter().any(|flight| flight.is_fill);
        one_at_a_time && now >= self.fill_at && now >= self.quiet_until && self.has_room(ROWS_IN_FLIGHT_MAX)
    }

    fn next_moment(&self, now: Duration) -> Duration {
        let progress = if self.flights.is_empty() { self.heartbeat_at } else { self.dead_at() };
        let timers = [self.fill_at, self.quiet_until].into_iter().filter(|at| *at > now);
        timers.fold(self.heartbeat_at.min(progress), Duration::min)
    }

    /// What of the rows up to `end` is to be sent next: the newest, then the oldest.
    fn unsent(&self, end: u64) -> Option<(u64, u64)> {
        let past = end > self.rows.highest() + IN_ORDER_MAX;
        if past && !self.rows.is_full() { Some((end, end)) } else { self.hole(end) }
    }

    /// The first rows, up to `end`, that were not sent.
    fn hole(&self, end: u64) -> Option<(u64, u64)> {
        let first = self.rows.floor() + 1;
        let last = self.rows.above().first().map_or(end, |range| (range.0 - 1).min(end));
        (first <= last).then_some((first, last))
    }

    fn bytes(&self) -> usize {
        self.flights.iter().map(|flight| flight.bytes).sum()
    }

    fn has_room(&self, messages: usize) -> bool {
        self.flights.len() < messages && self.bytes() < BYTES_IN_FLIGHT_MAX
    }

    /// Whether a new row goes at once; otherwise it is part of the backlog.
    pub(crate) fn takes_live(&self, seq: u64, now: Duration) -> bool {
        let opens_no_range = self.rows.contains(seq - 1) || !self.rows.is_full();
        opens_no_range
            && !self.rows.contains(seq)
            && now >= self.quiet_until
            && self.has_room(ROWS_IN_FLIGHT_MAX)
    }

    /// A heartbeat went out.
    pub(crate) fn sent_heartbeat(&mut self, now: Duration) {
        self.heartbeat_at = now + self.heartbeat_every;
    }

    /// A series table went out.
    pub(crate) fn sent_table(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.tables_take +=
            Duration::from_secs(1).mul_f64(f64::from(bytes) / f64::from(TABLE_BYTES_PER_SECOND));
    }

    /// Records went out, or there were none to send; reading goes on at `next`.
    pub(crate) fn sent_records(
        &mut self,
        lane: Lane,
        numbers: &[u64],
        next: u64,
        bytes: usize,
        now: Duration,
    ) {
        if let Some(cursor) = self.next.get_mut(lane.index()) {
            *cursor = next.max(*cursor);
        }
        self.fly(lane, numbers, bytes, false, now);
    }

    /// A new row went out by itself.
    pub(crate) fn sent_live(&mut self, seq: u64, bytes: usize, now: Duration) {
        // Refused only when 64 ranges are open, which `takes_live` has looked at; then it is sent again.
        self.rows.insert(seq).ok();
        self.fly(Lane::Samples, &[seq], bytes, false, now);
    }

    /// Rows of a hole went out; everything from `first` to before `next` is sent or need not be.
    pub(crate) fn sent_fill(&mut self, first: u64, next: u64, numbers: &[u64], bytes: usize, now: Duration) {
        if next > first {
            // It begins at the floor or is the newest: `unsent` has seen that there is room for a range.
            self.rows.insert_range(first, next - 1).ok();
        }
        if numbers.is_empty() {
            // Nothing there after all: not to be asked for again at once.
            self.fill_at = now + if next > first { Duration::ZERO } else { QUICK };
        }
        self.fly(Lane::Samples, numbers, bytes, true, now);
    }

    fn fly(&mut self, lane: Lane, numbers: &[u64], bytes: usize, is_fill: bool, now: Duration) {
        let Some(last) = numbers.last() else { return };
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for seq in numbers {
            match ranges.last_mut() {
                Some(range) if range.1 + 1 == *seq => range.1 = *seq,
                _ => ranges.push((*seq, *seq)),
            }
        }
        if self.flights.is_empty() {
            self.progress_at = now;
        }
        let highest = &mut self.highest[lane.index()];
        *highest = (*last).max(*highest);
        self.flights.push_back(Flight { lane, numbers: ranges, bytes, is_fill, sent_at: now });
    }

    /// Whether an acknowledgement is one of this session and of what was sent. Changes nothing.
    pub(crate) fn check(&self, session: u64, lanes: &[(Lane, Ranges)]) -> Result<(), SessionError> {
        if session != self.number {
            return Err(SessionError::OtherSession { got: session, expected: self.number });
        }
        for (lane, taken) in lanes {
            let (lane, acked, sent) = (*lane, taken.highest(), self.highest[lane.index()]);
            if acked > sent {
                return Err(SessionError::AckBeyondSent { lane, acked, sent });
            }
        }
        Ok(())
    }

    /// Takes a checked acknowledgement.
    pub(crate) fn acknowledged(&mut self, lanes: &[(Lane, Ranges)], now: Duration) {
        for (lane, taken) in lanes {
            if *lane == Lane::Samples {
                self.taken.merge(taken); // What 64 ranges do not hold is sent again at worst.
                self.rows.merge(taken); // After a refusal these may count as not sent.
            }
            let (answered, open): (VecDeque<Flight>, VecDeque<Flight>) =
                std::mem::take(&mut self.flights).into_iter().partition(|flight| {
                    let done = |(first, last): &(u64, u64)| taken.contains_range(*first, *last);
                    flight.lane == *lane && flight.numbers.iter().all(done)
                });
            self.flights = open;
            for flight in answered {
                (self.progress_at, self.tables_take) = (now, Duration::ZERO);
                let took = now.saturating_sub(flight.sent_at);
                if flight.is_fill {
                    self.fill_size.follow(took);
                    self.fill_at = now + took.min(FILL_REST_MAX);
                } else if flight.lane != Lane::Samples {
                    self.records_size.follow(took);
                }
            }
        }
    }

    /// The collector took none of the rows that it has not acknowledged: they are to be sent again. The first attempt
    /// is a small one, as it may be refused, too.
    pub(crate) fn refused(&mut self, now: Duration) {
        self.flights.retain(|flight| flight.lane != Lane::Samples);
        self.rows = self.taken.clone();
        (self.fill_size, self.fill_at) = (Size(SIZE_BYTES.0), now);
    }

    /// The collector wants fewer rows for a while.
    pub(crate) fn throttled(&mut self, wait: Duration, now: Duration) {
        self.quiet_until = self.quiet_until.max(now + wait.min(Duration::from_secs(600)));
    }
}

#[cfg(test)]
mod tests;
