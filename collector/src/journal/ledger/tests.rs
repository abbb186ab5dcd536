//! The ledger over a disk in memory: what was answered is there after any crash, what was not left no half.

use std::path::Path;

use tocsin_shared::disk::{Crash, Fault, MemoryDisk, Operation};
use tocsin_shared::log::Config;

use super::*;
use crate::state::testing::{agent, enrolment, evaluation, on, rule, token};
use std::time::Duration;
use tocsin_shared::identity::Env;
use tocsin_shared::incident::IncidentStatus;

mod damage;
mod power_cuts;
mod storm;

fn opened(disk: &MemoryDisk, segment_bytes: u64) -> Opened {
    let config = Config { segment_bytes, scan_all: false };
    open_with(config, Arc::new(disk.clone()), Path::new("/j")).unwrap()
}

fn started(disk: &MemoryDisk, segment_bytes: u64) -> (Ledger, Fatal) {
    let fatal = Fatal::new(CancellationToken::new());
    (opened(disk, segment_bytes).start(Defaults::default(), fatal.clone()), fatal)
}

/// A host comes in: a decision of one event, and one of three.
async fn enrol(ledger: &Ledger, n: u128) -> Result<Decided, Stopping> {
    ledger.submit(Command::CreateToken(token(n, Env::Prod, "*")), Actor::System).await?.ok();
    ledger.submit(Command::Enrol(enrolment(n, &format!("web-{n}"))), Actor::System).await
}

// Cases: C1, R16, C-I1
#[tokio::test]
async fn a_torn_decision_leaves_nothing() {
    let disk = MemoryDisk::new();
    let (ledger, _) = started(&disk, 1 << 20);
    enrol(&ledger, 1).await.unwrap().unwrap();
    let reader = ledger.reader().await.unwrap();
    let last = reader.durable_seq();
    ledger.stop().await;
    for path in disk.paths().iter().filter(|path| path.starts_with("/j/checkpoints")) {
        disk.remove(path).unwrap();
    }
    let path = disk.paths().into_iter().next().unwrap();
    let whole = disk.content(&path).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for length in (0..=whole.len()).rev().step_by(7) {
        disk.set_content(&path, whole[..length].to_vec());
        let found = opened(&disk, 1 << 20);
        assert!([0, 1, last].contains(&found.state().last_seq()), "cut at {length}");
        seen.insert(found.state().last_seq());
    }
    assert_eq!(seen.len(), 3);
}

// Cases: R14
#[tokio::test]
async fn an_acknowledgement_that_expires_while_the_collector_is_down_expires_once() {
    let disk = MemoryDisk::new();
    let start = || {
        let lasts_no_time = Defaults { ack_lasts: [Duration::ZERO; 3], ..Defaults::default() };
        opened(&disk, 1 << 20).start(lasts_no_time, Fatal::new(CancellationToken::new()))
    };
    let submit = async |ledger: &Ledger, command: Command| {
        let events = ledger.submit(command, Actor::System).await.unwrap().unwrap();
        events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>()
    };
    let status = async |ledger: &Ledger| {
        let incident = ledger.read(|state| state.incident(1).cloned()).await.unwrap().unwrap();
        (incident.status, incident.ack.is_some())
    };
    let mut ledger = start();
    enrol(&ledger, 1).await.unwrap().unwrap();
    submit(&ledger, evaluation(&rule("r", 0, 0), 1, 0, 1, &[("sda", "warning")])).await;
    assert_eq!(submit(&ledger, Command::Acknowledge(on(1, "on it"))).await, ["incident.acknowledged"]);
    assert_eq!(status(&ledger).await, (IncidentStatus::Acknowledged, true));
    for (from_checkpoint, told) in [(false, &["incident.unacknowledged"][..]), (true, &[])] {
        ledger.stop().await;
        if !from_checkpoint {
            for path in disk.paths().iter().filter(|path| path.starts_with("/j/checkpoints")) {
                disk.remove(path).unwrap();
            }
        }
        ledger = start();
        assert_eq!(ledger.next_due() <= clock::now(), !told.is_empty(), "it is due at once, or nothing is");
        assert_eq!(submit(&ledger, Command::Tick).await, told);
        assert_eq!(submit(&ledger, Command::Tick).await, [""; 0], "once");
        assert_eq!(status(&ledger).await, (IncidentStatus::Triggered, false));
    }
}

