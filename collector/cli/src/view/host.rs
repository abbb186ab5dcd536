//! Hosts: the list, and one with all that is known of it.

use serde::Serialize;
use tocsin_proto::pb;

use super::{LabelMap, Moment, fields, label_list, label_map, maybe, moment, time_cells, when, word};
use crate::figures;
use crate::screen::{Paint, Style, clean};
use crate::table::{Cell, Table};

/// `tocsin hosts`.
#[derive(Clone, Debug, Serialize)]
pub struct HostsView {
    pub hosts: Vec<HostView>,
}

/// `tocsin host show`, `label`, `retire`.
#[derive(Clone, Debug, Serialize)]
pub struct HostDocument {
    pub host: HostView,
}

/// `tocsin host revoke`.
#[derive(Clone, Debug, Serialize)]
pub struct RevokedView {
    pub host: String,
    /// How many certificates were revoked.
    pub revoked: u32,
}

/// A host.
#[derive(Clone, Debug, Serialize)]
pub struct HostView {
    pub instance: String,
    /// The agent's id.
    pub agent: String,
    pub env: String,
    /// `pending`, `online`, `unreachable`, `retired`.
    pub state: String,
    pub state_since: Moment,
    pub last_heard_at: Option<Moment>,
    /// Event time of its last row.
    pub last_row_at: Option<Moment>,
    pub series: u64,
    pub alerts_firing: u32,
    pub labels: LabelMap,
    pub agent_version: String,
    pub enrolled_at: Moment,
    pub boot_id: String,
    /// os, kernel, cpu, memory …
    pub facts: LabelMap,
}

impl From<pb::Host> for HostView {
    fn from(host: pb::Host) -> Self {
        Self {
            env: word(host.env().as_str_name(), "ENV_"),
            state: word(host.state().as_str_name(), "HOST_STATE_"),
            instance: host.instance,
            agent: host.agent,
            state_since: moment(host.state_since_ms),
            last_heard_at: maybe(host.last_seen_ms),
            last_row_at: None,
            series: 0,
            alerts_firing: 0,
            labels: label_map(host.labels),
            agent_version: host.agent_version,
            enrolled_at: moment(host.enrolled_at_ms),
            boot_id: host.boot_id,
            facts: label_map(host.facts),
        }
    }
}

impl From<pb::HostStatus> for HostView {
    fn from(status: pb::HostStatus) -> Self {
        let pb::HostStatus { host, last_row_ms, last_heard_ms, series, alerts_firing } = status;
        let host = Self::from(host.unwrap_or_default());
        let last_heard_at = maybe(last_heard_ms).or(host.last_heard_at);
        Self { last_row_at: maybe(last_row_ms), last_heard_at, series, alerts_firing, ..host }
    }
}

impl HostView {
    /// How long it has been in its state. The collector's clock may be a moment ahead of ours.
    fn stands_for(&self, style: &Style) -> String {
        let since = self.state_since.0;
        figures::age(style.now.max(since), since)
    }

    fn state_paint(&self) -> Option<Paint> {
        match self.state.as_str() {
            "unreachable" => Some(Paint::Bad),
            "pending" => Some(Paint::Warn),
            "online" => Some(Paint::Good),
            _ => Some(Paint::Faint),
        }
    }
}

/// The list.
pub fn draw_hosts(view: &HostsView, style: &Style) -> String {
    if view.hosts.is_empty() {
        return "no host has enrolled yet; make a join token for one: tocsin token create --env prod\n"
            .into();
    }
    let mut table = Table::new(&[
        "HOST",
        "STATE",
        ">FOR",
        "ENV",
        "LAST HEARD",
        ">AGO",
        ">SERIES",
        ">ALERTS",
        "AGENT",
        "LABELS",
    ]);
    for host in &view.hosts {
        let [heard, heard_age] = time_cells(host.last_heard_at, style);
        let alerts = Some(Paint::Bad).filter(|_| host.alerts_firing > 0);
        table.row([
            host.instance.as_str().into(),
            Cell::painted(&host.state, host.state_paint()),
            host.stands_for(style).into(),
            host.env.as_str().into(),
            heard,
            heard_age,
            figures::count(host.series).into(),
            Cell::painted(host.alerts_firing.to_string(), alerts),
            host.agent_version.as_str().into(),
            label_list(&host.labels).into(),
        ]);
    }
    table.draw(style)
}

/// One host.
pub fn draw_host(view: &HostDocument, style: &Style) -> String {
    let host = &view.host;
    let mut text = format!(
        "{}  {} for {}\n",
        style.strong(&clean(&host.instance)),
        style.paint(host.state_paint(), &host.state),
        host.stands_for(style)
    );
    text.push_str(&fields(
        vec![
            ("environment", host.env.clone()),
            ("labels", label_list(&host.labels)),
            ("last heard", when(host.last_heard_at, style)),
            ("last row", host.last_row_at.map(|_| when(host.last_row_at, style)).unwrap_or_default()),
            ("enrolled", when(Some(host.enrolled_at), style)),
            ("series", if host.series > 0 { figures::count(host.series) } else { String::new() }),
            (
                "alerts firing",
                if host.alerts_firing > 0 { host.alerts_firing.to_string() } else { String::new() },
            ),
            ("agent", format!("{} {}", host.agent_version, host.agent).trim().to_owned()),
            ("boot", host.boot_id.clone()),
        ],
        style,
    ));
    if !host.facts.is_empty() {
        text.push_str(&style.strong("facts"));
        text.push('\n');
        let mut table = Table::new(&["", ""]).indented("  ");
        for (name, value) in &host.facts {
            table.row([name.into(), value.into()]);
        }
        text.push_str(&table.draw(style));
    }
    text
}

/// What `revoke` did.
pub fn draw_revoked(view: &RevokedView, _: &Style) -> String {
    let host = clean(&view.host);
    match view.revoked {
        0 => format!("{host} has no certificate that could be revoked\n"),
        number => format!(
            "{} of {host} revoked; it can send nothing until it enrols anew\n",
            figures::counted(number.into(), "certificate")
        ),
    }
}
