//! What a collector promised while it was being killed, written down outside of it, and what is there in the end.
//!
//! Virtual hosts, operators and consumers write here what they were told: an acknowledged row, an answered command, an
//! event. Nothing here is ever killed. In the end everything promised must be there, once: rows with their values, runs,
//! acts, every transition that the rows call for at the row that calls for it, and a feed in which no one sees a gap, or
//! an event again that was acknowledged.

mod acts;
mod breaches;
mod reading;
mod rows;
mod told;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tocsin_proto::pb;

use crate::feed::{Feed, Received};
use crate::site::Site;

pub use acts::{Act, Answer};
pub use breaches::RULES;
pub use reading::Reading;
pub use rows::{HostBook, Outcome, Row};

/// Findings that a report shows; the rest is only counted.
const SHOWN: usize = 12;
/// Between two comparisons while the collector catches up.
const LOOK: Duration = Duration::from_millis(250);

/// Everything that was promised.
#[derive(Default)]
pub struct Promises {
    pub hosts: Vec<Arc<Mutex<HostBook>>>,
    acts: Mutex<Vec<Act>>,
    readings: Mutex<Vec<Reading>>,
    seen: Mutex<reading::Seen>,
    broken: Mutex<Vec<String>>,
    /// Hosts that fell silent, and may be called unreachable, once.
    silenced: Mutex<BTreeSet<String>>,
}

/// A lock whose holder may have panicked: what it guards is complete after every change.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How much was promised, for the report.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub rows: usize,
    pub outcomes: usize,
    pub acts: usize,
    pub events: usize,
    pub transitions: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.outcomes += other.outcomes;
        self.acts += other.acts;
        self.events += other.events;
        self.transitions += other.transitions;
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rows, outcomes, acts, events, transitions } = self;
        write!(f, "{rows} rows, {outcomes} outcomes, {acts} acts, {events} events, {transitions} transitions")
    }
}

impl Promises {
    /// A promise that was broken before anybody's eyes.
    pub fn broke(&self, what: String) {
        lock(&self.broken).push(what);
    }

    /// An error of a call or a stream. A collector that was killed is unreachable; one that refuses has forgotten.
    pub fn failed(&self, who: &str, error: &anyhow::Error) {
        let Some(status) = error.chain().find_map(|cause| cause.downcast_ref::<tonic::Status>()) else {
            return;
        };
        if refuses(status) {
            self.broke(format!("{who} was refused: {status}"));
        }
    }

    /// A host sends what it has and nothing more.
    pub fn silence(&self, hostname: &str) {
        lock(&self.silenced).insert(hostname.to_owned());
    }

    pub fn is_silenced(&self, hostname: &str) -> bool {
        lock(&self.silenced).contains(hostname)
    }

    pub fn act(&self, act: Act) {
        lock(&self.acts).push(act);
    }

    /// What a consumer read in one go.
    pub fn read(&self, reading: Reading) {
        lock(&self.readings).push(reading);
    }

    /// An event that somebody saw: it must be the same for ever.
    pub fn saw(&self, event: &pb::Event) {
        if let Err(what) = lock(&self.seen).add(event) {
            self.broke(what);
        }
    }

    /// Compares, again and again until all is as promised and the collector is at rest; else an error with what is not.
    pub async fn kept(&self, site: &Site, within: Duration) -> anyhow::Result<Counts> {
        let begun = Instant::now();
        let feed = Feed::follow(site.credential_file());
        let mut resting_at = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            let (before, late) = (resting_at, begun.elapsed() > within);
            resting_at = head(site).await?;
            if before != resting_at && !late {
                continue;
            }
            let received = feed.received();
            let mut broken = self.compare(&received);
            if broken.is_empty() {
                broken = self.ask(site).await?;
            }
            match broken.is_empty() && head(site).await? == resting_at {
                true => return Ok(self.counts(&received)),
                false if late => anyhow::bail!("{}", told(&broken, resting_at)),
                false => {}
            }
        }
    }

    /// What the feed shows against what was promised.
    fn compare(&self, received: &[Received]) -> Vec<String> {
        let events: Vec<&pb::Event> = received.iter().map(|received| &received.event).collect();
        let mut broken = lock(&self.broken).clone();
        broken.extend(told::check(&events, &lock(&self.silenced)));
        broken.extend(reading::check(&lock(&self.readings), &lock(&self.seen), &events));
        broken.extend(acts::check(&lock(&self.acts), &events));
        for book in &self.hosts {
            let book = lock(book);
            broken.extend(breaches::check(&book, &events));
            broken.extend(rows::check_outcomes(&book, &events));
        }
        broken
    }

    /// What queries give against what was promised.
    async fn ask(&self, site: &Site) -> anyhow::Result<Vec<String>> {
        let mut broken = Vec::new();
        for book in &self.hosts {
            let book = lock(book).clone();
            broken.extend(rows::ask(&site.api, &book).await.context("cannot ask for rows")?);
        }
        let acts = lock(&self.acts).clone();
        broken.extend(acts::ask(&site.api, &acts).await.context("cannot ask for what operators did")?);
        Ok(broken)
    }

    fn counts(&self, received: &[Received]) -> Counts {
        let books = || self.hosts.iter().map(|book| lock(book));
        Counts {
            rows: books().map(|book| book.rows.len()).sum(),
            outcomes: books().map(|book| book.outcomes.len()).sum(),
            acts: lock(&self.acts).iter().filter(|act| act.answer == Answer::Done).count(),
            events: received.len(),
            transitions: received
                .iter()
                .filter(|received| {
                    matches!(received.event.kind.as_str(), "alert.triggered" | "alert.resolved")
                })
                .count(),
        }
    }
}

async fn head(site: &Site) -> anyhow::Result<u64> {
    Ok(site.api.admin().get_status(pb::GetStatusRequest {}).await?.into_inner().events_head)
}

fn told(broken: &[String], head: u64) -> String {
    let shown = broken.iter().take(SHOWN).map(|what| format!("\n  {what}"));
    let rest = broken.len().saturating_sub(SHOWN);
    match broken.is_empty() {
        true => format!("the collector is not at rest: it writes events still, the last is {head}"),
        false => format!("{} promises broken:{}\n  and {rest} more", broken.len(), shown.collect::<String>()),
    }
}

/// Whether a status is an answer, and not the end of a process.
pub fn refuses(status: &tonic::Status) -> bool {
    use tonic::Code;
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unauthenticated
            | Code::ResourceExhausted
    )
}
