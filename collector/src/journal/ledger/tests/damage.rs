//! An events journal whose files someone or something has damaged: nothing is silently gone on with.

use std::path::PathBuf;

use super::*;

const SEGMENT: Config = Config { segment_bytes: 2_000, scan_all: false };

/// A disk with a journal of several segments and no checkpoint, and the state after each decision.
async fn journal() -> (MemoryDisk, Vec<State>) {
    let disk = MemoryDisk::new();
    let (ledger, _) = started(&disk, SEGMENT.segment_bytes);
    let mut states = vec![State::default()];
    for n in 1..=7 {
        ledger.submit(Command::CreateToken(token(n, Env::Prod, "*")), Actor::System).await.unwrap().unwrap();
        states.push(ledger.read(State::clone).await.unwrap());
        let host = Command::Enrol(enrolment(n, &format!("web-{n}")));
        ledger.submit(host, Actor::System).await.unwrap().unwrap();
        states.push(ledger.read(State::clone).await.unwrap());
    }
    ledger.stop().await;
    for path in disk.paths().iter().filter(|path| path.starts_with("/j/checkpoints")) {
        disk.remove(path).unwrap();
    }
    (disk, states)
}

fn segments(disk: &MemoryDisk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|path| path.starts_with("/j/events")).collect()
}

/// Opens a copy of the journal in which one file is another, or missing.
fn open_damaged(disk: &MemoryDisk, path: &Path, content: Option<Vec<u8>>) -> Result<Opened, JournalError> {
    let copy = MemoryDisk::new();
    copy.create_dir(Path::new("/j/events")).unwrap();
    for other in disk.paths() {
        let whole = disk.content(&other).unwrap();
        match &content {
            Some(content) if other == path => copy.set_content(&other, content.clone()),
            None if other == path => {}
            _ => copy.set_content(&other, whole),
        }
    }
    let opened = open_with(SEGMENT, Arc::new(copy.clone()), Path::new("/j"));
    let newest = segments(disk).pop().unwrap();
    for other in disk.paths().iter().filter(|other| **other != newest && *other != path) {
        assert_eq!(copy.content(other), disk.content(other), "nothing is deleted");
    }
    opened
}

/// What was damaged is said, or it was nothing, or it is the end of all, which looks like a tear.
fn check(opened: Result<Opened, JournalError>, states: &[State], at_the_end: bool, what: &str) {
    let Ok(opened) = opened else { return };
    let full = &states[states.len() - 1];
    let tail = at_the_end && states.contains(opened.state());
    assert!(opened.state() == full || tail || !opened.problems.is_empty(), "{what}: silently gone on with");
}

// Cases: C5, S3, S4, S6
#[tokio::test]
async fn a_damaged_middle_of_the_journal_is_said() {
    let (disk, states) = journal().await;
    let paths = segments(&disk);
    assert!(paths.len() > 2);
    for (at, path) in paths.iter().enumerate() {
        let (newest, whole) = (at + 1 == paths.len(), disk.content(path).unwrap());
        for byte in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[byte] ^= 1 << (byte % 8);
            let what = format!("{} byte {byte}", path.display());
            check(open_damaged(&disk, path, Some(flipped)), &states, newest, &what);
            let cut = whole[..byte].to_vec();
            check(open_damaged(&disk, path, Some(cut)), &states, newest, &format!("{what} cut off"));
        }
        let gone = open_damaged(&disk, path, None);
        check(gone, &states, newest, &format!("{} is gone", path.display()));
    }
}
