//! Asking file systems how full they are without ever being held up by one that hangs.
//!
//! Each tick the mounts are asked from short-lived threads: all local ones from one, each remote one from its own.
//! The tick waits `GRACE` for the answers and no longer. A mount that has not answered by then keeps its last
//! answer, and once its question is `DEADLINE` old it is said to hang. A mount is never asked twice at the same time:
//! the thread that is stuck in it is the only one, and it ends when the file system answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use nix::errno::Errno;

/// A question this old without an answer is a mount that hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(2);
/// The longest that a tick waits for answers; a local file system answers within microseconds.
const GRACE: Duration = Duration::from_millis(100);
/// Threads that may be out at the same time. A host with more hanging mounts than this learns nothing from one more.
const THREADS_MAX: usize = 64;
/// A thread makes one system call and needs no stack to speak of.
const STACK_BYTES: usize = 64 << 10;

/// How full a file system is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    pub(crate) size: f64,
    pub(crate) free: f64,
    pub(crate) available: f64,
    pub(crate) files: f64,
    pub(crate) files_free: f64,
}

/// What a mount answered.
pub(crate) type Answer = Result<Usage, Errno>;
/// How a mount is asked; replaced in tests.
pub(crate) type Ask = Arc<dyn Fn(&Path) -> Answer + Send + Sync>;

/// Asks the kernel. Blocks for as long as the file system likes.
pub(crate) fn statvfs(path: &Path) -> Answer {
    let stat = nix::sys::statvfs::statvfs(path)?;
    #[allow(clippy::unnecessary_cast)] // The fields' width differs between platforms.
    let [unit, blocks, free, available, files, files_free] = [
        stat.fragment_size() as f64,
        stat.blocks() as f64,
        stat.blocks_free() as f64,
        stat.blocks_available() as f64,
        stat.files() as f64,
        stat.files_free() as f64,
    ];
    Ok(Usage { size: blocks * unit, free: free * unit, available: available * unit, files, files_free })
}

/// What is known of a mount at this tick.
#[derive(Debug, PartialEq)]
pub(crate) enum Known {
    /// Its answer, at most one tick old.
    Answer(Answer),
    /// It was asked `DEADLINE` ago or earlier and is silent.
    Hangs,
    /// Asked for the first time a moment ago.
    Nothing,
}

/// One mount as the prober sees it.
#[derive(Debug)]
pub(crate) struct Probe {
    path: Arc<Path>,
    remote: bool,
    /// Set while a thread is inside the file system.
    busy: Arc<AtomicBool>,
    /// When the question that is still open was asked.
    asked: Option<Instant>,
    /// Whether it was asked in this round, so that an answer may come soon.
    expected: bool,
    last: Option<Answer>,
}

impl Probe {
    pub(crate) fn new(path: PathBuf, remote: bool) -> Self {
        Self { path: path.into(), remote, busy: Arc::default(), asked: None, expected: false, last: None }
    }

    /// What to say of the mount at `now`.
    pub(crate) fn known(&self, now: Instant) -> Known {
        match (self.asked, self.last) {
            (Some(asked), _) if now.saturating_duration_since(asked) >= DEADLINE => Known::Hangs,
            (_, Some(answer)) => Known::Answer(answer),
            (_, None) => Known::Nothing,
        }
    }
}

/// One question on its way: which mount, and whose flag to set meanwhile.
struct Question {
    path: Arc<Path>,
    busy: Arc<AtomicBool>,
}

/// Asks all mounts of a host.
pub(crate) struct Prober {
    ask: Ask,
    sender: Sender<(Arc<Path>, Answer)>,
    receiver: Receiver<(Arc<Path>, Answer)>,
    out: Arc<()>,
}

impl Prober {
    pub(crate) fn new(ask: Ask) -> Self {
        let (sender, receiver) = channel();
        Self { ask, sender, receiver, out: Arc::new(()) }
    }

    /// Asks every mount that is not being asked already, and takes the answers that come within `GRACE`.
    pub(crate) fn round(&self, probes: &mut [Probe], now: Instant) {
        while let Ok((path, answer)) = self.receiver.try_recv() {
            take(probes, &path, answer);
        }
        let mut local = Vec::new();
        for probe in probes.iter_mut() {
            probe.asked.get_or_insert(now);
            probe.expected = !probe.busy.load(Ordering::Acquire);
            if !probe.expected {
                continue;
            }
            let question = Question { path: Arc::clone(&probe.path), busy: Arc::clone(&probe.busy) };
            if probe.remote {
                self.send(vec![question]);
            } else {
                local.push(question);
            }
        }
        self.send(local);
        self.wait(probes);
    }

