//! ⇄ Outcomes over their user's allowance: those of one job that ended alike become one record that counts them.
//!
//! Such outcomes are files of the drop-box. A batch is fixed by moving its files into a directory of its own, which is
//! durable before the record is handed on; the record's run id is the directory's name, and the files go only when the
//! record is stored. So after any crash the same batch comes again under the same id, and each run is counted once; but for a
//! copy of what was stored by an agent that was killed before it could remove the file. The
//! record is the latest of the runs, which says how many more it stands for.
//! Bounded: a scan makes at most `BATCHES_PER_UID` records of a user, of at most the names of one scan.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use tocsin_shared::job::{JobEnded, JobName, JobRecord, Outcome, RunId};
use uuid::Uuid;

use super::drop_box;

/// A batch's directory in the drop-box is named so, and by its run id.
const PREFIX: &str = ".alike-";
/// Records that a user over the allowance gets per scan: a job that loops is one of them, and hides no other job.
const BATCHES_PER_UID: usize = 16;

/// What runs have in common that are told as one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Likeness {
    uid: u32,
    job: JobName,
    outcome: Outcome,
}

impl Likeness {
    fn of(ended: &JobEnded) -> Self {
        Self { uid: ended.uid, job: ended.job.clone(), outcome: ended.outcome.clone() }
    }
}

/// Files over their user's allowance, by what they have in common.
#[derive(Debug, Default)]
pub(crate) struct Alike(HashMap<Likeness, Vec<PathBuf>>);

impl Alike {
    /// Notes a file; its record was read and is not kept. Starts wait for their allowance.
    pub(crate) fn add(&mut self, record: &JobRecord, path: PathBuf) {
        if let JobRecord::Ended(ended) = record {
            self.0.entry(Likeness::of(ended)).or_default().push(path);
        }
    }

    /// The batches to make now, the largest first; the rest is there at the next scan.
    pub(crate) fn batches(self) -> Vec<Vec<PathBuf>> {
        let mut groups: Vec<(u32, Vec<PathBuf>)> =
            self.0.into_iter().map(|(likeness, paths)| (likeness.uid, paths)).collect();
        groups.sort_by_key(|(_, paths)| std::cmp::Reverse(paths.len()));
        let mut of_uid: HashMap<u32, usize> = HashMap::new();
        groups.retain(|(uid, _)| {
            let count = of_uid.entry(*uid).or_default();
            *count += 1;
            *count <= BATCHES_PER_UID
        });
        groups.into_iter().map(|(_, paths)| paths).collect()
    }
}

/// Fixes a batch: moves its files into a directory of their own, durably. Files that are gone meanwhile are left out.
pub(crate) fn fix(drop_box: &Path, paths: &[PathBuf]) -> io::Result<PathBuf> {
    let batch = drop_box.join(format!("{PREFIX}{}", Uuid::new_v4()));
    fs::DirBuilder::new().mode(0o700).create(&batch)?;
    for (at, path) in paths.iter().enumerate() {
        match fs::rename(path, batch.join(format!("{at}{}", super::COMPLETE_SUFFIX))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    File::open(&batch)?.sync_all()?;
    File::open(drop_box)?.sync_all()?;
    Ok(batch)
}

/// The run id of a batch, if a name in the drop-box is one that an agent made: anybody may give a directory that name.
pub(crate) fn batch_id(path: &Path) -> Option<RunId> {
    let id = path.file_name()?.to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
    let facts = fs::symlink_metadata(path).ok()?;
    (facts.is_dir() && facts.uid() == nix::unistd::geteuid().as_raw()).then_some(RunId(id))
}

/// The record of a fixed batch; none when no file of it can be read.
pub(crate) fn record(batch: &Path, id: RunId) -> io::Result<Option<JobRecord>> {
    let mut latest: Option<JobEnded> = None;
    let mut count: u64 = 0;
    for entry in fs::read_dir(batch)? {
        // Its owner could still write to an open file: what is not alike any more is not counted.
        let Ok(JobRecord::Ended(ended)) = drop_box::read(&entry?.path()) else { continue };
        if latest.as_ref().is_some_and(|latest| Likeness::of(latest) != Likeness::of(&ended)) {
            continue;
        }
        count += 1;
        if latest.as_ref().is_none_or(|latest| latest.ended_at <= ended.ended_at) {
            latest = Some(ended);
        }
    }
    Ok(latest.map(|latest| JobRecord::Ended(JobEnded { run_id: id, alike: count - 1, ..latest })))
}

/// Removes a batch whose record is stored.
pub(crate) fn remove(batch: &Path) -> io::Result<()> {
    fs::remove_dir_all(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::envelope;
    use crate::jobs::envelope::tests::ended;

    fn own_uid() -> u32 {
        nix::unistd::geteuid().as_raw()
    }

    // Cases: S16
    #[test]
    fn what_is_alike_is_one_batch_and_no_user_gets_many() {
        let mut alike = Alike::default();
        let mut add = |uid, outcome: Outcome, name: String| {
            alike.add(&ended(1, uid, outcome, "said differently"), name.into());
        };
        (0..50).for_each(|at| add(1, Outcome::Exited(1), format!("loop-{at}")));
        (0..40).for_each(|at| add(1, Outcome::Exited(at), format!("odd-{at}")));
        add(2, Outcome::Exited(0), "other".into());
        alike.add(&envelope::tests::started(1), "start".into());
        let batches = alike.batches();
        assert_eq!(batches[0].len(), 51, "the largest first: the loop and one that ended like it");
        assert_eq!(batches.len(), BATCHES_PER_UID + 1, "and the other user's");
        assert!(batches.contains(&vec!["other".into()]));
    }

    // Cases: S16
    #[test]
    fn a_batch_counts_each_run_once_whenever_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..5).map(|at| dir.path().join(format!("{at}.job"))).collect();
        for (at, path) in paths.iter().enumerate() {
            let outcome = Outcome::Exited(if at == 3 { 9 } else { 1 });
            std::fs::write(path, envelope::encode(&ended(at as u128, own_uid(), outcome, ""))).unwrap();
        }
        std::fs::remove_file(&paths[4]).unwrap();
        let batch = fix(dir.path(), &paths).unwrap();
        assert!(paths.iter().all(|path| !path.exists()));
        let id = batch_id(&batch).unwrap();
        for _ in 0..2 {
            let Some(JobRecord::Ended(told)) = record(&batch, id).unwrap() else { panic!("a record") };
            let counted = (told.run_id, told.alike);
            assert!(counted == (id, 2) || (counted == (id, 0) && told.outcome == Outcome::Exited(9)));
        }
        remove(&batch).unwrap();
        assert!(record(&batch, id).is_err());
        std::fs::write(&batch, "a file of that name").unwrap();
        assert_eq!(batch_id(&batch), None);
        assert_eq!(batch_id(&dir.path().join("other")), None);
    }
}
