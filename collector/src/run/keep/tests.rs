//! Power cuts at every moment between a row and the end of its retention.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use tocsin_shared::chain::Chain;
use tocsin_shared::disk::{Disk, MemoryDisk, RecordingDisk};
use tocsin_shared::identity::Epoch;
use tocsin_shared::labels::Labels;
use tocsin_shared::log::Config;
use tocsin_shared::ranges::Ranges;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::evaluate;
use crate::evaluate::plan::Plan;
use crate::journal::ledger::{self, Fatal};
use crate::journal::rows::{self, Batch, Found, Table, TakenRow};
use crate::rules::RuleSet;
use crate::samples::{DAY, WINDOW, Window};
use crate::state::Defaults;
use crate::state::testing::agent;

const EPOCH: Epoch = Epoch(Uuid::from_u128(9));
/// Some rows a segment.
const SEGMENT: Config = Config { segment_bytes: 700, scan_all: false };

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

/// The parts of a collector that rows go through, over one disk.
struct Bench {
    keeping: Keeping,
    table: Arc<Table>,
    evaluator: JoinHandle<()>,
    problems: Vec<String>,
    /// Rows that this start had to evaluate.
    unevaluated: Vec<u64>,
}

fn start(disk: Arc<dyn Disk>) -> Bench {
    let fatal = Fatal::new(CancellationToken::new());
    let opened = ledger::open(disk.clone(), Path::new("/j")).unwrap();
    let (samples, aside) = samples::Store::open_on(disk.clone(), "/s").unwrap();
    assert!(aside.is_empty(), "{aside:?}");
    let samples = Arc::new(samples);
    let state = opened.state();
    let (lanes, sealed) = (state.lanes_of_samples(), state.sealed());
    let found = Found { sealed, lanes, evaluated_through: state.evaluated_through() };
    let mut kept = rows::open_with(SEGMENT, disk, Path::new("/j"), samples.clone(), found).unwrap();
    let problems = [opened.problems.clone(), kept.problems.clone()].concat();
    let unevaluated = std::mem::take(&mut kept.unevaluated);
    let seqs = unevaluated.iter().map(|row| row.samples_seq).collect();
    let evaluated_at = std::mem::take(&mut kept.evaluated_at);
    let found = evaluate::Found { evaluated_at, unevaluated, ..Default::default() };
    let ledger = opened.start(Defaults::default(), fatal.clone());
    let (out, durable) = sync_channel(1_000);
    let rows = kept.start(out, fatal);
    let statistics = Arc::new(Statistics::default());
    let plan = Plan::new(1, &RuleSet::new(Vec::new()).unwrap());
    let parts = evaluate::Parts {
        plan: Arc::new(ArcSwap::from_pointee(plan)),
        store: samples.clone(),
        rows: rows.clone(),
        ledger: ledger.clone(),
        statistics: statistics.clone(),
        defaults: Defaults::default(),
    };
    let evaluator = std::thread::spawn(move || evaluate::run(parts, found, &durable).unwrap());
    let table = Arc::new(Table { id: 1, series: ["a", "b"].map(|name| Labels::series(name, &[])).into() });
    let keeping = Keeping { ledger, rows, samples, statistics };
    Bench { keeping, table, evaluator, problems, unevaluated: seqs }
}

impl Bench {
    /// One row of host 1, whole, its values told by its seq; returns once it is acknowledged.
    async fn row(&self, seq: u64, seconds: i64) {
        let (at, values) = (at(seconds), values(seq).to_vec());
        let mut data = Vec::new();
        Chain::new(2).encode(at, seq, &values, &mut data);
        let table = self.table.clone();
        let row = TakenRow { seq, table, chain: seq, index: 0, at, wall: at, boot_ms: seq, values, data };
        let acknowledge = watch::Sender::new(Ranges::default());
        let mut acknowledged = acknowledge.subscribe();
        let batch =
            Batch { agent: agent(1), epoch: EPOCH, rows: vec![row], received: Instant::now(), acknowledge };
        self.keeping.rows.take(batch).await.unwrap();
        acknowledged.wait_for(|taken| taken.contains(seq)).await.unwrap();
    }

    /// What is stored: times, and both values.
    fn stored(&self) -> BTreeMap<i64, Vec<f64>> {
        let mut stored: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
        let wanted = samples::Wanted { equals: &[], matches: &|_: &Labels| true };
        let mut visit = |labels: &Labels, times: &[i64], values: &[f64]| {
            assert!(times.is_sorted_by(|a, b| a < b), "{labels} has a sample twice: {times:?}");
            for (time, value) in times.iter().zip(values) {
                stored.entry(*time / 1_000).or_default().push(*value);
            }
        };
        let all = (Timestamp::MIN, Timestamp::MAX);
        self.keeping.samples.view().select_matching(&wanted, all, &mut visit).unwrap();
        stored.values_mut().for_each(|values| values.sort_by(f64::total_cmp));
        stored
    }

