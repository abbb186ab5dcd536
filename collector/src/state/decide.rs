//! From a command to drafts of events. Pure: the state, the command, who asks, and `now` are all it knows.
//!
//! Promises: nothing is drafted when it refuses; each draft's record already holds the changes of the drafts before
//! it; `key_seq` counts the public events of an alert or incident without gaps.

use std::collections::HashMap;

use tocsin_shared::alert::Alert;
use tocsin_shared::event::{Actor, EventKind, Subject};
use tocsin_shared::host::Host;
use tocsin_shared::identity::AgentId;
use tocsin_shared::incident::Incident;
use tocsin_shared::time::Timestamp;

use super::command::{Command, Defaults, Draft, DraftCause, Refusal};
use super::{State, authority, consumers, credentials, enrolment, losses, own, presence, recovery, upkeep};
use crate::{alert, incident, jobs};

/// Decides a command. No drafts means: accepted, and nothing changes by it.
pub fn decide(
    state: &State,
    command: &Command,
    actor: &Actor,
    now: Timestamp,
    config: &Defaults,
) -> Result<Vec<Draft>, Refusal> {
    losses::check(state, command, actor)?;
    let mut d = Decision::new(state, actor, now, config);
    match command {
        Command::Evaluated(evaluation) => alert::evaluated(&mut d, evaluation)?,
        Command::RowsMissing { agent, from, to, samples_seq } => {
            d.samples_seq = Some(*samples_seq).filter(|seq| *seq > 0);
            alert::rows_missing(&mut d, *agent, *from, *to);
        }
        Command::HoleOpened { agent, from, samples_seq } => {
            d.samples_seq = Some(*samples_seq);
            alert::hole_opened(&mut d, *agent, *from)?;
        }
        Command::HoleClosed(filled) => {
            d.samples_seq = Some(filled.samples_seq);
            alert::hole_closed(&mut d, filled);
        }
        Command::RulesChanged { rule_ids } => alert::rules_changed(&mut d, rule_ids),
        Command::Tick => {
            losses::settle_incidents(&mut d);
            incident::tick(&mut d);
        }
        Command::JournalFound(findings) => losses::found(&mut d, findings),
        Command::AcceptLoss { first, last } => losses::accept(&mut d, *first, *last)?,
        Command::StoreRestored => losses::rewound(&mut d),
        Command::Acknowledge(on) => incident::acknowledge(&mut d, on)?,
        Command::Unacknowledge(on) => incident::unacknowledge(&mut d, on)?,
        Command::Resolve { on, code } => incident::resolve(&mut d, on, code)?,
        Command::Note(on) => incident::note(&mut d, on)?,
        Command::JobStarted { run, place } => jobs::started(&mut d, run, place)?,
        Command::JobEnded { run, place } => jobs::ended(&mut d, run, place)?,
        Command::GapRecorded { gap, place } => jobs::gap_recorded(&mut d, gap, place)?,
        Command::HostEventNoted { agent, what, at, step_ms, place } => {
            jobs::host_event(&mut d, *agent, place, &host_event_note(what, *at, *step_ms))?;
        }
        Command::Enrol(enrolment) => enrolment::enrol(&mut d, enrolment)?,
        Command::RenewCertificate { agent, shown, certificate } => {
            enrolment::renew(&mut d, *agent, shown.as_deref(), certificate)?;
        }
        Command::Recover { agent, proof_sha256, certificate } => {
            recovery::recover(&mut d, *agent, proof_sha256, certificate)?;
        }
        Command::AllowRecovery { agent } => recovery::allow(&mut d, *agent)?,
        Command::IdentityCloned { agent, seen } => recovery::cloned(&mut d, *agent, seen)?,
        Command::RevokeCertificates { agent, reason } => enrolment::revoke(&mut d, *agent, reason)?,
        Command::CertificateSeen { which, from, to } => upkeep::certificate_seen(&mut d, which, *from, *to),
        Command::AuthorityFound(new) => authority::found(&mut d, new),
        Command::BeginRotation(new) => authority::begin(&mut d, new)?,
        Command::SwitchRotation { strand, overlap } => authority::switch(&mut d, *strand, *overlap)?,
        Command::FinishRotation { strand } => authority::finish(&mut d, *strand)?,
        Command::CancelRotation => authority::cancel(&mut d)?,
        Command::BundleReported { agent, sha256 } => authority::reported(&mut d, *agent, sha256)?,
        Command::LabelHost { agent, labels } => presence::label(&mut d, *agent, labels)?,
        Command::RetireHost { agent, reason } => presence::retire(&mut d, *agent, reason)?,
        Command::HostHeard(heard) => presence::heard(&mut d, heard)?,
        Command::HostSilent { agent, since } => presence::silent(&mut d, *agent, *since)?,
        Command::SeriesRefused { agent, series, label, metric } => {
            presence::series_refused(&mut d, *agent, *series, (label, metric))?;
        }
        Command::SeriesTaken { agent } => presence::series_taken(&mut d, *agent)?,
        Command::ClockStepped { agent, clock_offset_ms } => {
            presence::clock_stepped(&mut d, *agent, *clock_offset_ms)?;
        }
        Command::ClockSkewed { agent, off_by_ms } => presence::clock_skewed(&mut d, *agent, *off_by_ms)?,
        Command::CreateToken(token) => credentials::create_token(&mut d, token)?,
        Command::CreatePrincipal { name, role, secret_sha256, expires_at } => {
            credentials::create_principal(&mut d, name, *role, secret_sha256, *expires_at)?;
        }
        Command::RevokePrincipal { name } => credentials::revoke_principal(&mut d, name)?,
        Command::CreateConsumer { name, owner, at_seq } => consumers::create(&mut d, name, owner, *at_seq)?,
        Command::AckFeed { consumer, seq } => consumers::acknowledge(&mut d, consumer, *seq)?,
        Command::ConsumerFilter { consumer, filter } => consumers::read_with(&mut d, consumer, *filter)?,
        Command::Sealed(sealed) => consumers::sealed(&mut d, sealed)?,
        Command::CollectorStands { matter, instance, trouble } => {
            own::stands(&mut d, matter, instance, trouble.as_deref());
        }
    }
    Ok(d.drafts)
}

