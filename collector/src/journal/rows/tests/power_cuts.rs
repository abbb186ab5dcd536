//! A small life of the samples journal, cut at every step in every way; and ended by every call that can fail.

use std::sync::Mutex;

use tocsin_shared::disk::{RecordingDisk, Step};

use super::*;

const SEGMENT_BYTES: u64 = 600;

/// What was acknowledged, after at most so many steps of the disk.
type Said = Arc<Mutex<Vec<(usize, Ranges)>>>;

struct Run {
    bench: Bench,
    disk: RecordingDisk,
    acknowledge: watch::Sender<Ranges>,
    said: Said,
    /// From this position on, rows before the number may be gone.
    dropped: Option<(usize, u64)>,
    started: Option<Started>,
}

impl Run {
    fn new() -> Self {
        let (disk, acknowledge, said) = (RecordingDisk::default(), watch::Sender::default(), Said::default());
        let (mut taken, noted): (watch::Receiver<Ranges>, Said) = (acknowledge.subscribe(), said.clone());
        disk.before_each(move |position| {
            if taken.has_changed().is_ok_and(|changed| changed) {
                noted.lock().unwrap().push((position, taken.borrow_and_update().clone()));
            }
        });
        Self { bench: Bench::new(SEGMENT_BYTES), disk, acknowledge, said, dropped: None, started: None }
    }

    /// What had been said when the disk had taken so many steps.
    fn said_by(&self, position: usize) -> Ranges {
        let said = self.said.lock().unwrap();
        let said = said.iter().rev().find(|(at, _)| *at <= position);
        said.map_or(Ranges::default(), |(_, ranges)| ranges.clone())
    }

    /// Hands rows over and waits for what comes of it.
    async fn take(&mut self, rows: &Rows, seqs: std::ops::RangeInclusive<u64>) -> Result<(), Stopping> {
        let batch = Batch {
            agent: agent(1),
            epoch: EPOCH,
            rows: seqs.map(|seq| self.bench.row(seq, 1 + seq % 2, seq as i64)).collect(),
            received: Instant::now(),
            acknowledge: self.acknowledge.clone(),
        };
        rows.take(batch).await?;
        self.settled(rows).await
    }

    async fn settled(&self, rows: &Rows) -> Result<(), Stopping> {
        let settled = rows.standing().await;
        self.said.lock().unwrap().push((self.disk.position(), self.acknowledge.borrow().clone()));
        settled.map(drop)
    }

    /// Single rows and groups, a duplicate, recorded values, full segments, a drop, a restart.
    async fn live(&mut self) -> Result<(), Stopping> {
        let rows = self.start()?;
        for seqs in [1..=1, 2..=4, 2..=3, 5..=5, 6..=9] {
            self.take(&rows, seqs).await?;
        }
        let derived = Derived { agent: None, labels: Labels::series("r", &[]), at: at(1), value: 1.0 };
        assert!(rows.derived(vec![derived]));
        self.settled(&rows).await?;
        self.take(&rows, 10..=12).await?;
        let segments = rows.standing().await?.segments;
        // Fewer when rows were refused.
        if let Some(last) = segments.len().checked_sub(2) {
            let before = segments[last].0;
            self.dropped = Some((self.disk.position(), before));
            self.bench.sealed.samples_from = before;
            rows.drop_before(before).await?;
        }
        self.settled(&rows).await?;
        rows.stop().await;
        let rows = self.start()?;
        self.take(&rows, 13..=14).await?;
        rows.stop().await;
        Ok(())
    }

    fn start(&mut self) -> Result<Rows, Stopping> {
        self.started = self.bench.try_start_on(Arc::new(self.disk.clone()));
        self.started.as_ref().map(|started| started.rows.clone()).ok_or(Stopping)
    }

