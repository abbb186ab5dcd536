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

// Cases: N8, C-A8
#[test]
fn outcomes_go_before_state_before_rows() {
    let none = || [Ranges::default(), Ranges::default(), Ranges::default()];
    let some = || [ranges(3, &[]), ranges(2, &[(5, 6)]), ranges(10, &[(20, 30)])];
    let wait = Action::Wait { until: 60 * S };
    let bytes = SIZE_BYTES.1;
    for (name, settled, durable, action) in [
        ("nothing", none(), [0, 0, 0], wait),
        ("everything", none(), [5, 5, 5], Action::Records { lane: Lane::Outcomes, first: 1, bytes }),
        ("state and rows", none(), [0, 5, 5], Action::Records { lane: Lane::State, first: 1, bytes }),
        ("rows", none(), [0, 0, 3], Action::Fill { first: 1, last: 3, bytes }),
        ("a backlog", none(), [0, 0, 4], Action::Fill { first: 4, last: 4, bytes }),
        ("after a reconnect", some(), [3, 6, 40], Action::Records { lane: Lane::State, first: 3, bytes }),
        ("the newest row", some(), [3, 2, 40], Action::Fill { first: 40, last: 40, bytes }),
        ("the lowest hole", some(), [3, 2, 33], Action::Fill { first: 11, last: 19, bytes }),
        ("all is settled", some(), [3, 2, 10], wait),
    ] {
        assert_eq!(session(settled).action(durable, S), Ok(action), "{name}");
    }
}

// Cases: N1, C-A8
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

