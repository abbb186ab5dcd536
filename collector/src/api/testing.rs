//! What the tests of services share: a collector over a directory of its own, without sockets.

use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tempfile::TempDir;
use tocsin_shared::access::Role;
use tocsin_shared::disk::RealDisk;
use tocsin_shared::event::{Actor, Event, Sealed};
use tocsin_shared::identity::Env;
use tokio_util::sync::CancellationToken;
use tonic::Request;

use super::{About, Api, Calls};
use crate::clock::now;
use crate::identity::authorise::Caller;
use crate::identity::authorities::Authorities;
use crate::ingest::presence::Presence;
use crate::journal::ledger::{self, Fatal};
use crate::journal::rows;
use crate::listen::certificate::ServerCertificate;
use crate::receive::{self, Receiver};
use crate::room::Room;
use crate::samples;
use crate::state::testing::{digest, enrolment, evaluation, rule, token};
use crate::state::{Command, Defaults};
use crate::store::projector;

/// The epoch of cursors in tests.
pub(crate) const EPOCH: &str = "e1";

/// A collector with the host `web-1` (agent 1) and the administrator `ann`.
pub(crate) struct Collector {
    pub(crate) api: Api,
    dir: TempDir,
}

/// A request of `ann`'s.
pub(crate) fn call<T>(message: T) -> Request<T> {
    call_as("ann", Role::Admin, message)
}

pub(crate) fn call_as<T>(name: &str, role: Role, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Caller::Principal { name: name.into(), role });
    request
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let collector = Self { api: open(dir.path(), Calls::default()).await, dir };
        collector.principal("ann", Role::Admin, 1).await;
        let mut token = token(1, Env::Prod, "*");
        token.expires_at = now().plus(Duration::from_secs(60));
        collector.submit(Command::CreateToken(token)).await;
        let mut enrolment = enrolment(1, "web-1");
        enrolment.certificate.not_after = now().plus(Duration::from_secs(60));
        let events = collector.submit(Command::Enrol(enrolment)).await;
        collector.api.stored_through(&events).await;
        collector
    }

    /// Stops, and starts again over the same directory.
    pub(crate) async fn restart(self) -> Self {
        self.restart_with_damage("").await
    }

    /// Restarts; meanwhile the event with this text is damaged in the journal.
    pub(crate) async fn restart_with_damage(self, text: &str) -> Self {
        let Self { api, dir } = self;
        halt(api).await;
        for entry in std::fs::read_dir(dir.path().join("journal").join("events")).unwrap() {
            let path = entry.unwrap().path();
            let mut content = std::fs::read(&path).unwrap();
            let found = content.windows(text.len().max(1)).position(|bytes| bytes == text.as_bytes());
            if let Some(at) = found {
                content[at] ^= 1;
                std::fs::write(&path, content).unwrap();
            }
        }
        Self { api: open(dir.path(), Calls::default()).await, dir }
    }

    /// Stops, copies the directory, and goes on.
    pub(crate) async fn copied(self) -> (Self, Copied) {
        let Self { api, dir } = self;
        halt(api).await;
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        (Self { api: open(dir.path(), Calls::default()).await, dir }, Copied(copy))
    }

    pub(crate) async fn stop(self) {
        halt(self.api).await;
    }

    /// Feeds of this collector say at once that they are idle.
    pub(crate) fn impatient(mut self) -> Self {
        self.api.calls = Arc::new(Calls { heartbeat: Duration::from_millis(1), ..Calls::default() });
        self
    }

    pub(crate) async fn submit(&self, command: Command) -> Vec<Event> {
        let text = format!("{command:?}");
        let decided = self.api.ledger.submit(command, Actor::Principal("ann".into())).await.unwrap();
        decided.unwrap_or_else(|refusal| panic!("{text}: {refusal}"))
    }

    pub(crate) async fn principal(&self, name: &str, role: Role, secret: u128) {
        let secret_sha256 = digest(secret);
        let name = name.into();
        self.submit(Command::CreatePrincipal { name, role, secret_sha256, expires_at: None }).await;
    }

    /// Revokes a principal; another administrator stays.
    pub(crate) async fn revoke(&self, name: &str) {
        self.principal("other-admin", Role::Admin, 99).await;
        self.submit(Command::RevokePrincipal { name: name.into() }).await;
    }

    /// Evaluates a critical rule for `web-1` with these devices breached; it fires after `hold` seconds.
    pub(crate) async fn fires(&self, rule_id: &str, hold: u64, devices: &[&str]) -> Vec<Event> {
        let elements: Vec<_> = devices.iter().map(|device| (*device, "critical")).collect();
        let head = *self.api.ledger.head().borrow();
        let command = evaluation(&rule(rule_id, hold, 0), 1, head as i64, head, &elements);
        self.submit(command).await
    }
}

