//! Small histories of a spool, cut at every step in every way; and the same after every failing call.

use std::collections::BTreeMap;

use tocsin_shared::disk::RecordingDisk;

use super::*;

/// What the spool had said when its disk had taken so many steps. Lanes in the order of `Lane::ALL`.
#[derive(Clone, Default)]
struct Told {
    position: usize,
    epoch: Option<Epoch>,
    /// Records that are safe, and which attempt at their number they are.
    safe: [BTreeMap<u64, u64>; 3],
    /// Everything that was ever given to it: number and attempt.
    given: [BTreeSet<(u64, u64)>; 3],
    /// What was to be settled: acknowledged, or a gap that is recorded elsewhere.
    settled: [BTreeSet<u64>; 3],
    /// The part of it that is durable.
    settled_for_good: [BTreeSet<u64>; 3],
}

/// A spool on a recorded disk, and everything it said.
struct Run {
    disk: RecordingDisk,
    told: Vec<Told>,
    /// Records that were taken and are not safe yet.
    waiting: [BTreeMap<u64, u64>; 3],
    attempts: u64,
    /// How many calls of the disk succeed before one fails.
    fails_after: u64,
    /// The position before that one.
    failed_at: Option<usize>,
}

impl Run {
    fn new() -> Self {
        Self {
            disk: RecordingDisk::default(),
            told: vec![Told::default()],
            waiting: Default::default(),
            attempts: 0,
            fails_after: u64::MAX,
            failed_at: None,
        }
    }

    fn tell(&mut self, change: impl FnOnce(&mut Told)) {
        let mut told = self.told[self.told.len() - 1].clone();
        if self.disk.memory().calls() > self.fails_after {
            self.failed_at.get_or_insert(told.position);
        }
        told.position = self.disk.position();
        change(&mut told);
        self.told.push(told);
    }

    fn told_by(&self, after: usize) -> &Told {
        self.told.iter().rev().find(|told| told.position <= after).unwrap()
    }

    fn open(&mut self) -> Spool {
        self.waiting = Default::default();
        let spool = try_open(&self.disk).unwrap();
        self.tell(|told| told.epoch = Some(spool.epoch()));
        spool
    }

    /// What can be read is safe: it may be sent at any moment.
    fn note_safe(&mut self, spool: &Spool) {
        for lane in Lane::ALL {
            let at = lane.index();
            let later = self.waiting[at].split_off(&(spool.durable_seq(lane) + 1));
            let now_safe = std::mem::replace(&mut self.waiting[at], later);
            if !now_safe.is_empty() {
                self.tell(|told| told.safe[at].extend(now_safe));
            }
        }
    }

    fn append(&mut self, spool: &mut Spool, lane: Lane, records: u64) {
        for _ in 0..records {
            let (at, seq) = (lane.index(), spool.lane(lane).log.next_seq());
            self.attempts += 1;
            let attempt = self.attempts;
            self.tell(|told| told.given[at].extend([(seq, attempt)]));
            let appended = spool.append(lane, 1, format!("{seq}:{attempt:>99}").as_bytes(), false);
            if let Ok(taken) = appended {
                // On its way it may have given up what waited, and that number with it.
                self.tell(|told| told.given[at].extend([(taken, attempt)]));
                self.waiting[at].retain(|waiting, _| *waiting < taken);
                self.waiting[at].insert(taken, attempt);
            }
            self.note_safe(spool);
        }
    }

    fn sync(&mut self, spool: &mut Spool) {
        let synced = spool.sync();
        self.note_safe(spool);
        if synced.is_ok() {
            self.tell(|told| told.settled_for_good = told.settled.clone());
        }
    }

    fn acknowledge(&mut self, spool: &mut Spool, lane: Lane, acks: &Ranges) {
        let end = acks.highest();
        let acked = (1..=end).filter(|seq| acks.contains(*seq));
        self.tell(|told| told.settled[lane.index()].extend(acked));
        let acknowledged = spool.acknowledge(lane, acks);
        assert!(acknowledged.is_ok() || self.fails_after < u64::MAX, "{acknowledged:?}");
        self.note_safe(spool);
    }

    /// Each gap becomes an outcome, and then settles what it names.
    fn record_gaps(&mut self, spool: &mut Spool) {
        for gap in spool.take_gaps() {
            let before = spool.durable_seq(Lane::Outcomes);
            self.append(spool, Lane::Outcomes, 1);
            if spool.durable_seq(Lane::Outcomes) > before {
                self.tell(|told| told.settled[gap.lane.index()].extend(gap.first..=gap.last));
                let recorded = spool.gap_recorded(&gap);
                assert!(recorded.is_ok() || self.fails_after < u64::MAX, "{recorded:?}");
            }
        }
    }

