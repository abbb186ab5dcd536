//! Both kinds of tables, and the projector over a real journal.

use std::path::Path;
use std::sync::Arc;

use tocsin_shared::disk::{Disk, MemoryDisk};
use tocsin_shared::event::{Actor, Event, EventKind, Subject};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::journal::ledger::{self, Fatal};
use crate::room::Room;
use crate::state::testing::{Desk, run, run_end, token};
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
    let store = Store::new(Arc::new(MemoryTables::default()));
    let id = Uuid::from_u128(7);
    let begun = run(id, 10);
    let mut ended = run(id, 11); // Its end gives another start.
    ended.output_tail = "é".repeat(32 * 1024);
    store.apply(&[of_run(4, begun), of_run(5, ended.clone())]).unwrap();
    assert_eq!(store.applied().unwrap(), 5);
    let listed = store.runs("", 10).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].output_tail, "");
    assert_eq!(store.run(id).unwrap().unwrap().output_tail, ended.output_tail);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_follows_goes_on_and_is_built_again_when_it_is_ahead() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let fatal = Fatal::new(CancellationToken::new());
    let opened = ledger::open(disk, Path::new("/j")).unwrap();
    let ledger = opened.start(Defaults::default(), fatal);
    for (n, ahead) in [(1, None), (2, None), (3, Some(1_000u64))] {
        let (tables, problem) = projector::open(&path).unwrap();
        assert_eq!(problem, None);
        if let Some(ahead) = ahead {
            let value = Some(ahead.to_be_bytes().to_vec());
            let write = Write { table: Table::Meta, key: project::APPLIED.to_vec(), value };
            tables.commit(&[write]).unwrap();
        }
        let (stop, reader) = (CancellationToken::new(), ledger.reader().await.unwrap());
        let followed =
            projector::Followed { reader, head: ledger.head(), room: Room::boundless(), unopened: false };
        let projection = projector::start(path.clone(), tables, followed, stop.clone(), Handle::current());
        if ahead.is_none() {
            assert_eq!(projection.store.applied().unwrap(), n - 1, "it goes on where it was");
        }
        let create = Command::CreateToken(token(u128::from(n), Env::Prod, "*"));
        ledger.submit(create, Actor::System).await.unwrap().unwrap();
        let mut applied = projection.applied.clone();
        applied.wait_for(|applied| *applied == n).await.unwrap();
        assert_eq!(projection.store.applied().unwrap(), n);
        assert_eq!(projection.problems.lock().unwrap().len(), usize::from(ahead.is_some()));
        stop.cancel();
        while applied.changed().await.is_ok() {} // Until its thread has let go of the store.
        drop(projection);
    }
    let aside = std::fs::read_dir(dir.path()).unwrap().flatten();
    assert_eq!(aside.filter(|entry| entry.file_name().to_string_lossy().contains(".bad-")).count(), 1);
}
