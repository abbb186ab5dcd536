//! Files that rot or were written by somebody else: the agent's spool, the collector's journal.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tocsin_agent::spool::{Config, Gap, Spool};
use tocsin_collector::journal::ledger::{self, Fatal};
use tocsin_collector::state::{Command, Defaults};
use tocsin_shared::access::Role;
use tocsin_shared::disk::{Crash, Disk, MemoryDisk};
use tocsin_shared::event::Actor;
use tocsin_shared::identity::Epoch;
use tocsin_shared::lane::Lane;
use tocsin_shared::ranges::Ranges;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Files by their paths.
type Files = Vec<(PathBuf, Vec<u8>)>;

const SPOOL: &str = "/spool";
const JOURNAL: &str = "/journal";
const RECORDS: u64 = 12;

fn spool_config() -> Config {
    Config {
        max_bytes: 1 << 20,
        reserve_bytes: 8_000,
        free_floor_bytes: 0,
        free_floor_percent: 0,
        segment_bytes: 600,
    }
}

fn open_spool(disk: &MemoryDisk) -> Option<Spool> {
    Spool::open_on(Arc::new(disk.clone()), Path::new(SPOOL), Epoch(Uuid::from_u128(1)), spool_config()).ok()
}

fn payload(lane: Lane, seq: u64) -> Vec<u8> {
    format!("{}-{seq}-{}", lane.as_str(), "x".repeat(usize::try_from(seq % 7).unwrap_or(0) * 20)).into_bytes()
}

fn files(disk: &MemoryDisk) -> Files {
    disk.paths().into_iter().filter_map(|path| Some((path.clone(), disk.content(&path)?))).collect()
}

fn spool_files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let disk = MemoryDisk::new();
        let mut spool = open_spool(&disk).expect("a new spool opens");
        for lane in Lane::ALL {
            for seq in 1..=RECORDS {
                spool.append(lane, 1, &payload(lane, seq), true).expect("a good disk takes a record");
            }
            spool.acknowledge(lane, &Ranges::up_to(2)).expect("it was appended");
        }
        spool.sync().expect("a good disk syncs");
        drop(spool);
        files(&disk)
    })
}

/// Changes files as the bytes say, five for each change: file, two for the place, what, and with what.
fn edited(files: &Files, data: &[u8]) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let mut files = files.clone();
    let mut removed = BTreeSet::new();
    for edit in data.chunks_exact(5).take(64) {
        let which = usize::from(edit[0]) % files.len();
        let content = &mut files[which].1;
        let place = usize::from(u16::from_le_bytes([edit[1], edit[2]])) % content.len().max(1);
        match edit[3] % 6 {
            0 | 1 if !content.is_empty() => content[place] ^= edit[4].max(1),
            2 => content.truncate(place),
            3 => drop(content.splice(place..place, vec![edit[4]; 40])),
            4 => content.extend(vec![edit[4]; place]),
            5 => drop(removed.insert(which)),
            _ => {}
        }
    }
    for (at, (path, content)) in files.into_iter().enumerate() {
        if let (false, Some(dir)) = (removed.contains(&at), path.parent()) {
            disk.create_dir(dir).expect("a directory in memory");
            disk.set_content(&path, content);
        }
    }
    disk
}

/// A spool whose files were changed opens or says why not; what it gives is what was written.
pub(super) fn spool_open(data: &[u8]) {
    let disk = edited(spool_files(), data);
    for _ in 0..2 {
        let Some(mut spool) = open_spool(&disk) else { return };
        for lane in Lane::ALL {
            for (seq, got) in read_all(&mut spool, lane) {
                // Numbers that may have been used are passed over, so a new record can have a higher one.
                let as_written = seq <= RECORDS && got == payload(lane, seq);
                assert!(as_written || got == b"new", "{lane} {seq} was not written so");
            }
            spool.append(lane, 1, b"new", true).ok();
        }
        spool.sync().ok();
    }
}

fn read_all(spool: &mut Spool, lane: Lane) -> BTreeMap<u64, Vec<u8>> {
    let (mut found, mut next) = (BTreeMap::new(), 1);
    while let Ok(batch) = spool.read(lane, next, 1 << 20) {
        let entries = batch.entries.into_iter().filter(|entry| entry.numbered);
        found.extend(entries.map(|entry| (entry.seq, entry.payload)));
        if batch.next_seq == next {
            break;
        }
        next = batch.next_seq;
    }
    found
}

