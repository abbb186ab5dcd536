//! Opens the events journal: the newest checkpoint, the events after it, and what of them cannot be read.
//!
//! Promises: no event after the checkpoint is passed over in silence. What is missing at the very end was torn off by a
//! crash before anyone was told; the first event written afterwards says so, so that a file which is gone is not taken
//! for a tear later. What is missing before other events is lost, unless a tear is recorded or an operator has decided.
//! Nothing is deleted. A journal whose beginning is missing, with no checkpoint that reaches it, is refused: there is
//! nothing to go on from.

use std::path::Path;
use std::sync::Arc;

use tocsin_shared::disk::Disk;
use tocsin_shared::event::{LossState, Subject};
use tocsin_shared::log::{Config, Log};

use super::{Opened, decode, whole};
use crate::journal::{EVENTS_FORMAT, EVENTS_SEGMENT, JournalError, checkpoint};
use crate::room::Room;
use crate::state::State;
use crate::state::losses::Findings;

/// Lost ranges told apart at a start: more are one range that has readable events in it, too.
const RANGES_MAX: usize = 64;

/// Opens the events journal under `dir` and folds it: the newest checkpoint, then the events after it.
pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Opened, JournalError> {
    open_with(EVENTS_SEGMENT, disk, dir)
}

/// `open` with segments of another size.
pub fn open_with(config: Config, disk: Arc<dyn Disk>, dir: &Path) -> Result<Opened, JournalError> {
    whole::cut_half_decision(&*disk, &dir.join("events"))?;
    let checkpoints = dir.join("checkpoints");
    let (mut state, mut problems) = checkpoint::read(&*disk, &checkpoints)?;
    let checkpoint_seq = state.last_seq();
    let (mut log, recovery) = Log::open(disk.clone(), &dir.join("events"), EVENTS_FORMAT, config)?;
    let first = log.segments().first().map_or(log.next_seq(), |segment| segment.first_seq);
    if first > checkpoint_seq + 1 {
        return Err(JournalError::Hole { first, last: checkpoint_seq });
    }
    let mut covered: Vec<_> =
        recovery.lost.iter().filter(|lost| !lost.torn).map(|l| (l.first, l.last)).collect();
    covered.retain(|(_, last)| *last <= checkpoint_seq);
    if log.next_seq() <= checkpoint_seq {
        // The end is gone with its file: its numbers were used, and must not be used again.
        covered.push((log.next_seq(), checkpoint_seq));
        log.skip_to(checkpoint_seq + 1)?;
    }
    let Read { lost, torn } = fold(&mut state, &log, checkpoint_seq)?;
    let found = findings(&state, covered, lost, torn, checkpoint_seq);
    problems.extend(found.covered.iter().map(|(first, last)| {
        format!("events {first} to {last} of the journal are damaged or missing; a checkpoint has what they came to")
    }));
    let room = Room::boundless();
    Ok(Opened { state, log, disk, checkpoints, checkpoint_seq, room, found, problems })
}

/// What is missing after the checkpoint. Ranges are closed.
struct Read {
    /// Before other events, and no recorded tear.
    lost: Vec<(u64, u64)>,
    /// At the end.
    torn: Option<(u64, u64)>,
}

fn fold(state: &mut State, log: &Log, after: u64) -> Result<Read, JournalError> {
    let mut reader = log.reader();
    reader.seek(after + 1)?;
    let (mut expected, mut lost) = (after + 1, Vec::new());
    while let Some(entry) = reader.next()? {
        let event = decode(&entry.payload, entry.seq)?;
        if entry.seq > expected {
            let tear = match &event.subject {
                Subject::Loss(loss) if loss.state == LossState::Torn => {
                    loss.first <= expected && loss.last + 1 >= entry.seq
                }
                _ => false,
            };
            if !tear {
                note(&mut lost, (expected, entry.seq - 1));
            }
        }
        expected = entry.seq + 1;
        state.take(event);
    }
    let torn = (expected < log.next_seq()).then(|| (expected, log.next_seq() - 1));
    Ok(Read { lost, torn })
}

fn note(lost: &mut Vec<(u64, u64)>, range: (u64, u64)) {
    let full = lost.len() >= RANGES_MAX;
    match lost.last_mut().filter(|_| full) {
        Some(last) => last.1 = range.1,
        None => lost.push(range),
    }
}

/// What of it is news: an operator's decision stands as long as no more is lost than it was about.
fn findings(
    state: &State,
    covered: Vec<(u64, u64)>,
    lost: Vec<(u64, u64)>,
    torn: Option<(u64, u64)>,
    checkpoint_seq: u64,
) -> Findings {
    use LossState::{Accepted, Covered, Open, Settled, Torn};
    let known = |(first, last): &(u64, u64), states: &[LossState]| {
        state.losses().any(|loss| states.contains(&loss.state) && loss.first <= *first && *last <= loss.last)
    };
    let is_open = |range: &&(u64, u64)| !known(range, &[Open, Accepted, Settled, Torn]);
    let open: Vec<_> = lost.iter().filter(is_open).copied().collect();
    // Every open loss is after the checkpoint: none is written while there is one.
    let readable =
        |first: u64, last: u64| first > checkpoint_seq && !lost.iter().any(|l| l.0 <= last && first <= l.1);
    let restored = state.losses().filter(|loss| loss.state == Open && readable(loss.first, loss.last));
    let restored = restored.map(|loss| loss.first).collect();
    let told = |range: &(u64, u64)| !known(range, &[Covered, Open, Accepted, Settled, Torn]);
    let covered = covered.into_iter().filter(told).collect();
    Findings { torn: torn.into_iter().collect(), covered, open, restored }
}
