//! One virtual host: makes rows and outcomes at its own pace, keeps them for ever, sends what is not acknowledged.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tocsin_proto::convert::Number as _;
use tocsin_proto::pb;
use tocsin_proto::pb::session_request::Kind as Up;
use tocsin_shared::chain::{CHAIN_ROWS_MAX, Chain};
use tocsin_shared::labels::Labels;
use tocsin_shared::lane::Lane;
use tocsin_shared::time::Timestamp;
use uuid::Uuid;

use super::{AGAIN, Shared};
use crate::dice::Dice;
use crate::promises::{HostBook, Outcome, RULES, Row, lock};
use crate::virtual_agent::{Session, VirtualAgent, table};

/// CLOCK_BOOTTIME of every virtual host at its start.
const BOOT_MS: u64 = 86_400_000;
/// Between two heartbeats.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// One run ends in so many rows.
const ROWS_PER_RUN: u64 = 10;
/// Rows that wait for their acknowledgement at most: minutes of them. Where rows are left out time stands still for
/// rules, and what is called for would be another thing.
const BEHIND_MAX: u64 = 3_000;
/// Rows and outcomes under way in a session: whoever sends without end never hears.
const ROWS_IN_FLIGHT: u64 = 64;
const OUTCOMES_IN_FLIGHT: u64 = 8;
/// Jobs of a host: few, so that failures and successes of one follow each other.
const JOBS: u64 = 4;

pub(super) struct Speaker {
    shared: Shared,
    agent: VirtualAgent,
    book: Arc<Mutex<HostBook>>,
    dice: Dice,
    opened: Instant,
    opened_ms: i64,
    ticks: u32,
}

/// How far one session has sent.
struct Sent {
    rows: u64,
    outcomes: u64,
    chain: Chain,
    /// The first row of the chain.
    begun: u64,
}

