//! Whom an agent trusts: it is told over its stream when that is not what it should be, and says what it has kept.
//!
//! An agent that says nothing of it in its Hello is older than this and is told nothing; it gets the authorities with its
//! next certificate, and counts as one that has not reported. Not here: what follows from a report (`state::authority`).

use std::sync::Arc;
use std::time::Duration;

use tocsin_proto::pb;
use tocsin_proto::pb::session_request::Kind as Up;
use tocsin_proto::pb::session_response::Kind as Down;
use tocsin_shared::identity::AgentId;
use tocsin_shared::secret::Sha256;
use tokio::sync::watch;
use tonic::Status;

use super::session::{Agents, Sender, send, submit, unavailable};
use crate::identity::authorities::{Authorities, Current};
use crate::journal::Stopping;
use crate::state::{Command, authority};

/// What sessions need to tell agents whom to trust.
#[derive(Clone)]
pub struct Telling {
    pub authorities: Arc<Authorities>,
    /// Into how much time the renewals after a change of authority are spread.
    pub renew_within: Duration,
}

/// One agent's, during a session.
pub(super) struct Trust {
    agent: AgentId,
    changes: watch::Receiver<Arc<Current>>,
    /// What it has said last; nothing of an agent that does not know of it.
    reported: Option<Sha256>,
}

/// A digest as Hello and Heartbeat have it; none, or one that cannot be, is nothing said.
pub(super) fn reported(bytes: &[u8]) -> Option<Sha256> {
    bytes.try_into().ok()
}

impl Trust {
    pub(super) fn of(telling: &Telling, agent: AgentId, reported: Option<Sha256>) -> Self {
        Self { agent, changes: telling.authorities.changes(), reported }
    }

    /// Waits until other authorities are trusted or another one signs.
    pub(super) async fn changed(&mut self) -> Result<(), Status> {
        self.changes.changed().await.map_err(|_| unavailable(Stopping))
    }

    /// Tells the agent whom to trust, and to renew its certificate if another authority signs now.
    pub(super) async fn tell(&mut self, agents: &Agents, down: &Sender) -> Result<(), Status> {
        let current = self.changes.borrow_and_update().clone();
        let Some(reported) = self.reported else { return Ok(()) };
        let agent = self.agent;
        let to_renew = agents.ledger.read(move |state| {
            let newest = state.certificates_of(agent).next_back();
            newest.is_some_and(|newest| !authority::is_current(state, newest))
        });
        let to_renew = to_renew.await.map_err(unavailable)?;
        if reported == current.bundle_sha256 && !to_renew {
            return Ok(());
        }
        let within = if to_renew { agents.trust.renew_within } else { Duration::ZERO };
        let renew_within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        send(down, Down::Trust(pb::Trust { ca_pem: current.bundle_pem.clone(), renew_within_ms })).await
    }

    /// Notes what a message says of it; gives what that is. An answer to a renewal that was overtaken may have set an
    /// agent back: then it is told again.
    pub(super) async fn hear(
        &mut self,
        agents: &Agents,
        message: &Up,
        down: &Sender,
    ) -> Result<Option<Sha256>, Status> {
        let Up::Heartbeat(pb::Heartbeat { bundle_sha256, .. }) = message else { return Ok(self.reported) };
        let Some(sha256) = reported(bundle_sha256) else { return Ok(self.reported) };
        self.reported = Some(sha256);
        submit(agents, Command::BundleReported { agent: self.agent, sha256 }).await?;
        if sha256 != self.changes.borrow().bundle_sha256 {
            self.tell(agents, down).await?;
        }
        Ok(self.reported)
    }
}
