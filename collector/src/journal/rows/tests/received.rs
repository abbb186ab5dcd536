//! Received samples over a disk in memory: restarts, cuts, calls that fail, a full disk, damage.

use std::sync::Mutex;

use tocsin_shared::disk::{RecordingDisk, Step};

use super::*;
use crate::journal::rows::received::{Differing, NoRoom, Sample, Series};
use crate::samples::received::Origin;

type Reply = oneshot::Receiver<Result<Differing, NoRoom>>;

/// The series of a source, each made once.
#[derive(Default)]
struct Sender(HashMap<String, Arc<Series>>);

impl Sender {
    fn series(&mut self, n: u64) -> Arc<Series> {
        let instance = format!("i{}", n % 2);
        let labels = Labels::series("r", &[("job", "j"), ("instance", &instance), ("n", &n.to_string())]);
        let make = || Arc::new(Series::new(labels.clone(), Arc::new(Origin::of("prom", &labels))));
        Arc::clone(self.0.entry(labels.to_string()).or_insert_with(make))
    }

    /// At these seconds, the value of each of these series is the second.
    fn request(&mut self, series: &[u64], seconds: std::ops::RangeInclusive<u64>) -> Received {
        let mut samples = Vec::new();
        for second in seconds {
            for n in series {
                samples.push(Sample { series: self.series(*n), at: at(second as i64), value: second as f64 });
            }
        }
        samples.sort_by_key(|sample| (sample.series.origin.key, sample.at));
        Received { source: "prom".into(), samples }
    }
}

/// The seconds that a series has, each with its second as its value.
fn seconds(store: &Store, n: u64) -> Vec<u64> {
    let expr = tocsin_promql::Expr::parse(&format!("r{{n=\"{n}\"}}[100d]")).unwrap();
    let found =
        tocsin_promql::instant(&expr, &store.view(), at(1_000_000), &tocsin_promql::Limits::default());
    let tocsin_promql::Value::Matrix(series) = found.unwrap() else { panic!("no matrix") };
    assert!(series.len() <= 1, "one series: {series:?}");
    let points = series.iter().flat_map(|series| &series.points);
    let second = |point: &tocsin_shared::sample::Sample| {
        assert_eq!(point.at, at(point.value as i64), "a value of another time");
        point.value as u64
    };
    points.map(second).collect()
}

#[tokio::test]
async fn samples_are_read_back_whatever_segments_they_are_in() {
    let (bench, mut sender) = (Bench::new(400), Sender::default());
    let started = bench.start();
    for second in 1..=40 {
        let series = [1, 2, 3, 10 + second / 7];
        let request = sender.request(&series, second..=second);
        assert_eq!(started.rows.receive(request).await.unwrap(), Ok(0));
    }
    let differing = Sample { series: sender.series(1), at: at(40), value: 99.0 };
    let request = Received { source: "prom".into(), samples: vec![differing] };
    assert_eq!(started.rows.receive(request).await.unwrap(), Ok(1));
    let again = sender.request(&[1, 2], 39..=40);
    assert_eq!(started.rows.receive(again).await.unwrap(), Ok(0), "the same again is no difference");
    let nothing = Received { source: "prom".into(), samples: Vec::new() };
    assert_eq!(started.rows.receive(nothing).await.unwrap(), Ok(0));
    let standing = started.rows.standing().await.unwrap();
    assert!(standing.segments.len() > 5 && standing.newest_row == 0, "{standing:?}");
    started.rows.stop().await;
    let again = bench.start();
    assert_eq!(again.problems, Vec::<String>::new());
    assert!(again.unevaluated.is_empty() && again.evaluated_at.is_empty(), "no rows of agents");
    for (n, want) in [(1, 1..=40), (2, 1..=40), (10, 1..=6), (11, 7..=13), (15, 35..=40)] {
        assert_eq!(seconds(&again.store, n), want.collect::<Vec<_>>(), "{n}");
    }
    let dropped = standing.segments[3].0;
    again.rows.drop_before(dropped).await.unwrap();
    again.rows.stop().await;
    let rest = bench.start();
    assert_eq!(rest.problems, Vec::<String>::new(), "no segment needs the ones before it");
    assert_eq!(seconds(&rest.store, 1).last(), Some(&40));
}

// Cases: C19
#[tokio::test]
async fn what_blocks_have_is_not_shown_again_and_a_record_may_be_of_both() {
    let (mut bench, mut sender) = (Bench::new(1 << 20), Sender::default());
    let started = bench.start();
    for span in [1..=4, 5..=8] {
        assert_eq!(started.rows.receive(sender.request(&[1], span)).await.unwrap(), Ok(0));
    }
    started.rows.stop().await;
    bench.sealed = sealed(1, at(3));
    assert_eq!(seconds(&bench.start().store, 1), [3, 4, 5, 6, 7, 8]);
}