// Cases: N7
#[test]
fn the_window_is_bounded_and_outcomes_keep_a_place() {
    let mut session = session([Ranges::default(), Ranges::default(), Ranges::default()]);
    for seq in [10, 11, 12] {
        assert!(session.takes_live(seq, S));
        session.sent_live(seq, 100, S);
    }
    assert!(!session.takes_live(13, S), "three batches of rows are unanswered");
    assert_eq!(session.action([0, 0, 13], S), Ok(Action::Wait { until: 31 * S }), "also for the backlog");
    assert_eq!(
        session.action([1, 0, 13], S),
        Ok(Action::Records { lane: Lane::Outcomes, first: 1, bytes: SIZE_BYTES.1 })
    );
    session.sent_records(Lane::Outcomes, &[1], 2, 100, S);
    assert_eq!(
        session.action([2, 0, 13], S),
        Ok(Action::Wait { until: 31 * S }),
        "four messages are unanswered"
    );
    session.acknowledged(&samples(ranges(0, &[(10, 11)])), 2 * S);
    assert_eq!(
        session.action([2, 0, 13], 2 * S),
        Ok(Action::Records { lane: Lane::Outcomes, first: 2, bytes: SIZE_BYTES.1 })
    );

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

// Cases: N14, N15
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

// Cases: N8
#[test]
fn a_batch_follows_the_link() {
    for (name, took, bytes) in [
        ("quick", 10 * MS, SIZE_BYTES.1 * 2),
        ("as it should be", 2 * S, SIZE_BYTES.1),
        ("slow", 5 * S, SIZE_BYTES.1 / 2),
    ] {
        let mut session = session([Ranges::default(), Ranges::default(), Ranges::default()]);
        fill(&mut session, 1, 9, S);
        session.acknowledged(&samples(ranges(9, &[])), S + took);
        let next = session.action([0, 0, 12], S + took + took);
        assert_eq!(next, Ok(Action::Fill { first: 10, last: 12, bytes }), "{name}");
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
    assert_eq!(session.fill_size, Size(SIZE_BYTES.0));
}

// Cases: N8, C-A8
#[test]
fn messages_of_records_follow_the_link_so_that_each_is_answered_in_time() {
    let mut session = session([Ranges::default(), Ranges::default(), Ranges::default()]);
    let (mut now, mut seq) = (S, 1);
    // A megabyte of outcomes over 8 KiB/s: none may take so long that the connection counts as dead.
    for _ in 0..40 {
        session.sent_heartbeat(now);
        let Ok(Action::Records { lane, first, bytes }) = session.action([1000, 0, 0], now) else {
            panic!("{:?}", session.action([1000, 0, 0], now))
        };
        assert_eq!((lane, first), (Lane::Outcomes, seq));
        session.sent_records(lane, &[seq], seq + 1, bytes, now);
        now += S.mul_f64(bytes as f64 / 8192.0);
        assert!(session.action([seq, 0, 0], now).is_ok(), "{bytes} bytes take too long");
        session.acknowledged(&[(lane, Ranges::up_to(seq))], now);
        seq += 1;
    }
    assert_eq!(session.records_size, Size(16 << 10), "two seconds' worth");
    for seq in seq..seq + 10 {
        session.sent_records(Lane::Outcomes, &[seq], seq + 1, 1, now);
        session.acknowledged(&[(Lane::Outcomes, Ranges::up_to(seq))], now + 10 * MS);
    }
    assert_eq!(session.records_size, Size(SIZE_BYTES.2), "a quick link carries large ones");
}

// Cases: N8
#[test]
fn a_table_on_a_narrow_link_gets_the_time_that_it_takes() {
    let mut session = session([Ranges::default(), Ranges::default(), Ranges::default()]);
    session.sent_table(40 * 8192);
    fill(&mut session, 1, 9, S);
    for (at, dead) in [(31 * S, false), (71 * S - MS, false), (71 * S, true)] {
        session.sent_heartbeat(at);
        assert_eq!(session.action([0, 0, 9], at) == Err(SessionError::NoProgress), dead, "{at:?}");
    }
    session.acknowledged(&samples(ranges(5, &[])), 40 * S);
    fill(&mut session, 10, 19, 40 * S);
    session.acknowledged(&samples(ranges(9, &[])), 50 * S);
    assert_eq!(session.action([0, 0, 19], 80 * S), Err(SessionError::NoProgress), "only once");
}

// Cases: N15
#[test]
fn a_slow_collector_is_waited_for_and_nothing_is_sent_twice() {
    let mut session = session([Ranges::default(), Ranges::default(), Ranges::default()]);
    let mut now = S;
    for seq in (1..30).step_by(3) {
        for seq in seq..seq + 3 {
            assert!(session.takes_live(seq, now));
            session.sent_live(seq, 1000, now);
        }
        now += 20 * S;
        let next = session.action([0, 0, seq + 2], now);
        assert!(matches!(next, Ok(Action::Heartbeat | Action::Wait { .. })), "nothing again: {next:?}");
        assert!(!session.takes_live(seq + 3, now), "the window is full: what is new waits in the spool");
        session.acknowledged(&samples(Ranges::up_to(seq + 2)), now);
    }
}

#[test]
fn a_throttle_stops_rows_and_nothing_else() {
    let mut session = session([Ranges::default(), Ranges::default(), Ranges::default()]);
    session.throttled(5 * S, S);
    assert!(!session.takes_live(9, 2 * S));
    assert_eq!(session.action([0, 0, 9], 2 * S), Ok(Action::Wait { until: 6 * S }));
    assert_eq!(
        session.action([1, 0, 9], 2 * S),
        Ok(Action::Records { lane: Lane::Outcomes, first: 1, bytes: SIZE_BYTES.1 })
    );
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
    session.sent_fill(1, 7, &[], 0, S);
    let Ok(Action::Fill { first: 7, last: 9, .. }) = session.action([0, 0, 9], S) else { panic!("stuck") };
    session.sent_fill(7, 10, &[7, 9], 10, S);
    session.acknowledged(&samples(ranges(0, &[(7, 7), (9, 9)])), S);
    assert_eq!(session.flights.len(), 0, "what was not sent need not be acknowledged");
}

// Cases: C7
#[test]
fn refused_rows_are_sent_again_and_records_go_on() {
    let mut session = session([Ranges::default(), Ranges::default(), ranges(10, &[])]);
    fill(&mut session, 11, 20, S);
    session.sent_live(100, 100, S);
    session.sent_records(Lane::Outcomes, &[1], 2, 100, S);
    session.acknowledged(&samples(ranges(15, &[])), 2 * S);
    session.refused(2 * S);
    session.throttled(10 * S, 2 * S);
    let durable = [2, 0, 100];
    let outcome = Action::Records { lane: Lane::Outcomes, first: 2, bytes: SIZE_BYTES.1 };
    assert_eq!(session.action(durable, 3 * S), Ok(outcome), "outcomes do not wait");
    session.sent_records(Lane::Outcomes, &[2], 3, 100, 3 * S);
    session.acknowledged(&[(Lane::Outcomes, ranges(2, &[]))], 3 * S);
    assert!(!session.takes_live(101, 11 * S));
    assert_eq!(session.action(durable, 11 * S), Ok(Action::Wait { until: 12 * S }));
    assert_eq!(
        session.action(durable, 59 * S),
        Ok(Action::Fill { first: 100, last: 100, bytes: SIZE_BYTES.0 })
    );
    // A row that was taken after all is not sent again.
    session.acknowledged(&samples(ranges(15, &[(100, 100)])), 12 * S);
    assert_eq!(
        session.action(durable, 59 * S),
        Ok(Action::Fill { first: 16, last: 99, bytes: SIZE_BYTES.0 })
    );
    assert_eq!(session.action(durable, 13 * S), session.action(durable, 50 * S), "no connection is given up");
}
