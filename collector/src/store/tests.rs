//! Both kinds of tables, and the projector over a real journal.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs, io};

use tocsin_shared::alert::{Alert, Condition};
use tocsin_shared::disk::{Disk, MemoryDisk};
use tocsin_shared::event::{Actor, Event, EventKind, Subject};
use tocsin_shared::log::Config as LogConfig;
use tocsin_shared::run::JobRun;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::projector::{Config, Projection};
use super::prune::{RUNS_PER_JOB_MAX, Retention};
use super::query::Applied;
use super::*;
use crate::journal::ledger::{self, Fatal, Ledger};
use crate::state::testing::{Desk, at, enrolment, evaluation, heard, place, rule, run, run_end, token};
use crate::state::{Command, Defaults};
use tocsin_shared::identity::Env;

fn both(test: impl Fn(&dyn Tables)) {
    let dir = tempfile::tempdir().unwrap();
    test(&MemoryTables::default());
    test(&SledTables::open(&dir.path().join("store")).unwrap());
}

#[test]
fn tables_in_memory_and_in_sled_behave_the_same() {
    both(|tables| {
        let write = |table, key: &[u8], value: Option<&[u8]>| Write {
            table,
            key: key.to_vec(),
            value: value.map(<[u8]>::to_vec),
        };
        let keys: [&[u8]; 4] = [b"a1", b"a2", b"a3", b"b"];
        let all: Vec<Write> = keys.iter().map(|key| write(Table::Runs, key, Some(key))).collect();
        tables.commit(&all).unwrap();
        tables.commit(&[write(Table::Runs, b"a2", None), write(Table::Alerts, b"a", Some(b"x"))]).unwrap();
        let scan = |prefix: &[u8], newest_first, limit| -> Vec<Vec<u8>> {
            let pairs = tables.scan(Table::Runs, prefix, newest_first, limit).unwrap();
            pairs.into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(scan(b"", false, 9), [b"a1".to_vec(), b"a3".to_vec(), b"b".to_vec()]);
        assert_eq!(scan(b"a", true, 9), [b"a3".to_vec(), b"a1".to_vec()]);
        assert_eq!(scan(b"", true, 1), [b"b".to_vec()]);
        assert_eq!(tables.get(Table::Runs, b"a2").unwrap(), None);
        assert_eq!(tables.get(Table::Alerts, b"a").unwrap(), Some(b"x".to_vec()));
    });
}

fn of_run(seq: u64, run: tocsin_shared::run::JobRun) -> Event {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    desk.done(Command::JobEnded {
        run: run_end(1, "backup", 0, 1, 0),
        place: crate::state::testing::place(1),
    });
    let event = desk.journal.into_iter().find(|event| event.kind == EventKind::JobSucceeded).unwrap();
    Event { seq, subject: Subject::Run(run), ..event }
}

#[test]
fn a_run_is_listed_once_and_its_whole_output_comes_back() {
    let store = Store::default();
    store.install(Arc::new(MemoryTables::default()), 0);
    let id = Uuid::from_u128(7);
    let begun = run(id, 10);
    let mut ended = run(id, 11); // Its end gives another start.
    ended.output_tail = "é".repeat(32 * 1024);
    store.apply(&[of_run(4, begun), of_run(5, ended.clone())]).unwrap();
    assert_eq!(store.applied().unwrap().seq, 5);
    let listed = store.runs("", 10).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].output_tail, "");
    assert_eq!(store.run(id).unwrap().unwrap().output_tail, ended.output_tail);
}

/// A journal with some history, and the place of a store.
struct Bench {
    ledger: Ledger,
    dir: tempfile::TempDir,
    runs: u128,
}

impl Bench {
    async fn new() -> Self {
        let config = LogConfig { segment_bytes: 4_000, scan_all: false };
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let opened = ledger::open_with(config, disk, Path::new("/j")).unwrap();
        let ledger = opened.start(Defaults::default(), Fatal::new(CancellationToken::new()));
        let mut bench = Self { ledger, dir: tempfile::tempdir().unwrap(), runs: 0 };
        bench.submit(Command::CreateToken(token(1, Env::Prod, "*"))).await;
        bench.submit(Command::Enrol(enrolment(1, "web-1"))).await;
        bench.submit(Command::HostHeard(heard(1))).await;
        for (seq, elements) in [(1, &[("sda", "critical")][..]), (2, &[]), (3, &[("sdb", "critical")])] {
            let evaluation = evaluation(&rule("disk-full", 0, 0), 1, seq as i64, seq, elements);
            bench.submit(evaluation).await;
        }
        for _ in 0..20 {
            bench.run().await;
        }
        bench
    }