    async fn stop(self) {
        self.keeping.rows.stop().await;
        self.keeping.ledger.stop().await;
        self.evaluator.join().unwrap();
    }
}

/// The values of a row.
fn values(seq: u64) -> [f64; 2] {
    [seq as f64, seq as f64 + 0.5]
}

/// Rows, head files, late rows, sealing, joining, retention; what was acknowledged when, and what retention may have
/// taken.
async fn history(disk: &RecordingDisk) -> (Vec<(usize, u64, i64)>, usize) {
    let window = WINDOW.as_secs() as i64;
    let bench = start(Arc::new(disk.clone()));
    let mut acknowledged = Vec::new();
    let mut seq = 0;
    let mut rows = async |times: &[i64]| {
        for seconds in times {
            seq += 1;
            bench.row(seq, *seconds).await;
            acknowledged.push((disk.position(), seq, *seconds));
        }
    };
    rows(&[10, 20, 30]).await;
    bench.keeping.write_head().await.unwrap();
    rows(&[40, window + 10, 15]).await; // One of the next window, one late.
    bench.keeping.write_head().await.unwrap();
    rows(&[25, window + 20]).await;
    bench.keeping.seal(at(window)).await;
    rows(&[35, window + 30]).await; // Late for a window that is sealed.
    bench.keeping.write_head().await.unwrap();
    bench.keeping.seal(at(window)).await;
    rows(&[2 * window + 10]).await;
    bench.keeping.seal(at(2 * window)).await;
    let day = DAY.as_secs() as i64;
    let joined = bench.keeping.samples.join(at(day), u64::MAX, &|| true).unwrap();
    assert_eq!(joined.unwrap().window, Window::of(at(0)).day());
    bench.keeping.record_blocks().await;
    rows(&[45]).await; // Late for a day that is joined.
    bench.keeping.seal(at(2 * window)).await;
    let retained = disk.position();
    let now = at(day + 2 * window);
    assert_eq!(bench.keeping.samples.blocks().len(), 2);
    bench.keeping.samples.retain(now, WINDOW.saturating_mul(2), u64::MAX).unwrap();
    bench.keeping.record_blocks().await;
    assert_eq!(bench.keeping.ledger.read(|state| state.sealed().blocks.len()).await.unwrap(), 0);
    bench.stop().await;
    (acknowledged, retained)
}

// Cases: C2, C19
#[tokio::test(flavor = "multi_thread")]
async fn no_power_cut_between_a_row_and_its_block_loses_it_or_shows_it_twice() {
    let disk = RecordingDisk::default();
    let (acknowledged, retained) = history(&disk).await;
    let end = disk.position();
    let history = disk.history();
    let (mut cuts, mut loaded) = (0, 0);
    for cut in history.power_cuts_within(64) {
        cuts += 1;
        let label = cut.to_string();
        let after = cut.after;
        let again: Arc<dyn Disk> = Arc::new(cut.disk);
        let bench = start(again.clone());
        assert_eq!(bench.problems, [""; 0], "{label}");
        let stored = bench.stored();
        for (seconds, values_of) in &stored {
            let row = acknowledged.iter().find(|(_, _, at)| at == seconds);
            assert!(
                row.is_some_and(|(_, seq, _)| values(*seq)[..] == values_of[..]),
                "{seconds} {values_of:?}: {label}"
            );
        }
        for (_, seq, seconds) in acknowledged.iter().filter(|(position, ..)| *position <= after) {
            let expired = after >= retained && *seconds < 2 * WINDOW.as_secs() as i64;
            assert!(expired || stored.contains_key(seconds), "row {seq} is lost: {label}");
            let taken = bench.keeping.rows.progress(agent(1), EPOCH).await.unwrap();
            assert!(taken.contains(*seq), "row {seq} would be taken again: {label}");
        }
        loaded += usize::from(bench.keeping.rows.tail_bytes() == 0);
        bench.stop().await;
        let once_more = start(again);
        assert_eq!(once_more.stored(), stored, "a second start: {label}");
        once_more.stop().await;
    }
    assert!(cuts > end, "every moment was looked at: {cuts} of {end}");
    assert!(loaded > 0, "some starts found all rows in head files");
}

