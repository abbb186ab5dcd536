//! Every state in which a power cut can leave a disk, from the list of what was done to it.
//!
//! The cut may come after any number of steps. Each change that no sync has made durable by then decides for itself
//! whether it is there: a write also in part, a name (created, renamed, removed) there or not, in any combination and
//! whatever was done first. For a small history every combination is gone through; where one moment has more than
//! `STATES_MAX`, a fixed selection of them (`choice`). Equal states of one moment are shown once.
//!
//! The model is weaker than today's file systems on purpose: it promises only what POSIX does. Not modelled: sectors
//! that rot, directories that were not made durable, a disk that lies about syncs.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::image::Image;
use super::{MemoryDisk, RecordingDisk, Step};

mod change;
mod choice;
mod replay;
#[cfg(test)]
mod tests;

use change::Fate;
use replay::{Replay, Undecided};

/// The most combinations of one moment that are gone through one by one. Five writes torn in four ways and two names
/// are as many; what follows a protocol of write, sync, rename, sync has far fewer.
pub const STATES_MAX: usize = 4096;

/// What was done to a disk, and what was on it before.
#[derive(Clone, Debug)]
pub struct History {
    base: Image,
    steps: Vec<Step>,
}

impl History {
    pub(super) fn new(base: Image, steps: Vec<Step>) -> Self {
        Self { base, steps }
    }

    /// What was done, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The disk as the process that was killed after so many steps has left it, recorded on: nothing is lost, but what
    /// was not synced is not durable yet either, and a power cut after the next start may still take it.
    pub fn killed(&self, after: usize) -> RecordingDisk {
        RecordingDisk::replayed(&self.base, &self.steps[..after])
    }

    /// Every state after a power cut, those of the earliest cuts first; of one moment the state in which all is kept,
    /// as after a kill, comes first.
    pub fn power_cuts(&self) -> PowerCuts<'_> {
        self.power_cuts_within(STATES_MAX)
    }

    /// The same with another bound than `STATES_MAX`, for histories that are long or slow to check.
    pub fn power_cuts_within(&self, states_max: usize) -> PowerCuts<'_> {
        let mut cuts = PowerCuts {
            steps: &self.steps,
            states_max,
            replay: Replay::new(&self.base),
            after: 0,
            undecided: Arc::default(),
            choices: Vec::new().into_iter(),
            seen: HashSet::new(),
        };
        cuts.choose();
        cuts
    }

    /// The states of one moment alone.
    pub fn power_cuts_at(&self, after: usize) -> PowerCuts<'_> {
        let steps = &self.steps[..after];
        let mut replay = Replay::new(&self.base);
        steps.iter().for_each(|step| replay.take(step));
        let (undecided, choices) = (Arc::default(), Vec::new().into_iter());
        let mut cuts = PowerCuts {
            steps,
            states_max: STATES_MAX,
            replay,
            after,
            undecided,
            choices,
            seen: HashSet::new(),
        };
        cuts.choose();
        cuts
    }
}

/// A disk as a power cut has left it; everything on it is durable. Shown as what the cut did, for messages of tests.
pub struct PowerCut {
    /// How many steps had been taken.
    pub after: usize,
    /// What there is to start from.
    pub disk: MemoryDisk,
    undecided: Arc<Vec<Undecided>>,
    fates: Vec<Fate>,
}

impl fmt::Display for PowerCut {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "power cut after {} steps", self.after)?;
        for (undecided, fate) in self.undecided.iter().zip(&self.fates) {
            write!(out, "; {undecided}: {fate}")?;
        }
        Ok(())
    }
}

/// Goes through the states after power cuts.
pub struct PowerCuts<'a> {
    steps: &'a [Step],
    states_max: usize,
    replay: Replay,
    after: usize,
    undecided: Arc<Vec<Undecided>>,
    choices: std::vec::IntoIter<Vec<usize>>,
    /// The states of this moment that were shown.
    seen: HashSet<u64>,
}

impl PowerCuts<'_> {
    /// Finds out what the cut at this moment can decide.
    fn choose(&mut self) {
        let undecided = self.replay.undecided();
        let fates: Vec<usize> = undecided.iter().map(|undecided| undecided.fates.len()).collect();
        self.choices = choice::choices(&fates, self.states_max).into_iter();
        self.undecided = Arc::new(undecided);
        self.seen.clear();
    }

    fn next_moment(&mut self) -> Option<()> {
        self.replay.take(self.steps.get(self.after)?);
        self.after += 1;
        self.choose();
        Some(())
    }
}

impl Iterator for PowerCuts<'_> {
    type Item = PowerCut;

    fn next(&mut self) -> Option<PowerCut> {
        loop {
            let Some(choice) = self.choices.next() else {
                self.next_moment()?;
                continue;
            };
            let undecided = self.undecided.iter();
            let fates: Vec<Fate> = undecided.zip(choice).map(|(undecided, at)| undecided.fates[at]).collect();
            let image = self.replay.image(&self.undecided, &fates);
            if self.seen.insert(image.digest()) {
                let disk = MemoryDisk::from_image(image);
                return Some(PowerCut { after: self.after, disk, undecided: self.undecided.clone(), fates });
            }
        }
    }
}