    /// Three lanes, acknowledgements with holes, evictions and their gaps, two restarts.
    fn work(&mut self, samples: u64) {
        let mut spool = self.open();
        self.append(&mut spool, Lane::Outcomes, 3);
        self.append(&mut spool, Lane::State, 2);
        self.append(&mut spool, Lane::Samples, 10);
        self.sync(&mut spool);
        self.acknowledge(&mut spool, Lane::Samples, &acks(2, &[(5, 6)]));
        self.acknowledge(&mut spool, Lane::Outcomes, &acks(1, &[(3, 3)]));
        self.append(&mut spool, Lane::Samples, 10);
        self.sync(&mut spool);
        self.acknowledge(&mut spool, Lane::Samples, &acks(9, &[]));
        drop(spool);
        let mut spool = self.open();
        self.append(&mut spool, Lane::Samples, samples);
        self.record_gaps(&mut spool);
        self.sync(&mut spool);
        drop(spool);
        let mut spool = self.open();
        self.append(&mut spool, Lane::Outcomes, 1);
        self.sync(&mut spool);
    }

    /// Three lanes on a disk that fails after so many calls, once or until it is exchanged; whether it did.
    fn work_through(&mut self, fault: Fault) -> bool {
        self.fails_after = fault.after;
        self.disk.memory().fail(fault);
        let mut spool = loop {
            let opened = try_open(&self.disk);
            self.tell(|told| told.epoch = opened.as_ref().ok().map(Spool::epoch));
            match opened {
                Ok(spool) => break spool,
                Err(_) => self.disk.memory().heal(),
            }
        };
        for _ in 0..3 {
            self.append(&mut spool, Lane::Outcomes, 2);
            self.append(&mut spool, Lane::State, 1);
            self.append(&mut spool, Lane::Samples, 8);
            self.sync(&mut spool);
            let end = spool.durable_seq(Lane::Samples);
            self.acknowledge(&mut spool, Lane::Samples, &Ranges::up_to(end / 2));
        }
        self.disk.memory().heal();
        self.record_gaps(&mut spool);
        self.append(&mut spool, Lane::Outcomes, 1);
        self.append(&mut spool, Lane::Samples, 1);
        self.sync(&mut spool);
        drop(spool);
        let mut spool = self.open();
        self.append(&mut spool, Lane::Outcomes, 1);
        self.sync(&mut spool);
        self.failed_at.is_some()
    }

    /// Outcomes until their padding goes, and on until the oldest of them go.
    fn work_on_output(&mut self) {
        let mut spool = self.open();
        spool.shorten_with(|_, payload| {
            let short: Vec<u8> = payload.iter().copied().filter(|byte| *byte != b' ').collect();
            (short.len() < payload.len()).then_some(short)
        });
        self.append(&mut spool, Lane::Samples, 10);
        let whole = |spool: &mut Spool| {
            let batch = spool.read(Lane::Outcomes, 1, 1).unwrap();
            batch.entries.first().is_none_or(|entry| entry.payload.contains(&b' '))
        };
        let mut outcomes = 0;
        while whole(&mut spool) {
            self.append(&mut spool, Lane::Outcomes, 1);
            outcomes += 1;
            assert!(outcomes < 500, "it never gives up what its records can do without");
        }
        self.append(&mut spool, Lane::Outcomes, 15);
        self.sync(&mut spool);
        drop(spool);
        let mut spool = self.open();
        self.append(&mut spool, Lane::Outcomes, 1);
    }

    /// Outcomes until the reserve is theirs, and acknowledgements until it is held again.
    fn work_on_reserve(&mut self) {
        let mut spool = self.open();
        self.append(&mut spool, Lane::Samples, 75);
        self.sync(&mut spool);
        let mut outcomes = 0;
        while spool.stats().reserve_held {
            self.append(&mut spool, Lane::Outcomes, 1);
            outcomes += 1;
            assert!(outcomes < 500, "it never gives its reserve");
        }
        self.append(&mut spool, Lane::Outcomes, 2);
        let end = spool.durable_seq(Lane::Outcomes);
        self.acknowledge(&mut spool, Lane::Outcomes, &acks(end - 1, &[]));
        self.sync(&mut spool);
        assert!(spool.stats().reserve_held || self.failed_at.is_some());
    }
}

