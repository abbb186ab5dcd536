//! The intake with real sockets and files in a temporary directory; the test is the sink.

use super::*;
use crate::jobs::envelope::tests::{ended, started};
use tocsin_shared::job::Outcome;

struct Rig {
    dir: tempfile::TempDir,
    config: IntakeConfig,
    sink: mpsc::Receiver<Submission>,
    counters: Arc<IntakeCounters>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn own_uid() -> u32 {
    nix::unistd::getuid().as_raw()
}

/// An intake whose drop-box was filled by `prepare` before its first scan.
fn rig(records_per_minute_per_uid: u32, prepare: impl FnOnce(&Path)) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let config = IntakeConfig {
        socket: dir.path().join("run/jobs.sock"),
        drop_box: dir.path().join("jobs"),
        scan_every: Duration::from_millis(20),
        records_per_minute_per_uid,
        ..IntakeConfig::default()
    };
    drop_box::prepare(&config.drop_box).unwrap();
    prepare(&config.drop_box);
    let (out, sink) = mpsc::channel(4);
    let intake = Intake::bind(config.clone(), out).unwrap();
    let (counters, stop) = (intake.counters(), CancellationToken::new());
    let task = tokio::spawn(intake.run(stop.clone()));
    Rig { dir, config, sink, counters, stop, task }
}

impl Rig {
    async fn hand_in(&self, bytes: &[u8]) -> u8 {
        let mut stream = UnixStream::connect(&self.config.socket).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.read_u8().await.unwrap()
    }

    async fn stop(self) -> IntakeCounts {
        self.stop.cancel();
        self.task.await.unwrap();
        assert!(!self.config.socket.exists());
        drop(self.dir);
        self.counters.read()
    }
}

/// A sink that stores everything, in order.
fn store_all(rig: &mut Rig) -> tokio::task::JoinHandle<Vec<JobRecord>> {
    let (_closed, empty) = mpsc::channel(1);
    let mut sink = std::mem::replace(&mut rig.sink, empty);
    tokio::spawn(async move {
        let mut records = Vec::new();
        while let Some(Submission { record, reply }) = sink.recv().await {
            records.push(record);
            reply.send(Ok(())).unwrap();
        }
        records
    })
}

#[tokio::test]
async fn records_are_answered_by_what_they_are() {
    let mut rig = rig(100, |_| {});
    let stored = store_all(&mut rig);
    let good = envelope::encode(&started(own_uid()));
    let mut changed = good.clone();
    changed[20] ^= 1;
    for (bytes, answer, why) in [
        (good.clone(), b'D', "a start"),
        (envelope::encode(&ended(7, own_uid(), Outcome::Exited(3), "out")), b'D', "its end"),
        (good, b'D', "a copy is as good as stored"),
        (envelope::encode(&started(own_uid() + 1)), b'R', "speaks for someone else"),
        (changed, b'R', "damaged"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), b'R', "not a record"),
    ] {
        assert_eq!(rig.hand_in(&bytes).await, answer, "{why}");
    }
    let counts = rig.stop().await;
    let expected = IntakeCounts { stored_socket: 2, duplicates: 1, refused: 3, ..IntakeCounts::default() };
    assert_eq!(counts, expected);
    let records = stored.await.unwrap();
    let user = nix::unistd::User::from_uid(own_uid().into()).unwrap().unwrap().name;
    assert!(matches!(&records[1], JobRecord::Ended(e) if *e.user == *user && &*e.output_tail == "out"));
}

// Cases: C-A1
#[tokio::test]
async fn durable_is_said_only_after_the_sink() {
    let mut rig = rig(100, |_| {});
    let bytes = envelope::encode(&ended(1, own_uid(), Outcome::Exited(0), ""));
    let mut stream = UnixStream::connect(&rig.config.socket).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let submission = rig.sink.recv().await.unwrap();
    assert_eq!(rig.hand_in(&bytes).await, b'L', "a copy meanwhile is not durable either");
    submission.reply.send(Err(SinkError("disk full".into()))).unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'L', "the wrapper keeps it");

    let mut stream = UnixStream::connect(&rig.config.socket).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    rig.sink.recv().await.unwrap().reply.send(Ok(())).unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'D', "a failure may be tried again");
    let counts = rig.stop().await;
    assert_eq!((counts.sink_failures, counts.stored_socket), (1, 1));
}

// Cases: S16
#[tokio::test]
async fn a_flood_is_told_to_come_later() {
    let mut rig = rig(3, |_| {});
    let stored = store_all(&mut rig);
    let mut answers = Vec::new();
    for run in 0..5 {
        answers.push(rig.hand_in(&envelope::encode(&ended(run, own_uid(), Outcome::Exited(0), ""))).await);
    }
    assert_eq!(answers, b"DDDLL");
    assert_eq!(rig.stop().await.over_quota, 2);
    assert_eq!(stored.await.unwrap().len(), 3);
}

