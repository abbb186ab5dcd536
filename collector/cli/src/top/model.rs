//! What the collector told: hosts, their figures, what is wrong with them.
//!
//! Pure. Messages come in any order; what is of a host that is not listed is kept until the list has it. After a lost
//! connection everything stays as it was and is marked as old, until the new connection gives it anew.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use tocsin_proto::pb;
use tocsin_shared::time::Timestamp;

use super::metric::Metric;
use super::order::Order;
use crate::view::{Moment, label_map, moment, word};

/// What the source tells.
#[derive(Clone, Debug)]
pub(super) enum Message {
    /// A connection stands; everything comes anew.
    Connected(String),
    /// It broke off, and why; it is tried again.
    Lost(String),
    Hosts(Vec<pb::HostStatus>),
    Alerts(Vec<pb::Alert>),
    Incidents(Vec<pb::Incident>),
    Jobs(Vec<pb::JobSummary>),
    Figures(Metric, Change),
    /// The last hour of a host's figure, oldest first.
    Past(String, Metric, Vec<f64>),
}

/// A change of a figure, by host.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Change {
    /// What was there before is to be forgotten.
    pub(super) whole: bool,
    pub(super) changed: Vec<(String, f64)>,
    pub(super) gone: Vec<String>,
}

/// A host as it is listed.
#[derive(Clone, Debug)]
pub(super) struct HostLine {
    pub(super) instance: String,
    pub(super) env: String,
    /// `pending`, `online`, `unreachable`.
    pub(super) state: String,
    pub(super) state_since: Timestamp,
    pub(super) labels: String,
    pub(super) alerts: u32,
}

/// A firing alert.
#[derive(Clone, Debug)]
pub(super) struct AlertLine {
    pub(super) severity: pb::Severity,
    pub(super) name: String,
    pub(super) since: Timestamp,
    pub(super) summary: String,
}

/// An open incident.
#[derive(Clone, Debug)]
pub(super) struct IncidentLine {
    pub(super) number: u64,
    pub(super) priority: u32,
    pub(super) acknowledged: bool,
    pub(super) title: String,
}

/// A job's last run.
#[derive(Clone, Debug)]
pub(super) struct JobLine {
    pub(super) name: String,
    pub(super) result: String,
    pub(super) at: Timestamp,
}

/// A row of the screen: all that is known of a host.
#[derive(Clone, Debug)]
pub(super) struct Row<'m> {
    pub(super) host: &'m HostLine,
    pub(super) figures: [Option<f64>; 7],
    pub(super) alerts: &'m [AlertLine],
    pub(super) incidents: &'m [IncidentLine],
}

/// `tocsin top -o json`.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    hosts: Vec<DocumentRow>,
}

#[derive(Debug, Serialize)]
struct DocumentRow {
    instance: String,
    env: String,
    state: String,
    state_since: Moment,
    load: Option<f64>,
    cpu_percent: Option<f64>,
    memory_percent: Option<f64>,
    filesystem_percent: Option<f64>,
    disk_busy_percent: Option<f64>,
    received_bytes_per_second: Option<f64>,
    sent_bytes_per_second: Option<f64>,
    alerts_firing: u32,
    /// Numbers of its open incidents, worst first.
    incidents: Vec<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) endpoint: String,
    /// Why nothing comes, if nothing does.
    pub(super) lost: Option<String>,
    pub(super) hosts: Option<BTreeMap<String, HostLine>>,
    figures: [Option<HashMap<String, f64>>; 7],
    alerts: Option<HashMap<String, Vec<AlertLine>>>,
    incidents: Option<HashMap<String, Vec<IncidentLine>>>,
    pub(super) open_incidents: usize,
    jobs: HashMap<String, Vec<JobLine>>,
    past: Option<(String, [Vec<f64>; 7])>,
}