    async fn submit(&self, command: Command) {
        self.ledger.submit(command, Actor::System).await.unwrap().unwrap();
    }

    /// One more run of a job.
    async fn run(&mut self) {
        self.runs += 1;
        let (id, seconds) = (self.runs, self.runs as i64 * 10);
        let run = run_end(id, "backup", seconds, seconds + 5, 0);
        self.submit(Command::JobEnded { run, place: place(self.runs as u64) }).await;
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn sled(&self) -> Config {
        Config {
            wait: Duration::from_millis(1),
            ..Config::sled(self.path(), Duration::from_secs(86_400_000))
        }
    }

    /// Starts the projector and waits for all of the journal.
    async fn follow(&self, config: Config) -> (Projection, CancellationToken) {
        let stop = CancellationToken::new();
        let projection = projector::start(config, &self.ledger, stop.clone()).await.unwrap();
        self.caught_up(&projection).await;
        (projection, stop)
    }

    async fn caught_up(&self, projection: &Projection) {
        let (mut applied, head) = (projection.applied.clone(), *self.ledger.head().borrow());
        let wait = applied.wait_for(|applied| *applied >= head);
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it catches up").unwrap();
    }

    /// The collector's own alert about its store, if one was ever raised.
    async fn store_rebuilt(&self) -> Option<Alert> {
        let read = |state: &crate::state::State| {
            state.alerts().find(|alert| alert.source_id == "collector/store").cloned()
        };
        self.ledger.read(read).await.unwrap()
    }

    /// Waits until that alert is over; gives how often it fired.
    async fn store_whole(&self) -> u32 {
        let over = async {
            loop {
                match self.store_rebuilt().await {
                    Some(alert) if alert.condition == Condition::Resolved => return alert.generation,
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), over).await.expect("the store is whole again")
    }

    fn set_aside(&self) -> usize {
        let names = fs::read_dir(self.dir.path()).unwrap().flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().starts_with("store.bad-")).count()
    }
}

/// Stops the projector; its store is closed when this returns.
async fn stopped((projection, stop): (Projection, CancellationToken)) {
    stop.cancel();
    let mut applied = projection.applied.clone();
    while applied.changed().await.is_ok() {} // Until its thread has let go of the store.
}

/// Everything that a store answers, but for what was said of the store itself.
fn answers(projection: &Projection) -> String {
    let store = &projection.store;
    let mut incidents = store.incidents(true, 100).unwrap();
    incidents.retain(|incident| !incident.title.starts_with("StoreRebuilt"));
    let mut alerts = store.resolved_alerts(100).unwrap();
    alerts.retain(|alert| alert.source_id != "collector/store");
    let timelines: Vec<_> =
        incidents.iter().map(|incident| store.timeline(incident.number, 100).unwrap()).collect();
    let runs = store.runs("backup", 100).unwrap();
    let outputs: Vec<_> = (1..=30).map(|id| store.run(Uuid::from_u128(id)).unwrap()).collect();
    format!("{incidents:?} {timelines:?} {alerts:?} {runs:?} {outputs:?}")
}

fn problems(projection: &Projection) -> Vec<String> {
    projection.problems.lock().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_goes_on_where_it_was() {
    let mut bench = Bench::new().await;
    let first = bench.follow(bench.sled()).await;
    let before = first.0.store.applied().unwrap();
    stopped(first).await;
    bench.run().await;
    let again = bench.follow(bench.sled()).await;
    assert!(again.0.store.applied().unwrap().seq > before.seq);
    assert_eq!(problems(&again.0), [""; 0]);
    assert_eq!(bench.set_aside(), 0);
    stopped(again).await;
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// What it is, and how it is inflicted.
type Damage = (String, Box<dyn Fn(&Path)>);

/// Kinds of damage to one file.
fn damages(bytes: usize) -> Vec<Damage> {
    let mut damages: Vec<Damage> = vec![
        ("deleted".into(), Box::new(|path| fs::remove_file(path).unwrap())),
        (
            "a directory".into(),
            Box::new(|path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            }),
        ),
    ];
    for length in [0, 1, bytes / 3, bytes / 2, bytes - 1] {
        let cut = move |path: &Path| {
            fs::File::options().write(true).open(path).unwrap().set_len(length as u64).unwrap();
        };
        damages.push((format!("cut to {length}"), Box::new(cut)));
    }
    for place in [0, 7, bytes / 5, bytes / 3, bytes / 2, bytes - 1] {
        let flip = move |path: &Path| {
            let mut content = fs::read(path).unwrap();
            content[place] ^= 0x10;
            fs::write(path, content).unwrap();
        };
        damages.push((format!("bit flipped at {place}"), Box::new(flip)));
    }
    damages
}

// Cases: C3
#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_a_file_the_store_is_whole_again() {
    let bench = Bench::new().await;
    let first = bench.follow(bench.sled()).await;
    let expected = answers(&first.0);
    stopped(first).await;
    let whole = bench.dir.path().join("whole");
    copy(&bench.path(), &whole);
    let mut files: Vec<_> = fs::read_dir(&whole).unwrap().flatten().collect();
    files.retain(|entry| entry.path().is_file() && entry.metadata().unwrap().len() > 0);
    files.sort_by_key(fs::DirEntry::file_name);
    assert!(files.len() >= 2, "sled has a log and a configuration: {files:?}");
    for file in files {
        for (damage, inflict) in damages(fs::metadata(file.path()).unwrap().len() as usize) {
            aside::remove(&bench.path()).unwrap();
            copy(&whole, &bench.path());
            inflict(&bench.path().join(file.file_name()));
            let again = bench.follow(bench.sled()).await;
            assert_eq!(
                answers(&again.0),
                expected,
                "{:?} {damage}: {:?}",
                file.file_name(),
                problems(&again.0)
            );
            stopped(again).await;
        }
    }
    assert!(
        (1..=2).contains(&bench.set_aside()),
        "of those set aside the newest stay: {}",
        bench.set_aside()
    );
}

// Cases: C3, C6, C-I3
#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_the_journal_is_set_aside_and_said() {
    let write = |tables: &dyn Tables, key: &[u8], value: Vec<u8>| {
        tables.commit(&[Write { table: Table::Meta, key: key.to_vec(), value: Some(value) }]).unwrap();
    };
    type Prepare<'a> = &'a dyn Fn(&Path);
    let ahead: Prepare = &|path| {
        let applied = Applied { seq: 1_000_000, sum: 0 }.to_bytes();
        write(&SledTables::open(path).unwrap(), project::APPLIED, applied);
    };
    let other: Prepare = &|path| {
        let applied = Applied { seq: 3, sum: 7 }.to_bytes();
        write(&SledTables::open(path).unwrap(), project::APPLIED, applied);
    };
    let older: Prepare =
        &|path| write(&SledTables::open(path).unwrap(), project::APPLIED, 3u64.to_be_bytes().to_vec());
    let torn: Prepare = &|path| fs::write(path.join("snap.0000000000000007.generating"), b"torn").unwrap();
    let no_directory: Prepare = &|path| {
        aside::remove(path).unwrap();
        fs::write(path, b"not a directory").unwrap();
    };
    let gone: Prepare = &|path| aside::remove(path).unwrap();
    for (name, prepare, said) in [
        ("ahead", ahead, Some("the journal ends before it")),
        ("of another journal", other, Some("it is of another journal")),
        ("of another version", older, Some("another version")),
        ("a torn snapshot", torn, None),
        ("no directory", no_directory, Some("set aside")),
        ("gone", gone, None),
    ] {
        let bench = Bench::new().await;
        let first = bench.follow(bench.sled()).await;
        let expected = answers(&first.0);
        stopped(first).await;
        prepare(&bench.path());
        let again = bench.follow(bench.sled()).await;
        assert_eq!(answers(&again.0), expected, "{name}");
        let problems = problems(&again.0).join("; ");
        assert_eq!(bench.set_aside(), usize::from(said.is_some()), "{name}: {problems}");
        assert!(
            problems.contains(said.unwrap_or("")) && problems.is_empty() == said.is_none(),
            "{name}: {problems}"
        );
        match said {
            Some(_) => assert_eq!(bench.store_whole().await, 1, "{name}"),
            None => assert_eq!(bench.store_rebuilt().await, None, "{name}"),
        }
        stopped(again).await;
    }
}

