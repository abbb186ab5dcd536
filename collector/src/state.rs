//! The folded state: what all events so far come to, and nothing that they do not say.
//!
//! `apply` puts an event's record into its map, cannot fail, and asks no clock; what it forgets to stay bounded
//! depends on the records alone, so a checkpoint (`records`, `restore`) and a replay give equal states.
//! `decide` alone may refuse. Not here: samples, the journal, the store people query.

mod access;
mod alerts;
pub(crate) mod authority;
pub mod command;
mod consumers;
mod credentials;
pub mod decide;
mod enrolment;
#[cfg(test)]
mod every_command_tests;
mod hosts;
mod incidents;
mod index;
#[cfg(test)]
mod invariants;
pub(crate) mod lanes;
pub(crate) mod losses;
mod own;
pub(crate) mod presence;
pub(crate) mod recovery;
mod runs;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub(crate) mod upkeep;

use std::collections::BTreeMap;

use tocsin_shared::access::{Certificate, CertificateAuthority, Consumer, JoinToken, Principal};
use tocsin_shared::alert::Alert;
use tocsin_shared::event::{Event, Hole, LaneProgress, Loss, Sealed, Subject};
use tocsin_shared::host::{Host, HostState};
use tocsin_shared::identity::{AgentId, Epoch};
use tocsin_shared::incident::Incident;
use tocsin_shared::lane::Lane;
use tocsin_shared::ranges::Ranges;
use tocsin_shared::run::JobRun;
use tocsin_shared::time::Timestamp;
use uuid::Uuid;

pub use command::{Command, Defaults, Draft, DraftCause, Refusal};
pub use decide::decide;

/// Everything the collector knows beside samples, by key, with the indexes that decisions need.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    last_seq: u64,
    evaluated_through: u64,
    pub(crate) alerts: alerts::Alerts,
    pub(crate) incidents: incidents::Incidents,
    pub(crate) runs: runs::Runs,
    pub(crate) hosts: hosts::Hosts,
    pub(crate) access: access::Access,
    pub(crate) lanes: lanes::Lanes,
    holes: BTreeMap<AgentId, Hole>,
    sealed: Sealed,
    pub(crate) losses: losses::Losses,
}

impl State {
    /// Takes an event into the state. An event at or before `last_seq` may come again; later ones are in order.
    pub fn apply(&mut self, event: &Event) {
        self.note(event);
        self.put(event.subject.clone());
    }

    /// The same, for a start, which has no other use for the event.
    pub fn take(&mut self, event: Event) {
        self.note(&event);
        self.put(event.subject);
    }

    fn note(&mut self, event: &Event) {
        self.last_seq = self.last_seq.max(event.seq);
        self.evaluated_through = self.evaluated_through.max(event.samples_seq.unwrap_or(0));
    }

    /// The whole folded state, for a checkpoint beside `last_seq` and `evaluated_through`.
    pub fn records(&self) -> Vec<Subject> {
        let mut records = vec![Subject::Sealed(self.sealed.clone())];
        records.extend(self.hosts.all().cloned().map(Subject::Host));
        records.extend(self.access.tokens().cloned().map(Subject::Token));
        records.extend(self.access.certificates().cloned().map(Subject::Certificate));
        records.extend(self.access.authorities().cloned().map(Subject::Authority));
        records.extend(self.access.principals().cloned().map(Subject::Principal));
        records.extend(self.access.consumers().cloned().map(Subject::Consumer));
        records.extend(self.lanes.all().map(Subject::Lane));
        records.extend(self.alerts.all().cloned().map(Subject::Alert));
        records.extend(self.incidents.all().cloned().map(Subject::Incident));
        records.extend(self.runs.all().cloned().map(Subject::Run));
        records.extend(self.holes.values().cloned().map(Subject::Hole));
        records.extend(self.losses.all().cloned().map(Subject::Loss));
        records
    }

    /// The state that a checkpoint holds.
    pub fn restore(
        last_seq: u64,
        evaluated_through: u64,
        records: impl IntoIterator<Item = Subject>,
    ) -> Self {
        let mut state = Self { last_seq, evaluated_through, ..Self::default() };
        for record in records {
            match record {
                // Its lanes are among the records, and newer.
                Subject::Sealed(sealed) => state.sealed = sealed,
                record => state.put(record),
            }
        }
        state
    }