impl Model {
    /// Takes in what came.
    pub(super) fn take(&mut self, message: Message) {
        match message {
            Message::Connected(endpoint) => {
                self.endpoint = endpoint;
                self.lost = None;
            }
            Message::Lost(reason) => self.lost = Some(reason),
            Message::Hosts(hosts) => self.take_hosts(hosts),
            Message::Alerts(alerts) => self.take_alerts(alerts),
            Message::Incidents(incidents) => self.take_incidents(incidents),
            Message::Jobs(jobs) => self.take_jobs(jobs),
            Message::Figures(metric, change) => self.take_figures(metric, change),
            Message::Past(instance, metric, values) => {
                if self.past.as_ref().is_none_or(|(of, _)| *of != instance) {
                    self.past = Some((instance, Default::default()));
                }
                if let Some((_, past)) = &mut self.past {
                    past[metric as usize] = values;
                }
            }
        }
    }

    /// Whether everything that a screen shows has come.
    pub(super) fn is_whole(&self) -> bool {
        self.hosts.is_some()
            && self.figures.iter().all(Option::is_some)
            && self.alerts.is_some()
            && self.incidents.is_some()
    }

    fn take_hosts(&mut self, hosts: Vec<pb::HostStatus>) {
        let line = |status: pb::HostStatus| {
            let host = status.host.unwrap_or_default();
            let labels = label_map(host.labels.clone());
            HostLine {
                env: word(host.env().as_str_name(), "ENV_"),
                state: word(host.state().as_str_name(), "HOST_STATE_"),
                state_since: Timestamp::from_millis(host.state_since_ms),
                labels: crate::view::label_list(&labels),
                alerts: status.alerts_firing,
                instance: host.instance,
            }
        };
        let lines = hosts.into_iter().map(line).map(|line| (line.instance.clone(), line));
        self.hosts = Some(lines.collect());
    }

    fn take_alerts(&mut self, alerts: Vec<pb::Alert>) {
        let mut by_host: HashMap<String, Vec<AlertLine>> = HashMap::new();
        for alert in alerts {
            let label = |name: &str| find(&alert.labels, name);
            let since = if alert.fired_at_ms != 0 { alert.fired_at_ms } else { alert.active_since_ms };
            let line = AlertLine {
                severity: alert.severity(),
                name: label("alertname"),
                since: Timestamp::from_millis(since),
                summary: find(&alert.annotations, "summary"),
            };
            by_host.entry(label("instance")).or_default().push(line);
        }
        for lines in by_host.values_mut() {
            lines.sort_by_key(|line| (std::cmp::Reverse(line.severity), line.since));
        }
        self.alerts = Some(by_host);
    }

    fn take_incidents(&mut self, incidents: Vec<pb::Incident>) {
        self.open_incidents = incidents.len();
        let mut by_host: HashMap<String, Vec<IncidentLine>> = HashMap::new();
        for incident in incidents {
            let line = IncidentLine {
                number: incident.number,
                priority: incident.priority,
                acknowledged: incident.status() == pb::IncidentStatus::Acknowledged,
                title: incident.title.clone(),
            };
            by_host.entry(find(&incident.labels, "instance")).or_default().push(line);
        }
        for lines in by_host.values_mut() {
            lines.sort_by_key(|line| (line.priority, line.number));
        }
        self.incidents = Some(by_host);
    }

    fn take_jobs(&mut self, jobs: Vec<pb::JobSummary>) {
        self.jobs.clear();
        for job in jobs {
            let run = job.last_run.unwrap_or_default();
            let at = if run.ended_at_ms != 0 { run.ended_at_ms } else { run.started_at_ms };
            let line = JobLine {
                name: job.job_name,
                result: crate::view::run::ResultView::from(run.result).shown(),
                at: Timestamp::from_millis(at),
            };
            self.jobs.entry(job.instance).or_default().push(line);
        }
    }

