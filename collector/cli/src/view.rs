//! What commands show: per record one struct that is the JSON shape, and functions that draw it for people.
//!
//! The shapes are a promise to scripts: names in snake_case, times RFC 3339 in UTC or null for "not yet", enums as
//! lower-case words (`unknown` for one that is newer than this program), sample values as text, as in Prometheus'
//! API, because JSON has no NaN. Keys are always there; new ones may be added, none changes its meaning.
//! Pure: no clock, no I/O.

pub mod access;
pub mod alert;
pub mod authority;
pub mod feed;
pub mod host;
pub mod incident;
pub mod journal;
pub mod promqltest;
pub mod query;
pub mod rules;
pub mod run;
pub mod status;
pub mod up;

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use tocsin_proto::pb;
use tocsin_shared::time::Timestamp;

use crate::figures;
use crate::screen::{Paint, Style};
use crate::table::{Cell, Table};

/// An instant as JSON shows it: RFC 3339 with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Timestamp);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A time of the wire that is always set.
pub fn moment(millis: i64) -> Moment {
    Moment(Timestamp::from_millis(millis))
}

/// A time of the wire where 0 stands for "not yet".
pub fn maybe(millis: i64) -> Option<Moment> {
    figures::instant(millis).map(Moment)
}

/// Labels as JSON shows them.
pub type LabelMap = BTreeMap<String, String>;

/// From the wire's list.
pub fn label_map(labels: Vec<pb::Label>) -> LabelMap {
    labels.into_iter().map(|pb::Label { name, value }| (name, value)).collect()
}

/// `a="1",b="2"`, quotes and backslashes escaped as in PromQL.
pub fn label_list(labels: &LabelMap) -> String {
    let pair = |(name, value): (&String, &String)| {
        format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
    };
    labels.iter().map(pair).collect::<Vec<_>>().join(",")
}

/// `HOST_STATE_ONLINE` → `online`; what this program does not know → `unknown`.
pub fn word(name: &str, prefix: &str) -> String {
    match name.strip_prefix(prefix) {
        None | Some("UNSPECIFIED") => "unknown".to_owned(),
        Some(rest) => rest.to_lowercase(),
    }
}

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ActorView {
    /// `system`, `agent`, `principal` or `unknown`.
    pub kind: &'static str,
    /// The principal's name or the agent's id.
    pub name: Option<String>,
}

impl From<Option<pb::Actor>> for ActorView {
    fn from(actor: Option<pb::Actor>) -> Self {
        use pb::actor::Kind;
        match actor.and_then(|actor| actor.kind) {
            Some(Kind::System(_)) => Self { kind: "system", name: None },
            Some(Kind::Agent(id)) => Self { kind: "agent", name: Some(id) },
            Some(Kind::Principal(name)) => Self { kind: "principal", name: Some(name) },
            None => Self { kind: "unknown", name: None },
        }
    }
}

impl ActorView {
    /// For people: a name, or what it is.
    pub fn shown(&self) -> String {
        match (&self.name, self.kind) {
            (Some(name), "principal") => name.clone(),
            (Some(id), kind) => format!("{kind} {id}"),
            (None, kind) => kind.to_owned(),
        }
    }
}

/// How bad a severity is.
pub fn severity_paint(severity: &str) -> Option<Paint> {
    match severity {
        "critical" | "error" => Some(Paint::Bad),
        "warning" => Some(Paint::Warn),
        _ => None,
    }
}

/// A severity in its colour.
pub fn severity_cell(severity: &str) -> Cell {
    Cell::painted(severity, severity_paint(severity))
}

/// The two cells of an instant: RFC 3339 to the second, and its age. Empty for "not yet".
pub fn time_cells(at: Option<Moment>, style: &Style) -> [Cell; 2] {
    match at {
        Some(Moment(at)) => [Cell::from(figures::seconds(at)), Cell::from(figures::age(style.now, at))],
        None => [Cell::default(), Cell::default()],
    }
}

/// An instant with its age on a line of its own; `–` for "not yet".
pub fn when(at: Option<Moment>, style: &Style) -> String {
    at.map_or_else(|| "–".to_owned(), |Moment(at)| figures::when(style.now, at))
}

/// Name and value, a line each, lined up; those without a value are left out.
pub fn fields(rows: Vec<(&'static str, String)>, style: &Style) -> String {
    let mut table = Table::new(&["", ""]);
    for (name, value) in rows.into_iter().filter(|(_, value)| !value.is_empty()) {
        table.row([Cell::painted(name, Some(Paint::Faint)), value.into()]);
    }
    table.draw(style)
}

#[cfg(test)]
pub(crate) mod tests;