#[tokio::test]
async fn a_refusal_writes_nothing() {
    let disk = MemoryDisk::new();
    let (ledger, _) = started(&disk, 1 << 20);
    enrol(&ledger, 1).await.unwrap().unwrap();
    let head = *ledger.head().borrow();
    let commands =
        vec![Command::Enrol(enrolment(2, "web-2")), Command::CreateToken(token(3, Env::Prod, "*"))];
    let decided = ledger.submit_all(commands, Actor::System).await.unwrap();
    assert!(decided[0].is_err() && decided[1].is_ok());
    assert_eq!(*ledger.head().borrow(), head + 1);
}

#[tokio::test]
async fn a_checkpoint_and_what_follows_fold_to_the_same_state() {
    let disk = MemoryDisk::new();
    for n in [1, 2] {
        let (ledger, _) = started(&disk, 1 << 20);
        enrol(&ledger, n).await.unwrap().unwrap();
        ledger.stop().await;
    }
    let (ledger, _) = started(&disk, 1 << 20);
    enrol(&ledger, 3).await.unwrap().unwrap();
    disk.crash(Crash::Dropped);
    let from_checkpoint = opened(&disk, 1 << 20);
    for path in disk.paths().iter().filter(|path| path.starts_with("/j/checkpoints")) {
        disk.remove(path).unwrap();
    }
    assert_eq!(*from_checkpoint.state(), *opened(&disk, 1 << 20).state());
}

// Cases: C19
#[tokio::test]
async fn only_what_a_checkpoint_covers_is_dropped() {
    let disk = MemoryDisk::new();
    let (ledger, _) = started(&disk, 2_000);
    for n in 1..=10 {
        enrol(&ledger, n).await.unwrap().unwrap();
    }
    let segments = disk.paths().len();
    assert!(segments > 3);
    ledger.drop_older(Timestamp::MAX, u64::MAX).await.unwrap();
    ledger.read(|_| ()).await.unwrap();
    assert_eq!(disk.paths().len(), segments, "no checkpoint covers anything");
    ledger.stop().await;
    let state = opened(&disk, 2_000).state().clone();
    let (ledger, _) = started(&disk, 2_000);
    ledger.drop_older(Timestamp::from_millis(1), u64::MAX).await.unwrap();
    ledger.read(|_| ()).await.unwrap();
    assert_eq!(disk.paths().len(), segments + 1, "only the checkpoint came: nothing is that old");
    ledger.drop_older(Timestamp::MAX, u64::MAX).await.unwrap();
    ledger.read(|_| ()).await.unwrap();
    assert!(disk.paths().len() < segments);
    ledger.stop().await;
    assert_eq!(*opened(&disk, 2_000).state(), state);
}

// Cases: C-F3
#[tokio::test]
async fn what_a_consumer_has_not_acknowledged_stays_until_the_journal_has_grown_to_its_bound() {
    let disk = MemoryDisk::new();
    let (ledger, _) = started(&disk, 2_000);
    let administrator = Command::CreatePrincipal {
        name: "ann".into(),
        role: Role::Admin,
        secret_sha256: [1; 32],
        expires_at: None,
    };
    ledger.submit(administrator, Actor::System).await.unwrap().unwrap();
    let ann = || Actor::Principal("ann".into());
    for name in ["quick", "slow"] {
        let create = Command::CreateConsumer { name: name.into(), owner: "ann".into(), at_seq: 1 };
        ledger.submit(create, ann()).await.unwrap().unwrap();
    }
    for n in 1..=20 {
        enrol(&ledger, n).await.unwrap().unwrap();
    }
    ledger.stop().await;
    let (ledger, _) = started(&disk, 2_000);
    let first = async || {
        ledger.read(|_| ()).await.unwrap();
        ledger.reader().await.unwrap().position()
    };
    let ack = async |consumer: &str, seq| {
        let acked = Command::AckFeed { consumer: consumer.into(), seq };
        ledger.submit(acked, ann()).await.unwrap().unwrap();
    };
    let bytes = disk.used();
    for (quick, slow, bytes_max, expected, why) in [
        (1, 1, u64::MAX, 1..=1, "nobody has acknowledged anything"),
        (50, 1, u64::MAX, 1..=1, "one has not"),
        (50, 30, u64::MAX, 20..=31, "as far as both have"),
        (50, 30, bytes, 20..=31, "there is room"),
        (50, 30, 1, 32..=u64::MAX, "the bound: the slow one has a gap"),
    ] {
        ack("quick", quick).await;
        ack("slow", slow).await;
        ledger.drop_older(Timestamp::MAX, bytes_max).await.unwrap();
        let found = first().await;
        assert!(expected.contains(&found), "{why}: the first event is {found}");
    }
    let before = first().await;
    ledger.drop_older(Timestamp::from_millis(1), 0).await.unwrap();
    assert_eq!(first().await, before, "the bound makes nothing old");
}

