//! One host of the herd, and the book in which all of them write what happened.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tocsin_proto::convert::Number as _;
use tocsin_proto::pb;
use tocsin_proto::pb::session_request::Kind as Up;
use tocsin_shared::backoff::{Attempt, Backoff};
use tocsin_shared::chain::Chain;
use tocsin_shared::labels::Labels;
use tocsin_shared::lane::Lane;
use tocsin_shared::time::Timestamp;
use tokio::sync::watch;
use tokio::time::sleep_until;
use uuid::Uuid;

use super::Options;
use crate::counted::Traffic;
use crate::virtual_agent::{Session, VirtualAgent, table};

/// Rows of a batch of the backlog.
const BATCH: u64 = 50;
/// CLOCK_BOOTTIME of every host at the start.
const BOOT_MS: u64 = 100 * 86_400_000;
/// For name, TCP, TLS and Welcome together.
const PATIENCE: Duration = Duration::from_secs(30);

/// What happened, by agent.
#[derive(Default)]
pub(super) struct Ledger(Mutex<Book>);

#[derive(Default)]
struct Book {
    restarted: Option<Instant>,
    connected: HashMap<usize, bool>,
    back: HashMap<usize, Duration>,
    filled: HashMap<usize, Duration>,
    attempts: u64,
    rows: u64,
    outcomes: Vec<Duration>,
    live: Vec<Duration>,
}

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn restarted(&self, at: Instant) {
        let mut book = self.book();
        book.restarted = Some(at);
        // Who was quicker than we were.
        let quick: Vec<usize> = book.connected.iter().filter(|it| *it.1).map(|it| *it.0).collect();
        book.back.extend(quick.into_iter().map(|number| (number, Duration::ZERO)));
    }

    pub(super) fn connected(&self) -> usize {
        self.book().connected.values().filter(|connected| **connected).count()
    }

    pub(super) fn left(&self) -> usize {
        self.book().connected.values().filter(|connected| !**connected).count()
    }

    pub(super) fn back(&self) -> usize {
        self.book().back.len()
    }

    pub(super) fn filled(&self) -> usize {
        self.book().filled.len()
    }

    pub(super) fn rows(&self) -> u64 {
        self.book().rows
    }

    /// Attempts since the restart.
    pub(super) fn attempts(&self) -> u64 {
        self.book().attempts
    }

    pub(super) fn back_after(&self) -> Vec<Duration> {
        self.book().back.values().copied().collect()
    }

    pub(super) fn filled_after(&self) -> Vec<Duration> {
        self.book().filled.values().copied().collect()
    }

    pub(super) fn outcome_times(&self) -> Vec<Duration> {
        self.book().outcomes.clone()
    }

    pub(super) fn live_times(&self) -> Vec<Duration> {
        self.book().live.clone()
    }

    fn is(&self, number: usize, connected: bool) {
        let mut book = self.book();
        book.connected.insert(number, connected);
        if let (Some(restarted), true) = (book.restarted, connected) {
            book.back.entry(number).or_insert_with(|| restarted.elapsed());
        }
    }
}

/// One host. Rows 1 to `backlog` are what it kept; it sends them after the restart.
pub(super) struct Member {
    number: usize,
    agent: VirtualAgent,
    options: Options,
    ledger: Arc<Ledger>,
    /// 0: no backlog yet, 1: the collector is going, 2: everybody is back, 3: the end.
    phase: watch::Receiver<u32>,
    series: Vec<Labels>,
    begun: (Instant, i64),
    /// The next live row, and how much of the backlog is acknowledged.
    seq: u64,
    filled: u64,
    outcome: u64,
    /// What is unanswered: the outcome, the live row, the batch, since when.
    reported: Option<Instant>,
    sent: Option<Instant>,
    batch: Option<Instant>,
    fill_at: Instant,
    row_at: Instant,
    outcome_at: Instant,
}