/// A decision in the making: the state with the drafts so far laid over it.
pub(crate) struct Decision<'a> {
    pub(crate) state: &'a State,
    pub(crate) actor: &'a Actor,
    pub(crate) now: Timestamp,
    pub(crate) config: &'a Defaults,
    /// The row that the command was derived from.
    pub(crate) samples_seq: Option<u64>,
    drafts: Vec<Draft>,
    /// The last draft of each touched alert and incident.
    alerts: HashMap<String, usize>,
    incidents: HashMap<u64, usize>,
    /// No new incident has a lower number.
    pub(crate) incidents_from: u64,
}

impl<'a> Decision<'a> {
    fn new(state: &'a State, actor: &'a Actor, now: Timestamp, config: &'a Defaults) -> Self {
        let (alerts, incidents) = (HashMap::new(), HashMap::new());
        let (drafts, incidents_from) = (Vec::new(), state.losses.incidents_from());
        Self { state, actor, now, config, samples_seq: None, drafts, alerts, incidents, incidents_from }
    }

    /// Drafts an event that the command's actor caused.
    pub(crate) fn by_actor(
        &mut self,
        kind: EventKind,
        occurred_at: Timestamp,
        note: &str,
        subject: Subject,
    ) -> DraftCause {
        let (actor, note, samples_seq) = (self.actor.clone(), note.to_owned(), self.samples_seq);
        self.push(Draft { kind, actor, occurred_at, cause: None, samples_seq, note, subject })
    }