/// A ledger over a disk with so many bytes and a reserve of 256 KiB.
fn roomy(disk: &MemoryDisk, capacity: u64) -> (Ledger, Fatal, Arc<Room>) {
    disk.set_capacity(capacity);
    let config = crate::room::Config { reserve_bytes: 256 << 10, free_floor_bytes: 0 };
    let room = Room::open(Arc::new(disk.clone()), Path::new("/j"), config, clock::now()).unwrap();
    let fatal = Fatal::new(CancellationToken::new());
    let ledger = opened(disk, 64 << 10).in_room(room.clone()).start(Defaults::default(), fatal.clone());
    (ledger, fatal, room)
}

// Cases: C7
#[tokio::test]
async fn a_full_disk_is_written_from_the_reserve_until_commands_are_refused_and_heals() {
    let disk = MemoryDisk::new();
    let (ledger, fatal, room) = roomy(&disk, 512 << 10);
    let filler = vec![0; usize::try_from((512 << 10) - disk.used()).unwrap()];
    disk.set_content(Path::new("/other"), filler);
    let (mut answered, mut refused) = (0, 0);
    for n in 1..=2_000 {
        match enrol(&ledger, n).await.unwrap() {
            Ok(_) => answered = n,
            Err(refusal) => {
                assert_eq!(refusal, Refusal::NoRoom);
                refused = n;
                break;
            }
        }
        assert!(room.lives_on_reserve(), "there is no other room");
    }
    assert!(answered > 50 && refused > answered, "{answered} answered, {refused} refused");
    assert!(!room.takes_rows() && fatal.reason().is_none());
    let known = ledger.read(move |state| state.host(agent(answered)).is_some());
    assert!(known.await.unwrap(), "what can be read goes on");

    disk.set_capacity(8 << 20);
    room.look(clock::now());
    assert!(room.takes_rows());
    enrol(&ledger, 5_000).await.unwrap().unwrap();
    ledger.stop().await;
    disk.crash(Crash::Dropped);
    let again = opened(&disk, 64 << 10);
    for n in (1..=answered).chain([5_000]) {
        assert!(again.state().host(agent(n)).is_some(), "host {n} was answered");
    }
    assert_eq!(again.problems, [""; 0], "no partial frame stayed");
}

// Cases: C7, C8
#[tokio::test]
async fn no_room_is_waited_out_and_a_failed_fsync_is_the_end() {
    let full = std::io::ErrorKind::StorageFull;
    for (operation, kind, ends) in [
        (Operation::Write, full, false),
        (Operation::Create, full, false),
        (Operation::SyncData, full, true),
        (Operation::SyncDir, full, true),
        (Operation::SyncData, std::io::ErrorKind::Other, true),
        (Operation::Write, std::io::ErrorKind::Other, true),
    ] {
        let disk = MemoryDisk::new();
        let (ledger, fatal, room) = roomy(&disk, 8 << 20);
        disk.fail(Fault { operation: Some(operation), after: 0, kind, stays: false });
        let answer = enrol(&ledger, 1).await;
        assert_eq!(answer.is_err(), ends, "{operation:?} {kind}: {answer:?}");
        if ends {
            fatal.stop.cancelled().await;
        }
        assert_eq!(fatal.reason().is_some(), ends, "{operation:?} {kind}: {:?}", fatal.reason());
        assert_eq!(room.takes_rows(), ends, "rows give way at once: {operation:?} {kind}");
    }
}

// Cases: C7
#[tokio::test]
async fn a_checkpoint_without_room_is_put_off_and_leaves_nothing_behind() {
    let disk = MemoryDisk::new();
    let (ledger, fatal) = started(&disk, 64 << 10);
    for n in 1..=200 {
        enrol(&ledger, n).await.unwrap().unwrap();
    }
    disk.set_capacity(disk.used());
    ledger.stop().await;
    assert_eq!(fatal.reason(), None, "a clean stop");
    assert!(!disk.paths().iter().any(|path| path.starts_with("/j/checkpoints")), "{:?}", disk.paths());
    assert!(opened(&disk, 64 << 10).state().host(agent(200)).is_some());
}
