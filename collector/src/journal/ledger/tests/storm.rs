//! A storm of alerts: thousands of transitions as fast as evaluation gives them, over a real disk.
//!
//! By hand, in a release build, with more of them and the figures on the screen:
//! `TOCSIN_STORM=50000 cargo test --release -p tocsin-collector --lib storm -- --nocapture`

use std::time::{Duration, Instant};

use tocsin_shared::alert::Condition;
use tocsin_shared::disk::RealDisk;
use tocsin_shared::severity::Severity;

use super::*;
use crate::state::testing::{at, evaluation, heard, rule};

/// How far what people wait for may be behind a storm.
const LAG_MAX: Duration = Duration::from_secs(10);
/// Transitions without the environment variable: some seconds of a debug build on a busy machine.
const TRANSITIONS: usize = 2_000;
const HOSTS: usize = 10;
const EACH: usize = 50;

#[allow(clippy::disallowed_methods, reason = "a measurement by hand asks for its size")]
fn transitions() -> usize {
    std::env::var("TOCSIN_STORM").ok().and_then(|text| text.parse().ok()).unwrap_or(TRANSITIONS)
}

fn on_disk(dir: &Path) -> Opened {
    open(Arc::new(RealDisk), dir).unwrap()
}

// Cases: R11 (partly)
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stdout, reason = "figures of a measurement")]
async fn a_storm_loses_no_alert_and_holds_nobody_up_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let fatal = Fatal::new(CancellationToken::new());
    let ledger = on_disk(dir.path()).start(Defaults::default(), fatal.clone());
    for n in 1..=HOSTS as u128 {
        enrol(&ledger, n).await.unwrap().unwrap();
        ledger.submit(Command::HostHeard(heard(n)), Actor::System).await.unwrap().unwrap();
    }
    let rounds = transitions().div_ceil(HOSTS * EACH);
    let devices: Vec<String> = (0..EACH).map(|n| format!("disk-{n}")).collect();
    let (begun, storm) = (Instant::now(), ledger.clone());
    // Alerts fire at even rounds and end at odd ones; the last round leaves them all firing.
    let storm = std::thread::spawn(move || {
        for round in 0..rounds {
            let fires = (rounds - 1 - round).is_multiple_of(2);
            for n in 1..=HOSTS {
                let severity = if n == 1 { "critical" } else { "warning" };
                let elements: Vec<_> = devices.iter().map(|device| (device.as_str(), severity)).collect();
                let elements = if fires { &elements[..] } else { &[] };
                let rule = rule(&format!("storm-{}", n % 7), 0, 0);
                let command = evaluation(&rule, n as u128, round as i64 + 1, round as u64 + 1, elements);
                storm.post_blocking(command, Actor::System).unwrap();
            }
        }
    });
    // The last one is asked behind all of the storm.
    let (mut worst, mut asked, mut over) = (Duration::ZERO, 0u32, false);
    while !over {
        over = storm.is_finished();
        let asking = Instant::now();
        let wanted = Command::CreateToken(token(1_000 + u128::from(asked), Env::Prod, "*"));
        ledger.submit(wanted, Actor::System).await.unwrap().unwrap();
        worst = worst.max(asking.elapsed());
        asked += 1;
    }
    storm.join().unwrap();
    let state = ledger.read(State::clone).await.unwrap();
    let took = begun.elapsed();
    let firing: Vec<_> = state.active_alerts().filter(|alert| alert.condition == Condition::Firing).collect();
    assert_eq!(firing.len(), HOSTS * EACH, "no alert is lost");
    assert_eq!(firing.iter().filter(|alert| alert.severity == Severity::Critical).count(), EACH);
    assert!(firing.iter().all(|alert| alert.incident.is_some_and(|number| state.incident(number).is_some())));
    assert!(firing.iter().all(|alert| alert.fired_at == Some(at(rounds as i64))));
    assert!(worst < LAG_MAX, "a command waited for {worst:?}");
    let events = state.last_seq();
    println!("{events} events in {took:?}; of {asked} commands meanwhile the slowest took {worst:?}");

    let reopened = Instant::now();
    let again = on_disk(&copied(dir.path()));
    println!("a start folds them in {:?}", reopened.elapsed());
    assert_eq!(*again.state(), state);
    ledger.stop().await;
    assert_eq!(fatal.reason(), None);
}

/// What a start would find now.
fn copied(dir: &Path) -> std::path::PathBuf {
    let copy = dir.join("copy");
    std::fs::create_dir_all(copy.join("events")).unwrap();
    for entry in std::fs::read_dir(dir.join("events")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join("events").join(entry.file_name())).unwrap();
    }
    copy
}