/// Appends, acknowledgements, crashes: an outcome that was taken is there until it is acknowledged, or a gap says so.
pub(super) fn spool_replay_ops(data: &[u8]) {
    let disk = MemoryDisk::new();
    let mut spool = open_spool(&disk).expect("a new spool opens");
    let (mut taken, mut gaps): (BTreeMap<u64, Vec<u8>>, Vec<Gap>) = Default::default();
    for operation in data.chunks_exact(2).take(24) {
        let (what, with) = (operation[0], operation[1]);
        let lane = Lane::ALL[usize::from(with) % 3];
        match what % 8 {
            0..=2 => {
                let bytes = vec![with; usize::from(with)];
                if let Ok(seq) = spool.append(Lane::Outcomes, 1, &bytes, true) {
                    assert!(taken.insert(seq, bytes).is_none(), "the number {seq} was given twice");
                }
            }
            3 => drop(spool.append(lane, 2, &vec![with; usize::from(with)], with % 2 == 0)),
            4 => drop(spool.sync()),
            5 => {
                let upto = u64::from(with) % (spool.durable_seq(Lane::Outcomes) + 1);
                if spool.acknowledge(Lane::Outcomes, &Ranges::up_to(upto)).is_ok() {
                    taken.retain(|seq, _| upto < *seq);
                }
                // What was never written cannot be acknowledged.
                let beyond = spool.durable_seq(lane) + 1 + u64::from(with);
                assert!(spool.acknowledge(lane, &Ranges::up_to(beyond)).is_err());
            }
            _ => {
                gaps.extend(spool.take_gaps());
                drop(spool);
                disk.crash(match what % 3 {
                    0 => Crash::Kept,
                    1 => Crash::Dropped,
                    _ => Crash::Torn(u64::from(with)),
                });
                spool = open_spool(&disk).expect("a crash leaves a spool that opens");
            }
        }
    }
    gaps.extend(spool.take_gaps());
    let found = read_all(&mut spool, Lane::Outcomes);
    let told =
        |seq: u64| gaps.iter().any(|gap| gap.lane == Lane::Outcomes && (gap.first..=gap.last).contains(&seq));
    for (seq, bytes) in &taken {
        assert!(found.get(seq) == Some(bytes) || told(*seq), "outcome {seq} was lost without a word");
    }
}

fn journal_files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let disk = MemoryDisk::new();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let opened = ledger::open(shared, Path::new(JOURNAL)).expect("a new journal opens");
        let kept = opened.start(Defaults::default(), Fatal::new(CancellationToken::new()));
        for number in 0..20u8 {
            let command = Command::CreatePrincipal {
                name: format!("person-{number}"),
                role: Role::Viewer,
                secret_sha256: [number; 32],
                expires_at: None,
            };
            kept.submit_blocking(command, Actor::System).expect("it runs").expect("a good command");
        }
        files(&disk)
    })
}

/// A journal whose files were changed opens or says why not.
pub(super) fn journal_open(data: &[u8]) {
    let disk: Arc<dyn Disk> = Arc::new(edited(journal_files(), data));
    if let Ok(opened) = ledger::open(disk, Path::new(JOURNAL)) {
        assert!(opened.state().last_seq() <= 20, "events that nobody wrote");
    }
}

/// An event of the journal, or a reason why it is none.
pub(super) fn event_decode(data: &[u8]) {
    if let Ok(event) = ledger::decode(data, 1) {
        tocsin_collector::state::State::default().apply(&event);
    }
}

pub(super) fn event_seeds() -> Vec<Vec<u8>> {
    // A frame of the log has a head before its payload: the mutator cuts.
    journal_files().iter().flat_map(|(_, content)| content.chunks(200).take(6).map(<[u8]>::to_vec)).collect()
}

pub(super) fn edit_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![Vec::new()];
    for what in 0..6 {
        seeds.extend((0..4u8).map(|file| vec![file, 70, 0, what, 0x40]));
    }
    seeds
}

pub(super) fn operation_seeds() -> Vec<Vec<u8>> {
    vec![
        vec![0, 9, 1, 200, 4, 0, 5, 1, 7, 3, 0, 4],
        [0, 255].repeat(100),
        [0, 100, 3, 50, 4, 0, 6, 1, 5, 2, 8, 8].repeat(12),
    ]
}
