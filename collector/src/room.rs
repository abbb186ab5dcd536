//! ⇄ The room on the collector's disk: who still gets some when it runs short.
//!
//! Metrics give way first: below the free-space floor, or when the rows' writer met a full disk, rows are refused and
//! agents keep them. The events journal (outcomes, transitions, incidents, commands, audit) goes on, from a reserve
//! that was allocated in advance and is given back in steps, so that nobody else takes it at once. When room returns
//! the reserve is taken again, then rows are let in: nobody has to restart anything.
//! Not here: which blocks go early (`run/maintenance`), and the alert's words (`state/disk`).

mod judge;
mod reserve;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tocsin_shared::disk::{Disk, Space};
use tocsin_shared::time::Timestamp;
use tokio::sync::watch;

use crate::memory::{self, Shed};
use judge::{Seen, Verdict, judge};
use reserve::Reserve;

/// What agents are asked to wait before they try rows again: long against what a refused attempt costs a thousand of
/// them, short against what they spool meanwhile.
pub const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Written to find out whether a disk that was full takes anything: one segment's header and its inode.
const PROBE_BYTES: usize = 64 * 1024;
/// What the last part of the reserve is kept for: the group that is being written when it comes to an end.
const LAST_BYTES: u64 = 16 << 20;

/// The bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Allocated in advance for the events journal and its checkpoints.
    pub reserve_bytes: u64,
    /// Below this many free bytes rows are refused.
    pub free_floor_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { reserve_bytes: 256 << 20, free_floor_bytes: 512 << 20 }
    }
}

/// Why rows are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub since: Timestamp,
    pub why: String,
}

/// Whether rows are let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// For want of room on the disk.
    pub refused: Option<Refused>,
    /// What gives way for want of memory.
    pub shed: Shed,
    /// Counts the times it closed. Each time every session tells its agent that what is not acknowledged was refused.
    pub closings: u64,
}

impl Gate {
    /// Whether new rows are refused.
    pub fn is_closed(&self) -> bool {
        self.refused.is_some() || self.shed == Shed::Rows
    }
}

/// The room as it was last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub free: u64,
    pub total: u64,
    pub reserve_held: u64,
    pub reserve_wanted: u64,
    pub refused: Option<Refused>,
    /// Whether the reserve is used up, so that commands are refused, too.
    pub exhausted: bool,
    /// Whether blocks could give room back, and the configuration keeps them.
    pub blocks_stay: bool,
}

impl Standing {
    /// For people: what gives way and what goes on; nothing when there is room.
    pub fn trouble(&self) -> Option<String> {
        let Refused { since, why } = self.refused.as_ref()?;
        let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
        let goes_on = match self.exhausted {
            false => format!("outcomes and incidents go on from the reserve of {}", mib(self.reserve_held)),
            true => "the reserve is used up and commands are refused, too".to_owned(),
        };
        let (free, total) = (mib(self.free), mib(self.total));
        let blocks = match self.blocks_stay {
            true => "; retention.samples_min_bytes lets no block go early",
            false => "",
        };
        Some(format!("metrics are refused since {since}: {why}; free {free} of {total}; {goes_on}{blocks}"))
    }
}

/// What one look came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Bytes that old blocks should give back.
    pub wanted: u64,
}

/// The room of one file system. Shared by its users.
pub struct Room {
    /// `None` where nobody minds the room, as in tests of other parts.
    minded: Option<Mutex<Minded>>,
    gate: watch::Sender<Gate>,
    exhausted: AtomicBool,
    blocks_stay: AtomicBool,
    standing: ArcSwap<Standing>,
    memory: Mutex<memory::Seen>,
}

/// What only one may use at a time; a look may hold it as long as the disk takes.
struct Minded {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    config: Config,
    reserve: Reserve,
    space: Space,
}

impl Room {
    /// Room that never ends, for parts that run without a disk of their own.
    pub fn boundless() -> Arc<Self> {
        Arc::new(Self::new(None))
    }