impl Speaker {
    pub(super) fn new(shared: Shared, agent: VirtualAgent, book: Arc<Mutex<HostBook>>, dice: Dice) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let opened_ms = since.as_millis() as i64;
        Self { shared, agent, book, dice, opened: Instant::now(), opened_ms, ticks: 0 }
    }

    pub(super) async fn run(mut self) {
        while !self.is_done() {
            if let Err(error) = self.session().await {
                self.shared.promises.failed(&self.agent.hostname, &error);
            }
            self.make();
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Both clocks; they run alike from the start on, whatever the wall clock of the machine does.
    fn clock(&self) -> pb::ClockReading {
        let since = self.opened.elapsed().as_millis() as u64;
        pb::ClockReading {
            wall_ms: self.opened_ms + since as i64,
            boot_ms: BOOT_MS + since,
            ..Default::default()
        }
    }

    async fn session(&mut self) -> anyhow::Result<()> {
        let mut session = self.agent.session_at(|| self.clock(), 1_000, Arc::default()).await?;
        self.heard(&session);
        session.say(Up::Table(table(1, &self.series(), &self.agent.boot_id))).await?;
        let width = self.shared.shape.slots + 1;
        let (rows, outcomes) = (session.taken, session.outcomes_taken);
        let mut sent = Sent { rows, outcomes, chain: Chain::new(width), begun: rows + 1 };
        let mut heartbeat = Instant::now();
        loop {
            self.make();
            self.send(&session, &mut sent).await?;
            if heartbeat.elapsed() > HEARTBEAT {
                heartbeat = Instant::now();
                let beat =
                    pb::Heartbeat { clock: Some(self.clock()), waiting: vec![0; 3], ..Default::default() };
                session.say(Up::Heartbeat(beat)).await?;
            }
            tokio::select! {
                heard = session.hear() => {
                    heard?;
                    self.heard(&session);
                }
                () = tokio::time::sleep(self.shared.shape.tick / 2) => {}
            }
            if self.is_done() {
                return Ok(());
            }
        }
    }

    /// A host that is not silenced stays, so that nobody calls it unreachable.
    fn is_done(&self) -> bool {
        self.is_silenced() && lock(&self.book).is_settled()
    }

    fn is_silenced(&self) -> bool {
        self.shared.promises.is_silenced(&self.agent.hostname)
    }

    fn heard(&self, session: &Session) {
        let heard = lock(&self.book).acknowledged(session.taken, session.outcomes_taken);
        heard.unwrap_or_else(|what| self.shared.promises.broke(what));
    }

    fn series(&self) -> Vec<Labels> {
        let level = |slot: usize| {
            let (rule, _, _) = RULES[slot % RULES.len()];
            Labels::series("promise_level", &[("slot", &slot.to_string()), ("rule", rule)])
        };
        let levels = (0..self.shared.shape.slots).map(level);
        levels.chain([Labels::series("promise_row", &[])]).collect()
    }

    /// Makes the rows that are due, and a run's outcome now and then.
    fn make(&mut self) {
        let tick = self.shared.shape.tick;
        while !self.shared.is_settling() && !self.is_silenced() && self.opened.elapsed() >= tick * self.ticks
        {
            self.ticks += 1;
            let mut book = lock(&self.book);
            if book.rows.len() as u64 - book.rows_acknowledged >= BEHIND_MAX {
                continue;
            }
            let changes = self.shared.shape.changes;
            let mut levels = match book.rows.last() {
                Some(row) => row.levels.clone(),
                None => vec![changes == 0; self.shared.shape.slots],
            };
            if changes > 0 {
                for _ in 0..self.dice.below(changes + 1) {
                    let slot = self.dice.below(levels.len() as u64) as usize;
                    levels[slot] = !levels[slot];
                }
            }
            let at_ms = self.opened_ms + (tick * self.ticks).as_millis() as i64;
            book.rows.push(Row { at_ms, levels });
            if changes > 0 && self.dice.once_in(ROWS_PER_RUN) {
                let job_name = format!("job-{}", self.dice.below(JOBS));
                let exit_code = *self.dice.one_of(&[0, 0, 0, 3]);
                let boot_ms = BOOT_MS + (tick * self.ticks).as_millis() as u64;
                let clock = pb::ClockReading { wall_ms: at_ms, boot_ms, ..Default::default() };
                let run_id = Uuid::new_v4().to_string();
                book.outcomes.push(Outcome { run_id, job_name, exit_code, clock });
            }
        }
    }

    async fn send(&self, session: &Session, sent: &mut Sent) -> anyhow::Result<()> {
        while let Some(message) = self.next_message(session, sent) {
            session.say(message).await?;
        }
        Ok(())
    }

    /// Outcomes before rows; a bounded number at a time.
    fn next_message(&self, session: &Session, sent: &mut Sent) -> Option<Up> {
        let mut book = lock(&self.book);
        let may_send = sent.outcomes - session.outcomes_taken < OUTCOMES_IN_FLIGHT;
        if let Some(outcome) = book.outcomes.get(sent.outcomes as usize).filter(|_| may_send) {
            sent.outcomes += 1;
            let record = record(sent.outcomes, outcome);
            book.outcomes_sent = book.outcomes_sent.max(sent.outcomes);
            return Some(Up::Records(pb::Records { lane: Lane::Outcomes.number(), records: vec![record] }));
        }
        let room = ROWS_IN_FLIGHT.saturating_sub(sent.rows - session.taken);
        let waiting = book.rows.iter().skip(sent.rows as usize).take(room as usize);
        let waiting: Vec<Row> = waiting.cloned().collect();
        if waiting.is_empty() {
            return None;
        }
        let rows: Vec<pb::Row> = waiting.iter().map(|row| self.encode(sent, row)).collect();
        book.rows_sent = book.rows_sent.max(sent.rows);
        Some(Up::Rows(pb::Rows { rows }))
    }

    fn encode(&self, sent: &mut Sent, row: &Row) -> pb::Row {
        sent.rows += 1;
        if sent.chain.rows() == CHAIN_ROWS_MAX {
            (sent.chain, sent.begun) = (Chain::new(row.levels.len() + 1), sent.rows);
        }
        let mut values: Vec<f64> = row.levels.iter().map(|level| f64::from(u8::from(*level))).collect();
        values.push(sent.rows as f64);
        let (index, mut data) = (sent.chain.rows(), Vec::new());
        let boot_ms = BOOT_MS + (row.at_ms - self.opened_ms) as u64;
        sent.chain.encode(Timestamp::from_millis(row.at_ms), boot_ms, &values, &mut data);
        pb::Row { seq: sent.rows, table_id: 1, chain: sent.begun, index, data: data.into() }
    }
}

fn record(seq: u64, outcome: &Outcome) -> pb::Record {
    use pb::run_result::{Failed, Kind, Succeeded};
    let Outcome { run_id, job_name, exit_code, clock } = outcome.clone();
    let kind = match exit_code {
        0 => Kind::Succeeded(Succeeded {}),
        exit_code => Kind::Failed(Failed { exit_code }),
    };
    let ended = pb::RunEnded {
        run_id,
        job_name,
        started: Some(clock.clone()),
        ended: Some(clock),
        user: "root".into(),
        command: "true".into(),
        result: Some(pb::RunResult { kind: Some(kind) }),
        ..Default::default()
    };
    pb::Record { seq, kind: Some(pb::record::Kind::RunEnded(ended)) }
}
