//! A small history of a log, cut at every step in every way; and the same after every failing call.

use std::ops::Range;

use super::*;
use crate::disk::{PowerCut, RecordingDisk};

/// Numbers that no record gets.
const SKIPPED: Range<u64> = 15..20;

/// What the log had said when its disk had taken so many steps.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    position: usize,
    /// Records up to here are safe.
    durable: u64,
    /// Records below may be removed.
    dropped_before: u64,
    /// Records up to here were given to it.
    appended: u64,
}

/// A log on a recorded disk, and everything it said.
struct Run {
    disk: RecordingDisk,
    told: Vec<Told>,
    /// Calls that went wrong and were answered as the log asks for.
    failures: usize,
    /// The position at the first of them.
    failed_at: usize,
}

impl Run {
    fn new() -> Self {
        Self {
            disk: RecordingDisk::default(),
            told: vec![Told::default()],
            failures: 0,
            failed_at: usize::MAX,
        }
    }

    fn tell(&mut self, change: impl FnOnce(&mut Told)) {
        let mut told = self.told[self.told.len() - 1];
        told.position = self.disk.position();
        change(&mut told);
        self.told.push(told);
    }

    /// What had been said before a cut.
    fn told_by(&self, cut: &PowerCut) -> Told {
        *self.told.iter().rev().find(|told| told.position <= cut.after).unwrap()
    }

    /// Tries until it succeeds: what is full has room the next time, what is poisoned is revived.
    fn persist<T>(&mut self, log: &mut Log, mut call: impl FnMut(&mut Log) -> Result<T, LogError>) -> T {
        loop {
            match call(log) {
                Ok(done) => return done,
                Err(LogError::Poisoned { .. }) => match log.revive() {
                    Ok(_) => {}
                    Err(_) => self.fail(),
                },
                Err(_) => self.fail(),
            }
        }
    }

    fn open(&mut self) -> Log {
        loop {
            match Log::open(Arc::new(self.disk.clone()), &dir(), FORMAT, SMALL) {
                Ok((log, _)) => return log,
                Err(_) => self.fail(),
            }
        }
    }

    fn fail(&mut self) {
        self.failed_at = self.failed_at.min(self.disk.position());
        self.failures += 1;
        assert!(self.failures < 9, "it never succeeds");
    }

    fn append(&mut self, log: &mut Log, records: u64) {
        for _ in 0..records {
            let seq = self.persist(log, |log| {
                let seq = log.next_seq();
                log.append(1, &payload(seq))
            });
            // A full segment makes what is in it durable before it goes on. Numbers left out are nothing yet.
            let durable = log.durable_seq();
            let durable = if SKIPPED.contains(&durable) { SKIPPED.start - 1 } else { durable };
            self.tell(|told| (told.durable, told.appended) = (durable, seq));
        }
    }

    fn sync(&mut self, log: &mut Log) {
        let durable = self.persist(log, Log::sync);
        self.tell(|told| told.durable = durable);
    }

    /// Groups, full segments, an early end of one, numbers left out, a drop of several segments, two restarts.
    fn work(&mut self) {
        let mut log = self.open();
        for round in 0..3 {
            self.append(&mut log, 3 + round);
            self.sync(&mut log);
        }
        self.persist(&mut log, Log::roll);
        self.persist(&mut log, |log| log.append_unnumbered(9, b"table"));
        self.append(&mut log, 2);
        self.sync(&mut log);
        self.append(&mut log, 1);
        drop(log); // As in a kill: what was not synced is gone.
        let mut log = self.open();
        self.persist(&mut log, |log| log.skip_to(SKIPPED.end));
        self.append(&mut log, 2);
        self.sync(&mut log);
        self.tell(|told| told.dropped_before = 12);
        self.persist(&mut log, |log| log.drop_segments_before(12));
        self.append(&mut log, 1);
        self.sync(&mut log);
        self.open();
    }
}

/// The records of a log opened on a disk, and what was found.
fn found(disk: &RecordingDisk) -> (Log, Recovery, Vec<u64>) {
    let (log, recovery) = Log::open(Arc::new(disk.clone()), &dir(), FORMAT, SMALL).unwrap();
    let seqs = read(&log);
    (log, recovery, seqs)
}

