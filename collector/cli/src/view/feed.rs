//! Items of the feed: a line each.

use serde::Serialize;
use tocsin_proto::pb;
use tocsin_proto::pb::event::Subject;

use super::alert::AlertView;
use super::host::HostView;
use super::incident::{self, IncidentView};
use super::run::{self, RunView};
use super::{ActorView, Moment, moment, severity_paint};
use crate::figures;
use crate::screen::{Paint, Style, clean};
use crate::table::cut;

/// Longest text of a line; the JSON output has all of it.
const LINE_WIDTH_MAX: usize = 160;

/// A line of `tocsin feed tail`.
#[derive(Clone, Debug, Serialize)]
pub struct FeedView {
    /// Where to go on after this item: `--from CURSOR`.
    pub cursor: String,
    #[serde(flatten)]
    pub item: ItemView,
}

/// What the line is about.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ItemView {
    Event {
        event: Box<EventView>,
    },
    /// The items up to the end are what is open as of this event, not changes.
    SnapshotBegin {
        as_of_seq: u64,
    },
    SnapshotEnd {
        as_of_seq: u64,
    },
    /// These events are no longer kept; a snapshot follows.
    Gap {
        first_missing_seq: u64,
        last_missing_seq: u64,
    },
}

/// An event: what changed, and the record as it is after the change; exactly one record is not null, or none for a
/// record that is newer than this program.
#[derive(Clone, Debug, Serialize)]
pub struct EventView {
    pub seq: u64,
    pub kind: String,
    pub actor: ActorView,
    /// When it was true.
    pub occurred_at: Moment,
    /// When the collector wrote it.
    pub recorded_at: Moment,
    pub cause_seq: Option<u64>,
    /// A person's words.
    pub note: String,
    pub alert: Option<AlertView>,
    pub incident: Option<IncidentView>,
    pub run: Option<RunView>,
    pub host: Option<HostView>,
}

impl From<pb::Event> for EventView {
    fn from(event: pb::Event) -> Self {
        let mut view = Self {
            seq: event.seq,
            kind: event.kind,
            actor: event.actor.into(),
            occurred_at: moment(event.occurred_at_ms),
            recorded_at: moment(event.recorded_at_ms),
            cause_seq: (event.cause_seq != 0).then_some(event.cause_seq),
            note: event.note,
            alert: None,
            incident: None,
            run: None,
            host: None,
        };
        match event.subject {
            Some(Subject::Alert(alert)) => view.alert = Some(alert.into()),
            Some(Subject::Incident(incident)) => view.incident = Some(incident.into()),
            Some(Subject::Run(run)) => view.run = Some(RunView::new(run, false)),
            Some(Subject::Host(host)) => view.host = Some(host.into()),
            // Internal records are on no feed.
            _ => {}
        }
        view
    }
}

impl FeedView {
    /// From the wire; `None` for heartbeats and for items that are newer than this program.
    pub fn new(cursor: String, kind: Option<pb::subscribe_response::Kind>) -> Option<Self> {
        use pb::subscribe_response::Kind;
        let item = match kind? {
            Kind::Event(event) => ItemView::Event { event: Box::new(event.into()) },
            Kind::SnapshotBegin(begin) => ItemView::SnapshotBegin { as_of_seq: begin.as_of_seq },
            Kind::SnapshotEnd(end) => ItemView::SnapshotEnd { as_of_seq: end.as_of_seq },
            Kind::Gap(gap) => ItemView::Gap {
                first_missing_seq: gap.first_missing_seq,
                last_missing_seq: gap.last_missing_seq,
            },
            Kind::Heartbeat(_) => return None,
        };
        Some(Self { cursor, item })
    }
}

impl EventView {
    /// What happened, beyond the kind: the record's own words and what a person wrote.
    pub fn told(&self) -> String {
        let subject = if let Some(incident) = &self.incident {
            incident::told(incident)
        } else if let Some(alert) = &self.alert {
            let at = alert.instance.as_ref().map(|host| format!(" on {host}")).unwrap_or_default();
            format!("{} {}{at} (value {})", alert.severity, alert.name, figures::short_value(alert.number))
        } else if let Some(run) = &self.run {
            run::told(run)
        } else if let Some(host) = &self.host {
            format!("{} ({}, {})", host.instance, host.env, host.state)
        } else {
            String::new()
        };
        match self.note.as_str() {
            "" => subject,
            note => format!("{subject} “{note}”"),
        }
    }

    /// The same where the reader knows which incident it is about.
    pub fn told_within_incident(&self) -> String {
        let Some(incident) = &self.incident else { return self.told() };
        let subject = match self.kind.as_str() {
            "incident.triggered" | "incident.reopened" | "incident.priority_changed" => {
                format!("P{} {} ", incident.priority, incident.severity)
            }
            _ => String::new(),
        };
        let note = if self.note.is_empty() { String::new() } else { format!("“{}”", self.note) };
        format!("{subject}{note}").trim_end().to_owned()
    }

    /// The colour of its kind.
    fn paint(&self) -> Option<Paint> {
        let (subject, what) = self.kind.split_once('.').unwrap_or((&self.kind, ""));
        match (subject, what) {
            (_, "resolved" | "succeeded" | "online") => Some(Paint::Good),
            ("incident", "acknowledged" | "noted") => None,
            ("incident", _) => self.incident.as_ref().and_then(incident::paint),
            ("alert", _) => self.alert.as_ref().and_then(|alert| severity_paint(&alert.severity)),
            (_, "failed" | "unreachable") => Some(Paint::Bad),
            _ => None,
        }
    }
}

/// One line for people.
pub fn draw_item(view: &FeedView, style: &Style) -> String {
    match &view.item {
        ItemView::Event { event } => {
            let by = match event.actor.kind {
                "principal" => format!("  by {}", clean(&event.actor.shown())),
                _ => String::new(),
            };
            format!(
                "{}  {}  {}{by}\n",
                figures::seconds(event.occurred_at.0),
                style.paint(event.paint(), &format!("{:<26}", clean(&event.kind))),
                cut(&clean(&event.told()), LINE_WIDTH_MAX),
            )
        }
        ItemView::SnapshotBegin { as_of_seq } => {
            style.paint(Some(Paint::Faint), &format!("— what is open as of event {as_of_seq} —")) + "\n"
        }
        ItemView::SnapshotEnd { .. } => {
            style.paint(Some(Paint::Faint), "— what happens from here on —") + "\n"
        }
        ItemView::Gap { first_missing_seq, last_missing_seq } => {
            let told = format!(
                "— events {first_missing_seq} to {last_missing_seq} are no longer kept; what is open now follows —"
            );
            style.paint(Some(Paint::Warn), &told) + "\n"
        }
    }
}
