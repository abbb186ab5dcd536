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

// Cases: S16 (partly)
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