impl Member {
    pub(super) fn new(
        number: usize,
        agent: VirtualAgent,
        options: Options,
        ledger: Arc<Ledger>,
        phase: watch::Receiver<u32>,
    ) -> Self {
        let now = Instant::now();
        let share = number as f64 / options.agents as f64;
        let series = (0..options.series).map(|at| Labels::series(&format!("herd_{at}"), &[])).collect();
        Self {
            number,
            agent,
            options,
            ledger,
            phase,
            series,
            begun: (now, wall_ms()),
            seq: options.backlog + 1,
            filled: 0,
            outcome: 1,
            reported: None,
            sent: None,
            batch: None,
            fill_at: now,
            row_at: now + options.interval.mul_f64(share),
            outcome_at: now + (options.outcome_every * options.agents as u32).mul_f64(share),
        }
    }

    /// Comes back again and again until the end.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let (mut backoff, mut wait) = (Backoff::default(), self.options.interval.mul_f64(random()));
        let mut phase = self.phase.clone();
        loop {
            let ended = tokio::select! {
                () = tokio::time::sleep(wait) => false,
                ended = phase.wait_for(|phase| *phase == 3) => ended.is_ok(),
            };
            if ended {
                return Ok(());
            }
            if *self.phase.borrow() > 0 {
                self.ledger.book().attempts += 1;
            }
            let clock = self.clock();
            let opened =
                tokio::time::timeout(PATIENCE, self.agent.session(clock, 1_000, Arc::<Traffic>::default()));
            let (attempt, session) = match opened.await {
                Ok(Ok(session)) => (Instant::now(), Some(session)),
                Ok(Err(_)) | Err(_) => (Instant::now(), None),
            };
            let mut asked = None;
            let lasted = match session {
                None => None,
                Some(session) => {
                    self.ledger.is(self.number, true);
                    let said = self.stream(session).await;
                    self.ledger.is(self.number, false);
                    let Err(error) = said else { return Ok(()) };
                    asked = pushback(&error);
                    Some(attempt.elapsed())
                }
            };
            // The fleet was connected for hours, so to say, when its collector restarted.
            let lasted = lasted.map(|lasted| {
                if *self.phase.borrow() == 1 { lasted.max(Duration::from_secs(60)) } else { lasted }
            });
            wait = backoff.next(Attempt { lasted, refused: false, asked }, random());
        }
    }

    fn clock(&self) -> pb::ClockReading {
        let since = self.begun.0.elapsed().as_millis();
        pb::ClockReading {
            wall_ms: self.begun.1 + since as i64,
            boot_ms: BOOT_MS + since as u64,
            ..Default::default()
        }
    }

    /// One session; ends well only with the run.
    async fn stream(&mut self, mut session: Session) -> anyhow::Result<()> {
        (self.reported, self.sent, self.batch) = (None, None, None); // What had no answer is sent again.
        self.settle(&session);
        session.say(Up::Table(table(1, &self.series, &self.agent.boot_id))).await?;
        let every = Duration::from_millis(session.heartbeat_ms.max(1_000).into());
        let mut heartbeat_at = Instant::now() + every.mul_f64(random());
        loop {
            let phase = *self.phase.borrow_and_update();
            let may_fill = phase > 0 && self.batch.is_none() && self.filled < self.options.backlog;
            let may_send = phase < 3 && self.sent.is_none();
            let may_report = phase < 3 && self.reported.is_none();
            if phase == 3 && self.sent.is_none() && self.reported.is_none() {
                return Ok(());
            }
            let due = |at: Instant| sleep_until(at.into());
            tokio::select! {
                heard = session.hear() => { heard?; self.settle(&session); }
                _ = self.phase.changed() => {}
                () = due(heartbeat_at) => {
                    let beat = pb::Heartbeat { clock: Some(self.clock()), waiting: vec![0; 3], ..Default::default() };
                    session.say(Up::Heartbeat(beat)).await?;
                    heartbeat_at += every;
                }
                () = due(self.outcome_at), if may_report => {
                    session.say(self.report()).await?;
                    self.reported = Some(Instant::now());
                }
                () = due(self.row_at), if may_send => {
                    session.say(self.rows(self.seq..=self.seq)).await?;
                    self.sent = Some(Instant::now());
                }
                () = due(self.fill_at), if may_fill => {
                    let last = (self.filled + BATCH).min(self.options.backlog);
                    session.say(self.rows(self.filled + 1..=last)).await?;
                    self.batch = Some(Instant::now());
                }
            }
        }
    }

    /// Takes what the collector says it has.
    fn settle(&mut self, session: &Session) {
        let (now, [outcomes, _, samples]) = (Instant::now(), &session.settled);
        let mut book = self.ledger.book();
        let storm = book.restarted.is_some();
        if outcomes.contains(self.outcome) {
            if let (Some(reported), true) = (self.reported.take(), storm) {
                book.outcomes.push(now - reported);
            }
            (self.outcome, self.outcome_at) =
                (self.outcome + 1, now + self.options.outcome_every * self.options.agents as u32);
        }
        if samples.contains(self.seq) {
            if let (Some(sent), true) = (self.sent.take(), storm) {
                book.live.push(now - sent);
            }
            (self.seq, self.row_at, book.rows) = (self.seq + 1, now + self.options.interval, book.rows + 1);
        }
        let filled = samples.floor().min(self.options.backlog);
        if filled > self.filled {
            (book.rows, self.filled) = (book.rows + filled - self.filled, filled);
            if let Some(sent) = self.batch.take() {
                self.fill_at = now + (now - sent); // It rests as long as it took.
            }
        }
        if let (true, Some(restarted)) = (filled == self.options.backlog, book.restarted) {
            book.filled.entry(self.number).or_insert(now - restarted);
        }
    }

    fn report(&self) -> Up {
        let ended = pb::RunEnded {
            run_id: Uuid::new_v4().to_string(),
            job_name: "herd".into(),
            started: Some(self.clock()),
            ended: Some(self.clock()),
            result: Some((&tocsin_shared::run::RunResult::Succeeded).into()),
            ..pb::RunEnded::default()
        };
        let record = pb::Record { seq: self.outcome, kind: Some(pb::record::Kind::RunEnded(ended)) };
        Up::Records(pb::Records { lane: Lane::Outcomes.number(), records: vec![record] })
    }

    /// Rows of one chain; those of the backlog are a second apart and end where the run begins.
    fn rows(&self, seqs: std::ops::RangeInclusive<u64>) -> Up {
        let mut chain = Chain::new(self.series.len());
        let first = *seqs.start();
        let row = |seq: u64| {
            let since = match seq > self.options.backlog {
                true => self.begun.0.elapsed().as_millis() as i64,
                false => (seq as i64 - self.options.backlog as i64 - 1) * 1_000,
            };
            // Each at a millisecond of its own, so that none falls on another when the clocks are mapped by seconds.
            let since = since.div_euclid(1_000) * 1_000 + seq as i64 % 1_000;
            let at = Timestamp::from_millis(self.begun.1 + since);
            let values: Vec<f64> = (0..self.series.len()).map(|at| (seq + at as u64) as f64).collect();
            let mut data = Vec::new();
            chain.encode(at, BOOT_MS.saturating_add_signed(since), &values, &mut data);
            pb::Row { seq, table_id: 1, chain: first, index: (seq - first) as u32, data: data.into() }
        };
        Up::Rows(pb::Rows { rows: seqs.map(row).collect() })
    }
}

/// The wall clock.
pub(super) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// How long the collector asked to stay away.
fn pushback(error: &anyhow::Error) -> Option<Duration> {
    let status = error.downcast_ref::<tonic::Status>()?;
    Some(Duration::from_millis(status.metadata().get("grpc-retry-pushback-ms")?.to_str().ok()?.parse().ok()?))
}

/// From 0 to 1, of a version 4 uuid: the crate that draws numbers is not worth a dependency here.
fn random() -> f64 {
    (Uuid::new_v4().as_u128() >> 75) as f64 / (1_u64 << 53) as f64
}
