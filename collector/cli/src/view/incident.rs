//! Incidents: the list with the worst first, and one with its alerts and its timeline.

use serde::Serialize;
use tocsin_proto::pb;

use super::alert::{self, AlertView};
use super::feed::EventView;
use super::{
    ActorView, LabelMap, Moment, fields, label_list, label_map, maybe, moment, severity_cell, severity_paint,
    time_cells, when, word,
};
use crate::figures;
use crate::screen::{Paint, Style, clean};
use crate::table::{Cell, Table, cut};

/// `tocsin incidents`.
#[derive(Clone, Debug, Serialize)]
pub struct IncidentsView {
    pub incidents: Vec<IncidentView>,
}

/// `tocsin incident show`.
#[derive(Clone, Debug, Serialize)]
pub struct IncidentDocument {
    pub incident: IncidentView,
    /// Its alerts as they are now.
    pub alerts: Vec<AlertView>,
    /// Its public events, oldest first.
    pub timeline: Vec<EventView>,
}

/// `tocsin incident ack`, `note`, `resolve`.
#[derive(Clone, Debug, Serialize)]
pub struct ChangedIncident {
    pub incident: IncidentView,
}

/// An incident.
#[derive(Clone, Debug, Serialize)]
pub struct IncidentView {
    /// `INC-12`.
    pub id: String,
    pub number: u64,
    pub title: String,
    /// `triggered`, `acknowledged`, `resolved`.
    pub status: String,
    pub severity: String,
    /// 1 (worst) to 5.
    pub priority: u32,
    pub impact: String,
    pub urgency: String,
    pub env: String,
    /// Whether a paging tool shall wake somebody.
    pub pages: bool,
    /// Labels that all its alerts share.
    pub labels: LabelMap,
    pub alerts: Vec<AlertRefView>,
    pub opened_at: Moment,
    pub ack: Option<AckView>,
    pub resolution: Option<ResolutionView>,
    pub auto_resolve_at: Option<Moment>,
    pub reopen_count: u32,
    /// Counts changes; `--rev` refuses to act on another.
    pub rev: u64,
}

/// An alert inside an incident.
#[derive(Clone, Debug, Serialize)]
pub struct AlertRefView {
    pub name: String,
    pub firing: bool,
    pub dedup_key: String,
    pub generation: u32,
}

/// Who has taken it.
#[derive(Clone, Debug, Serialize)]
pub struct AckView {
    pub by: ActorView,
    pub at: Moment,
    pub expires_at: Moment,
    pub note: String,
}

/// How it ended.
#[derive(Clone, Debug, Serialize)]
pub struct ResolutionView {
    pub by: ActorView,
    pub at: Moment,
    pub code: String,
    pub text: String,
}

impl From<pb::Incident> for IncidentView {
    fn from(incident: pb::Incident) -> Self {
        let (impact, urgency) = (incident.impact().as_str_name(), incident.urgency().as_str_name());
        let (severity, env) = (incident.severity().as_str_name(), incident.env().as_str_name());
        Self {
            id: format!("INC-{}", incident.number),
            number: incident.number,
            status: word(incident.status().as_str_name(), "INCIDENT_STATUS_"),
            severity: word(severity, "SEVERITY_"),
            priority: incident.priority,
            impact: word(impact, "LEVEL_"),
            urgency: word(urgency, "LEVEL_"),
            env: word(env, "ENV_"),
            pages: incident.pages,
            labels: label_map(incident.labels),
            alerts: incident.alerts.into_iter().map(AlertRefView::from).collect(),
            opened_at: moment(incident.opened_at_ms),
            ack: incident.ack.map(AckView::from),
            resolution: incident.resolution.map(ResolutionView::from),
            auto_resolve_at: maybe(incident.auto_resolve_at_ms),
            reopen_count: incident.reopen_count,
            rev: incident.rev,
            title: incident.title,
        }
    }
}

impl From<pb::AlertRef> for AlertRefView {
    fn from(pb::AlertRef { dedup_key, generation, name, firing }: pb::AlertRef) -> Self {
        Self { name, firing, dedup_key, generation }
    }
}