    /// Drafts an event that follows by itself from `cause`.
    pub(crate) fn by_system(
        &mut self,
        kind: EventKind,
        occurred_at: Timestamp,
        cause: Option<DraftCause>,
        subject: Subject,
    ) -> DraftCause {
        let (actor, note, samples_seq) = (Actor::System, String::new(), self.samples_seq);
        self.push(Draft { kind, actor, occurred_at, cause, samples_seq, note, subject })
    }

    fn push(&mut self, mut draft: Draft) -> DraftCause {
        let (index, public) = (self.drafts.len(), draft.kind.is_public());
        match &mut draft.subject {
            Subject::Alert(alert) => {
                alert.key_seq += u64::from(public);
                self.alerts.insert(alert.dedup_key.clone(), index);
            }
            Subject::Incident(incident) => {
                incident.key_seq += u64::from(public);
                incident.rev += 1;
                self.incidents.insert(incident.number, index);
            }
            _ => {}
        }
        self.drafts.push(draft);
        DraftCause::Draft(index)
    }

    /// An alert as it is after the drafts so far.
    pub(crate) fn alert(&self, key: &str) -> Option<&Alert> {
        match self.alerts.get(key).map(|index| &self.drafts[*index].subject) {
            Some(Subject::Alert(alert)) => Some(alert),
            _ => self.state.alert(key),
        }
    }

    /// An incident as it is after the drafts so far.
    pub(crate) fn incident(&self, number: u64) -> Option<&Incident> {
        match self.incidents.get(&number).map(|index| &self.drafts[*index].subject) {
            Some(Subject::Incident(incident)) => Some(incident),
            _ => self.state.incident(number),
        }
    }

    /// The newest incident of a key after the drafts so far.
    pub(crate) fn newest_incident(&self, incident_key: &str) -> Option<&Incident> {
        let drafted = self.incidents.keys().filter_map(|number| self.incident(*number));
        let drafted = drafted.filter(|incident| incident.incident_key == incident_key);
        drafted
            .chain(self.state.incident_by_key(incident_key))
            .max_by_key(|incident| incident.number)
            .and_then(
                |newest| self.incident(newest.number), // The state's own copy may be older than the draft.
            )
    }

    /// The number of the next new incident.
    pub(crate) fn next_incident(&self) -> u64 {
        let drafted = self.incidents.keys().max().map_or(0, |number| number + 1);
        self.state.incidents.next_number().max(drafted).max(self.incidents_from)
    }

    /// Whether an alert's incident is left as it is: incidents wait for a decision, but for the one about that.
    pub(crate) fn incidents_wait_for(&self, alert: &Alert) -> bool {
        self.state.is_degraded() && alert.source_id != losses::SOURCE
    }

    /// How many events are drafted so far.
    pub(crate) fn drafted(&self) -> usize {
        self.drafts.len()
    }

    /// Whether any alert of an incident fires after the drafts so far.
    pub(crate) fn anything_fires(&self, number: u64) -> bool {
        use tocsin_shared::alert::Condition::Firing;
        let of_state = self.state.firing_of_incident(number).map(|alert| alert.dedup_key.as_str());
        let mut keys = of_state.chain(self.alerts.keys().map(String::as_str));
        keys.any(|key| self.alert(key).is_some_and(|a| a.condition == Firing && a.incident == Some(number)))
    }

    /// A host that is in service.
    pub(crate) fn host_in_service(&self, agent: AgentId) -> Result<&'a Host, Refusal> {
        use tocsin_shared::host::HostState::Retired;
        let host = self.state.host(agent).ok_or_else(|| Refusal::not_found("agent", agent))?;
        if host.state == Retired {
            return Err(Refusal::denied(format!("host {} is retired: enrol it again", host.instance)));
        }
        Ok(host)
    }
}

/// What the journal keeps of a host event.
fn host_event_note(what: &str, at: Timestamp, step_ms: i64) -> String {
    let what = &what[..what.floor_char_boundary(64)];
    if step_ms == 0 { format!("{what} at {at}") } else { format!("{what} of {step_ms} ms at {at}") }
}
