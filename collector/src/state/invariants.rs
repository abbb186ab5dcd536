//! What must hold after any commands in any order: few hosts, rules and jobs, so that they meet.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tocsin_shared::alert::{Alert, AlertSource, Condition, ResolveReason};
use tocsin_shared::event::{Event, EventKind, Subject};
use tocsin_shared::identity::Env;
use tocsin_shared::incident::IncidentStatus;

use super::testing::{
    Desk, agent, at, enrolment, evaluation, heard, labels, on, place, rule, run_end, run_start, token,
};
use super::{Command, State};
use crate::alert::Filled;
use crate::jobs::GapRecord;

#[derive(Clone, Debug)]
enum Step {
    Wait(i64),
    /// Rule, host, how many seconds ago, and which devices are breached how badly (0 is clear, 5 is doubtful).
    Evaluate(usize, u128, i64, [usize; 2]),
    Rules(Vec<bool>),
    Acknowledge(u64),
    Resolve(u64),
    Unacknowledge(u64),
    Note(u64),
    JobStarted(u128, u64),
    JobEnded(u128, u64, i64, i32),
    Gap(u64, u64),
    Heard(u128),
    Silent(u128),
    Retire(u128),
    Enrol(u128),
    Clock(u128, i64),
    /// Host, and for how many seconds no row came.
    RowsMissing(u128, i64),
    HoleOpened(u128, i64),
    /// Host, by how much earlier what is active began on the copy, and how much of it fires there.
    HoleClosed(u128, i64, [bool; 2]),
}

const RULES: [(&str, u64, u64); 3] = [("quick", 0, 0), ("slow", 40, 0), ("kept", 0, 40)];
const SEVERITIES: [&str; 4] = ["info", "warning", "error", "critical"];

fn step() -> impl Strategy<Value = Step> {
    let number = 1u64..8;
    prop_oneof![
        6 => (1i64..2_500).prop_map(Step::Wait),
        6 => (1i64..40).prop_map(Step::Wait),
        20 => (0..RULES.len(), 1u128..4, -20i64..20, [0usize..6, 0usize..6])
            .prop_map(|(rule, host, ago, devices)| Step::Evaluate(rule, host, ago.max(0), devices)),
        1 => prop::collection::vec(any::<bool>(), RULES.len()).prop_map(Step::Rules),
        4 => number.clone().prop_map(Step::Acknowledge),
        2 => number.clone().prop_map(Step::Resolve),
        1 => number.clone().prop_map(Step::Unacknowledge),
        1 => number.prop_map(Step::Note),
        2 => (1u128..9, 1u64..40).prop_map(|(run, seq)| Step::JobStarted(run, seq)),
        6 => (1u128..9, 1u64..40, 0i64..60, 0i32..2)
            .prop_map(|(run, seq, ago, code)| Step::JobEnded(run, seq, ago, code)),
        1 => (1u64..40, 1u64..40).prop_map(|(seq, first)| Step::Gap(seq, first)),
        3 => (1u128..4).prop_map(Step::Heard),
        2 => (1u128..4).prop_map(Step::Silent),
        1 => (1u128..4).prop_map(Step::Retire),
        1 => (4u128..9).prop_map(Step::Enrol),
        1 => (1u128..4, -100i64..100).prop_map(|(host, by)| Step::Clock(host, by)),
        1 => (1u128..4, 30i64..100).prop_map(|(host, by)| Step::RowsMissing(host, by)),
        2 => (1u128..4, 0i64..100).prop_map(|(host, ago)| Step::HoleOpened(host, ago)),
        2 => (1u128..4, -20i64..60, any::<[bool; 2]>())
            .prop_map(|(host, by, fires)| Step::HoleClosed(host, by, fires)),
    ]
}

/// What a copy may come to: some of the host's alerts, other than they are.
fn filled(state: &State, host: u128, now: i64, by: i64, fires: [bool; 2]) -> Filled {
    let alerts = state.alerts().filter(|alert| alert.agent == Some(agent(host)));
    let rules = alerts.filter(|alert| alert.source == AlertSource::Rule);
    let moved = |(alert, fires): (&Alert, bool)| Alert {
        condition: if fires { Condition::Firing } else { Condition::Pending },
        active_since: at((alert.active_since.as_millis() - at(0).as_millis()) / 1_000 - by),
        generation: alert.generation + u32::from(fires && alert.condition != Condition::Firing),
        ..alert.clone()
    };
    let active: Vec<Alert> = rules.zip(fires.into_iter().cycle()).map(moved).collect();
    let ended = active.iter().filter(|alert| alert.generation % 2 == 1).map(|alert| Alert {
        condition: Condition::Resolved,
        resolved_at: Some(at(now)),
        resolve_reason: Some(ResolveReason::Source),
        ..alert.clone()
    });
    Filled { agent: agent(host), at: at(now), samples_seq: 1, ended: ended.collect(), active }
}