    /// Takes answers until all that may come soon have come, or `GRACE` is over.
    fn wait(&self, probes: &mut [Probe]) {
        let begun = Instant::now();
        while probes.iter().any(|probe| probe.expected) {
            let left = GRACE.saturating_sub(begun.elapsed());
            match self.receiver.recv_timeout(left) {
                Ok((path, answer)) => take(probes, &path, answer),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn send(&self, questions: Vec<Question>) {
        // Each thread holds a clone of `out`: their number is the count less our own.
        if questions.is_empty() || Arc::strong_count(&self.out) > THREADS_MAX {
            return;
        }
        let (ask, sender, out) = (Arc::clone(&self.ask), self.sender.clone(), Arc::clone(&self.out));
        let asking = move || {
            for question in questions {
                if question.busy.swap(true, Ordering::AcqRel) {
                    continue; // A later tick's thread was faster.
                }
                let answer = ask(&question.path);
                question.busy.store(false, Ordering::Release);
                if sender.send((question.path, answer)).is_err() {
                    break; // The collector is gone.
                }
            }
            drop(out);
        };
        let thread = std::thread::Builder::new().name("statvfs".to_owned()).stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn(asking) {
            tracing::debug!(%error, "no thread for asking file systems; asking again at the next tick");
        }
    }
}

fn take(probes: &mut [Probe], path: &Arc<Path>, answer: Answer) {
    for probe in probes.iter_mut().filter(|probe| probe.path == *path) {
        (probe.asked, probe.expected, probe.last) = (None, false, Some(answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;

    /// Rounds until these mounts have answered, however slowly the machine schedules threads.
    fn answered(prober: &Prober, probes: &mut [Probe], now: Instant, mounts: &[usize]) {
        loop {
            prober.round(probes, now);
            if mounts.iter().all(|at| probes[*at].asked.is_none()) {
                return;
            }
        }
    }

    // Cases: S26
    #[test]
    fn a_hanging_mount_delays_nobody_and_is_asked_once() {
        let (release, gate) = channel::<()>();
        let (gate, asked) = (Mutex::new(gate), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&asked);
        let prober = Prober::new(Arc::new(move |path: &Path| {
            if path.ends_with("hangs") {
                count.fetch_add(1, Ordering::SeqCst);
                gate.lock().unwrap().recv().unwrap();
            }
            Ok(Usage { size: 1.0, ..Usage::default() })
        }));
        let mut probes = [("/a", false), ("/hangs", true), ("/b", false)]
            .map(|(path, remote)| Probe::new(path.into(), remote));
        let full = Known::Answer(Ok(Usage { size: 1.0, ..Usage::default() }));
        let start = Instant::now();
        for (second, hanging) in [(0, Known::Nothing), (10, Known::Hangs), (20, Known::Hangs)] {
            let now = start + Duration::from_secs(second);
            answered(&prober, &mut probes, now, &[0, 2]);
            assert_eq!(probes[0].known(now), full, "a local mount at {second} s");
            assert_eq!(probes[1].known(now), hanging, "the hanging mount at {second} s");
            assert_eq!(probes[2].known(now), full, "the mount after it at {second} s");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1, "a hanging mount has one question out");
        drop(probes);
        release.send(()).unwrap();
    }

    #[test]
    fn mounts_behind_a_hanging_local_one_are_asked_again_without_it() {
        let (release, gate) = channel::<()>();
        let gate = Mutex::new(gate);
        let prober = Prober::new(Arc::new(move |path: &Path| {
            if path.ends_with("hangs") {
                gate.lock().unwrap().recv().unwrap();
            }
            Err(Errno::EACCES)
        }));
        let mut probes = ["/hangs", "/b"].map(|path| Probe::new(path.into(), false));
        let now = Instant::now();
        prober.round(&mut probes, now);
        assert_eq!(probes[1].known(now), Known::Nothing);
        answered(&prober, &mut probes, now, &[1]);
        assert_eq!(probes[0].known(now), Known::Nothing);
        assert_eq!(probes[1].known(now), Known::Answer(Err(Errno::EACCES)));
        release.send(()).unwrap();
    }

    #[test]
    fn the_kernel_s_own_answer_adds_up() {
        let usage = statvfs(Path::new("/")).unwrap();
        assert!(usage.size >= usage.free && usage.free >= usage.available && usage.files >= usage.files_free);
        assert_eq!(statvfs(Path::new("/no such place")), Err(Errno::ENOENT));
    }
}
