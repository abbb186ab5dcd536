//! A collector that says anything at all: the agent touches no file but its spool's, and forgets nothing it has to send.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use tocsin_shared::disk::{Disk, DiskFile, Listed, MemoryDisk, Space};
use tocsin_shared::identity::Epoch;
use uuid::Uuid;

use super::*;

/// A disk that remembers every path that it was asked for.
#[derive(Clone, Default)]
struct Watched {
    disk: MemoryDisk,
    asked: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl Watched {
    fn note(&self, path: &Path) -> &MemoryDisk {
        self.asked.lock().unwrap().insert(path.to_owned());
        &self.disk
    }
}

impl Disk for Watched {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.note(dir).create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        self.note(dir).list(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.note(path).create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.note(path).open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(from);
        self.note(to).rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.note(path).remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.note(dir).sync_dir(dir)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.note(dir).space(dir)
    }
}

/// Numbers from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 29)
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.number() as usize % of.len()]
    }

    /// What somebody would say who wants the agent to do something.
    fn text(&mut self) -> String {
        let texts =
            ["/etc/shadow", "../../../etc/cron.d/x", "$(touch /tmp/x)", "https://elsewhere:1/", "", "\0\n"];
        self.one(&texts).to_owned()
    }

    fn rarely(&mut self) -> bool {
        self.number().is_multiple_of(24)
    }

    fn lane(&mut self) -> pb::LaneAcknowledgement {
        let few = self.number() % 4;
        let floor = if self.rarely() { self.one(&[40, 1 << 40, u64::MAX]) } else { few };
        let range = |dice: &mut Self| pb::SeqRange { first: dice.number() % 5, last: dice.number() % 5 };
        let above = if self.rarely() { vec![range(self), range(self)] } else { Vec::new() };
        let lane = if self.rarely() { self.one(&[0, 4, -1]) } else { self.one(&[1, 2, 3]) };
        let tip = if self.rarely() { self.number() % 9 } else { 0 };
        let tip_fingerprint = self.number() as u32;
        pb::LaneAcknowledgement { lane, taken: Some(pb::Ranges { floor, above }), tip, tip_fingerprint }
    }

    fn lanes(&mut self) -> Vec<pb::LaneAcknowledgement> {
        (0..self.number() % 4).map(|_| self.lane()).collect()
    }

    fn config(&mut self) -> pb::SessionConfig {
        pb::SessionConfig { heartbeat_ms: self.number() as u32, instance: self.text() }
    }

    fn said(&mut self) -> pb::SessionResponse {
        let session = if self.rarely() { 8 } else { 7 };
        let kind = match self.number() % 17 {
            0..6 => Down::Acknowledgement(pb::Acknowledgement { session, lanes: self.lanes() }),
            6..10 => Down::Throttle(pb::Throttle {
                retry_after_ms: self.number() as u32,
                reason: self.text(),
                refused: self.number().is_multiple_of(2),
            }),
            10..15 => Down::Config(self.config()),
            15 => Down::Trust(pb::Trust { ca_pem: self.text(), renew_within_ms: self.number() }),
            _ => Down::Welcome(pb::Welcome {
                protocol_version: self.one(&[1, 1, 2]),
                session,
                lanes: self.lanes(),
                config: Some(self.config()),
            }),
        };
        let message = pb::SessionResponse { kind: Some(kind) };
        if !self.number().is_multiple_of(8) {
            return message;
        }
        let mut bytes = message.encode_to_vec();
        for _ in 0..1 + self.number() % 3 {
            let at = self.number() as usize % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = self.number() as u8;
            }
        }
        pb::SessionResponse::decode(&bytes[..]).unwrap_or(message)
    }
}

/// One session in which everything is said by the dice; how many messages it took.
async fn session(keeper: &Keeper, trust: &Trust, dice: &mut Dice) -> usize {
    let (up, mut sent) = mpsc::channel(UP_QUEUE);
    let reader = tokio::spawn(async move { while sent.recv().await.is_some() {} });
    let lanes = if dice.rarely() { dice.lanes() } else { Vec::new() };
    let welcome = pb::Welcome { protocol_version: 1, session: 7, lanes, config: Some(dice.config()) };
    let mut heard = 0;
    if let Ok(mut shell) = Shell::welcomed(keeper, up, welcome, (trust, None)).await {
        while heard < 40 && shell.act().await.is_ok() && shell.answer(dice.said()).await.is_ok() {
            heard += 1;
        }
    }
    reader.await.unwrap();
    heard
}

// Cases: C-A10, C-A7, H16
#[tokio::test]
async fn whatever_a_collector_says_only_the_spool_is_touched() {
    let disk = Watched::default();
    let config = spool::Config {
        max_bytes: 4 << 20,
        reserve_bytes: 0,
        free_floor_bytes: 0,
        free_floor_percent: 0,
        segment_bytes: 16 << 10,
    };
    let own = Path::new("/var/lib/tocsin/spool");
    let epoch = Epoch(Uuid::from_u128(1));
    let spool = Spool::open_on(Arc::new(disk.clone()), own, epoch, config).unwrap();
    let (keeper, _) = keep::start(spool, BOOT).unwrap();
    let mut agent = Agent::around(keeper);
    let kept = tempfile::tempdir().unwrap();
    let trust = Trust::new(kept.path().to_owned());
    let mut heard = 0;
    for seed in 0..300 {
        agent.rows(1).await;
        agent.keeper.event("agent_start", Reading::default()).await.unwrap();
        heard += session(&agent.keeper.current(), &trust, &mut Dice(seed)).await;
    }
    assert!(heard > 1_000, "the sessions end too early to show anything: {heard}");
    let asked = disk.asked.lock().unwrap();
    let elsewhere: Vec<_> = asked.iter().filter(|path| !path.starts_with(own)).collect();
    assert!(elsewhere.is_empty() && asked.len() > 5, "{elsewhere:?}");
    let files =
        std::fs::read_dir(kept.path()).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_file());
    assert_eq!(files.count(), 0, "what is no certificate is not kept");
}