#[tokio::test]
async fn one_user_cannot_hold_all_connections() {
    let mut rig = rig(100, |_| {});
    let _stored = store_all(&mut rig);
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_PER_UID_MAX {
        silent.push(UnixStream::connect(&rig.config.socket).await.unwrap());
    }
    // Connections are served in the order of the backlog, so the silent ones are already in their places.
    let answer = rig.hand_in(&envelope::encode(&started(own_uid()))).await;
    assert_eq!(answer, b'L');
    drop(silent);
    assert_eq!(rig.stop().await.over_quota, 1);
}

// Cases: P1
#[tokio::test]
async fn the_drop_box_is_emptied_once_stored() {
    let uid = own_uid();
    let mut rig = rig(100, |drop_box| {
        let write = |name: &str, record: &JobRecord| {
            std::fs::write(drop_box.join(name), envelope::encode(record)).unwrap();
        };
        write("1.job", &ended(1, uid, Outcome::Exited(0), "one"));
        write("copy-of-1.job", &ended(1, uid, Outcome::Exited(0), "one"));
        write("foreign.job", &ended(2, uid + 1, Outcome::Exited(0), ""));
        std::fs::write(drop_box.join("junk"), "junk").unwrap();
        std::fs::write(drop_box.join(".partial-3"), "half").unwrap();
    });
    let first = rig.sink.recv().await.unwrap();
    first.reply.send(Err(SinkError("disk full".into()))).unwrap();
    let again = rig.sink.recv().await.unwrap();
    assert_eq!(again.record.run_id(), first.record.run_id(), "kept and offered again");
    again.reply.send(Ok(())).unwrap();
    let left = || std::fs::read_dir(&rig.config.drop_box).unwrap().count();
    while left() > 1 {
        tokio::task::yield_now().await; // The scans run on their own; the test's time limit is the bound.
    }
    assert!(rig.config.drop_box.join(".partial-3").exists());
    let counts = rig.stop().await;
    assert_eq!((counts.stored_drop_box, counts.refused), (1, 2));
    assert_eq!(counts.duplicates, 1);
}

#[tokio::test]
async fn only_a_stale_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let config = IntakeConfig {
        socket: dir.path().join("jobs.sock"),
        drop_box: dir.path().join("jobs"),
        ..IntakeConfig::default()
    };
    let bind = || Intake::bind(config.clone(), mpsc::channel(1).0);
    let first = bind().unwrap();
    assert_eq!(std::fs::metadata(&config.socket).unwrap().permissions().mode() & 0o777, 0o666);
    assert!(matches!(bind(), Err(IntakeError::InUse { .. })));
    drop(first);
    let second = bind().unwrap(); // The socket file is still there; nobody listens.
    drop(second);
    std::fs::remove_file(&config.socket).unwrap();
    std::fs::write(&config.socket, "precious").unwrap();
    assert!(matches!(bind(), Err(IntakeError::NotASocket { .. })));
    assert_eq!(std::fs::read(&config.socket).unwrap(), b"precious");
}

/// A sink that takes records as a dice says: some not, some without saying so. Each run that it took once.
fn store_some(rig: &mut Rig, mut dice: u64) -> tokio::task::JoinHandle<HashMap<RunId, u64>> {
    let (_closed, empty) = mpsc::channel(1);
    let mut sink = std::mem::replace(&mut rig.sink, empty);
    tokio::spawn(async move {
        let mut runs = HashMap::new();
        while let Some(Submission { record, reply }) = sink.recv().await {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let JobRecord::Ended(ended) = record else { continue };
            let (taken, said) = [(true, true), (true, false), (false, false)][(dice >> 60) as usize % 3];
            if taken {
                // As the collector does it: the first record of a run counts.
                runs.entry(ended.run_id).or_insert(1 + ended.alike);
            }
            reply.send(if said { Ok(()) } else { Err(SinkError("not now".into())) }).unwrap();
        }
        runs
    })
}

fn drop_ended(into: &Path, name: u128, run: u128, status: u8) {
    let record = envelope::encode(&ended(run, own_uid(), Outcome::Exited(status), "again"));
    std::fs::write(into.join(format!("{name}.job")), record).unwrap();
}

async fn until_left(drop_box: &Path, count: usize) {
    while std::fs::read_dir(drop_box).unwrap().count() > count {
        tokio::task::yield_now().await; // The scans run on their own; the test's time limit is the bound.
    }
}