    fn put(&mut self, subject: Subject) {
        match subject {
            Subject::Alert(alert) => self.alerts.put(alert),
            Subject::Incident(incident) => self.incidents.put(incident),
            Subject::Run(run) => self.runs.put(run),
            Subject::Host(host) => {
                if host.state == HostState::Retired {
                    self.holes.remove(&host.agent); // What its spool still has will not come.
                }
                self.hosts.put(host);
            }
            Subject::Token(token) => self.access.put_token(token),
            Subject::Certificate(certificate) => self.access.put_certificate(certificate),
            Subject::Authority(authority) => self.access.put_authority(authority),
            Subject::Principal(principal) => self.access.put_principal(principal),
            Subject::Consumer(consumer) => self.access.put_consumer(consumer),
            Subject::Lane(lane) => self.lanes.put(lane),
            Subject::Hole(hole) if hole.closed => drop(self.holes.remove(&hole.agent)),
            Subject::Hole(hole) => drop(self.holes.insert(hole.agent, hole)),
            Subject::Loss(loss) => self.losses.put(loss),
            Subject::Sealed(sealed) => {
                self.evaluated_through = self.evaluated_through.max(sealed.evaluated_through);
                for lane in &sealed.lanes {
                    self.lanes.put(lane.clone());
                }
                self.sealed = sealed;
            }
        }
    }

    /// The highest `seq` applied; 0 before the first event.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// The highest samples lsn an event was decided from: rows beyond it are evaluated again at a start.
    pub fn evaluated_through(&self) -> u64 {
        self.evaluated_through
    }

    /// The last settlement of samples.
    pub fn sealed(&self) -> &Sealed {
        &self.sealed
    }

    /// When a `Command::Tick` next has something to do: an acknowledgement expires, an incident resolves itself.
    pub fn next_due(&self) -> Option<Timestamp> {
        match () {
            () if self.is_degraded() => None,
            () if self.losses.owed().next().is_some() => Some(Timestamp::MIN),
            () => self.incidents.next_due(),
        }
    }

    /// Events of the journal that cannot be read, as far as it is remembered, in order.
    pub fn losses(&self) -> impl Iterator<Item = &Loss> {
        self.losses.all()
    }

    /// A line for people while incidents are read only.
    pub fn degraded(&self) -> Option<String> {
        let Loss { first, last, .. } = self.losses.open().next()?;
        let more = self.losses.open().count() - 1;
        let more = if more > 0 { format!(", and {more} more ranges") } else { String::new() };
        Some(format!(
            "degraded: events {first} to {last} of the journal are lost{more}; incidents are read only until the file is put back from a backup, or `tocsin journal accept-loss --from {first} --to {last}`"
        ))
    }

    /// Whether incidents are read only: what some events said is not known, and nobody has decided to go on without.
    pub fn is_degraded(&self) -> bool {
        self.losses.open().next().is_some()
    }

    /// An alert by its `dedup_key`.
    pub fn alert(&self, key: &str) -> Option<&Alert> {
        self.alerts.get(key)
    }

