//! Alerts: what is true now, what may become true, what was.

use serde::Serialize;
use tocsin_proto::pb;

use super::{LabelMap, Moment, label_map, maybe, moment, severity_cell, time_cells, word};
use crate::figures;
use crate::screen::{Paint, Style};
use crate::table::{Cell, Table};

/// `tocsin alerts`.
#[derive(Clone, Debug, Serialize)]
pub struct AlertsView {
    pub alerts: Vec<AlertView>,
}

/// An alert.
#[derive(Clone, Debug, Serialize)]
pub struct AlertView {
    pub name: String,
    pub severity: String,
    /// `pending`, `firing`, `resolved`, `inactive`.
    pub condition: String,
    pub env: String,
    /// The host it is about; null when it is about no single one.
    pub instance: Option<String>,
    /// The number of its incident.
    pub incident: Option<u64>,
    pub opens_incident: bool,
    /// `rule`, `job`, `host`, and which.
    pub source: String,
    pub source_id: String,
    pub dedup_key: String,
    pub generation: u32,
    pub active_since: Moment,
    pub fired_at: Option<Moment>,
    pub last_true_at: Option<Moment>,
    pub recovering_since: Option<Moment>,
    pub resolved_at: Option<Moment>,
    /// `source`, `rule_removed`, `host_retired`.
    pub resolve_reason: Option<String>,
    /// It began and ended within rows that came late: nobody was told.
    pub late: bool,
    /// The expression's value at the last change.
    pub value: String,
    #[serde(skip)]
    pub number: f64,
    pub labels: LabelMap,
    pub annotations: LabelMap,
}

impl From<pb::Alert> for AlertView {
    fn from(alert: pb::Alert) -> Self {
        let reason = alert.resolve_reason();
        let resolve_reason =
            (reason != pb::ResolveReason::Unspecified).then(|| word(reason.as_str_name(), "RESOLVE_REASON_"));
        let (severity, condition) = (alert.severity().as_str_name(), alert.condition().as_str_name());
        let (env, source) = (alert.env().as_str_name(), alert.source().as_str_name());
        let labels = label_map(alert.labels);
        Self {
            name: labels.get("alertname").cloned().unwrap_or_else(|| alert.source_id.clone()),
            severity: word(severity, "SEVERITY_"),
            condition: word(condition, "CONDITION_"),
            env: word(env, "ENV_"),
            instance: labels.get("instance").cloned(),
            incident: (alert.incident != 0).then_some(alert.incident),
            opens_incident: alert.opens_incident,
            source: word(source, "ALERT_SOURCE_"),
            source_id: alert.source_id,
            dedup_key: alert.dedup_key,
            generation: alert.generation,
            active_since: moment(alert.active_since_ms),
            fired_at: maybe(alert.fired_at_ms),
            last_true_at: maybe(alert.last_true_ms),
            recovering_since: maybe(alert.recovering_since_ms),
            resolved_at: maybe(alert.resolved_at_ms),
            resolve_reason,
            late: alert.late,
            value: figures::value(alert.value),
            number: alert.value,
            labels,
            annotations: label_map(alert.annotations),
        }
    }
}

impl AlertView {
    /// The words that say what is wrong.
    pub fn summary(&self) -> &str {
        let annotation = |name| self.annotations.get(name).map(String::as_str);
        annotation("summary").or_else(|| annotation("description")).unwrap_or_default()
    }

    fn condition_words(&self) -> String {
        let late = if self.late { ", late" } else { "" };
        format!("{}{late}", self.condition)
    }

    fn condition_paint(&self) -> Option<Paint> {
        match self.condition.as_str() {
            "firing" => Some(Paint::Bad),
            "pending" => Some(Paint::Warn),
            "resolved" => Some(Paint::Good),
            _ => Some(Paint::Faint),
        }
    }
}

/// The list.
pub fn draw_alerts(view: &AlertsView, style: &Style) -> String {
    if view.alerts.is_empty() {
        return "no alert is firing\n".into();
    }
    table(&view.alerts, style, "")
}

/// Alerts as a table, each line indented.
pub fn table(alerts: &[AlertView], style: &Style, indent: &'static str) -> String {
    let mut table = Table::new(&[
        "CONDITION",
        "SEVERITY",
        "ALERT",
        "HOST",
        "ENV",
        "SINCE",
        ">AGE",
        ">VALUE",
        "INCIDENT",
        "SUMMARY",
    ])
    .indented(indent);
    for alert in alerts {
        let [since, age] = time_cells(Some(alert.active_since), style);
        table.row([
            Cell::painted(alert.condition_words(), alert.condition_paint()),
            severity_cell(&alert.severity),
            alert.name.as_str().into(),
            alert.instance.as_deref().unwrap_or("–").into(),
            alert.env.as_str().into(),
            since,
            age,
            figures::short_value(alert.number).into(),
            alert.incident.map_or_else(|| "–".to_owned(), |number| format!("INC-{number}")).into(),
            alert.summary().into(),
        ]);
    }
    table.draw(style)
}
