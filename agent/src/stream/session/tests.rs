//! What a session sends next, as tables.

use super::*;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn ranges(floor: u64, above: &[(u64, u64)]) -> Ranges {
    let mut ranges = Ranges::up_to(floor);
    for (first, last) in above {
        ranges.insert_range(*first, *last).unwrap();
    }
    ranges
}

/// A session that has sent its first heartbeat.
fn session(settled: [Ranges; 3]) -> Session {
    let mut session = Session::new(7, settled, Duration::ZERO);
    session.set_heartbeat(60_000, Duration::ZERO);
    session.sent_heartbeat(Duration::ZERO);
    session
}

fn fill(session: &mut Session, first: u64, last: u64, now: Duration) {
    let numbers: Vec<u64> = (first..=last).collect();
    session.sent_fill(first, last + 1, &numbers, 1000, now);
}

fn samples(taken: Ranges) -> Vec<(Lane, Ranges)> {
    vec![(Lane::Samples, taken)]
}

#[test]
fn outcomes_go_before_state_before_rows() {
    let none = || [Ranges::default(), Ranges::default(), Ranges::default()];
    let some = || [ranges(3, &[]), ranges(2, &[(5, 6)]), ranges(10, &[(20, 30)])];
    let wait = Action::Wait { until: 60 * S };
    let bytes = FILL_BYTES.1;
    for (name, settled, durable, action) in [
        ("nothing", none(), [0, 0, 0], wait),
        ("everything", none(), [5, 5, 5], Action::Records { lane: Lane::Outcomes, first: 1 }),
        ("state and rows", none(), [0, 5, 5], Action::Records { lane: Lane::State, first: 1 }),
        ("rows", none(), [0, 0, 5], Action::Fill { first: 1, last: 5, bytes }),
        ("after a reconnect", some(), [3, 6, 40], Action::Records { lane: Lane::State, first: 3 }),
        ("the lowest hole", some(), [3, 2, 40], Action::Fill { first: 11, last: 19, bytes }),
        ("all is settled", some(), [3, 2, 10], wait),
    ] {
        assert_eq!(session(settled).action(durable, S), Ok(action), "{name}");
    }
}

#[test]
fn a_new_row_goes_at_once_and_leaves_the_hole_below_it() {
    let mut session = session([Ranges::default(), Ranges::default(), Ranges::default()]);
    fill(&mut session, 1, 50, S);
    assert!(session.takes_live(1000, S), "while the backlog is unanswered");
    session.sent_live(1000, 100, S);
    assert!(!session.takes_live(1000, S), "once is enough");
    assert_eq!(
        session.action([0, 0, 1000], S),
        Ok(Action::Wait { until: 31 * S }),
        "one batch of it at a time"
    );
    session.acknowledged(&samples(ranges(50, &[(1000, 1000)])), 2 * S);
    assert_eq!(
        session.action([0, 0, 1000], 2 * S),
        Ok(Action::Wait { until: 3 * S }),
        "it rests as long as it took"
    );
    let Ok(Action::Fill { first: 51, last: 999, .. }) = session.action([0, 0, 1000], 3 * S) else {
        panic!("{:?}", session.action([0, 0, 1000], 3 * S))
    };
}

#[test]
fn at_64_ranges_a_hole_is_filled_before_another_is_opened() {
    let above: Vec<(u64, u64)> = (1..=64).map(|at| (at * 10, at * 10)).collect();
    let mut session = session([Ranges::default(), Ranges::default(), ranges(0, &above)]);
    assert!(!session.takes_live(1000, S));
    assert!(session.takes_live(641, S), "growing a range opens none");
    fill(&mut session, 1, 9, S);
    assert!(session.takes_live(1000, S));
}

#[test]
fn the_window_is_bounded_and_outcomes_keep_a_place() {
    let mut session = session([Ranges::default(), Ranges::default(), Ranges::default()]);
    for seq in [10, 11, 12] {
        assert!(session.takes_live(seq, S));
        session.sent_live(seq, 100, S);
    }
    assert!(!session.takes_live(13, S), "three batches of rows are unanswered");
    assert_eq!(session.action([0, 0, 13], S), Ok(Action::Wait { until: 31 * S }), "also for the backlog");
    assert_eq!(session.action([1, 0, 13], S), Ok(Action::Records { lane: Lane::Outcomes, first: 1 }));
    session.sent_records(Lane::Outcomes, &[1], 2, 100, S);
    assert_eq!(
        session.action([2, 0, 13], S),
        Ok(Action::Wait { until: 31 * S }),
        "four messages are unanswered"
    );
    session.acknowledged(&samples(ranges(0, &[(10, 11)])), 2 * S);
    assert_eq!(session.action([2, 0, 13], 2 * S), Ok(Action::Records { lane: Lane::Outcomes, first: 2 }));

    session.sent_records(Lane::Outcomes, &[2], 3, BYTES_IN_FLIGHT_MAX, 2 * S);
    assert!(!session.takes_live(13, 2 * S), "4 MiB are unanswered");
}