/// States of one moment after a failure: the first have all and nothing of what is undecided.
const STATES: usize = 2;

/// Each opening brings an epoch of its own; only the first of a directory may take it.
fn try_open(disk: &RecordingDisk) -> Result<Spool, SpoolError> {
    Spool::open_on(Arc::new(disk.clone()), &dir(), Epoch(Uuid::new_v4()), config())
}

/// All that can be learnt of a spool.
#[derive(Debug, PartialEq)]
struct Found {
    epoch: Epoch,
    present: [BTreeMap<u64, u64>; 3],
    acked: [Ranges; 3],
    gaps: Vec<Gap>,
    next: [u64; 3],
}

fn found(disk: &RecordingDisk) -> (Spool, Found) {
    let mut spool = try_open(disk).unwrap();
    let present = Lane::ALL.map(|lane| contents(&mut spool, lane));
    let found = Found {
        epoch: spool.epoch(),
        present,
        acked: Lane::ALL.map(|lane| spool.acked(lane).clone()),
        gaps: spool.take_gaps(),
        next: Lane::ALL.map(|lane| spool.lane(lane).log.next_seq()),
    };
    (spool, found)
}

/// The numbers that can be read, and which attempt each is.
fn contents(spool: &mut Spool, lane: Lane) -> BTreeMap<u64, u64> {
    let (mut contents, mut next) = (BTreeMap::new(), 1);
    loop {
        let batch = spool.read(lane, next, 10_000).unwrap();
        if batch.next_seq == next {
            return contents;
        }
        next = batch.next_seq;
        for entry in batch.entries {
            let text = String::from_utf8(entry.payload).unwrap();
            let (seq, attempt) = text.split_once(':').unwrap();
            assert_eq!(seq.parse(), Ok(entry.seq));
            let twice = contents.insert(entry.seq, attempt.trim().parse().unwrap());
            assert_eq!(twice, None, "{lane} {} twice", entry.seq);
        }
    }
}

/// What must hold of a spool that is opened after `text` happened. Gaps of what was cut off by the crash are fine for
/// what was not safe; others only where the spool evicts.
fn check(disk: &RecordingDisk, told: &Told, text: &str) -> (Found, usize) {
    let (spool, found) = found_checked(disk, told, text);
    assert!(spool.bytes() <= config().max_bytes && disk.memory().used() <= config().max_bytes, "{text}");
    drop(spool);
    let opened = disk.position();
    let (mut spool, again) = self::found(disk);
    assert_eq!(again, found, "{text}: another opening, another spool");
    for lane in Lane::ALL {
        let next = found.next[lane.index()];
        match spool.append(lane, 1, format!("{next}:0").as_bytes(), true) {
            Ok(seq) => assert_eq!(seq, next, "{text}: it does not go on"),
            Err(error) => assert!(error.is_full() && lane != Lane::Outcomes, "{text}: {error}"),
        }
    }
    (found, opened)
}

fn found_checked(disk: &RecordingDisk, told: &Told, text: &str) -> (Spool, Found) {
    let (spool, found) = found(disk);
    assert!(told.epoch.is_none_or(|epoch| epoch == found.epoch), "{text}: a new epoch for old records");
    for lane in Lane::ALL {
        let at = lane.index();
        let (present, acked) = (&found.present[at], &found.acked[at]);
        let lost: BTreeMap<u64, Reason> = found
            .gaps
            .iter()
            .filter(|gap| gap.lane == lane)
            .flat_map(|gap| (gap.first..=gap.last).map(|seq| (seq, gap.reason)))
            .collect();
        for seq in 1..=spool.durable_seq(lane) {
            // What was sent, evicted and then acknowledged is told as lost and acknowledged: nobody knew better.
            let gone = acked.contains(seq) || lost.contains_key(&seq);
            let once = gone != present.contains_key(&seq);
            assert!(once, "{text}: {lane} {seq} is in no place or in two: {found:?}");
        }
        for (seq, attempt) in &told.safe[at] {
            let evicted = lost.get(seq) == Some(&Reason::Evicted);
            let there = present.get(seq) == Some(attempt) || told.settled[at].contains(seq) || evicted;
            assert!(there, "{text}: {lane} {seq} is lost: {found:?}");
            assert!(found.next[at] > *seq, "{text}: {lane} {seq} would be used again");
        }
        for (seq, reason) in &lost {
            // Of a write that was never made safe, a later sector may be there without an earlier one.
            let unsafe_yet = !told.safe[at].contains_key(seq);
            assert!(
                *reason == Reason::Evicted || unsafe_yet,
                "{text}: {lane} {seq} is {reason:?}: {found:?}"
            );
            let told_again = told.settled_for_good[at].contains(seq) && !acked.contains(*seq);
            assert!(!told_again, "{text}: {lane} {seq} is told again: {found:?}");
        }
        for (seq, attempt) in present {
            assert!(told.given[at].contains(&(*seq, *attempt)), "{text}: {lane} {seq} was never written");
            assert!(
                !told.settled_for_good[at].contains(seq),
                "{text}: {lane} {seq} is settled and comes again"
            );
        }
        let made_up =
            (1..=acked.highest()).find(|seq| acked.contains(*seq) && !told.settled[at].contains(seq));
        assert_eq!(made_up, None, "{text}: {lane}: nobody acknowledged that: {found:?}");
    }
    (spool, found)
}

