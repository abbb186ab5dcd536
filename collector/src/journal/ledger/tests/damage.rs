//! An events journal whose files someone or something has damaged: nothing is silently gone on with.

use std::path::PathBuf;

use super::*;
use crate::journal::checkpoint;
use crate::state::command::NewToken;

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
    let found = opened.found();
    let said = !opened.problems.is_empty() || !found.open.is_empty();
    assert!(opened.state() == full || tail || said, "{what}: silently gone on with");
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

/// Opens and starts a journal as it lies on a disk.
fn start(disk: &MemoryDisk) -> (Ledger, Vec<String>) {
    let opened = open_with(SEGMENT, Arc::new(disk.clone()), Path::new("/j")).unwrap();
    let problems = opened.problems.clone();
    (opened.start(Defaults::default(), Fatal::new(CancellationToken::new())), problems)
}

/// Flips a byte of the only event with this text.
fn damage(disk: &MemoryDisk, text: &str) {
    for path in segments(disk) {
        let mut content = disk.content(&path).unwrap();
        if let Some(at) = content.windows(text.len()).position(|bytes| bytes == text.as_bytes()) {
            content[at] ^= 1;
            return disk.set_content(&path, content);
        }
    }
    panic!("no event has {text}");
}

/// A copy of a disk.
fn copy(disk: &MemoryDisk) -> MemoryDisk {
    let copy = MemoryDisk::new();
    for path in disk.paths() {
        copy.create_dir(path.parent().unwrap()).unwrap();
        copy.set_content(&path, disk.content(&path).unwrap());
    }
    copy
}

fn checkpoints(disk: &MemoryDisk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|path| path.starts_with("/j/checkpoints")).collect()
}

/// A journal with a note for each token, a checkpoint after the first `covered` ones, and the tail without.
async fn with_checkpoint(covered: u128, all: u128) -> MemoryDisk {
    let disk = MemoryDisk::new();
    for n in 1..=all {
        let (ledger, _) = start(&disk);
        let pattern = format!("{}*", "a".repeat(200));
        let named = NewToken { id: format!("mark-{n:02}-end"), ..token(n, Env::Prod, &pattern) };
        ledger.submit(Command::CreateToken(named), Actor::System).await.unwrap().unwrap();
        let kept: Vec<_> = checkpoints(&disk);
        ledger.stop().await;
        if n > covered {
            checkpoints(&disk)
                .iter()
                .filter(|path| !kept.contains(path))
                .for_each(|path| disk.remove(path).unwrap());
        }
    }
    disk
}

// Cases: C5
#[tokio::test]
async fn damage_is_gone_on_with_where_a_checkpoint_covers_it_and_waits_for_a_decision_elsewhere() {
    let disk = with_checkpoint(8, 24).await;
    assert!(segments(&disk).len() > 2);
    for (damaged, open, said, why) in [
        (&[3][..], 0, false, "an old segment that no start reads"),
        (&[9], 1, false, "after the checkpoint"),
        (&[22], 1, false, "the middle of the newest segment"),
        (&[10, 11, 20], 2, false, "two places"),
        (&[2, 12], 1, false, "one of them is covered"),
        (&[], 0, false, "nothing"),
    ] {
        let disk = copy(&disk);
        damaged.iter().for_each(|n| damage(&disk, &format!("mark-{n:02}-end")));
        let files: Vec<_> = segments(&disk).into_iter().map(|path| (disk.content(&path), path)).collect();
        for start_number in 1..=3 {
            let (ledger, problems) = start(&disk);
            let mode = ledger.read(|state| (state.losses.open().count(), state.is_degraded())).await.unwrap();
            assert_eq!(mode, (open, open > 0), "{why}, start {start_number}");
            assert_eq!(!problems.is_empty(), said, "{why}: {problems:?}");
            assert_eq!(ledger.degraded().is_some(), open > 0, "{why}");
            let lost: Vec<Event> = enrol(&ledger, 100 + start_number).await.unwrap().unwrap_or_default();
            assert_eq!(lost.is_empty(), open > 0, "{why}");
            ledger.stop().await;
        }
        let newest = files.len() - 1;
        for (content, path) in &files[..newest] {
            assert_eq!(disk.content(path), *content, "{why}: nothing is deleted or changed");
        }
        let (ledger, _) = start(&disk);
        let lost = ledger.read(|state| state.losses.open().cloned().collect::<Vec<_>>()).await.unwrap();
        for loss in lost {
            let accept = Command::AcceptLoss { first: loss.first, last: loss.last };
            ledger.submit(accept, Actor::Principal("ann".into())).await.unwrap().unwrap();
        }
        enrol(&ledger, 200).await.unwrap().unwrap_or_else(|refusal| panic!("{why}: {refusal}"));
        assert_eq!(ledger.degraded(), None, "{why}");
        disk.crash(Crash::Dropped);
        let (ledger, _) = start(&disk);
        let again =
            ledger.read(|state| (state.is_degraded(), state.host(agent(200)).is_some())).await.unwrap();
        assert_eq!(again, (false, true), "{why}: a decision stands after a crash");
        ledger.stop().await;
    }
}

// Cases: C5
#[tokio::test]
async fn a_file_that_is_put_back_ends_the_mode() {
    let whole = with_checkpoint(2, 24).await;
    let paths = segments(&whole);
    let disk = copy(&whole);
    disk.remove(&paths[1]).unwrap();
    let (ledger, _) = start(&disk);
    assert!(ledger.read(State::is_degraded).await.unwrap(), "a whole file is gone, which looks like a tear");
    ledger.stop().await;
    disk.set_content(&paths[1], whole.content(&paths[1]).unwrap());
    let (ledger, _) = start(&disk);
    let found = ledger.read(|state| (state.is_degraded(), state.tokens().count())).await.unwrap();
    assert_eq!(found, (false, 24), "also what was lost is known");
    ledger.stop().await;
}

// Cases: C5, S3
#[tokio::test]
async fn a_tear_at_the_end_is_written_down_and_is_no_loss() {
    let disk = with_checkpoint(2, 6).await;
    let path = segments(&disk).pop().unwrap();
    let mut content = disk.content(&path).unwrap();
    content.extend([7; 100]);
    disk.set_content(&path, content);
    for n in 1..=3 {
        let (ledger, problems) = start(&disk);
        enrol(&ledger, 50 + n).await.unwrap().unwrap();
        assert_eq!((ledger.degraded(), problems), (None, vec![]), "start {n}");
        disk.crash(Crash::Dropped); // No checkpoint: the next start reads over the tear.
    }
}

// Cases: C5
#[tokio::test]
async fn numbers_after_a_checkpoint_are_not_used_again_when_the_journal_ends_before_it() {
    let disk = with_checkpoint(24, 24).await;
    for path in segments(&disk) {
        disk.remove(&path).unwrap();
    }
    let last = checkpoint::read(&disk, Path::new("/j/checkpoints")).unwrap().0.last_seq();
    let (ledger, problems) = start(&disk);
    assert_eq!(problems.len(), 1, "{problems:?}");
    let events = enrol(&ledger, 99).await.unwrap().unwrap();
    assert!(events.iter().all(|event| event.seq > last), "{events:?}");
    ledger.stop().await;
    assert_eq!(start(&disk).1, [""; 0], "said once");
}