// Cases: S16
#[tokio::test]
async fn of_a_loop_of_jobs_every_run_is_counted_and_few_are_told() {
    for seed in 0..8 {
        let mut rig = rig(0, |drop_box| {
            for run in 0..400 {
                let status = if run % 50 == 7 { u8::try_from(run / 50).unwrap() } else { 1 };
                drop_ended(drop_box, run, run, status);
            }
            // What an agent that was killed had moved.
            let batch = drop_box.join(".alike-00000000-0000-0000-0000-00000000abcd");
            std::fs::create_dir(&batch).unwrap();
            (400..410).for_each(|run| drop_ended(&batch, run, run, 1));
        });
        let stored = store_some(&mut rig, seed);
        until_left(&rig.config.drop_box, 0).await;
        rig.stop().await;
        let runs = stored.await.unwrap();
        assert_eq!(runs.values().sum::<u64>(), 410, "seed {seed}: {runs:?}");
        assert!(runs.len() <= 9, "seed {seed}: {} records", runs.len());
    }
}

// Cases: S16, C-D2
#[tokio::test]
async fn what_may_be_stored_already_is_not_counted_by_another() {
    let mut rig = rig(1, |_| {});
    let mut stream = UnixStream::connect(&rig.config.socket).await.unwrap();
    stream.write_all(&envelope::encode(&ended(1, own_uid(), Outcome::Exited(1), "again"))).await.unwrap();
    rig.sink.recv().await.unwrap().reply.send(Err(SinkError("in memory only".into()))).unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'L');
    let batch = rig.config.drop_box.with_file_name("made");
    std::fs::create_dir(&batch).unwrap();
    (1..=4).for_each(|run| drop_ended(&batch, run, run, 1));
    // At once, as far as the scans see.
    for run in 1..=4 {
        let name = format!("{run}.job");
        std::fs::rename(batch.join(&name), rig.config.drop_box.join(&name)).unwrap();
    }
    let stored = store_all(&mut rig);
    until_left(&rig.config.drop_box, 1).await;
    assert!(rig.config.drop_box.join("1.job").exists(), "it waits for its user's next minute");
    rig.stop().await;
    let counted = stored.await.unwrap().into_iter().map(|record| match record {
        JobRecord::Ended(ended) => ended.alike + 1,
        JobRecord::Started(started) => panic!("{started:?}"),
    });
    assert_eq!(counted.sum::<u64>(), 3);
}

/// A start of this test's own process, which so is the job's wrapper, too.
fn own_start(run: u128, boot: &str) -> JobRecord {
    let JobRecord::Started(start) = started(own_uid()) else { unreachable!("it is a start") };
    let (run_id, started_boot) = (RunId(uuid::Uuid::from_u128(run)), BootId::keep_start(boot));
    JobRecord::Started(JobStarted { run_id, started_boot, ..start })
}

// Cases: P2
#[tokio::test]
async fn what_ran_when_the_host_went_down_is_told_as_interrupted() {
    let home = tempfile::tempdir().unwrap();
    let config = |boot: &str| IntakeConfig {
        socket: home.path().join("jobs.sock"),
        drop_box: home.path().join("jobs"),
        running: Some(home.path().join("running")),
        boot_id: boot.into(),
        scan_every: Duration::from_millis(20),
        ..IntakeConfig::default()
    };
    let start = |boot: &str| {
        let (out, sink) = mpsc::channel(4);
        let intake = Intake::bind(config(boot), out).unwrap();
        let (counters, stop) = (intake.counters(), CancellationToken::new());
        let (config, task) = (config(boot), tokio::spawn(intake.run(stop.clone())));
        Rig { dir: tempfile::tempdir().unwrap(), config, sink, counters, stop, task }
    };
    let mut before = start("one");
    let stored = store_all(&mut before);
    for run in 1..=3 {
        assert_eq!(before.hand_in(&envelope::encode(&own_start(run, "one"))).await, b'D');
    }
    assert_eq!(before.hand_in(&envelope::encode(&ended(1, own_uid(), Outcome::Exited(0), ""))).await, b'D');
    before.stop().await;
    assert_eq!(stored.await.unwrap().len(), 4);
    // The second one's end waits in the drop-box: its wrapper had the time.
    let second = envelope::encode(&ended(2, own_uid(), Outcome::Exited(5), ""));
    std::fs::write(home.path().join("jobs/2.job"), second).unwrap();

    let mut after = start("two");
    let stored = store_all(&mut after);
    while after.counters.read().missed == 0 {
        tokio::task::yield_now().await; // As above.
    }
    assert_eq!(after.stop().await.missed, 1);
    let outcomes: Vec<_> = stored
        .await
        .unwrap()
        .into_iter()
        .map(|record| match record {
            JobRecord::Ended(ended) => (ended.run_id.0.as_u128(), ended.outcome),
            JobRecord::Started(started) => panic!("{started:?}"),
        })
        .collect();
    let reason = Message::keep_start("the host was rebooted");
    assert_eq!(outcomes, [(2, Outcome::Exited(5)), (3, Outcome::Interrupted { reason })]);
    assert_eq!(std::fs::read_dir(home.path().join("running")).unwrap().count(), 0, "nothing is told again");
}