fn command(step: &Step, state: &State, now: i64, samples_seq: u64) -> Command {
    match *step {
        Step::Wait(_) => Command::Tick,
        Step::Evaluate(rule_at, host, ago, devices) => {
            let (id, hold, keep) = RULES[rule_at];
            let breached = ["sda", "sdb"].into_iter().zip(devices);
            let elements =
                breached.clone().filter_map(|(name, n)| Some((name, *SEVERITIES.get(n.checked_sub(1)?)?)));
            let elements: Vec<_> = elements.collect();
            let command = evaluation(&rule(id, hold, keep), host, now - ago, samples_seq, &elements);
            let Command::Evaluated(mut evaluation) = command else { unreachable!("it is an evaluation") };
            let doubtful = breached.filter(|(_, n)| *n == 1 + SEVERITIES.len());
            let instance = format!("web-{host}");
            evaluation.doubtful =
                doubtful.map(|(name, _)| labels(&[("device", name), ("instance", &instance)])).collect();
            evaluation.before = Some(at(now - ago - 10));
            Command::Evaluated(evaluation)
        }
        Step::Rules(ref kept) => {
            let kept = RULES.iter().zip(kept).filter(|(_, kept)| **kept);
            Command::RulesChanged { rule_ids: kept.map(|((id, _, _), _)| (*id).to_owned()).collect() }
        }
        Step::Acknowledge(number) => Command::Acknowledge(on(number, "")),
        Step::Resolve(number) => Command::Resolve { on: on(number, "done"), code: "fixed".into() },
        Step::Unacknowledge(number) => Command::Unacknowledge(on(number, "")),
        Step::Note(number) => Command::Note(on(number, "a note")),
        Step::JobStarted(run, seq) => {
            Command::JobStarted { run: run_start(run, "backup", now), place: place(seq) }
        }
        Step::JobEnded(run, seq, ago, code) => Command::JobEnded {
            run: run_end(run, "backup", now - ago - 5, now - ago, code),
            place: place(seq),
        },
        Step::Gap(seq, first) => {
            let place = place(seq);
            let reason = "evicted".into();
            let gap = GapRecord {
                agent: agent(1),
                epoch: place.epoch,
                lane: place.lane,
                first,
                last: first + 2,
                reason,
            };
            Command::GapRecorded { gap, place }
        }
        Step::Heard(host) => Command::HostHeard(heard(host)),
        Step::Silent(host) => Command::HostSilent { agent: agent(host), since: at(now - 30) },
        Step::Retire(host) => Command::RetireHost { agent: agent(host), reason: String::new() },
        Step::Clock(host, by) => Command::ClockStepped { agent: agent(host), clock_offset_ms: by * 1_000 },
        Step::RowsMissing(host, by) => {
            let (from, to) = (at(now - by), at(now));
            Command::RowsMissing { agent: Some(agent(host)), from, to, samples_seq }
        }
        Step::HoleOpened(host, ago) => {
            Command::HoleOpened { agent: agent(host), from: at(now - ago), samples_seq }
        }
        Step::HoleClosed(host, by, fires) => Command::HoleClosed(filled(state, host, now, by, fires)),
        Step::Enrol(host) => Command::Enrol(enrolment(host, &format!("web-{host}"))),
    }
}

