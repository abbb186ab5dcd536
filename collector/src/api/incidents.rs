//! Incidents: lists and timelines from the store, acts through the ledger.

use tocsin_proto::pb;
use tocsin_proto::pb::incident_service_server::IncidentService;
use tocsin_shared::alert::Alert;
use tocsin_shared::event::{Event, Subject};
use tocsin_shared::incident::Incident;
use tonic::{Request, Response, Status};

use super::{Api, Who, limit, refusal};
use crate::state::command::OnIncident;
use crate::state::{Command, State};

/// What a list gives unless asked for another number, and at most.
const LISTED: usize = 100;
const LISTED_MAX: usize = 10_000;
/// Events of a timeline.
const TIMELINE_MAX: usize = 1_000;
/// A note or a resolution; longer things belong in a document that the note names.
const TEXT_BYTES_MAX: usize = 16_384;

#[tonic::async_trait]
impl IncidentService for Api {
    async fn list_incidents(
        &self,
        request: Request<pb::ListIncidentsRequest>,
    ) -> Result<Response<pb::ListIncidentsResponse>, Status> {
        let pb::ListIncidentsRequest { include_resolved, limit: asked } = request.into_inner();
        let wanted = limit(asked, LISTED, LISTED_MAX);
        let incidents = match include_resolved {
            true => self.stored(move |store| store.incidents(true, wanted)).await?,
            // The ledger has all open ones, and has them also while there is no store.
            false => self.read(move |state| open(state, wanted)).await?,
        };
        Ok(Response::new(pb::ListIncidentsResponse { incidents }))
    }

    async fn get_incident(
        &self,
        request: Request<pb::GetIncidentRequest>,
    ) -> Result<Response<pb::GetIncidentResponse>, Status> {
        let pb::GetIncidentRequest { number } = request.into_inner();
        let current = self.read(move |state| Current::of(state, number)).await?;
        let (incident, timeline) = self
            .stored(move |store| Ok((store.incident(number)?, store.timeline(number, TIMELINE_MAX)?)))
            .await?;
        // The ledger knows it first, the store longer.
        let incident = current.incident.as_ref().map(pb::Incident::from).or(incident);
        let incident = incident.ok_or_else(|| refusal::unknown("incident", number))?;
        let mut alerts: Vec<pb::Alert> = current.alerts.iter().map(pb::Alert::from).collect();
        alerts.extend(self.alerts_of_store(&incident, &current.alerts).await?);
        Ok(Response::new(pb::GetIncidentResponse { incident: Some(incident), alerts, timeline }))
    }

    async fn acknowledge(
        &self,
        request: Request<pb::AcknowledgeRequest>,
    ) -> Result<Response<pb::AcknowledgeResponse>, Status> {
        let who = Who::of(&request)?;
        let pb::AcknowledgeRequest { number, note, expected_rev } = request.into_inner();
        let on = on(number, note, expected_rev)?;
        let incident = self.act(&who, number, Command::Acknowledge(on)).await?;
        Ok(Response::new(pb::AcknowledgeResponse { incident: Some(incident) }))
    }

    async fn add_note(
        &self,
        request: Request<pb::AddNoteRequest>,
    ) -> Result<Response<pb::AddNoteResponse>, Status> {
        let who = Who::of(&request)?;
        let pb::AddNoteRequest { number, text } = request.into_inner();
        if text.trim().is_empty() {
            return Err(Status::invalid_argument("a note needs words"));
        }
        let incident = self.act(&who, number, Command::Note(on(number, text, 0)?)).await?;
        Ok(Response::new(pb::AddNoteResponse { incident: Some(incident) }))
    }

    async fn resolve(
        &self,
        request: Request<pb::ResolveRequest>,
    ) -> Result<Response<pb::ResolveResponse>, Status> {
        let who = Who::of(&request)?;
        let pb::ResolveRequest { number, code, text, expected_rev } = request.into_inner();
        let on = on(number, text, expected_rev)?;
        let incident = self.act(&who, number, Command::Resolve { on, code }).await?;
        Ok(Response::new(pb::ResolveResponse { incident: Some(incident) }))
    }
}

/// The open incidents, the newest first.
fn open(state: &State, wanted: usize) -> Vec<pb::Incident> {
    state.open_incidents().rev().take(wanted).map(pb::Incident::from).collect()
}

/// What the ledger knows of an incident now.
struct Current {
    incident: Option<Incident>,
    alerts: Vec<Alert>,
}

impl Current {
    fn of(state: &State, number: u64) -> Self {
        let incident = state.incident(number).cloned();
        let named = incident.iter().flat_map(|incident| &incident.alerts);
        let mut alerts: Vec<Alert> =
            named.filter_map(|alert| state.alert(&alert.dedup_key).cloned()).collect();
        // Also those that its record has no room to name.
        let unnamed = state
            .firing_of_incident(number)
            .filter(|alert| !alerts.iter().any(|known| known.dedup_key == alert.dedup_key));
        let unnamed: Vec<Alert> = unnamed.take(Incident::ALERTS_MAX).cloned().collect();
        alerts.extend(unnamed);
        alerts.sort_by(super::alerts::urgent_first);
        Self { incident, alerts }
    }
}

