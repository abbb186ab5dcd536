//! Follows a history and knows at each moment what is durable and what a power cut may still decide.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::mem;
use std::path::{Path, PathBuf};

use super::change::{DataChange, Fate, NameChange};
use crate::disk::image::{Content, Image};
use crate::disk::{FileId, Step};

/// A change and how far it is.
struct Made<C> {
    change: C,
    state: MadeState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MadeState {
    /// The next sync makes it durable.
    Waits,
    /// A sync failed: no other makes it durable.
    Stuck,
    Durable,
}

/// A file: what all its leading durable changes came to, and the changes since.
#[derive(Default)]
struct FileState {
    durable: Content,
    since: Vec<Made<DataChange>>,
}

/// The disk at one moment.
pub(super) struct Replay {
    dirs: BTreeSet<PathBuf>,
    files: Vec<FileState>,
    live_names: BTreeMap<PathBuf, FileId>,
    durable_names: BTreeMap<PathBuf, FileId>,
    names_since: Vec<Made<NameChange>>,
}

/// Where an undecided change is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Data { file: usize, at: usize },
    Name { at: usize },
}

/// A change that a power cut decides.
pub(super) struct Undecided {
    place: Place,
    /// What can become of it, `Kept` first and `Dropped` second.
    pub(super) fates: Vec<Fate>,
    /// Said to people.
    text: String,
}

impl fmt::Display for Undecided {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl Replay {
    pub(super) fn new(base: &Image) -> Self {
        let files = base.files.values().map(|content| FileState { durable: content.clone(), since: vec![] });
        let names: BTreeMap<PathBuf, FileId> = base.files.keys().cloned().zip((0..).map(FileId)).collect();
        Self {
            dirs: base.dirs.clone(),
            files: files.collect(),
            live_names: names.clone(),
            durable_names: names,
            names_since: Vec::new(),
        }
    }

    /// Goes one step on.
    pub(super) fn take(&mut self, step: &Step) {
        match step {
            Step::CreateDir { dir } => self.dirs.extend(dir.ancestors().map(Path::to_owned)),
            Step::Create { path, file } => {
                self.files.resize_with(self.files.len().max(file.0 + 1), FileState::default);
                self.live_names.insert(path.clone(), *file);
                self.rename(NameChange::Link { path: path.clone(), file: *file });
            }
            Step::Rename { from, to } => {
                let Some(file) = self.live_names.remove(from) else { return };
                self.live_names.insert(to.clone(), file);
                self.rename(NameChange::Rename { from: from.clone(), to: to.clone(), file });
            }
            Step::Remove { path } => {
                self.live_names.remove(path);
                self.rename(NameChange::Unlink { path: path.clone() });
            }
            Step::Write { file, offset, bytes } => {
                self.change(*file, DataChange::Write { offset: *offset, bytes: bytes.clone() });
            }
            Step::Truncate { file, bytes } => self.change(*file, DataChange::Truncate { bytes: *bytes }),
            Step::Allocate { file, bytes } => self.change(*file, DataChange::Allocate { bytes: *bytes }),
            Step::SyncData { file } => self.files[file.0].settle(MadeState::Durable),
            Step::SyncDataFailed { file } => self.files[file.0].settle(MadeState::Stuck),
            Step::SyncDir { dir } => self.settle_names(dir),
        }
    }

    fn change(&mut self, file: FileId, change: DataChange) {
        self.files[file.0].since.push(Made { change, state: MadeState::Waits });
    }

    fn rename(&mut self, change: NameChange) {
        self.names_since.push(Made { change, state: MadeState::Waits });
    }

    fn settle_names(&mut self, dir: &Path) {
        settle(&mut self.names_since, MadeState::Durable, |change| change.dir() == Some(dir));
        let (durable, since) = split(mem::take(&mut self.names_since));
        durable.iter().for_each(|change| change.apply(&mut self.durable_names));
        self.names_since = since;
    }