/// What the state must look like after any command.
fn check_state(state: &State) {
    let mut open = BTreeSet::new();
    for incident in state.open_incidents() {
        assert!(open.insert(&incident.incident_key), "two open incidents of {}", incident.incident_key);
        assert_eq!(incident.status == IncidentStatus::Acknowledged, incident.ack.is_some());
        let fires = state.firing_of_incident(incident.number).next().is_some();
        assert_ne!(
            fires,
            incident.auto_resolve_at.is_some(),
            "it ends by itself if and only if nothing fires: {incident:?}"
        );
        let worst = state.firing_of_incident(incident.number).map(|alert| alert.severity).max();
        assert!(worst.is_none_or(|worst| worst <= incident.severity), "a severity is hidden: {incident:?}");
        for alert in state.firing_of_incident(incident.number) {
            let known = incident.alerts.iter().find(|known| known.dedup_key == alert.dedup_key).unwrap();
            assert!(known.firing && known.generation == alert.generation, "{known:?}");
        }
    }
    for incident in state.incidents() {
        assert_eq!(incident.status.is_open(), incident.resolution.is_none());
    }
    for alert in state.alerts().filter(|alert| alert.condition == Condition::Firing) {
        assert!(!alert.opens_incident || alert.incident.is_some(), "it fires without an incident: {alert:?}");
    }
}

/// What a batch of events must look like beside the state before it.
fn check_batch(before: &State, command: &Command, events: &[Event]) {
    let mut severities = BTreeMap::new();
    for event in events {
        if let Subject::Incident(incident) = &event.subject {
            severities.insert(incident.number, incident);
        }
        if event.kind == EventKind::AlertResolved {
            let Subject::Alert(alert) = &event.subject else { panic!("an alert's event has an alert") };
            let evidence = match command {
                Command::Evaluated(_) | Command::JobEnded { .. } | Command::HostHeard(_) => {
                    ResolveReason::Source
                }
                Command::RulesChanged { .. } => ResolveReason::RuleRemoved,
                Command::RetireHost { .. } => ResolveReason::HostRetired,
                other => panic!("resolved without evidence by {other:?}"),
            };
            assert_eq!(alert.resolve_reason, Some(evidence));
        }
    }
    for (number, after) in severities {
        let worse = before.incident(number).is_some_and(|before| after.severity > before.severity);
        assert!(
            !worse || after.status != IncidentStatus::Acknowledged,
            "an acknowledgement hides a worsening"
        );
    }
}

/// What the journal must look like as a whole.
fn check_journal(journal: &[Event]) {
    let (mut key_seqs, mut numbers) = (BTreeMap::<String, u64>::new(), 0);
    for (n, event) in journal.iter().enumerate() {
        assert!(n == 0 || event.seq == journal[n - 1].seq + 1);
        assert!(event.cause.is_none_or(|cause| cause < event.seq), "a cause comes before: {event:?}");
        let (key, key_seq) = match &event.subject {
            Subject::Alert(alert) => (alert.dedup_key.clone(), alert.key_seq),
            Subject::Incident(incident) => (incident.number.to_string(), incident.key_seq),
            _ => continue,
        };
        let last = key_seqs.entry(key).or_default();
        assert_eq!(key_seq, *last + u64::from(event.kind.is_public()), "key_seq has a gap: {event:?}");
        *last = key_seq;
        if event.kind == EventKind::IncidentTriggered {
            numbers += 1;
            assert!(matches!(&event.subject, Subject::Incident(incident) if incident.number == numbers));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn hold_after_any_commands(steps in prop::collection::vec(step(), 1..120)) {
        let mut desk = Desk::with_hosts(3, Env::Prod);
        for n in 4..9 {
            desk.done(Command::CreateToken(token(n, Env::Uat, "*")));
        }
        desk.now = 100;
        for (n, step) in steps.iter().enumerate() {
            if let Step::Wait(seconds) = step {
                desk.now += seconds;
            }
            let command = command(step, &desk.state, desk.now, n as u64 + 1);
            let before = desk.state.clone();
            match desk.ask(command.clone()) {
                Ok(events) => check_batch(&before, &command, &events),
                Err(_) => prop_assert_eq!(&before, &desk.state),
            }
            check_state(&desk.state);
            if !matches!(step, Step::Note(_) | Step::Acknowledge(_)) {
                let again = desk.ask(command.clone()).unwrap_or_default();
                let public: Vec<_> = again.iter().filter(|event| event.kind.is_public()).collect();
                prop_assert!(public.is_empty(), "said twice: {:?}: {:?}", step, public);
            }
        }
        check_journal(&desk.journal);
        let state = &desk.state;
        let copy = State::restore(state.last_seq(), state.evaluated_through(), state.records());
        prop_assert_eq!(&copy, state);
        prop_assert_eq!(copy.records(), state.records());
    }
}