// Cases: C1, C2
#[tokio::test(flavor = "multi_thread")]
async fn a_start_evaluates_only_what_no_note_has() {
    let disk = MemoryDisk::new();
    let bench = start(Arc::new(disk.clone()));
    for seq in 1..=4 {
        bench.row(seq, seq as i64 * 10).await;
    }
    let statistics = bench.keeping.statistics.clone();
    let evaluated = wait_for(|| Some(statistics.evaluated_through()).filter(|through| *through == 4)).await;
    bench.keeping.note(evaluated).await.unwrap();
    bench.row(5, 50).await;
    bench.keeping.rows.stop().await;
    let again = start(Arc::new(disk.clone()));
    assert_eq!(again.unevaluated, [5]);
    assert_eq!(again.problems, [""; 0]);
    wait_for(|| Some(()).filter(|()| again.keeping.statistics.evaluated_through() == 5)).await;
    again.keeping.write_head().await.unwrap();
    again.row(6, 60).await;
    again.keeping.rows.stop().await;
    let third = start(Arc::new(disk));
    assert_eq!(third.unevaluated, [6], "a head file counts once its rows are evaluated");
    assert_eq!(third.keeping.samples.last_rows(), [(agent(1), at(60))]);
    third.stop().await;
}

/// Looks until there is something, for ten seconds at most.
async fn wait_for<T>(look: impl Fn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it never came");
        tokio::task::yield_now().await;
    }
}

// Cases: S4, C19
#[tokio::test(flavor = "multi_thread")]
async fn damaged_head_files_cost_time_and_no_row() {
    let disk = MemoryDisk::new();
    let bench = start(Arc::new(disk.clone()));
    for seq in 1..=6 {
        bench.row(seq, seq as i64 * 10).await;
        if seq % 2 == 0 {
            bench.keeping.write_head().await.unwrap();
        }
    }
    let stored = bench.stored();
    bench.stop().await;
    let image: Vec<_> = disk.paths().into_iter().map(|path| (disk.content(&path).unwrap(), path)).collect();
    let heads: Vec<_> = image.iter().filter(|(_, path)| path.starts_with("/s/heads")).collect();
    assert_eq!(heads.len(), 4, "a manifest and three files");
    let mut said = 0;
    for (damaged, path) in heads {
        let cuts = (0..damaged.len()).step_by(5).map(|length| damaged[..length].to_vec());
        let flips = (0..damaged.len()).step_by(3).map(|at| {
            let mut content = damaged.clone();
            content[at] ^= 0x04;
            content
        });
        for content in cuts.chain(flips).chain([b"something else".to_vec()]) {
            let disk = MemoryDisk::new();
            image.iter().for_each(|(whole, path)| disk.set_content(path, whole.clone()));
            disk.set_content(path, content.clone());
            let again = start(Arc::new(disk));
            let problems = again.problems.join("; ");
            assert_eq!(again.stored(), stored, "{} of {} bytes: {problems}", path.display(), content.len());
            said += usize::from(problems.contains("head files do not count"));
            again.row(7, 70).await; // And it goes on.
            again.keeping.write_head().await.unwrap();
            again.keeping.rows.stop().await;
        }
    }
    assert!(said > 100, "damage is said: {said}");
}

/// What sources push, without any agent: head files bring it back, blocks take it, and the journal lets it go.
#[tokio::test(flavor = "multi_thread")]
async fn pushed_samples_alone_go_the_whole_way() {
    use crate::journal::rows::received::{Received, Sample, Series};
    use crate::samples::received::Origin;

    let (disk, window) = (MemoryDisk::new(), WINDOW.as_secs() as i64);
    let labels = Labels::series("up", &[("job", "api"), ("instance", "a")]);
    let series = Arc::new(Series::new(labels.clone(), Arc::new(Origin::of("prom", &labels))));
    let scrape = |seconds: i64| {
        let sample = Sample { series: series.clone(), at: at(seconds), value: seconds as f64 };
        Received { source: "prom".into(), samples: vec![sample] }
    };
    let times = (0..60).map(|n| n * 60).chain([2 * window + 10]).collect::<Vec<_>>();
    let want: BTreeMap<i64, Vec<f64>> = times.iter().map(|at| (*at, vec![*at as f64])).collect();

    let bench = start(Arc::new(disk.clone()));
    for seconds in &times[..40] {
        assert_eq!(bench.keeping.rows.receive(scrape(*seconds)).await.unwrap(), Ok(0));
    }
    bench.keeping.write_head().await.unwrap();
    for seconds in &times[40..] {
        assert_eq!(bench.keeping.rows.receive(scrape(*seconds)).await.unwrap(), Ok(0));
    }
    bench.stop().await;

    let bench = start(Arc::new(disk.clone()));
    assert_eq!((bench.stored(), bench.problems.clone()), (want.clone(), Vec::new()), "from head and journal");
    assert_eq!(bench.keeping.samples.last_rows(), [], "no agent");
    let before = bench.keeping.rows.standing().await.unwrap();
    bench.keeping.seal(at(window)).await;
    let after = bench.keeping.rows.standing().await.unwrap();
    assert!(
        before.segments.len() > 3 && after.segments.len() < before.segments.len(),
        "{before:?} {after:?}"
    );
    bench.stop().await;

    let bench = start(Arc::new(disk));
    assert_eq!(
        (bench.stored(), bench.problems.clone()),
        (want, Vec::new()),
        "from the block and the journal"
    );
    bench.stop().await;
}
