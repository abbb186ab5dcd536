//! What records of runs do, in order, late, twice, and without sense.

use tocsin_shared::identity::Env;
use tocsin_shared::incident::IncidentStatus;
use tocsin_shared::lane::Lane;
use tocsin_shared::ranges::RANGES_MAX;
use tocsin_shared::run::RunResult;
use uuid::Uuid;

use super::{GapRecord, Place};
use crate::state::testing::{Desk, agent, at, place, run_end, run_start};
use crate::state::{Command, Refusal, State};

fn start(seq: u64, run_id: u128) -> Command {
    Command::JobStarted { run: run_start(run_id, "backup", 0), place: place(seq) }
}

fn end(seq: u64, run_id: u128, job_name: &str, started: i64, ended: i64, exit_code: i32) -> Command {
    Command::JobEnded { run: run_end(run_id, job_name, started, ended, exit_code), place: place(seq) }
}

// Cases: P8, C-D2
#[test]
fn each_record_counts_once() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    for (command, events, why) in [
        (start(1, 1), &["job.started", "lane.moved"][..], "a start"),
        (start(1, 1), &[], "the same record again"),
        (end(2, 1, "backup", 0, 9, 0), &["job.succeeded", "lane.moved"], "its end"),
        (end(3, 1, "backup", 0, 9, 1), &["lane.moved"], "a result never changes"),
        (start(4, 1), &["lane.moved"], "a start after the end"),
        (end(5, 2, "backup", 0, 9, 0), &["job.succeeded", "lane.moved"], "an end without a start"),
    ] {
        assert_eq!(desk.done(command), events, "{why}");
    }
    let run = desk.state.run(Uuid::from_u128(1)).unwrap();
    assert_eq!(
        (&run.result, run.command.as_str()),
        (&RunResult::Succeeded, "run"),
        "the start's command stays"
    );
    let lane = desk.state.lane(agent(1), place(1).epoch, Lane::Outcomes).unwrap();
    assert_eq!((lane.floor(), lane.above()), (5, &[][..]));
}

#[test]
fn a_failure_pages_and_the_next_success_ends_it() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    let failed = desk.run_ends(1, 0, 65, 3);
    assert_eq!(failed, ["job.failed", "alert.triggered", "incident.triggered", "lane.moved"]);
    let incident = desk.incident(1);
    assert_eq!(incident.title, "JobFailed on web-1: backup failed with exit code 3 after 1m5s");
    assert!(incident.pages);
    assert_eq!(incident.labels.get("job_name"), Some("backup"));
    assert_eq!(incident.labels.get("team"), Some("shop"), "the host's own labels");
    assert_eq!(desk.run_ends(2, 100, 110, 1), ["job.failed", "alert.updated", "lane.moved"]);
    let succeeded = desk.run_ends(3, 200, 210, 0);
    assert_eq!(succeeded, ["job.succeeded", "alert.resolved", "incident.updated", "lane.moved"]);
    assert_eq!(desk.tick(60), ["incident.resolved"]);
}

#[test]
fn records_that_come_late_move_nothing_back() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    desk.run_ends(1, 100, 110, 1);
    let old = desk.run_ends(2, 0, 10, 0);
    assert_eq!(old, ["job.succeeded", "lane.moved"], "an older success is no evidence about the failure");
    desk.run_ends(3, 200, 210, 0);
    assert_eq!(desk.run_ends(4, 150, 160, 1), ["job.failed", "lane.moved"], "settled by the later success");
}

#[test]
fn another_job_is_another_incident() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    desk.done(end(1, 1, "backup", 0, 9, 1));
    desk.done(end(2, 2, "report", 0, 9, 1));
    assert_eq!(desk.state.open_incidents().count(), 2);
    desk.done(end(3, 3, "backup", 10, 19, 0));
    assert_eq!(desk.incident(2).auto_resolve_at, None, "the other job's success says nothing");
}