    fn new(minded: Option<Minded>) -> Self {
        Self {
            minded: minded.map(Mutex::new),
            gate: watch::Sender::default(),
            exhausted: AtomicBool::new(false),
            blocks_stay: AtomicBool::new(false),
            standing: ArcSwap::default(),
            memory: Mutex::default(),
        }
    }

    /// The room of `dir`; takes the reserve if there is room for it.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: Config,
        now: Timestamp,
    ) -> std::io::Result<Arc<Self>> {
        disk.create_dir(dir)?;
        let mut reserve = Reserve::find(disk.clone(), dir)?;
        if reserve.held() > config.reserve_bytes {
            reserve.take(config.reserve_bytes)?; // It was configured larger before.
        }
        let minded = Minded { space: disk.space(dir)?, disk, dir: dir.to_owned(), config, reserve };
        let room = Self::new(Some(minded));
        room.look(now);
        Ok(Arc::new(room))
    }

    /// Whether rows are let in, and changes of it.
    pub fn gate(&self) -> watch::Receiver<Gate> {
        self.gate.subscribe()
    }

    pub fn takes_rows(&self) -> bool {
        !self.gate.borrow().is_closed()
    }

    /// Whether rows are let in that hosts kept while they were away.
    pub fn takes_backlog(&self) -> bool {
        let gate = self.gate.borrow();
        !gate.is_closed() && gate.shed == Shed::Nothing
    }

    /// The memory as it was last seen.
    pub fn memory(&self) -> memory::Seen {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how the memory stands; opens or closes the gate.
    pub fn set_memory(&self, seen: memory::Seen) {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        self.gate.send_if_modified(|gate| {
            let (shed, closed) = (seen.shed, gate.is_closed());
            if std::mem::replace(&mut gate.shed, shed) == shed {
                return false;
            }
            gate.closings += u64::from(gate.is_closed() && !closed);
            match seen.trouble() {
                Some(trouble) => tracing::error!("{trouble}"),
                None => tracing::info!("there is memory again: all rows are taken"),
            }
            true
        });
    }

    /// Why rows are refused, for agents.
    pub fn why(&self) -> String {
        let disk = self.gate.borrow().refused.as_ref().map(|refused| refused.why.clone());
        disk.or_else(|| self.memory().trouble()).unwrap_or_else(|| "the disk was full".to_owned())
    }

    /// Whether even commands have to be refused.
    pub fn is_exhausted(&self) -> bool {
        self.exhausted.load(Ordering::Relaxed)
    }

    /// Whether something is written from the reserve: then nobody else should write.
    pub fn lives_on_reserve(&self) -> bool {
        let standing = self.standing.load();
        standing.reserve_held < standing.reserve_wanted
    }

    /// A writer of rows met a full disk.
    pub fn close(&self, why: &str, now: Timestamp) {
        self.set_gate(Some(why.to_owned()), now);
    }

    /// Gives back a step of the reserve for something that does not fit; false when nothing is left of it.
    pub fn relieve(&self, now: Timestamp) -> bool {
        let Some(mut minded) = self.lock() else { return false };
        let released = minded.release();
        self.publish(&minded, minded.reserve.held() < minded.last_bytes());
        let left = minded.reserve.held();
        drop(minded);
        tracing::warn!(left, "the disk is full: the events journal writes from its reserve");
        self.set_gate(Some("the disk is full".into()), now);
        released
    }

    /// Looks at the disk: takes the reserve again if it can, opens or closes the gate. To be called every second.
    pub fn look(&self, now: Timestamp) -> Looked {
        let Some(mut minded) = self.lock() else { return Looked::default() };
        let closed = self.gate.borrow().refused.is_some();
        let seen = minded.see();
        let verdict = seen.map(|()| judge(minded.seen(closed)));
        let (why, wanted) = match verdict {
            Ok(Verdict::Open) if closed => match minded.probe() {
                Ok(()) => (None, 0),
                Err(error) => (Some(format!("the disk takes nothing: {error}")), 0),
            },
            Ok(Verdict::Open) => (None, 0),
            Ok(Verdict::Short { missing }) => (Some("the disk is nearly full".to_owned()), missing),
            Err(error) => (Some(format!("its free space cannot be seen: {error}")), 0),
        };
        let exhausted = self.is_exhausted() && minded.reserve.held() < minded.last_bytes();
        self.publish(&minded, exhausted);
        drop(minded);
        self.set_gate(why, now);
        Looked { wanted }
    }

    /// Whether blocks could give room back, and the configuration keeps them.
    pub fn note_blocks_stay(&self, stay: bool) {
        self.blocks_stay.store(stay, Ordering::Relaxed);
    }

    /// The room as it was last seen.
    pub fn standing(&self) -> Standing {
        Standing {
            refused: self.gate.borrow().refused.clone(),
            blocks_stay: self.blocks_stay.load(Ordering::Relaxed),
            ..Standing::clone(&self.standing.load())
        }
    }

    fn publish(&self, minded: &Minded, exhausted: bool) {
        self.exhausted.store(exhausted, Ordering::Relaxed);
        self.standing.store(Arc::new(Standing {
            free: minded.space.free,
            total: minded.space.total,
            reserve_held: minded.reserve.held(),
            reserve_wanted: minded.config.reserve_bytes,
            refused: None,
            exhausted,
            blocks_stay: false,
        }));
    }

    fn set_gate(&self, why: Option<String>, now: Timestamp) {
        self.gate.send_if_modified(|gate| match (why, &gate.refused) {
            (None, None) => false,
            (None, Some(_)) => {
                gate.refused = None;
                tracing::info!("there is room on the disk again: rows are taken");
                true
            }
            (Some(why), None) => {
                tracing::error!(why, "rows are refused; outcomes and incidents go on from the reserve");
                gate.refused = Some(Refused { since: now, why });
                gate.closings += 1;
                true
            }
            (Some(_), Some(_)) => false, // The first reason stands, and everybody knows.
        });
    }

    fn lock(&self) -> Option<MutexGuard<'_, Minded>> {
        self.minded.as_ref().map(|minded| minded.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Minded {
    /// Asks how much is free, and takes the reserve again if it fits.
    fn see(&mut self) -> std::io::Result<()> {
        self.space = self.disk.space(&self.dir)?;
        self.refill();
        Ok(())
    }

    fn seen(&self, closed: bool) -> Seen {
        Seen {
            free: self.space.free,
            floor: self.config.free_floor_bytes,
            owed: self.config.reserve_bytes.saturating_sub(self.reserve.held()),
            closed,
        }
    }

    fn last_bytes(&self) -> u64 {
        LAST_BYTES.min(self.config.reserve_bytes / 4)
    }

    fn release(&mut self) -> bool {
        self.reserve.release(self.config.reserve_bytes)
    }

    /// Takes the whole reserve again when the floor stays free beside it.
    fn refill(&mut self) {
        let owed = self.config.reserve_bytes.saturating_sub(self.reserve.held());
        if owed == 0 || self.space.free < self.config.free_floor_bytes.saturating_add(owed) {
            return;
        }
        match self.reserve.take(self.config.reserve_bytes) {
            Ok(()) => tracing::info!(bytes = self.config.reserve_bytes, "the reserve is allocated"),
            Err(error) => tracing::warn!(%error, "the reserve cannot be allocated; it is tried again"),
        }
        self.space = self.disk.space(&self.dir).unwrap_or(self.space);
    }

    /// Whether a file can be made and written: inodes and quotas are not in the free space.
    fn probe(&self) -> std::io::Result<()> {
        let path = self.dir.join("room.probe");
        self.disk.remove(&path).ok(); // A crash may have left one; if it cannot be removed, it cannot be created.
        let mut file = self.disk.create(&path)?;
        let written = file.write_at(0, &[0; PROBE_BYTES]);
        drop(file);
        self.disk.remove(&path)?;
        written
    }
}