    fn take_figures(&mut self, metric: Metric, Change { whole, changed, gone }: Change) {
        let figures = self.figures[metric as usize].get_or_insert_default();
        if whole {
            figures.clear();
        }
        figures.extend(changed);
        for instance in gone {
            figures.remove(&instance);
        }
    }

    /// Every host with all that is known of it, by name.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.hosts.iter().flat_map(BTreeMap::values).map(|host| Row {
            host,
            figures: std::array::from_fn(|metric| {
                self.figures[metric].as_ref().and_then(|figures| figures.get(&host.instance)).copied()
            }),
            alerts: of(self.alerts.as_ref(), &host.instance),
            incidents: of(self.incidents.as_ref(), &host.instance),
        })
    }

    /// The last runs of a host's jobs.
    pub(super) fn jobs(&self, instance: &str) -> &[JobLine] {
        of(Some(&self.jobs), instance)
    }

    /// The last hour of a host's figure; empty while it is not there.
    pub(super) fn past(&self, instance: &str, metric: Metric) -> &[f64] {
        match &self.past {
            Some((of, past)) if of == instance => &past[metric as usize],
            _ => &[],
        }
    }

    /// The rows as a document.
    pub(super) fn document(&self, order: &Order) -> Document {
        let row = |row: &Row<'_>| {
            let [load, cpu, memory, filesystem, busy, received, sent] = row.figures;
            DocumentRow {
                instance: row.host.instance.clone(),
                env: row.host.env.clone(),
                state: row.host.state.clone(),
                state_since: moment(row.host.state_since.as_millis()),
                load,
                cpu_percent: cpu,
                memory_percent: memory,
                filesystem_percent: filesystem,
                disk_busy_percent: busy,
                received_bytes_per_second: received,
                sent_bytes_per_second: sent,
                alerts_firing: row.host.alerts,
                incidents: row.incidents.iter().map(|incident| incident.number).collect(),
            }
        };
        Document { hosts: order.rows(self).iter().map(row).collect() }
    }
}

fn of<'m, T>(by_host: Option<&'m HashMap<String, Vec<T>>>, instance: &str) -> &'m [T] {
    by_host.and_then(|lines| lines.get(instance)).map_or(&[], Vec::as_slice)
}

fn find(labels: &[pb::Label], name: &str) -> String {
    labels.iter().find(|label| label.name == name).map(|label| label.value.clone()).unwrap_or_default()
}

impl Row<'_> {
    pub(super) fn figure(&self, metric: Metric) -> Option<f64> {
        self.figures[metric as usize]
    }

    /// What goes in and out, bytes a second.
    pub(super) fn network(&self) -> Option<f64> {
        match (self.figure(Metric::Received), self.figure(Metric::Sent)) {
            (None, None) => None,
            (received, sent) => Some(received.unwrap_or(0.0) + sent.unwrap_or(0.0)),
        }
    }

    /// How urgently somebody should look, 0 for not at all: an open incident by its priority, a host that is not heard, its
    /// worst alert, a resource that is nearly used up.
    pub(super) fn trouble(&self) -> u32 {
        let incident = self.incidents.first().map_or(0, |worst| 100_u32.saturating_sub(worst.priority * 10));
        let silent = if self.host.state == "unreachable" { 80 } else { 0 };
        let alert = self.alerts.first().map_or(0, |worst| match worst.severity {
            pb::Severity::Critical => 70,
            pb::Severity::Error => 60,
            pb::Severity::Warning => 40,
            pb::Severity::Info | pb::Severity::Unspecified => 10,
        });
        let full = [Metric::Cpu, Metric::Memory, Metric::Filesystem, Metric::Busy]
            .into_iter()
            .any(|metric| self.figure(metric).is_some_and(|percent| percent >= 90.0));
        let counted = if self.host.alerts > 0 { 15 } else { 0 };
        incident.max(silent).max(alert).max(counted).max(if full { 20 } else { 0 })
    }
}
