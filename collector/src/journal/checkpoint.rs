//! Checkpoints: the whole folded state in one file, so that a start reads only the events after it.
//!
//! A checkpoint is a small log of `CheckpointPart`s, written beside, synced, renamed, its directory synced. It is
//! named by the event it follows. The newest whole one counts; damaged ones are passed over and said. The two newest
//! are kept.

use std::path::{Path, PathBuf};

use prost::Message;
use tocsin_proto::pb;
use tocsin_shared::disk::{self, Disk};
use tocsin_shared::event::Subject;
use tocsin_shared::frame::{self, Decoded, Role};

use super::JournalError;
use crate::state::State;

const SALT_NAME: &str = "tocsin-checkpoint-1";
/// Bytes of records in one frame, beyond which a new one begins: with one more record it is still below 8 MiB.
const PART_BYTES: usize = 1 << 20;
/// A checkpoint is hot state only; a gigabyte of it is more than a machine this is for could hold twice.
const BYTES_MAX: u64 = 1 << 30;
const KEPT: usize = 2;

/// Writes the state durably; older checkpoints beyond the newest two are removed.
pub fn write(disk: &dyn Disk, dir: &Path, state: &State) -> Result<PathBuf, JournalError> {
    let path = dir.join(format!("checkpoint-{:020}", state.last_seq()));
    let failed = |error: std::io::Error| {
        let (path, why) = (path.clone(), error.to_string());
        match disk::is_full(&error) {
            true => JournalError::CheckpointFull { path, why },
            false => JournalError::Checkpoint { path, why },
        }
    };
    disk.create_dir(dir).map_err(failed)?;
    disk::replace(disk, &path, &encode(state)).map_err(failed)?;
    let names = list(disk, dir).map_err(failed)?;
    for old in names.iter().rev().skip(KEPT) {
        disk.remove(&dir.join(old)).map_err(failed)?;
    }
    Ok(path)
}

/// The newest whole checkpoint, and what was wrong with newer ones.
pub fn read(disk: &dyn Disk, dir: &Path) -> Result<(State, Vec<String>), JournalError> {
    let failed =
        |error: std::io::Error| JournalError::Checkpoint { path: dir.to_owned(), why: error.to_string() };
    disk.create_dir(dir).map_err(failed)?;
    let mut problems = Vec::new();
    for name in list(disk, dir).map_err(failed)?.iter().rev() {
        let bytes = disk::read_whole(disk, &dir.join(name), BYTES_MAX);
        match bytes.map_err(|error| error.to_string()).and_then(|bytes| decode(&bytes)) {
            Ok(state) => return Ok((state, problems)),
            Err(why) => problems.push(format!("checkpoint {name} is set aside: {why}")),
        }
    }
    Ok((State::default(), problems))
}

/// The names of checkpoints, oldest first.
fn list(disk: &dyn Disk, dir: &Path) -> std::io::Result<Vec<String>> {
    let names = disk.list(dir)?.into_iter().filter(|listed| listed.regular).map(|listed| listed.name);
    let is_ours =
        |name: &String| name.strip_prefix("checkpoint-").is_some_and(|seq| seq.parse::<u64>().is_ok());
    let mut names: Vec<String> = names.filter(is_ours).collect();
    names.sort();
    Ok(names)
}

fn encode(state: &State) -> Vec<u8> {
    let mut records = state.records().into_iter().map(|record| record_out(&record)).peekable();
    let (salt, mut out, mut number) = (frame::salt(SALT_NAME), Vec::new(), 1);
    loop {
        let (mut part, mut bytes) = (Vec::new(), 0);
        while let Some(record) = records.next_if(|_| bytes < PART_BYTES) {
            bytes += record.encoded_len();
            part.push(record);
        }
        let last = records.peek().is_none();
        let part = pb::CheckpointPart {
            last_seq: state.last_seq(),
            evaluated_through: state.evaluated_through(),
            last,
            records: part,
        };
        frame::encode(salt, (number, 0, Role::Numbered), &part.encode_to_vec(), &mut out);
        if last {
            return out;
        }
        number += 1;
    }
}

fn record_out(record: &Subject) -> pb::Event {
    pb::Event { subject: Some(record.into()), ..pb::Event::default() }
}

fn decode(mut bytes: &[u8]) -> Result<State, String> {
    let salt = frame::salt(SALT_NAME);
    let mut records = Vec::new();
    loop {
        let Decoded::Frame { payload, .. } = frame::decode(salt, bytes) else {
            return Err("it is incomplete or damaged".into());
        };
        let end = payload.end;
        let part = pb::CheckpointPart::decode(&bytes[payload]).map_err(|error| error.to_string())?;
        for record in part.records {
            let subject = record.subject.ok_or("a record is empty")?;
            records.push(Subject::try_from(subject).map_err(|error| error.to_string())?);
        }
        if part.last {
            return Ok(State::restore(part.last_seq, part.evaluated_through, records));
        }
        bytes = &bytes[end..];
    }
}

#[cfg(test)]
mod tests;