/// A copy of a collector's directory.
pub(crate) struct Copied(TempDir);

impl Copied {
    /// A collector over the copy.
    pub(crate) async fn restored(self) -> Collector {
        Collector { api: open(self.0.path(), Calls::default()).await, dir: self.0 }
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        match path.is_dir() {
            true => copy_dir(&path, &to.join(name)),
            false => drop(std::fs::copy(&path, to.join(name)).unwrap()),
        }
    }
}

async fn open(dir: &Path, calls: Calls) -> Api {
    let (stop, disk) = (CancellationToken::new(), Arc::new(RealDisk));
    let fatal = Fatal::new(stop.clone());
    let (samples, _) = samples::Store::open(dir).unwrap();
    let samples = Arc::new(samples);
    let sealed = Sealed::default();
    let found = rows::Found { sealed: &sealed, lanes: Vec::new(), evaluated_through: 0 };
    let opened = rows::open(disk.clone(), dir, samples.clone(), found).unwrap();
    let (evaluate, _) = mpsc::sync_channel(1);
    let rows = opened.start(evaluate, fatal.clone());
    let ledger = ledger::open(disk, &dir.join("journal")).unwrap().start(Defaults::default(), fatal);
    let store = projector::Config::memory(dir.join("store"));
    let projection = projector::start(store, &ledger, stop.clone()).await.unwrap();
    let records = ledger.read(|state| state.authorities().cloned().collect::<Vec<_>>()).await.unwrap();
    let authorities = Arc::new(Authorities::open(&dir.join("authority"), &records, now()).unwrap());
    let found = Command::AuthorityFound(authorities.current().describe());
    ledger.submit(found, Actor::System).await.unwrap().unwrap();
    let issued = authorities.current().issuing.issue_server(&["localhost".to_owned()], now()).unwrap();
    let front = ServerCertificate::issued(&issued, now()).unwrap();
    let (metadata, room) = (Arc::default(), Room::boundless());
    let receiver = Receiver::new(
        (receive::Config::default(), Duration::from_secs(86_400)),
        (rows.clone(), samples.clone()),
        ledger.clone(),
        room.clone(),
        Arc::clone(&metadata),
    );
    Api {
        ledger,
        projection,
        samples,
        rows,
        room,
        receiver: Arc::new(receiver),
        presence: Arc::new(Presence::new(Duration::from_secs(5), [], Instant::now())),
        quotas: Arc::default(),
        plan: Arc::new(ArcSwap::default()),
        statistics: Arc::default(),
        metadata,
        about: Arc::new(About {
            version: "1.2.3".into(),
            cluster_id: "c1".into(),
            started_at: now(),
            data_dir: dir.to_owned(),
            problems: Mutex::default(),
        }),
        authorities,
        front,
        overlap: Duration::from_secs(60),
        reload: Arc::new(|| Ok(0)),
        store_epoch: EPOCH.into(),
        calls: Arc::new(calls),
        stop,
    }
}

async fn halt(api: Api) {
    api.stop.cancel();
    api.rows.stop().await;
    api.ledger.stop().await;
}