// Cases: S24, H17
#[test]
fn acknowledgements_of_what_was_not_sent_are_refused() {
    let mut session = session([ranges(5, &[]), Ranges::default(), Ranges::default()]);
    fill(&mut session, 1, 9, S);
    session.sent_records(Lane::Outcomes, &[6, 8], 9, 10, S);
    let ack = |lane, taken| vec![(lane, taken)];
    let beyond = |lane, acked, sent| Err(SessionError::AckBeyondSent { lane, acked, sent });
    for (number, lanes, verdict) in [
        (7, ack(Lane::Samples, ranges(9, &[])), Ok(())),
        (7, ack(Lane::Samples, ranges(2, &[(4, 9)])), Ok(())),
        (7, ack(Lane::Samples, ranges(10, &[])), beyond(Lane::Samples, 10, 9)),
        (7, ack(Lane::Samples, ranges(2, &[(10, 10)])), beyond(Lane::Samples, 10, 9)),
        (7, ack(Lane::Outcomes, ranges(8, &[])), Ok(())),
        (7, ack(Lane::Outcomes, ranges(9, &[])), beyond(Lane::Outcomes, 9, 8)),
        (7, ack(Lane::State, ranges(1, &[])), beyond(Lane::State, 1, 0)),
        (8, ack(Lane::Samples, ranges(1, &[])), Err(SessionError::OtherSession { got: 8, expected: 7 })),
    ] {
        assert_eq!(session.check(number, &lanes), verdict, "{number} {lanes:?}");
    }
}

#[test]
fn thirty_seconds_without_progress_end_a_session_and_idleness_does_not() {
    let mut session = session([Ranges::default(), Ranges::default(), Ranges::default()]);
    session.set_heartbeat(60_000, 100 * S);
    session.sent_heartbeat(1000 * S);
    assert!(session.action([0; 3], 1000 * S).is_ok(), "nothing is in flight");
    fill(&mut session, 1, 9, 1000 * S);
    assert!(session.action([0, 0, 9], 1030 * S - MS).is_ok());
    assert_eq!(session.action([0, 0, 9], 1030 * S), Err(SessionError::NoProgress));
    session.sent_live(20, 1, 1010 * S);
    session.acknowledged(&samples(ranges(9, &[])), 1029 * S);
    assert!(session.action([0, 0, 9], 1058 * S).is_ok(), "there was progress");
    assert_eq!(session.action([0, 0, 9], 1059 * S), Err(SessionError::NoProgress));
    session.acknowledged(&samples(ranges(9, &[(19, 19)])), 1058 * S);
    assert_eq!(
        session.action([0, 0, 9], 1059 * S),
        Err(SessionError::NoProgress),
        "an ack of nothing new is none"
    );
}

#[test]
fn a_batch_follows_the_link() {
    for (name, took, bytes) in [
        ("quick", 10 * MS, FILL_BYTES.1 * 2),
        ("as it should be", 2 * S, FILL_BYTES.1),
        ("slow", 5 * S, FILL_BYTES.1 / 2),
    ] {
        let mut session = session([Ranges::default(), Ranges::default(), Ranges::default()]);
        fill(&mut session, 1, 9, S);
        session.acknowledged(&samples(ranges(9, &[])), S + took);
        let next = session.action([0, 0, 99], S + took + took);
        assert_eq!(next, Ok(Action::Fill { first: 10, last: 99, bytes }), "{name}");
    }
    let mut session = session([Ranges::default(), Ranges::default(), Ranges::default()]);
    let mut now = S;
    for seq in 1..=20 {
        fill(&mut session, seq, seq, now);
        now += 15 * S;
        session.acknowledged(&samples(ranges(seq, &[])), now);
        assert!(session.may_fill(now + FILL_REST_MAX), "it never rests longer");
        now += FILL_REST_MAX;
    }
    assert_eq!(session.fill_bytes, FILL_BYTES.0);
}

#[test]
fn a_throttle_stops_rows_and_nothing_else() {
    let mut session = session([Ranges::default(), Ranges::default(), Ranges::default()]);
    session.throttled(5 * S, S);
    assert!(!session.takes_live(9, 2 * S));
    assert_eq!(session.action([0, 0, 9], 2 * S), Ok(Action::Wait { until: 6 * S }));
    assert_eq!(session.action([1, 0, 9], 2 * S), Ok(Action::Records { lane: Lane::Outcomes, first: 1 }));
    assert!(session.takes_live(9, 6 * S));
    session.throttled(Duration::from_millis(u32::MAX.into()), 6 * S);
    assert!(session.takes_live(9, 606 * S), "no collector stops an agent for ever");
}

#[test]
fn heartbeats_are_as_the_collector_wants_within_bounds() {
    for (millis, every) in [(0, 10 * S), (1, S), (1_500, 1_500 * MS), (60_000, 60 * S), (u32::MAX, 60 * S)] {
        let mut session = Session::new(1, Default::default(), Duration::ZERO);
        session.set_heartbeat(millis, Duration::ZERO);
        assert_eq!(session.action([0; 3], Duration::ZERO), Ok(Action::Heartbeat), "the first at once");
        session.sent_heartbeat(Duration::ZERO);
        assert_eq!(session.action([0; 3], MS), Ok(Action::Wait { until: every }), "{millis}");
        assert_eq!(session.action([0; 3], every), Ok(Action::Heartbeat));
    }
}

#[test]
fn a_hole_without_records_is_passed_over() {
    let mut session = session([Ranges::default(), Ranges::default(), Ranges::default()]);
    session.sent_fill(1, 6, &[], 0, S);
    let Ok(Action::Fill { first: 6, last: 9, .. }) = session.action([0, 0, 9], S) else { panic!("stuck") };
    session.sent_fill(6, 10, &[7, 9], 10, S);
    session.acknowledged(&samples(ranges(0, &[(7, 7), (9, 9)])), S);
    assert_eq!(session.flights.len(), 0, "what was not sent need not be acknowledged");
}
