//! The ledger over a disk in memory: what was answered is there after any crash, what was not left no half.

use tocsin_shared::disk::{Crash, Fault, MemoryDisk};

use super::*;
use crate::state::testing::{agent, enrolment, token};
use tocsin_shared::identity::Env;

mod damage;
mod power_cuts;

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

#[tokio::test]
async fn only_what_a_checkpoint_covers_is_dropped() {
    let disk = MemoryDisk::new();
    let (ledger, _) = started(&disk, 2_000);
    for n in 1..=10 {
        enrol(&ledger, n).await.unwrap().unwrap();
    }
    let segments = disk.paths().len();
    assert!(segments > 3);
    ledger.drop_older(Timestamp::MAX).await.unwrap();
    ledger.read(|_| ()).await.unwrap();
    assert_eq!(disk.paths().len(), segments, "no checkpoint covers anything");
    ledger.stop().await;
    let state = opened(&disk, 2_000).state().clone();
    let (ledger, _) = started(&disk, 2_000);
    ledger.drop_older(Timestamp::from_millis(1)).await.unwrap();
    ledger.read(|_| ()).await.unwrap();
    assert_eq!(disk.paths().len(), segments + 1, "only the checkpoint came: nothing is that old");
    ledger.drop_older(Timestamp::MAX).await.unwrap();
    ledger.read(|_| ()).await.unwrap();
    assert!(disk.paths().len() < segments);
    ledger.stop().await;
    assert_eq!(*opened(&disk, 2_000).state(), state);
}
