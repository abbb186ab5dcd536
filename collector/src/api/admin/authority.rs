//! The steps of a change of the certificate authority: files first, then the ledger's decision, then what is in force.
//!
//! A step is in force on every listener when it is answered; repeated, it changes nothing but puts in force what was not.

use tocsin_proto::pb;
use tocsin_shared::access::AuthorityState;
use tonic::Status;

use super::super::{Api, Who, blocking};
use crate::clock::{self, now};
use crate::identity::ca::AuthorityError;
use crate::state::authority::{Followers, standing, switch_from};
use crate::state::{Command, State};

/// A step of a rotation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Begin,
    Switch { strand: Option<u32> },
    Finish { strand: Option<u32> },
    Cancel,
}

fn failed(error: AuthorityError) -> Status {
    match error {
        AuthorityError::Install(_) => Status::internal(error.to_string()),
        _ => Status::failed_precondition(error.to_string()),
    }
}

impl Api {
    /// Takes a step and puts it in force; one at a time.
    pub(super) async fn rotate(&self, who: &Who, step: Step) -> Result<pb::AuthorityStatus, Status> {
        let _one = self.authorities.step.lock().await;
        let command = match step {
            Step::Begin => self.beginning().await?,
            Step::Switch { strand } => self.switching(strand).await?,
            Step::Finish { strand } => Some(Command::FinishRotation { strand }),
            Step::Cancel => Some(Command::CancelRotation),
        };
        if let Some(command) = command {
            let events = self.submit(who, command).await?;
            for event in &events {
                let note = event.note.as_str();
                tracing::warn!(actor = %who.name, event = event.kind.as_str(), note, "the certificate authority changes");
            }
        }
        let records: Vec<_> = self.read(|state| state.authorities().cloned().collect()).await?;
        let authorities = self.authorities.clone();
        blocking(move || authorities.follow(&records)).await?.map_err(failed)?;
        self.authority_status().await
    }

    /// Nothing to decide when one is on its way already; else the one that is to come is on disk first.
    async fn beginning(&self) -> Result<Option<Command>, Status> {
        if self.read(|state| standing(state, AuthorityState::Incoming).is_some()).await? {
            return Ok(None);
        }
        if self.read(|state| standing(state, AuthorityState::Outgoing).is_some()).await? {
            let why = "the last rotation is not over: `tocsin authority rotate finish` first";
            return Err(Status::failed_precondition(why));
        }
        if !clock::is_known() {
            return Err(Status::unavailable("the collector's clock says what cannot be: set it first"));
        }
        let authorities = self.authorities.clone();
        let new = blocking(move || authorities.incoming(now())).await?.map_err(failed)?;
        Ok(Some(Command::BeginRotation(new)))
    }

    /// An authority whose key is lost cannot sign.
    async fn switching(&self, strand: Option<u32>) -> Result<Option<Command>, Status> {
        let incoming = self.read(|state| standing(state, AuthorityState::Incoming).cloned()).await?;
        if let Some(incoming) = incoming {
            let authorities = self.authorities.clone();
            let held = blocking(move || authorities.holds(&incoming)).await?;
            held.map_err(|error| {
                let why = format!("{error}, or `tocsin authority rotate cancel` and begin with another one");
                Status::failed_precondition(why)
            })?;
        }
        Ok(Some(Command::SwitchRotation { strand, overlap: self.overlap }))
    }

    /// The authorities, and who follows them.
    pub(super) async fn authority_status(&self) -> Result<pb::AuthorityStatus, Status> {
        let overlap = self.overlap;
        let (authorities, followers, switch_from) = self
            .read(move |state: &State| {
                let authorities = state.authorities().map(pb::CertificateAuthority::from).collect();
                (authorities, Followers::of(state), switch_from(state, overlap))
            })
            .await?;
        let current = self.authorities.current();
        let Followers { hosts, unreported, to_renew } = followers;
        Ok(pb::AuthorityStatus {
            authorities,
            cluster_id: self.about.cluster_id.clone(),
            bundle_pem: current.bundle_pem.clone(),
            bundle_sha256: current.bundle_sha256.to_vec(),
            front_sha256: self.front.pin().to_vec(),
            hosts: u32::try_from(hosts).unwrap_or(u32::MAX),
            unreported,
            to_renew,
            switch_from_ms: switch_from.map_or(0, tocsin_shared::time::Timestamp::as_millis),
        })
    }
}