impl From<pb::Ack> for AckView {
    fn from(pb::Ack { by, at_ms, expires_at_ms, note }: pb::Ack) -> Self {
        Self { by: by.into(), at: moment(at_ms), expires_at: moment(expires_at_ms), note }
    }
}

impl From<pb::Resolution> for ResolutionView {
    fn from(pb::Resolution { by, at_ms, code, text }: pb::Resolution) -> Self {
        Self { by: by.into(), at: moment(at_ms), code, text }
    }
}

impl IncidentView {
    /// Whether somebody may still have to act.
    pub fn is_open(&self) -> bool {
        self.status != "resolved"
    }

    /// Nobody has taken it.
    pub fn is_unattended(&self) -> bool {
        self.status == "triggered"
    }

    fn status_paint(&self) -> Option<Paint> {
        match self.status.as_str() {
            "triggered" => Some(Paint::Bad),
            "acknowledged" => Some(Paint::Warn),
            _ => Some(Paint::Good),
        }
    }

    fn priority_paint(&self) -> Option<Paint> {
        match self.priority {
            1 | 2 => Some(Paint::Bad),
            3 => Some(Paint::Warn),
            _ => None,
        }
    }

    /// Who is on it, or how it ended.
    fn who(&self) -> String {
        match (&self.ack, &self.resolution) {
            (_, Some(resolution)) => format!("{} by {}", resolution.code, resolution.by.shown()),
            (Some(ack), None) => ack.by.shown(),
            (None, None) => "nobody".into(),
        }
    }
}

/// Open ones first, the worst first, the longest open first; resolved ones stay in the order given.
pub fn sort(incidents: &mut [IncidentView]) {
    incidents.sort_by_key(|incident| match incident.is_open() {
        true => (0, incident.priority, Some(incident.opened_at)),
        false => (1, 0, None),
    });
}

/// The list.
pub fn draw_incidents(view: &IncidentsView, style: &Style) -> String {
    if view.incidents.is_empty() {
        return "no incidents are open; `tocsin incidents --all` shows earlier ones\n".into();
    }
    table(&view.incidents, style, "")
}

/// Incidents as a table, each line indented.
pub fn table(incidents: &[IncidentView], style: &Style, indent: &'static str) -> String {
    let mut table = Table::new(&["ID", "P", "STATUS", "SEVERITY", "ENV", "OPENED", ">AGE", "WHO", "TITLE"])
        .indented(indent);
    for incident in incidents {
        let [opened, age] = time_cells(Some(incident.opened_at), style);
        let unattended = Some(Paint::Bad).filter(|_| incident.is_unattended());
        table.row([
            incident.id.as_str().into(),
            Cell::painted(format!("P{}", incident.priority), incident.priority_paint()),
            Cell::painted(&incident.status, incident.status_paint()),
            severity_cell(&incident.severity),
            incident.env.as_str().into(),
            opened,
            age,
            Cell::painted(incident.who(), unattended),
            incident.title.as_str().into(),
        ]);
    }
    table.draw(style)
}

/// One incident with all there is to know of it.
pub fn draw_incident(view: &IncidentDocument, style: &Style) -> String {
    let incident = &view.incident;
    let mut text = headline(incident, style);
    text.push_str(&fields(facts(incident, style), style));
    if !view.alerts.is_empty() {
        text.push_str(&format!("\n{}\n", style.strong("ALERTS")));
        text.push_str(&alert::table(&view.alerts, style, "  "));
        text.push_str(&advice(&view.alerts));
    }
    if !view.timeline.is_empty() {
        text.push_str(&format!("\n{}\n", style.strong("TIMELINE")));
        text.push_str(&timeline(&view.timeline, style));
    }
    if incident.is_open() {
        let number = incident.number;
        let next = match incident.is_unattended() {
            true => format!("tocsin incident ack {number} -m \"…\""),
            false => format!("tocsin incident resolve {number} --code fixed -m \"…\""),
        };
        text.push_str(&format!("\nnext: {next}\n"));
    }
    text
}