#[test]
fn failing_again_after_an_operator_resolved_is_news() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    desk.run_ends(1, 0, 9, 1);
    let on = crate::state::testing::on(1, "fixed the path");
    desk.done(Command::Resolve { on, code: "fixed".into() });
    let again = desk.run_ends(2, 10, 19, 1);
    assert_eq!(again, ["job.failed", "alert.updated", "incident.reopened", "lane.moved"]);
    assert_eq!(desk.incident(1).status, IncidentStatus::Triggered);
}

// Cases: P2, P3
#[test]
fn every_bad_end_has_its_words() {
    let killed = |core_dumped, out_of_memory| RunResult::Killed { signal: 9, core_dumped, out_of_memory };
    let interrupted = RunResult::Interrupted { reason: "the host was rebooted".into() };
    let missing = RunResult::CouldNotStart { errno: 2, message: "no such file".into() };
    for (result, value, summary) in [
        (RunResult::Failed { exit_code: 2 }, 2.0, "backup failed with exit code 2 after 9s"),
        (killed(false, false), 137.0, "backup was killed by SIGKILL after 9s"),
        (killed(true, false), 137.0, "backup was killed by SIGKILL and dumped core after 9s"),
        (killed(false, true), 137.0, "backup was killed for want of memory after 9s"),
        (interrupted, 1.0, "backup was interrupted (the host was rebooted)"),
        (missing, 1.0, "backup could not be started: no such file"),
    ] {
        let mut desk = Desk::with_hosts(1, Env::Prod);
        let mut run = run_end(1, "backup", 0, 9, 1);
        run.result = result;
        desk.done(Command::JobEnded { run, place: place(1) });
        let alert = desk.state.alerts().next().unwrap();
        assert_eq!((alert.value, alert.annotations.get("summary")), (value, Some(summary)));
    }
}

// Cases: H9
#[test]
fn a_record_without_sense_is_taken_and_noted() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    let mut run = run_end(1, "backup", 0, 9, 1);
    run.result = RunResult::Running;
    assert_eq!(desk.done(Command::JobEnded { run, place: place(1) }), ["lane.moved"]);
    assert!(desk.journal.last().unwrap().note.contains("ignored"));
    let mut run = run_end(2, "é", 0, 9, 1);
    run.output_tail = "é".repeat(40_000);
    run.command = "é".repeat(4_000);
    desk.done(Command::JobEnded { run, place: place(2) });
    let run = desk.state.run(Uuid::from_u128(2)).unwrap();
    assert_eq!((run.output_tail.len(), run.command.len()), (64 * 1024, 4 * 1024));
}

#[test]
fn gap_records_move_the_floor_of_their_lane() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    let gap = |lane, first, last| GapRecord {
        agent: agent(1),
        epoch: place(1).epoch,
        lane,
        first,
        last,
        reason: "evicted".into(),
    };
    let recorded =
        |lane, first, last, seq| Command::GapRecorded { gap: gap(lane, first, last), place: place(seq) };
    for (command, events, floors) in [
        (recorded(Lane::Samples, 1, 50, 1), 2, (1, 50)),
        (recorded(Lane::Samples, 1, 50, 1), 0, (1, 50)),
        (recorded(Lane::Outcomes, 2, 6, 7), 1, (7, 50)),
        (recorded(Lane::Samples, 9, 5, 8), 1, (8, 50)),
    ] {
        assert_eq!(desk.done(command.clone()).len(), events, "{command:?}");
        let floor = |lane| desk.state.lane(agent(1), place(1).epoch, lane).unwrap().floor();
        assert_eq!((floor(Lane::Outcomes), floor(Lane::Samples)), floors, "{command:?}");
    }
}

#[test]
fn too_many_holes_are_refused_until_they_are_filled() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    for n in 1..=RANGES_MAX as u64 {
        desk.done(end(2 * n, u128::from(n), "backup", 0, 9, 0));
    }
    let next = 2 * RANGES_MAX as u64 + 2;
    assert!(matches!(desk.ask(end(next, 999, "backup", 0, 9, 0)), Err(Refusal::Exhausted { .. })));
    desk.done(end(1, 998, "backup", 0, 9, 0));
    assert_eq!(desk.done(end(next, 999, "backup", 0, 9, 0)), ["job.succeeded", "lane.moved"]);
}