// Cases: C7
#[tokio::test]
async fn on_a_full_disk_a_request_is_refused_whole_and_comes_again() {
    for capacity in [0, 40, 200, 400, 800] {
        let (bench, mut sender) = (Bench::new(2_000), Sender::default());
        let config = crate::room::Config { reserve_bytes: 0, free_floor_bytes: 0 };
        let disk: Arc<dyn Disk> = Arc::new(bench.disk.clone());
        let room = Room::open(disk, Path::new("/j"), config, at(0)).unwrap();
        let started = bench.start_in(room.clone());
        assert_eq!(started.rows.receive(sender.request(&[1, 2], 1..=1)).await.unwrap(), Ok(0));
        bench.disk.set_capacity(bench.disk.used() + capacity);
        let many = (1..=80).collect::<Vec<_>>();
        let refused = started.rows.receive(sender.request(&many, 2..=6)).await.unwrap();
        assert_eq!(refused, Err(NoRoom), "{capacity}");
        assert!(!room.takes_rows(), "{capacity}");
        assert_eq!(started.rows.receive(sender.request(&[1], 2..=2)).await.unwrap(), Err(NoRoom));
        bench.disk.set_capacity(u64::MAX);
        room.look(at(100));
        assert!(room.takes_rows(), "{capacity}");
        assert_eq!(started.rows.receive(sender.request(&many, 2..=6)).await.unwrap(), Ok(0), "{capacity}");
        started.rows.stop().await;
        let started = bench.start();
        assert_eq!(started.problems, Vec::<String>::new(), "{capacity}");
        assert_eq!(seconds(&started.store, 1), [1, 2, 3, 4, 5, 6], "{capacity}");
        assert_eq!(seconds(&started.store, 80), [2, 3, 4, 5, 6], "{capacity}");
    }
}

// Cases: S4
#[tokio::test]
async fn a_damaged_table_costs_its_series_and_nothing_else() {
    let (bench, mut sender) = (Bench::new(1 << 20), Sender::default());
    let started = bench.start();
    started.rows.receive(sender.request(&[1], 1..=1)).await.unwrap().unwrap();
    started.rows.receive(sender.request(&[2], 2..=2)).await.unwrap().unwrap();
    started.rows.receive(sender.request(&[1, 2, 3], 3..=3)).await.unwrap().unwrap();
    started.rows.stop().await;
    let path = bench.disk.paths().into_iter().find(|path| path.to_string_lossy().ends_with(".seg")).unwrap();
    let mut content = bench.disk.content(&path).unwrap();
    let text = b"prom"; // Of the second table: after the first one's.
    let found: Vec<usize> = (0..content.len() - 4).filter(|at| &content[*at..at + 4] == text).collect();
    content[found[1]] ^= 1;
    bench.disk.set_content(&path, content);
    let started = bench.start();
    let said = "received samples of row 3 of the samples journal are missing";
    assert!(started.problems.iter().any(|problem| problem.contains(said)), "{:?}", started.problems);
    let found = [1, 2, 3].map(|n| seconds(&started.store, n));
    assert_eq!(found, [vec![1, 3], vec![], vec![3]]);
}

struct Run {
    bench: Bench,
    disk: RecordingDisk,
    sender: Sender,
    waiting: Waits,
    /// After how many steps of the disk which seconds of series 1 were said to be there, and refused ones.
    said: Arc<Mutex<Said>>,
    /// The seconds that may be gone from this position on.
    dropped: Option<(usize, Vec<u64>)>,
    started: Option<Started>,
}

/// A request that waits for its answer, and the seconds in it.
type Waits = Arc<Mutex<Option<(Reply, Vec<u64>)>>>;
/// After how many steps of the disk which seconds were said to be there.
type Said = Vec<(usize, Vec<u64>)>;

fn look(waiting: &Waits, said: &Mutex<Said>, position: usize) {
    let mut waiting = waiting.lock().unwrap();
    let Some((reply, _)) = waiting.as_mut() else { return };
    match reply.try_recv() {
        Ok(Ok(_)) => {
            let (_, seconds) = waiting.take().unwrap();
            said.lock().unwrap().push((position, seconds));
        }
        Ok(Err(NoRoom)) | Err(oneshot::error::TryRecvError::Closed) => *waiting = None,
        Err(oneshot::error::TryRecvError::Empty) => {}
    }
}

impl Run {
    fn new() -> Self {
        let (disk, waiting, said) = (RecordingDisk::default(), Waits::default(), Arc::default());
        let (watched, noted): (Waits, Arc<Mutex<_>>) = (waiting.clone(), Arc::clone(&said));
        disk.before_each(move |position| look(&watched, &noted, position));
        let (bench, sender) = (Bench::new(300), Sender::default());
        Self { bench, disk, sender, waiting, said, dropped: None, started: None }
    }