fn headline(incident: &IncidentView, style: &Style) -> String {
    format!(
        "{}  {}  {}  {}\n",
        style.strong(&incident.id),
        style.paint(incident.priority_paint(), &format!("P{}", incident.priority)),
        style.paint(incident.status_paint(), &incident.status),
        style.strong(&clean(&incident.title)),
    )
}

fn facts(incident: &IncidentView, style: &Style) -> Vec<(&'static str, String)> {
    let acknowledged = incident.ack.as_ref().map(|ack| {
        let until = figures::when(style.now, ack.expires_at.0);
        format!("{} at {}, until {until}", ack.by.shown(), figures::seconds(ack.at.0))
    });
    let resolved = incident.resolution.as_ref().map(|resolution| {
        let by = resolution.by.shown();
        format!(
            "{} by {by} at {}: {}",
            resolution.code,
            figures::when(style.now, resolution.at.0),
            resolution.text
        )
    });
    vec![
        ("severity", incident.severity.clone()),
        ("impact, urgency", format!("{}, {}", incident.impact, incident.urgency)),
        (
            "environment",
            format!("{}{}", incident.env, if incident.pages { ", pages" } else { ", does not page" }),
        ),
        ("opened", when(Some(incident.opened_at), style)),
        ("acknowledged by", acknowledged.unwrap_or_default()),
        ("note", incident.ack.as_ref().map(|ack| ack.note.clone()).unwrap_or_default()),
        ("resolved", resolved.unwrap_or_default()),
        (
            "resolves itself",
            incident.auto_resolve_at.map(|_| when(incident.auto_resolve_at, style)).unwrap_or_default(),
        ),
        (
            "reopened",
            match incident.reopen_count {
                0 => String::new(),
                1 => "once".into(),
                times => format!("{times} times"),
            },
        ),
        ("labels", label_list(&incident.labels)),
    ]
}

/// What its alerts say for the one who looks at them, each once.
fn advice(alerts: &[AlertView]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for alert in alerts {
        for (name, shown) in ADVICE {
            let Some(said) = alert.annotations.get(name) else { continue };
            let line = format!("  {shown}{}\n", clean(said));
            if said != alert.summary() && !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines.concat()
}

/// Annotations, and how they are shown. A job's failure names the run.
const ADVICE: [(&str, &str); 5] = [
    ("description", "description: "),
    ("look_first", "look first: "),
    ("runbook", "runbook: "),
    ("runbook_url", "runbook: "),
    ("run_id", "its output: tocsin job show "),
];

fn timeline(events: &[EventView], style: &Style) -> String {
    let mut table = Table::new(&["", "", "", ""]).indented("  ");
    for event in events {
        table.row([
            figures::seconds(event.occurred_at.0).into(),
            event.kind.as_str().into(),
            event.actor.shown().into(),
            event.told_within_incident().into(),
        ]);
    }
    table.draw(style)
}

/// What a command made of it, on one line.
pub fn draw_changed(view: &ChangedIncident, style: &Style) -> String {
    let incident = &view.incident;
    let until = match &incident.ack {
        Some(ack) if incident.is_open() => {
            format!(" by {} until {}", clean(&ack.by.shown()), figures::when(style.now, ack.expires_at.0))
        }
        _ => String::new(),
    };
    let code = incident.resolution.as_ref().map(|resolution| format!(" as {}", clean(&resolution.code)));
    format!(
        "{} is {}{until}{}: {}\n",
        incident.id,
        style.paint(incident.status_paint(), &incident.status),
        code.unwrap_or_default(),
        cut(&clean(&incident.title), 120),
    )
}

/// A line of the feed about an incident.
pub fn told(incident: &IncidentView) -> String {
    format!("{} P{} {}", incident.id, incident.priority, incident.title)
}

/// The colour of an event about an incident.
pub fn paint(incident: &IncidentView) -> Option<Paint> {
    severity_paint(&incident.severity)
}