/// What must hold of a log that is opened after a cut; returns the disk on which it went on, and what it then held.
fn check(cut: PowerCut, told: Told) -> (RecordingDisk, Vec<u64>, usize) {
    let text = cut.to_string();
    let disk = RecordingDisk::on(cut.disk);
    let (mut log, recovery, seqs) = found(&disk);
    assert!(seqs.is_sorted_by(|a, b| a < b), "{text}: a record twice: {seqs:?}");
    let safe: Vec<u64> =
        (told.dropped_before.max(1)..=told.durable).filter(|seq| !SKIPPED.contains(seq)).collect();
    let missing: Vec<&u64> = safe.iter().filter(|seq| !seqs.contains(seq)).collect();
    assert!(missing.is_empty(), "{text}: {missing:?} are lost: {recovery:?}");
    assert!(seqs.last().is_none_or(|last| *last <= told.appended), "{text}: never given to it: {seqs:?}");
    assert!(log.next_seq() > told.durable && seqs.last().is_none_or(|last| *last < log.next_seq()), "{text}");
    let first = log.segments().first().map_or(1, |segment| segment.first_seq);
    let dense: BTreeSet<u64> = lost(&recovery).into_iter().chain(seqs.iter().copied()).collect();
    assert_eq!(dense, (first..log.next_seq()).collect(), "{text}: a hole is not told: {recovery:?}");
    drop(log);

    let (again, recovered_again, seqs_again) = found(&disk);
    assert_eq!((&seqs_again, recovered_again), (&seqs, recovery), "{text}: another opening, another log");
    let opened = disk.position();
    log = again;
    let first = log.next_seq();
    fill(&mut log, first + 2);
    let seqs = [seqs, (first..first + 3).collect()].concat();
    assert_eq!(found(&disk).2, seqs, "{text}: it does not go on");
    (disk, seqs, opened)
}

// Cases: S1, S2, S3, S8, S9, C1, C2
#[test]
fn after_any_power_cut_what_was_confirmed_is_there_once() {
    let mut run = Run::new();
    run.work();
    let (mut cuts, mut deeper) = (0, 0);
    for cut in run.disk.history().power_cuts() {
        let (told, text) = (run.told_by(&cut), cut.to_string());
        let (disk, seqs, opened) = check(cut, told);
        cuts += 1;
        // And what was read after that cut must survive the next one.
        for second in disk.history().power_cuts_within(64).filter(|second| second.after >= opened) {
            let both = format!("{text}; then {second}");
            let found = found(&RecordingDisk::on(second.disk)).2;
            let shown = &seqs[..seqs.len() - 3];
            assert!(found.starts_with(shown) && seqs.starts_with(&found), "{both}: {found:?} of {seqs:?}");
            deeper += 1;
        }
    }
    println!("{} steps, {cuts} states, {deeper} after a second cut", run.disk.position());
    assert!(cuts > 100 && deeper > 10 * cuts, "the history is too poor to prove anything: {cuts}");
}

// Cases: S1, S2, C1
#[test]
fn what_a_start_after_a_kill_has_read_survives_a_power_cut() {
    let mut run = Run::new();
    run.work();
    let history = run.disk.history();
    for after in 0..=run.disk.position() {
        let disk = history.killed(after);
        let (log, _, seqs) = found(&disk);
        drop(log);
        let started = disk.position();
        let (mut log, ..) = found(&disk);
        let next = log.next_seq();
        fill(&mut log, next);
        for cut in disk.history().power_cuts_within(64).filter(|cut| cut.after >= started) {
            let text = format!("killed after {after} steps; then {cut}");
            let found = found(&RecordingDisk::on(cut.disk)).2;
            assert!(found.starts_with(&seqs), "{text}: {found:?} of {seqs:?}");
        }
    }
}

// Cases: S13, C8
#[test]
fn after_any_failing_call_nothing_confirmed_depends_on_what_failed() {
    let mut cuts = 0;
    for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
        for after in 0.. {
            let mut run = Run::new();
            run.disk.memory().fail(Fault { operation: None, after, kind, stays: false });
            run.work();
            if run.disk.memory().calls() <= after {
                assert!(after > 30, "{after} calls are too few");
                break; // Nothing had failed.
            }
            let history = run.disk.history();
            for cut in history.power_cuts_within(16).filter(|cut| cut.after >= run.failed_at) {
                let told = run.told_by(&cut);
                check(cut, told);
                cuts += 1;
            }
        }
    }
    println!("{cuts} states");
}