    /// What a power cut now would decide. Content of a file that no name can lead to any more is left out.
    pub(super) fn undecided(&self) -> Vec<Undecided> {
        let names = self.names_since.iter().enumerate().filter(|(_, made)| made.state != MadeState::Durable);
        let names = names.map(|(at, made)| Undecided {
            place: Place::Name { at },
            fates: vec![Fate::Kept, Fate::Dropped],
            text: made.change.to_string(),
        });
        let data = self.reachable().into_iter().flat_map(|(FileId(file), name)| {
            let since = self.files[file].since.iter().enumerate();
            since.filter(|(_, made)| made.state != MadeState::Durable).map(move |(at, made)| Undecided {
                place: Place::Data { file, at },
                fates: made.change.fates(),
                text: format!("{} {}", name.display(), made.change),
            })
        });
        data.chain(names).collect()
    }

    /// The files that can have a name after a cut, each with one of them.
    fn reachable(&self) -> BTreeMap<FileId, PathBuf> {
        let durable = self.durable_names.iter().map(|(path, file)| (*file, path.clone()));
        let since = self.names_since.iter().filter_map(|made| {
            let (NameChange::Link { path, .. } | NameChange::Rename { to: path, .. }) = &made.change else {
                return None;
            };
            Some((made.change.file()?, path.clone()))
        });
        durable.chain(since).collect()
    }

    /// The disk after a cut that decided so.
    pub(super) fn image(&self, undecided: &[Undecided], fates: &[Fate]) -> Image {
        let fate_of = |place: Place| {
            let at = undecided.iter().position(|undecided| undecided.place == place);
            at.map_or(Fate::Kept, |at| fates[at])
        };
        let mut names = self.durable_names.clone();
        for (at, made) in self.names_since.iter().enumerate() {
            if fate_of(Place::Name { at }) == Fate::Kept {
                made.change.apply(&mut names);
            }
        }
        let content = |file: usize| {
            let FileState { durable, since } = &self.files[file];
            let mut content = durable.clone();
            for (at, made) in since.iter().enumerate() {
                made.change.apply(fate_of(Place::Data { file, at }), &mut content);
            }
            content
        };
        let files = names.into_iter().map(|(path, FileId(file))| (path, content(file)));
        Image { dirs: self.dirs.clone(), files: files.collect() }
    }
}

impl FileState {
    fn settle(&mut self, state: MadeState) {
        settle(&mut self.since, state, |_| true);
        let (durable, since) = split(mem::take(&mut self.since));
        durable.iter().for_each(|change| change.apply(Fate::Kept, &mut self.durable));
        self.since = since;
    }
}

impl NameChange {
    fn dir(&self) -> Option<&Path> {
        match self {
            Self::Link { path, .. } | Self::Rename { to: path, .. } | Self::Unlink { path } => path.parent(),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, FileId>) {
        match self {
            Self::Link { path, file } => drop(names.insert(path.clone(), *file)),
            Self::Rename { from, to, file } => {
                if names.get(from) == Some(file) {
                    names.remove(from);
                }
                names.insert(to.clone(), *file);
            }
            Self::Unlink { path } => drop(names.remove(path)),
        }
    }
}

/// What a sync, or its failure, does to the changes it is about.
fn settle<C>(changes: &mut [Made<C>], state: MadeState, about: impl Fn(&C) -> bool) {
    for made in changes.iter_mut().filter(|made| made.state == MadeState::Waits && about(&made.change)) {
        made.state = state;
    }
}

/// The leading durable changes, which nothing can be decided before, and the rest.
fn split<C>(changes: Vec<Made<C>>) -> (Vec<C>, Vec<Made<C>>) {
    let durable = changes.iter().take_while(|made| made.state == MadeState::Durable).count();
    let mut changes = changes.into_iter();
    (changes.by_ref().take(durable).map(|made| made.change).collect(), changes.collect())
}