    /// All alerts the state still holds, in the order of their keys.
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.all()
    }

    /// Alerts that are pending or firing, in the order of their keys.
    pub fn active_alerts(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.active()
    }

    /// The pending and firing alerts of a rule: about one agent, or of a rule across hosts (`None`).
    pub fn active_of_rule(&self, rule_id: &str, agent: Option<AgentId>) -> impl Iterator<Item = &Alert> {
        self.alerts.of_rule(rule_id, agent)
    }

    /// The pending and firing alerts about an agent's host.
    pub fn active_of_agent(&self, agent: AgentId) -> impl Iterator<Item = &Alert> {
        self.alerts.of_agent(agent)
    }

    /// The firing alerts that belong to an incident, also those its record has no room to name.
    pub fn firing_of_incident(&self, number: u64) -> impl Iterator<Item = &Alert> {
        self.alerts.firing_of_incident(number)
    }

    /// An incident by its number.
    pub fn incident(&self, number: u64) -> Option<&Incident> {
        self.incidents.get(number)
    }

    /// All incidents the state still holds, oldest first; `.rev()` gives the newest first.
    pub fn incidents(&self) -> impl DoubleEndedIterator<Item = &Incident> {
        self.incidents.all()
    }

    /// The open incidents, oldest first.
    pub fn open_incidents(&self) -> impl DoubleEndedIterator<Item = &Incident> {
        self.incidents.all().filter(|incident| incident.status.is_open())
    }

    /// The newest incident of an `incident_key`: the open one, if one is open.
    pub fn incident_by_key(&self, incident_key: &str) -> Option<&Incident> {
        self.incidents.newest_of_key(incident_key)
    }

    /// A run by its id.
    pub fn run(&self, run_id: Uuid) -> Option<&JobRun> {
        self.runs.get(run_id)
    }

    /// The last runs of a job, oldest first.
    pub fn runs_of_job(&self, agent: AgentId, job_name: &str) -> impl DoubleEndedIterator<Item = &JobRun> {
        self.runs.of_job(agent, job_name)
    }

    /// Every job that has run: its agent, its name and its last run.
    pub fn jobs(&self) -> impl Iterator<Item = (AgentId, &str, &JobRun)> {
        self.runs.jobs()
    }

    /// A host by its agent.
    pub fn host(&self, agent: AgentId) -> Option<&Host> {
        self.hosts.get(agent)
    }

    /// The host that bears a name now; retired ones do not.
    pub fn host_by_instance(&self, instance: &str) -> Option<&Host> {
        self.hosts.by_instance(instance)
    }

    /// All hosts, retired ones too.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.all()
    }

    /// A join token by its id.
    pub fn token(&self, id: &str) -> Option<&JoinToken> {
        self.access.token(id)
    }

    /// A join token by the SHA-256 of its secret.
    pub fn token_by_digest(&self, secret_sha256: &[u8; 32]) -> Option<&JoinToken> {
        self.access.token_by_digest(secret_sha256)
    }

    /// All join tokens.
    pub fn tokens(&self) -> impl Iterator<Item = &JoinToken> {
        self.access.tokens()
    }

    /// A certificate by its serial. One that is not here is not let in.
    pub fn certificate(&self, serial: &str) -> Option<&Certificate> {
        self.access.certificate(serial)
    }

    /// All certificates, revoked and expired ones too as long as they are kept.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.access.certificates()
    }

    /// The certificates of an agent, oldest generation first.
    pub fn certificates_of(&self, agent: AgentId) -> impl DoubleEndedIterator<Item = &Certificate> {
        self.access.certificates_of(agent)
    }

    /// The certificate authorities, oldest first, with the last of those that are retired.
    pub fn authorities(&self) -> impl Iterator<Item = &CertificateAuthority> {
        self.access.authorities()
    }

    /// A principal by its name.
    pub fn principal(&self, name: &str) -> Option<&Principal> {
        self.access.principal(name)
    }

    /// A principal by the SHA-256 of its credential, revoked and expired ones too: the caller looks at both.
    pub fn principal_by_digest(&self, secret_sha256: &[u8; 32]) -> Option<&Principal> {
        self.access.principal_by_digest(secret_sha256)
    }

    /// All principals, in the order of their names.
    pub fn principals(&self) -> impl Iterator<Item = &Principal> {
        self.access.principals()
    }

    /// A consumer of the feed by its name.
    pub fn consumer(&self, name: &str) -> Option<&Consumer> {
        self.access.consumer(name)
    }

    /// All consumers, in the order of their names.
    pub fn consumers(&self) -> impl Iterator<Item = &Consumer> {
        self.access.consumers()
    }

    /// How far every samples lane has been taken: as of the last sealing, or a later gap record.
    pub fn lanes_of_samples(&self) -> Vec<LaneProgress> {
        self.lanes.all().filter(|progress| progress.lane == Lane::Samples).collect()
    }

    /// The hole in a host's rows, if older ones are still in its spool.
    pub fn hole(&self, agent: AgentId) -> Option<&Hole> {
        self.holes.get(&agent)
    }

    /// All holes.
    pub fn holes(&self) -> impl Iterator<Item = &Hole> {
        self.holes.values()
    }

    /// The highest record that was taken of a lane, and its checksum, as far as that is known.
    pub fn lane_tip(&self, agent: AgentId, epoch: Epoch, lane: Lane) -> Option<(u64, u32)> {
        let highest = self.lanes.get(agent, epoch, lane)?.highest();
        Some((highest, self.lanes.content(agent, epoch, lane, highest)?))
    }

    /// How far a lane has been taken. For samples: as of the last sealing or gap record.
    pub fn lane(&self, agent: AgentId, epoch: Epoch, lane: Lane) -> Option<&Ranges> {
        self.lanes.get(agent, epoch, lane)
    }
}
