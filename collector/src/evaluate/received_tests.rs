//! Rules over what sources push.

use tocsin_shared::access::Role;
use tocsin_shared::alert::Condition;
use tocsin_shared::event::Actor;
use tocsin_shared::labels::Labels;
use tocsin_shared::sample::STALE_NAN;

use super::tests::Bench;
use crate::samples::received::{Cell, Origin, Place};
use crate::state::Command;
use crate::state::testing::{at, digest};

const RULES: &str = "  interval: 10s\n  rules:\n  - {alert: Down, expr: 'up == 0', for: 20s, labels: {severity: critical}}\n  - {alert: Few, expr: 'sum(up) < 1'}\n";

impl Bench {
    /// A source that the collector knows.
    fn with_source(self, name: &str) -> Self {
        let (name, role) = (name.to_owned(), Role::Writer);
        let known = Command::CreatePrincipal { name, role, secret_sha256: digest(7), expires_at: None };
        self.ledger.submit_blocking(known, Actor::System).unwrap().unwrap();
        self
    }

    /// A source says of some instances whether they are up; the alerts after it, by name.
    fn scrape(&mut self, source: &str, seconds: i64, up: &[(&str, f64)]) -> Vec<(String, Condition)> {
        for (instance, value) in up {
            let labels = Labels::series("up", &[("job", "api"), ("instance", instance)]);
            let place = Place::default();
            let cells = [Cell { labels: &labels, place: &place, value: *value }];
            self.store.append_received(&Origin::of(source, &labels), at(seconds), &cells);
        }
        self.store.note_source(source, at(seconds));
        self.evaluator.fleet().unwrap();
        let mut alerts = self.alerts();
        alerts.sort_by(|a, b| a.0.cmp(&b.0));
        alerts
    }
}

fn named(name: &str, condition: Condition) -> (String, Condition) {
    (name.to_owned(), condition)
}

#[test]
fn an_instance_that_is_down_fires_after_its_time_and_is_over_when_it_is_up() {
    let mut bench = Bench::new(RULES).with_source("prom");
    let (pending, firing) = (named("Down", Condition::Pending), named("Down", Condition::Firing));
    assert_eq!(bench.scrape("prom", 0, &[("a", 1.0), ("b", 1.0)]), []);
    assert_eq!(bench.scrape("prom", 10, &[("a", 0.0), ("b", 1.0)]), std::slice::from_ref(&pending));
    assert_eq!(bench.scrape("prom", 20, &[("a", 0.0), ("b", 1.0)]), [pending]);
    assert_eq!(bench.scrape("prom", 30, &[("a", 0.0), ("b", 1.0)]), std::slice::from_ref(&firing));
    let labels = bench.ledger.read_blocking(|state| {
        let alert = state.alerts().next().unwrap();
        (alert.labels.get("instance").map(str::to_owned), alert.agent, alert.env)
    });
    assert_eq!(labels.unwrap(), (Some("a".into()), None, tocsin_shared::identity::Env::Prod));
    bench.evaluator.fleet().unwrap();
    assert_eq!(bench.alerts(), [firing], "silence moves nothing");
    bench.restart();
    assert_eq!(bench.scrape("prom", 40, &[("a", 1.0), ("b", 1.0)]), [named("Down", Condition::Resolved)]);
}

#[test]
fn a_marker_is_an_end_and_rules_across_hosts_need_no_agent() {
    let mut bench = Bench::new(RULES).with_source("prom");
    bench.scrape("prom", 0, &[("a", 0.0)]);
    let few = named("Few", Condition::Firing);
    assert_eq!(bench.scrape("prom", 30, &[("a", 0.0)]), [named("Down", Condition::Firing), few]);
    let after = bench.scrape("prom", 40, &[("a", STALE_NAN), ("b", 1.0)]);
    assert_eq!(after, [named("Down", Condition::Resolved), named("Few", Condition::Resolved)]);
}

#[test]
fn while_a_source_is_silent_what_it_said_stays() {
    let mut bench = Bench::new(RULES).with_source("prom");
    for seconds in [0, 10, 20] {
        bench.scrape("prom", seconds, &[("a", 0.0)]);
    }
    // Another source goes on for longer than rules look back.
    let other = Command::CreatePrincipal {
        name: "other".into(),
        role: Role::Writer,
        secret_sha256: digest(8),
        expires_at: None,
    };
    bench.ledger.submit_blocking(other, Actor::System).unwrap().unwrap();
    let mut down = Vec::new();
    for seconds in (30..=500).step_by(10) {
        down = bench.scrape("other", seconds, &[("z", 1.0)]);
    }
    assert!(down.contains(&named("Down", Condition::Firing)), "its silence is no evidence: {down:?}");
    bench
        .ledger
        .submit_blocking(Command::RevokePrincipal { name: "prom".into() }, Actor::System)
        .unwrap()
        .unwrap();
    let down = bench.scrape("other", 520, &[("z", 1.0)]);
    assert!(down.contains(&named("Down", Condition::Resolved)), "nobody waits for it any more: {down:?}");
}