/// Tables that fail as they are told.
struct Unruly {
    inner: Arc<dyn Tables>,
    /// What the next questions do.
    fate: Arc<Mutex<Fate>>,
    bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Answer,
    Panic,
    Full,
}

impl Unruly {
    fn fate(&self) -> Result<(), StoreError> {
        match *self.fate.lock().unwrap() {
            Fate::Answer => Ok(()),
            Fate::Panic => Err(StoreError::Panicked("a bug".into())),
            Fate::Full => Err(StoreError::Io(io::ErrorKind::StorageFull.into())),
        }
    }
}

impl Tables for Unruly {
    fn commit(&self, writes: &[Write]) -> Result<(), StoreError> {
        self.fate().and_then(|()| self.inner.commit(writes))
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.fate().and_then(|()| self.inner.get(table, key))
    }

    fn scan(&self, table: Table, prefix: &[u8], back: bool, limit: usize) -> Result<Vec<Pair>, StoreError> {
        self.fate().and_then(|()| self.inner.scan(table, prefix, back, limit))
    }

    fn visit(&self, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        self.fate().and_then(|()| self.inner.visit(visit))
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

// Cases: C3
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_hang_or_panic_while_they_are_opened_are_replaced() {
    for hangs in [true, false] {
        let bench = Bench::new().await;
        stopped(bench.follow(bench.sled()).await).await;
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (opened, held) = (Arc::new(AtomicU64::new(0)), Mutex::new(held));
        let times = opened.clone();
        let open: aside::Open = Arc::new(move |path| {
            if times.fetch_add(1, Ordering::SeqCst) == 0 {
                assert!(hangs, "a bug in the tables");
                held.lock().unwrap().recv().ok();
            }
            Ok(Arc::new(SledTables::open(path)?) as Arc<dyn Tables>)
        });
        let config = Config { open, open_within: Duration::from_secs(2), ..bench.sled() };
        let again = bench.follow(config).await;
        assert_eq!((opened.load(Ordering::SeqCst), bench.set_aside()), (2, 1), "hangs: {hangs}");
        let said = problems(&again.0).join("; ");
        assert!(said.contains(if hangs { "does not open within 2 s" } else { "panicked" }), "{said}");
        assert_eq!(again.0.store.runs("", 100).unwrap().len(), 20);
        drop(release);
        stopped(again).await;
    }
}

// Cases: C3
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_later_question_rebuilds_without_a_restart() {
    let mut bench = Bench::new().await;
    let fate = Arc::new(Mutex::new(Fate::Answer));
    let shared = fate.clone();
    let open: aside::Open = Arc::new(move |path| {
        *shared.lock().unwrap() = Fate::Answer; // Each new one is sound.
        let inner = Arc::new(SledTables::open(path)?);
        Ok(Arc::new(Unruly { inner, fate: shared.clone(), bytes: 0 }) as Arc<dyn Tables>)
    });
    let running = bench.follow(Config { open, ..bench.sled() }).await;
    let expected = answers(&running.0);
    for (number, in_commit) in [(1, false), (2, true)] {
        *fate.lock().unwrap() = Fate::Panic;
        if in_commit {
            bench.run().await;
        } else {
            assert!(matches!(running.0.store.runs("", 1), Err(StoreError::Panicked(_))));
        }
        let mut applied = running.0.applied.clone();
        let gone = applied.wait_for(|applied| *applied == 0);
        tokio::time::timeout(Duration::from_secs(20), gone).await.expect("it is noticed").unwrap();
        bench.caught_up(&running.0).await;
        assert_eq!(bench.set_aside(), number);
        assert!(problems(&running.0).len() == number, "{:?}", problems(&running.0));
        assert_eq!(bench.store_whole().await as usize, number, "each time it is said");
    }
    assert_eq!(running.0.store.runs("", 100).unwrap().len(), 21);
    assert!(answers(&running.0).len() > expected.len());
    stopped(running).await;
}

// Cases: C3, C7
#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_room_waits_for_it_and_is_not_set_aside() {
    let mut bench = Bench::new().await;
    let fate = Arc::new(Mutex::new(Fate::Answer));
    let (shared, opened) = (fate.clone(), Arc::new(AtomicU64::new(0)));
    let times = opened.clone();
    let open: aside::Open = Arc::new(move |path| {
        times.fetch_add(1, Ordering::SeqCst);
        let inner = Arc::new(SledTables::open(path)?);
        Ok(Arc::new(Unruly { inner, fate: shared.clone(), bytes: 0 }) as Arc<dyn Tables>)
    });
    let running = bench.follow(Config { open, ..bench.sled() }).await;
    *fate.lock().unwrap() = Fate::Full;
    bench.run().await; // The ledger takes it without a store.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while opened.load(Ordering::SeqCst) < 3 && tokio::time::Instant::now() < deadline {
        tokio::task::yield_now().await;
    }
    assert!(
        problems(&running.0).iter().any(|said| said.contains("has no room")),
        "{:?}",
        problems(&running.0)
    );
    *fate.lock().unwrap() = Fate::Answer;
    bench.caught_up(&running.0).await;
    assert_eq!(running.0.store.runs("", 100).unwrap().len(), 21);
    assert_eq!(bench.set_aside(), 0);
    stopped(running).await;
}