fn check_all(run: &Run, states_max: usize) {
    let mut cuts = 0;
    for cut in run.disk.history().power_cuts_within(states_max) {
        let (told, text) = (run.told_by(cut.after), cut.to_string());
        check(&RecordingDisk::on(cut.disk), told, &text);
        cuts += 1;
    }
    println!("{} steps, {cuts} states", run.disk.position());
    assert!(cuts > 200, "the history is too poor to prove anything: {cuts}");
}

// Cases: S1, S2, S7, S8, S9, C1, C2
#[test]
fn after_any_power_cut_every_record_is_in_exactly_one_place() {
    let mut run = Run::new();
    run.work(80);
    let evicted = run.told[run.told.len() - 1].settled[Lane::Samples.index()].iter().any(|seq| *seq > 9);
    assert!(evicted, "nothing was evicted");
    check_all(&run, 256);
}

// Cases: S1, S2, S8
#[test]
fn what_a_start_after_a_kill_has_read_survives_a_power_cut() {
    let mut run = Run::new();
    run.work(80);
    let history = run.disk.history();
    for after in 0..=run.disk.position() {
        let disk = history.killed(after);
        let told = run.told_by(after);
        let (shown, opened) = check(&disk, told, &format!("killed after {after} steps"));
        for cut in disk.history().power_cuts_at(opened) {
            let text = format!("killed after {after} steps; then {cut}");
            let (_, found) = found(&RecordingDisk::on(cut.disk));
            for lane in Lane::ALL.map(Lane::index) {
                for (seq, attempt) in &shown.present[lane] {
                    assert_eq!(found.present[lane].get(seq), Some(attempt), "{text}: {lane} {found:?}");
                }
                assert_eq!(found.acked[lane], shown.acked[lane], "{text}: {found:?}");
            }
            let known = found.gaps.iter().filter(|gap| gap.first < shown.next[gap.lane.index()]);
            assert!(known.eq(&shown.gaps) && found.epoch == shown.epoch, "{text}: {found:?}, not {shown:?}");
        }
    }
}

// Cases: S13
#[test]
fn after_any_failing_call_nothing_confirmed_depends_on_what_failed() {
    let mut cuts = 0;
    for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
        for stays in [false, true] {
            for after in 0.. {
                let mut run = Run::new();
                if !run.work_through(Fault { operation: None, after, kind, stays }) {
                    assert!(after > 50, "{after} calls are too few");
                    break; // Nothing had failed.
                }
                // What failed stays undecided to the end.
                let (failed_at, end) = (run.failed_at.unwrap_or(0), run.disk.position());
                let moments = (failed_at..end).step_by(20).chain([end]);
                let history = run.disk.history();
                for cut in moments.flat_map(|after| history.power_cuts_at(after).take(STATES)) {
                    let text = format!("call {after} fails: {kind}, {stays}; {cut}");
                    let told = run.told_by(cut.after);
                    check(&RecordingDisk::on(cut.disk), told, &text);
                    cuts += 1;
                }
            }
        }
    }
    println!("{cuts} states");
}

// Cases: S1, S2, S8
#[test]
fn after_any_power_cut_the_reserve_is_held_or_given_and_never_both() {
    let mut run = Run::new();
    run.work_on_reserve();
    check_all(&run, 256);
}

// Cases: S1, S2, C-A5
#[test]
fn after_any_power_cut_a_shortened_record_is_there_once_whole_or_short() {
    let mut run = Run::new();
    run.work_on_output();
    check_all(&run, 64);
}