impl Api {
    /// The alerts of an incident that the ledger has forgotten.
    async fn alerts_of_store(
        &self,
        incident: &pb::Incident,
        known: &[Alert],
    ) -> Result<Vec<pb::Alert>, Status> {
        let named = incident.alerts.iter().map(|alert| alert.dedup_key.clone());
        let missing: Vec<String> =
            named.filter(|key| !known.iter().any(|alert| alert.dedup_key == *key)).collect();
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        self.stored(move |store| missing.iter().filter_map(|key| store.alert(key).transpose()).collect())
            .await
    }

    /// Does something to an incident; gives it as it is after that.
    async fn act(&self, who: &Who, number: u64, command: Command) -> Result<pb::Incident, Status> {
        let events = self.submit(who, command).await?;
        self.stored_through(&events).await;
        if let Some(incident) = events.iter().rev().find_map(|event| incident_of(event, number)) {
            return Ok(incident.into());
        }
        let current = self.read(move |state| state.incident(number).cloned()).await?;
        let current = current.ok_or_else(|| refusal::unknown("incident", number))?;
        Ok((&current).into())
    }
}

fn incident_of(event: &Event, number: u64) -> Option<&Incident> {
    match &event.subject {
        Subject::Incident(incident) if incident.number == number => Some(incident),
        _ => None,
    }
}

fn on(number: u64, text: String, expected_rev: u64) -> Result<OnIncident, Status> {
    if text.len() > TEXT_BYTES_MAX {
        let why = format!("the text has {} bytes, at most {TEXT_BYTES_MAX} are taken", text.len());
        return Err(Status::invalid_argument(why));
    }
    Ok(OnIncident { number, text, expected_rev: (expected_rev != 0).then_some(expected_rev) })
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::super::testing::{Collector, call};
    use super::*;

    fn acknowledge(number: u64, expected_rev: u64) -> Request<pb::AcknowledgeRequest> {
        call(pb::AcknowledgeRequest { number, note: "mine".into(), expected_rev })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn acts_are_seen_by_the_next_call() {
        let collector = Collector::start().await;
        let api = &collector.api;
        collector.fires("one", 0, &["sda"]).await;
        let taken = api.acknowledge(acknowledge(1, 0)).await.unwrap().into_inner().incident.unwrap();
        assert_eq!(taken.status(), pb::IncidentStatus::Acknowledged);
        assert_eq!(
            taken.ack.unwrap().by,
            Some((&tocsin_shared::event::Actor::Principal("ann".into())).into())
        );
        let stale = api.acknowledge(acknowledge(1, taken.rev - 1)).await.unwrap_err();
        assert_eq!(stale.code(), Code::Aborted);
        let note = pb::AddNoteRequest { number: 1, text: "the disk is old".into() };
        api.add_note(call(note)).await.unwrap();
        let resolve =
            pb::ResolveRequest { number: 1, code: "fixed".into(), text: "new disk".into(), expected_rev: 0 };
        let resolved = api.resolve(call(resolve.clone())).await.unwrap().into_inner().incident.unwrap();
        assert_eq!(resolved.status(), pb::IncidentStatus::Resolved);
        let again = api.resolve(call(resolve)).await.unwrap().into_inner().incident.unwrap();
        assert_eq!(again, resolved, "again changes nothing and answers the same");

        let got = api.get_incident(call(pb::GetIncidentRequest { number: 1 })).await.unwrap().into_inner();
        assert_eq!(got.incident, Some(resolved.clone()));
        assert_eq!(got.alerts.len(), 1);
        let kinds: Vec<_> = got.timeline.iter().map(|event| event.kind.as_str()).collect();
        let expected =
            ["triggered", "acknowledged", "noted", "resolved"].map(|kind| format!("incident.{kind}"));
        assert_eq!(kinds, expected);
        let list = |include_resolved| call(pb::ListIncidentsRequest { include_resolved, limit: 0 });
        assert_eq!(api.list_incidents(list(true)).await.unwrap().into_inner().incidents, [resolved]);
        assert_eq!(api.list_incidents(list(false)).await.unwrap().into_inner().incidents, []);
        collector.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_no_act_is_refused() {
        let collector = Collector::start().await;
        let api = &collector.api;
        collector.fires("one", 0, &["sda"]).await;
        let note = |number, text: &str| call(pb::AddNoteRequest { number, text: text.into() });
        let resolve = |code: &str, text: &str| {
            let (code, text) = (code.into(), text.into());
            call(pb::ResolveRequest { number: 1, code, text, expected_rev: 0 })
        };
        for (status, code) in [
            (api.add_note(note(1, " ")).await.unwrap_err(), Code::InvalidArgument),
            (api.add_note(note(1, &"x".repeat(16_385))).await.unwrap_err(), Code::InvalidArgument),
            (api.add_note(note(9, "words")).await.unwrap_err(), Code::NotFound),
            (api.resolve(resolve("because", "words")).await.unwrap_err(), Code::InvalidArgument),
            (api.resolve(resolve("fixed", "")).await.unwrap_err(), Code::InvalidArgument),
            (api.acknowledge(acknowledge(9, 0)).await.unwrap_err(), Code::NotFound),
            (
                api.acknowledge(Request::new(pb::AcknowledgeRequest::default())).await.unwrap_err(),
                Code::Unauthenticated,
            ),
            (api.get_incident(call(pb::GetIncidentRequest { number: 9 })).await.unwrap_err(), Code::NotFound),
        ] {
            assert_eq!(status.code(), code, "{status}");
        }
        collector.stop().await;
    }
}