// Cases: C4
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_takes_far_more_than_it_holds_is_copied_anew() {
    let bench = Bench::new().await;
    let opened = Arc::new(Mutex::new(Vec::new()));
    let paths = opened.clone();
    let open: aside::Open = Arc::new(move |path| {
        let mut paths = paths.lock().unwrap();
        let bytes = if paths.is_empty() { 1 << 30 } else { 0 };
        paths.push(path.file_name().unwrap().to_string_lossy().into_owned());
        let inner = Arc::new(SledTables::open(path)?);
        Ok(Arc::new(Unruly { inner, fate: Arc::new(Mutex::new(Fate::Answer)), bytes }) as Arc<dyn Tables>)
    });
    let running = bench.follow(Config { open, care: Duration::from_millis(1), ..bench.sled() }).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while opened.lock().unwrap().len() < 3 && tokio::time::Instant::now() < deadline {
        tokio::task::yield_now().await;
    }
    bench.caught_up(&running.0).await;
    let mut whole = running.0.store.runs("", 100);
    while matches!(whole, Err(StoreError::Building { .. })) && tokio::time::Instant::now() < deadline {
        tokio::task::yield_now().await;
        whole = running.0.store.runs("", 100);
    }
    assert_eq!(whole.unwrap().len(), 20);
    assert_eq!(opened.lock().unwrap().as_slice(), ["store", "store.new", "store"]);
    assert_eq!(problems(&running.0), [""; 0]);
    let names: Vec<_> = fs::read_dir(bench.dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(names, ["store"], "nothing is left beside it");
    stopped(running).await;
    let again = bench.follow(bench.sled()).await;
    assert_eq!((again.0.store.runs("", 100).unwrap().len(), problems(&again.0).len()), (20, 0));
    stopped(again).await;
}

/// A store whose first events the journal no longer has, built again.
// Cases: C3
#[tokio::test(flavor = "multi_thread")]
async fn a_new_store_knows_what_the_journal_has_dropped_and_the_ledger_still_knows() {
    let bench = Bench::new().await;
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let open = || {
        let config = LogConfig { segment_bytes: 4_000, scan_all: false };
        ledger::open_with(config, disk.clone(), Path::new("/j")).unwrap()
    };
    drop(bench);
    let fatal = || Fatal::new(CancellationToken::new());
    let ledger = open().start(Defaults::default(), fatal());
    let mut bench = Bench { ledger, dir: tempfile::tempdir().unwrap(), runs: 0 };
    bench.submit(Command::CreateToken(token(1, Env::Prod, "*"))).await;
    bench.submit(Command::Enrol(enrolment(1, "web-1"))).await;
    bench.submit(Command::HostHeard(heard(1))).await;
    bench.submit(evaluation(&rule("disk-full", 0, 0), 1, 1, 1, &[("sda", "critical")])).await;
    for _ in 0..20 {
        bench.run().await;
    }
    bench.ledger.stop().await; // With a checkpoint.
    bench.ledger = open().start(Defaults::default(), fatal());
    bench.ledger.drop_older(tocsin_shared::time::Timestamp::MAX, u64::MAX).await.unwrap();
    let running = bench.follow(bench.sled()).await;
    let incidents = running.0.store.incidents(true, 10).unwrap();
    assert_eq!(incidents.len(), 1, "it was opened before the journal's first event");
    assert_eq!(running.0.store.runs("backup", 100).unwrap().len(), 20);
    stopped(running).await;
}

#[test]
fn what_is_beyond_retention_is_forgotten() {
    both(|tables| {
        let mut writes = Vec::new();
        let mut add = |run: &JobRun| writes.extend(project::project_record(&Subject::Run(run.clone())));
        for n in 0..RUNS_PER_JOB_MAX as u128 + 5 {
            add(&run(Uuid::from_u128(n), 10_000 + n as i64)); // Five more than are kept of a job.
        }
        for n in 0..3 {
            let old = JobRun { job_name: "old".into(), ..run(Uuid::from_u128(9_000 + n), 5 + n as i64) };
            add(&JobRun { output_tail: "words".into(), ..old }); // Two of them before the time.
        }
        tables.commit(&writes).unwrap();
        let (mut desk, mut numbers) = (Desk::with_hosts(1, Env::Prod), BTreeMap::new());
        for (now, elements) in [(1, &[("sda", "critical")][..]), (3, &[])] {
            desk.now = now;
            desk.evaluate(&rule("r", 0, 0), elements);
        }
        desk.tick(100); // Resolves itself.
        desk.now = 101;
        desk.evaluate(&rule("r", 0, 0), &[("sdb", "critical")]);
        for event in &desk.journal {
            if let Subject::Incident(incident) = &event.subject {
                numbers.insert(incident.number, incident.status.is_open());
            }
            tables.commit(&project::project(event)).unwrap();
        }
        let store = Store::default();
        let count = |table| tables.scan(table, b"", false, usize::MAX).unwrap().len();
        assert_eq!(
            (count(Table::Incidents), numbers.values().filter(|open| **open).count()),
            (numbers.len(), 1)
        );
        drop(store);

        prune::prune(tables, &Retention { ended_before: at(7) }).unwrap();
        assert_eq!(count(Table::RunsByTime), RUNS_PER_JOB_MAX + 1, "two were too old, five too many");
        assert_eq!((count(Table::Runs), count(Table::Outputs)), (RUNS_PER_JOB_MAX + 1, 1 + RUNS_PER_JOB_MAX));
        assert!(
            tables.get(Table::Runs, Uuid::from_u128(9_002).as_bytes()).unwrap().is_some(),
            "young enough"
        );
        assert!(tables.get(Table::Runs, Uuid::from_u128(4).as_bytes()).unwrap().is_none(), "the oldest go");
        assert_eq!(count(Table::Incidents), numbers.len(), "it was resolved later");

        prune::prune(tables, &Retention { ended_before: at(10_000_000) }).unwrap();
        assert_eq!(count(Table::RunsByTime) + count(Table::Outputs), 0);
        let open: Vec<u64> = numbers.iter().filter(|(_, open)| **open).map(|(number, _)| *number).collect();
        let left = tables.scan(Table::Incidents, b"", false, 10).unwrap();
        assert_eq!(left.len(), open.len(), "open incidents stay");
        let timelines = tables.scan(Table::Timeline, b"", false, 1_000).unwrap();
        assert!(
            timelines.iter().all(|(key, _)| key.starts_with(&open[0].to_be_bytes())) && !timelines.is_empty()
        );
        assert_eq!(count(Table::Alerts), 1, "the firing one");
    });
}
