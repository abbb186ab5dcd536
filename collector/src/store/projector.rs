//! The projector: the thread that follows the journal into the store.

mod shortage;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tocsin_shared::event::Event;
use tocsin_shared::log::{LogError, Reader};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{SledTables, Store, StoreError, Tables};
use crate::clock::now;
use crate::journal::ledger;
use crate::room::Room;
use shortage::{Laid, ROOM_CHECK};

/// Events in one transaction: short ones, because sled holds a lock of the whole process meanwhile.
const BATCH: usize = 256;
/// A store that fails more often than this between two starts is left as it is: the disk is broken, not the store.
const REBUILDS_MAX: u32 = 3;

/// How the store stands.
#[derive(Clone)]
pub struct Projection {
    pub store: Store,
    /// The last event in the store.
    pub applied: watch::Receiver<u64>,
    /// What was set aside and why, and a failure that stays.
    pub problems: Arc<Mutex<Vec<String>>>,
}

impl Projection {
    /// Waits until the store has an event, for at most two seconds: reading what one has just written.
    pub async fn reached(&self, seq: u64) {
        let mut applied = self.applied.clone();
        let wait = applied.wait_for(|applied| *applied >= seq);
        tokio::time::timeout(std::time::Duration::from_secs(2), wait).await.ok().and_then(Result::ok); // Late is no error: the store catches up.
    }
}

/// Opens the store under `path`; one that does not open is set aside.
pub fn open(path: &Path) -> Result<(Arc<dyn Tables>, Option<String>), StoreError> {
    match SledTables::open(path) {
        Ok(tables) => Ok((Arc::new(tables), None)),
        Err(error) if !path.exists() => Err(error), // There is nothing to set aside: it cannot be made.
        Err(error) if error.is_full() => Err(error), // Nothing is wrong with it.
        Err(error) => {
            let aside = set_aside(path)?;
            let problem = format!(
                "the store did not open ({error}); it is set aside as {} and built again",
                aside.display()
            );
            Ok((Arc::new(SledTables::open(path)?), Some(problem)))
        }
    }
}

fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".bad-{}", now().as_millis()));
    let aside = PathBuf::from(name);
    std::fs::rename(path, &aside)?;
    Ok(aside)
}

/// What is followed, and what is minded meanwhile.
pub struct Followed {
    pub reader: Reader,
    pub head: watch::Receiver<u64>,
    pub room: Arc<Room>,
    /// Whether the tables only stand in for a store that could not be opened for want of room.
    pub unopened: bool,
}

/// Starts to follow the journal from where the store is.
pub fn start(
    path: PathBuf,
    tables: Arc<dyn Tables>,
    Followed { reader, head, room, unopened }: Followed,
    stop: CancellationToken,
    handle: Handle,
) -> Projection {
    let store = Store::new(tables);
    let (applied_out, applied) = watch::channel(store.applied().unwrap_or(0));
    let problems = Arc::new(Mutex::new(Vec::new()));
    let mut projector = Projector {
        path,
        store: store.clone(),
        reader,
        head,
        room,
        stop,
        handle,
        applied: applied_out,
        laid: None,
        problems: problems.clone(),
    };
    if unopened {
        projector.lay_over(Some(&StoreError::Record("it could not be opened".into())));
    }
    thread::Builder::new()
        .name("projector".into())
        .spawn(move || projector.run())
        .expect("a thread can be started at the start of the process");
    Projection { store, applied, problems }
}

struct Projector {
    path: PathBuf,
    store: Store,
    reader: Reader,
    head: watch::Receiver<u64>,
    room: Arc<Room>,
    stop: CancellationToken,
    handle: Handle,
    applied: watch::Sender<u64>,
    /// While there is no room on the disk.
    laid: Option<Laid>,
    problems: Arc<Mutex<Vec<String>>>,
}

impl Projector {
    fn run(mut self) {
        let mut rebuilds = 0;
        loop {
            match self.follow() {
                Ok(()) => return,
                // Nothing is wrong with the store, and a new one would not fit either.
                Err(error) if self.laid.is_none() && (error.is_full() || !self.room.takes_rows()) => {
                    self.lay_over(Some(&error));
                }
                // It cannot even be read.
                Err(_) if self.laid.is_some() && self.is_short() => {
                    if !self.wait_for_room() {
                        return;
                    }
                }
                Err(error) if rebuilds < REBUILDS_MAX => {
                    rebuilds += 1;
                    if let Err(again) = self.rebuild(&error) {
                        return self.say(format!("the store can't be built again ({again}): queries of history fail until a restart"));
                    }
                }
                Err(error) => {
                    return self.say(format!("the store fails again and again ({error}): queries of history are stale until a restart"));
                }
            }
        }
    }

    fn say(&self, problem: String) {
        tracing::error!("{problem}");
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
    }

    fn unsay(&self, beginning: &str) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        problems.retain(|problem| !problem.starts_with(beginning));
    }

    fn rebuild(&mut self, error: &StoreError) -> Result<(), StoreError> {
        self.store.replace(Arc::new(super::MemoryTables::default())); // Let go of the files.
        self.applied.send_replace(0);
        let aside = set_aside(&self.path)?;
        self.say(format!(
            "the store failed ({error}); it is set aside as {} and built again",
            aside.display()
        ));
        self.store.replace(Arc::new(SledTables::open(&self.path)?));
        Ok(())
    }

    fn follow(&mut self) -> Result<(), StoreError> {
        let applied = self.store.applied()?;
        if applied > self.reader.durable_seq() {
            return Err(StoreError::Record(format!("it holds event {applied}, the journal ends before it")));
        }
        self.seek(applied + 1)?;
        let mut ended = false;
        loop {
            if self.mind_room()? {
                let applied = self.store.applied()?;
                self.seek(applied + 1)?;
            }
            let batch = self.batch()?;
            if let Some(last) = batch.last() {
                self.store.apply(&batch)?;
                self.applied.send_replace(last.seq);
                continue;
            }
            if ended {
                return Ok(());
            }
            let (head, stop) = (&mut self.head, self.stop.clone());
            let short = self.laid.is_some();
            ended = !self.handle.block_on(async {
                tokio::select! {
                    changed = head.changed() => changed.is_ok(),
                    () = tokio::time::sleep(ROOM_CHECK), if short => true,
                    () = stop.cancelled() => false,
                }
            });
        }
    }

    fn seek(&mut self, seq: u64) -> Result<(), StoreError> {
        match self.reader.seek(seq) {
            Err(LogError::Gone { first_seq }) => self.reader.seek(first_seq),
            sought => sought,
        }
        .map_err(|error| StoreError::Record(error.to_string()))
    }

    fn batch(&mut self) -> Result<Vec<Event>, StoreError> {
        let mut events = Vec::new();
        while events.len() < BATCH {
            let entry = self.reader.next().map_err(|error| StoreError::Record(error.to_string()))?;
            let Some(entry) = entry else { break };
            events.push(
                ledger::decode(&entry.payload, entry.seq)
                    .map_err(|error| StoreError::Record(error.to_string()))?,
            );
        }
        Ok(events)
    }
}