#[test]
fn only_hosts_in_service_are_heard() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    let mut run = run_end(1, "backup", 0, 9, 1);
    run.agent = agent(9);
    let place = Place { seq: 1, ..place(1) };
    assert!(matches!(desk.ask(Command::JobEnded { run, place }), Err(Refusal::NotFound { .. })));
    desk.done(Command::RetireHost { agent: agent(1), reason: String::new() });
    assert!(matches!(desk.ask(end(1, 1, "backup", 0, 9, 1)), Err(Refusal::Denied { .. })));
}

// Cases: C-D4
#[test]
fn another_record_with_a_key_that_was_taken_is_refused_and_not_applied() {
    use crate::state::lanes::CONTENTS_MAX;
    let mut desk = Desk::with_hosts(1, Env::Prod);
    let with = |seq, content| Place { content, ..place(seq) };
    let start = |run_id, place| Command::JobStarted { run: run_start(run_id, "backup", 0), place };
    desk.done(start(1, with(1, 11)));
    desk.done(start(2, with(3, 33)));
    let copy = State::restore(desk.state.last_seq(), 0, desk.state.records());
    assert_eq!(copy, desk.state, "a checkpoint keeps what tells them apart");
    for (seq, content, conflict, why) in [
        (1, 11, false, "the same record again"),
        (3, 33, false, "above a hole, too"),
        (1, 12, true, "another one"),
        (3, 34, true, "another one above a hole"),
    ] {
        let before = desk.state.clone();
        let refused = desk.ask(start(9, with(seq, content))).err();
        let expected = conflict.then_some(Refusal::SeqConflict { lane: "outcomes", seq });
        assert_eq!(refused, expected, "{why}");
        assert_eq!(desk.state, before, "{why}: nothing was applied");
    }
    for n in 0..CONTENTS_MAX as u64 {
        desk.done(start(100 + u128::from(n), with(10 + n, 1)));
    }
    assert_eq!(
        desk.ask(start(9, with(1, 12))).err(),
        None,
        "so old a record is not compared, and not applied"
    );
    assert!(desk.state.run(Uuid::from_u128(9)).is_none());
}

// Cases: C-D3 (partly)
#[test]
fn a_record_takes_effect_when_it_comes_and_what_came_late_moves_nothing_that_is_newer() {
    let end = |run_id, started, ended, code, seq| Command::JobEnded {
        run: run_end(run_id, "backup", started, ended, code),
        place: place(seq),
    };
    // A failure, a success and a failure of one job, as the spool numbered them; every order of arrival.
    let records = [(1, 0, 10, 1), (2, 20, 30, 0), (3, 40, 50, 1)];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut desk = Desk::with_hosts(1, Env::Prod);
        desk.now = 100;
        for (taken, record) in order.into_iter().enumerate() {
            let (run_id, started, ended, code) = records[record];
            desk.done(end(run_id, started, ended, code, record as u64 + 1));
            assert!(
                desk.state.run(Uuid::from_u128(run_id)).is_some(),
                "{order:?}: at once, not after the hole"
            );
            let epoch = place(1).epoch;
            let floor = desk.state.lane(agent(1), epoch, Lane::Outcomes).unwrap().floor();
            let expected =
                (1..=3).take_while(|seq: &usize| order[..=taken].contains(&(seq - 1))).count() as u64;
            assert_eq!(floor, expected, "{order:?}: the hole stays until it is filled");
        }
        let firing: Vec<_> = desk.state.active_alerts().map(|alert| alert.last_true).collect();
        assert_eq!(firing, [at(50)], "{order:?}: the last failure fires, whatever came when");
        let last = desk.state.runs_of_job(agent(1), "backup").count();
        assert_eq!(last, 3, "{order:?}");
    }
}