    async fn receive(
        &mut self,
        rows: &Rows,
        n: &[u64],
        span: std::ops::RangeInclusive<u64>,
    ) -> Result<(), Stopping> {
        let (reply, answer) = oneshot::channel();
        let request = self.sender.request(n, span.clone());
        *self.waiting.lock().unwrap() = Some((answer, span.collect()));
        rows.send(Job::Received(request, reply)).await?;
        rows.standing().await?; // It is answered by now.
        look(&self.waiting, &self.said, self.disk.position());
        Ok(())
    }

    /// Requests of one and of many seconds beside an agent's rows, full segments, a drop, a head, a restart.
    async fn live(&mut self) -> Result<(), Stopping> {
        let rows = self.start()?;
        self.receive(&rows, &[1, 2], 1..=1).await?;
        let row = self.bench.row(1, 1, 1);
        take(&rows, vec![row]).await;
        self.receive(&rows, &[1, 2], 2..=4).await?;
        self.receive(&rows, &[1, 2, 3], 3..=6).await?;
        let covered: Vec<u64> = (1..=4).collect();
        let before = rows.standing().await?.through + 1;
        self.receive(&rows, &[1, 2, 3, 4], 7..=12).await?;
        rows.begin_head().await?;
        self.receive(&rows, &[1, 3], 13..=13).await?;
        self.dropped = Some((self.disk.position(), covered));
        self.bench.sealed.samples_from = before;
        let segments = rows.standing().await?.segments;
        let whole = segments.iter().map(|(first, _)| *first).filter(|first| *first <= before).max();
        rows.drop_before(whole.unwrap_or(0).min(before)).await?;
        rows.standing().await?;
        rows.stop().await;
        let rows = self.start()?;
        self.receive(&rows, &[1, 4], 14..=15).await?;
        rows.stop().await;
        Ok(())
    }

    fn start(&mut self) -> Result<Rows, Stopping> {
        self.started = self.bench.try_start_on(Arc::new(self.disk.clone()));
        self.started.as_ref().map(|started| started.rows.clone()).ok_or(Stopping)
    }

    /// The seconds that must be there when the disk had taken so many steps.
    fn owed(&self, position: usize) -> Vec<u64> {
        let said = self.said.lock().unwrap();
        let gone = self.dropped.as_ref().filter(|(at, _)| *at <= position);
        let is_gone = |second: &u64| gone.is_some_and(|(_, gone)| *second < 7 || gone.contains(second));
        let said = said.iter().filter(|(at, _)| *at <= position).flat_map(|(_, seconds)| seconds.clone());
        said.filter(|second| !is_gone(second)).collect()
    }

    async fn check(&self, disk: MemoryDisk, position: usize, text: &str) {
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let opened = self.bench.try_start_on(disk.clone()).unwrap();
        let found = seconds(&opened.store, 1);
        assert!(found.is_sorted_by(|a, b| a < b), "{text}: twice: {found:?}");
        let missing: Vec<u64> = self.owed(position).into_iter().filter(|s| !found.contains(s)).collect();
        assert_eq!(missing, [0; 0], "{text}: acknowledged and lost: {found:?} {:?}", opened.problems);
        assert!(
            opened.problems.is_empty() || text.contains("without its first"),
            "{text}: {:?}",
            opened.problems
        );
        opened.rows.stop().await;
        let again = self.bench.try_start_on(disk).unwrap();
        assert_eq!(seconds(&again.store, 1), found, "{text}: another opening, other samples");
        let mut sender = Sender::default();
        assert_eq!(again.rows.receive(sender.request(&[1], 50..=50)).await, Ok(Ok(0)), "{text}");
        assert!(seconds(&again.store, 1).contains(&50), "{text}");
        again.rows.stop().await;
    }
}

// Cases: C1, C2, C19
#[tokio::test]
async fn after_any_power_cut_acknowledged_samples_are_there_once() {
    let mut run = Run::new();
    run.live().await.unwrap();
    assert_eq!(run.said.lock().unwrap().len(), 6, "all were acknowledged");
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
async fn any_failing_call_is_the_end_and_no_request_is_acknowledged_after_it() {
    for kind in [std::io::ErrorKind::Other, std::io::ErrorKind::StorageFull] {
        for after in 0.. {
            let mut run = Run::new();
            run.disk.memory().fail(Fault { operation: None, after, kind, stays: false });
            let ended = run.live().await;
            if run.disk.memory().calls() <= after {
                assert!(ended.is_ok() && after > 10, "{after} calls are too few");
                break; // Nothing had failed.
            }
            let steps = run.disk.history().steps().to_vec();
            let failed = steps.iter().position(|step| matches!(step, Step::SyncDataFailed { .. }));
            let later = failed.map_or(&[][..], |failed| &steps[failed + 1..]);
            assert_eq!(later, [], "call {after} fails: something is written after a failed fsync");
            let end = run.disk.position();
            for cut in run.disk.history().power_cuts_at(end) {
                let text = format!("call {after} fails: {kind}; {cut}");
                run.check(cut.disk, end, &text).await;
            }
        }
    }
}
