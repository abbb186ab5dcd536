//! The feed as a paging tool follows it: from its cursor, over restarts of the collector, every item with the moment
//! at which it came.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tocsin_proto::pb;
use tocsin_proto::pb::subscribe_request::From as Since;
use tocsin_proto::pb::subscribe_response::Kind as Item;
use tokio::task::AbortHandle;

use crate::api::{Api, CredentialFile};
use crate::wait::wait_until;

/// Between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(50);

/// An event and when it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub event: pb::Event,
    /// Milliseconds since the epoch.
    pub at_ms: i64,
}

impl Received {
    /// The alert it is about, if it is about one.
    pub fn alert(&self) -> Option<&pb::Alert> {
        match &self.event.subject {
            Some(pb::event::Subject::Alert(alert)) => Some(alert),
            _ => None,
        }
    }

    /// The incident it is about, if it is about one.
    pub fn incident(&self) -> Option<&pb::Incident> {
        match &self.event.subject {
            Some(pb::event::Subject::Incident(incident)) => Some(incident),
            _ => None,
        }
    }
}

/// A follower of the feed; it ends with this value.
pub struct Feed {
    received: Arc<Mutex<Vec<Received>>>,
    task: AbortHandle,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Feed {
    /// Follows from the oldest event on, as the principal of a credential file.
    pub fn follow(credential: PathBuf) -> Self {
        let received = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(follow(credential, Arc::clone(&received))).abort_handle();
        Self { received, task }
    }

    /// Everything that came so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The events of a kind that came so far.
    pub fn of_kind(&self, kind: &str) -> Vec<Received> {
        self.received().into_iter().filter(|received| received.event.kind == kind).collect()
    }

    /// Waits for an event of a kind that is as wanted.
    pub async fn wait_for(
        &self,
        kind: &str,
        within: Duration,
        wanted: impl Fn(&Received) -> bool,
    ) -> anyhow::Result<Received> {
        let look = async || self.of_kind(kind).into_iter().find(|received| wanted(received));
        wait_until(&format!("{kind} on the feed"), within, look).await.map_err(|error| {
            let kinds: Vec<String> =
                self.received().into_iter().map(|received| received.event.kind).collect();
            error.context(format!("the feed has {kinds:?}"))
        })
    }
}

async fn follow(credential: PathBuf, received: Arc<Mutex<Vec<Received>>>) {
    let mut cursor = None;
    loop {
        // A collector that was killed is back soon; until then there is nothing to do but to ask again.
        read(&credential, &mut cursor, &received).await.ok();
        tokio::time::sleep(AGAIN).await;
    }
}

async fn read(
    credential: &Path,
    cursor: &mut Option<String>,
    received: &Mutex<Vec<Received>>,
) -> anyhow::Result<()> {
    let api = Api::connect(&CredentialFile::read(credential)?).await?;
    let from = cursor.clone().map_or(Since::Earliest(true), Since::Cursor);
    let request = pb::SubscribeRequest { from: Some(from), ..Default::default() };
    let mut items = api.feed().subscribe(request).await?.into_inner();
    while let Some(pb::SubscribeResponse { cursor: next, kind }) = items.message().await? {
        if let Some(Item::Event(event)) = kind {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let at_ms = i64::try_from(since.as_millis())?;
            received.lock().unwrap_or_else(PoisonError::into_inner).push(Received { event, at_ms });
        }
        *cursor = Some(next);
    }
    Ok(())
}
