//! The room of a disk in memory: what is refused, what goes on, and that it heals.

use std::io::ErrorKind;

use tocsin_shared::disk::{Fault, MemoryDisk, Operation};

use super::*;

const KIB: u64 = 1024;
const CONFIG: Config = Config { reserve_bytes: 1024 * KIB, free_floor_bytes: 256 * KIB };

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn disk(capacity: u64) -> MemoryDisk {
    let disk = MemoryDisk::new();
    disk.set_capacity(capacity);
    disk
}

fn open(disk: &MemoryDisk) -> Arc<Room> {
    Room::open(Arc::new(disk.clone()), Path::new("/j"), CONFIG, at(0)).unwrap()
}

/// Somebody else's file.
fn fill(disk: &MemoryDisk, bytes: u64) {
    disk.set_content(Path::new("/other"), vec![1; usize::try_from(bytes).unwrap()]);
}

// Cases: C7
#[test]
fn rows_are_refused_below_the_floor_and_taken_again_well_above_it() {
    let disk = disk(4096 * KIB);
    let room = open(&disk);
    let gate = room.gate();
    assert!(room.takes_rows() && !room.lives_on_reserve(), "{:?}", room.standing());
    fill(&disk, 2900 * KIB);
    let looked = room.look(at(1));
    let standing = room.standing();
    assert_eq!(looked.wanted, (256 + 32) * KIB - standing.free, "what blocks should give back");
    let refused = standing.refused.clone().unwrap();
    assert_eq!((refused.since, gate.borrow().closings), (at(1), 1));
    assert!(standing.trouble().unwrap().contains("outcomes and incidents go on"), "{:?}", standing.trouble());
    room.look(at(2));
    assert_eq!(room.standing().refused.unwrap().since, at(1), "since the first refusal");
    fill(&disk, 2800 * KIB);
    room.look(at(3));
    assert!(!room.takes_rows(), "a little above the floor is not enough");
    fill(&disk, 2000 * KIB);
    room.look(at(4));
    assert!(room.takes_rows());
    assert_eq!((gate.borrow().closings, room.standing().trouble()), (1, None));
}

// Cases: C7
#[test]
fn the_reserve_is_given_in_steps_and_taken_again_before_rows_are() {
    let disk = disk(4096 * KIB);
    let room = open(&disk);
    fill(&disk, 4096 * KIB - (disk.used()));
    let (mut steps, mut free) = (0, 0);
    while room.relieve(at(1)) {
        let now_free = disk.space(Path::new("/j")).unwrap().free;
        assert!(now_free > free && now_free - free <= 128 * KIB, "a step at a time: {now_free} after {free}");
        free = now_free;
        steps += 1;
        assert!(!room.takes_rows() && room.lives_on_reserve());
        assert_eq!(room.is_exhausted(), room.standing().reserve_held < 256 * KIB);
    }
    assert_eq!(steps, 8);
    assert!(room.standing().trouble().unwrap().contains("used up"));
    room.look(at(2));
    assert!(room.is_exhausted(), "nothing was freed");
    fill(&disk, 2900 * KIB);
    room.look(at(3));
    assert!(!room.takes_rows(), "the reserve does not fit yet");
    fill(&disk, 2000 * KIB);
    room.look(at(4));
    let standing = room.standing();
    assert_eq!((standing.reserve_held, standing.exhausted), (CONFIG.reserve_bytes, false));
    assert!(room.takes_rows() && !room.lives_on_reserve());
}

// Cases: C7
#[test]
fn a_disk_that_takes_no_file_stays_closed_whatever_its_free_space() {
    let disk = disk(4096 * KIB);
    let room = open(&disk);
    room.close("the disk is full", at(1));
    disk.fail(Fault {
        operation: Some(Operation::Create),
        after: 0,
        kind: ErrorKind::StorageFull,
        stays: true,
    });
    room.look(at(2));
    assert!(!room.takes_rows(), "there is space, and no inode");
    disk.heal();
    room.look(at(3));
    assert!(room.takes_rows());
}

// Cases: C7
#[test]
fn a_start_on_a_full_disk_finds_what_is_left_of_the_reserve() {
    let disk = disk(4096 * KIB);
    let room = open(&disk);
    fill(&disk, 4096 * KIB - (disk.used()));
    room.relieve(at(1));
    let held = room.standing().reserve_held;
    drop(room);
    let room = open(&disk);
    assert_eq!(room.standing().reserve_held, held);
    assert!(!room.takes_rows(), "refused from the start");
    let boundless = Room::boundless();
    boundless.look(at(0));
    assert!(boundless.takes_rows() && !boundless.relieve(at(0)) && !boundless.is_exhausted());
}