    /// What must hold of a journal that is opened after a cut.
    async fn check(&self, disk: MemoryDisk, position: usize, text: &str) {
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let opened = self.bench.try_start_on(disk.clone()).unwrap();
        let found = samples(&opened.store, "0");
        let seqs: Vec<u64> = found.iter().map(|(_, bits)| f64::from_bits(*bits) as u64).collect();
        assert_eq!(
            found,
            expected(seqs.iter().map(|seq| (*seq, *seq as i64))),
            "{text}: never a wrong value"
        );
        assert!(seqs.is_sorted_by(|a, b| a < b), "{text}: a row twice: {seqs:?}");
        let said = self.said_by(position);
        let kept_from = self.dropped.filter(|(at, _)| *at <= position).map_or(0, |(_, before)| before);
        // The number in the journal is never less than that of the row: recorded values are numbered, too.
        let missing: Vec<u64> = (kept_from.max(1)..=said.highest())
            .filter(|seq| said.contains(*seq) && !seqs.contains(seq))
            .collect();
        assert_eq!(missing, [0; 0], "{text}: acknowledged and lost: {seqs:?}");
        let taken = opened.rows.progress(agent(1), EPOCH).await.unwrap();
        let covered: Vec<u64> = (1..=taken.highest()).filter(|seq| taken.contains(*seq)).collect();
        assert_eq!((covered, opened.unevaluated.len()), (seqs.clone(), seqs.len()), "{text}: once");
        // A later sector of a group that nobody was told of may be there without an earlier one.
        assert!(
            opened.problems.is_empty() || text.contains("without its first"),
            "{text}: {:?}",
            opened.problems
        );
        opened.rows.stop().await;
        let again = self.bench.try_start_on(disk).unwrap();
        assert_eq!(samples(&again.store, "0"), found, "{text}: another opening, other samples");
        let mut bench = Bench::new(SEGMENT_BYTES);
        let row = bench.row(50, 7, 50);
        assert!(take(&again.rows, vec![row]).await.is_some_and(|taken| taken.contains(50)), "{text}");
        again.rows.stop().await;
    }
}

// Cases: C1, C2, C19
#[tokio::test]
async fn after_any_power_cut_acknowledged_rows_are_there_once() {
    let mut run = Run::new();
    run.live().await.unwrap();
    assert!(run.dropped.is_some_and(|(_, before)| before > 1));
    let mut cuts = 0;
    for cut in run.disk.history().power_cuts_within(128) {
        let (after, text) = (cut.after, cut.to_string());
        run.check(cut.disk, after, &text).await;
        cuts += 1;
    }
    println!("{} steps, {cuts} states", run.disk.position());
    assert!(cuts > 60, "the history is too poor to prove anything: {cuts}");
}

// Cases: C8, S13
#[tokio::test]
async fn any_failing_call_is_the_end_and_nothing_is_acknowledged_after_it() {
    for kind in [std::io::ErrorKind::Other, std::io::ErrorKind::StorageFull] {
        for after in 0.. {
            let mut run = Run::new();
            run.disk.memory().fail(Fault { operation: None, after, kind, stays: false });
            let ended = run.live().await;
            if run.disk.memory().calls() <= after {
                assert!(ended.is_ok() && after > 15, "{after} calls are too few");
                break; // Nothing had failed.
            }
            let waited_out = kind == std::io::ErrorKind::StorageFull && ended.is_ok();
            assert!(ended == Err(Stopping) || waited_out, "call {after} fails and it goes on");
            let steps = run.disk.history().steps().to_vec();
            let failed = steps.iter().position(|step| matches!(step, Step::SyncDataFailed { .. }));
            let later = failed.map_or(&[][..], |failed| &steps[failed + 1..]);
            assert_eq!(later, [], "call {after} fails: something is written after a failed fsync");
            let end = run.disk.position();
            if let Some(Started { store, fatal, .. }) = run.started.take() {
                assert!(!waited_out || fatal.reason().is_none());
                if !waited_out {
                    fatal.stop.cancelled().await;
                    assert!(fatal.reason().unwrap().starts_with("samples journal: "));
                }
                let (said, shown) = (run.said_by(end), samples(&store, "0"));
                let shown = shown.iter().map(|(_, bits)| f64::from_bits(*bits) as u64);
                assert!(shown.into_iter().all(|seq| said.contains(seq)), "shown before it is durable");
            }
            for cut in run.disk.history().power_cuts_at(end) {
                let text = format!("call {after} fails: {kind}; {cut}");
                run.check(cut.disk, end, &text).await;
            }
        }
    }
}
