//! Which rows are shown and in what order; what is selected stays selected wherever it moves.
//!
//! Pure.

use super::metric::Metric;
use super::model::{Model, Row};

/// By what rows are sorted: the worst, highest or first is on top.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    #[default]
    Problems,
    Name,
    Load,
    Cpu,
    Memory,
    Filesystem,
    Busy,
    Network,
    Alerts,
}

impl By {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Problems => "problems",
            Self::Name => "name",
            Self::Load => "load",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Filesystem => "filesystem",
            Self::Busy => "disk busy",
            Self::Network => "network",
            Self::Alerts => "alerts",
        }
    }

    /// What counts; higher is further up. Without a value a host comes last.
    fn weight(self, row: &Row<'_>) -> f64 {
        let figure = |metric| row.figure(metric).filter(|value| !value.is_nan()).unwrap_or(f64::NEG_INFINITY);
        match self {
            Self::Problems => f64::from(row.trouble()),
            Self::Name => 0.0,
            Self::Load => figure(Metric::Load),
            Self::Cpu => figure(Metric::Cpu),
            Self::Memory => figure(Metric::Memory),
            Self::Filesystem => figure(Metric::Filesystem),
            Self::Busy => figure(Metric::Busy),
            Self::Network => row.network().unwrap_or(f64::NEG_INFINITY),
            Self::Alerts => f64::from(row.host.alerts),
        }
    }
}

/// Environments that the filter goes through.
const ENVS: [&str; 4] = ["prod", "uat", "dr", "test"];

/// What the user has chosen.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    pub(super) by: By,
    pub(super) reversed: bool,
    /// Only hosts of this environment.
    pub(super) env: Option<String>,
    /// Only hosts that have this in name, environment, state or labels.
    pub(super) text: String,
    /// The text is being typed.
    pub(super) typing: bool,
    /// The host under the cursor.
    pub(super) selected: Option<String>,
    /// The first row on the screen.
    pub(super) offset: usize,
    /// Rows that fit, as last drawn.
    pub(super) page: usize,
    pub(super) details: bool,
    /// It is one page for a script: nothing is selected, and no keys are told.
    pub(super) once: bool,
}

impl Order {
    /// The rows that are shown, in their order.
    pub(super) fn rows<'m>(&self, model: &'m Model) -> Vec<Row<'m>> {
        let text = self.text.to_lowercase();
        let takes = |row: &Row<'_>| {
            let host = row.host;
            self.env.as_ref().is_none_or(|env| *env == host.env)
                && (text.is_empty()
                    || [&host.instance, &host.env, &host.state, &host.labels]
                        .into_iter()
                        .any(|part| part.to_lowercase().contains(&text)))
        };
        let mut rows: Vec<(f64, Row<'m>)> =
            model.rows().filter(takes).map(|row| (self.by.weight(&row), row)).collect();
        // A stable sort: equals stay by name.
        rows.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        if self.reversed {
            rows.reverse();
        }
        rows.into_iter().map(|(_, row)| row).collect()
    }

    /// Sorts by something; once more turns it round.
    pub(super) fn sort(&mut self, by: By) {
        self.reversed = self.by == by && !self.reversed;
        self.by = by;
        self.offset = 0;
    }

    /// The next environment, after the last one all of them.
    pub(super) fn next_env(&mut self) {
        let at = self.env.as_ref().and_then(|env| ENVS.iter().position(|name| name == env));
        self.env = match (&self.env, at) {
            (None, _) => Some(ENVS[0].to_owned()),
            (Some(_), at) => at.and_then(|at| ENVS.get(at + 1)).map(|name| (*name).to_owned()),
        };
    }

    /// Where the cursor is among these rows; the first one when what was selected is not there.
    pub(super) fn cursor(&self, rows: &[Row<'_>]) -> usize {
        let selected = self.selected.as_ref();
        rows.iter().position(|row| Some(&row.host.instance) == selected).unwrap_or(0)
    }

    /// Moves the cursor.
    pub(super) fn step(&mut self, model: &Model, by: isize) {
        let rows = self.rows(model);
        let at = self.cursor(&rows).saturating_add_signed(by).min(rows.len().saturating_sub(1));
        self.selected = rows.get(at).map(|row| row.host.instance.clone());
    }

    /// The host whose details are wanted.
    pub(super) fn focus(&self, model: &Model) -> Option<String> {
        let rows = self.rows(model);
        self.details.then(|| rows.get(self.cursor(&rows)).map(|row| row.host.instance.clone())).flatten()
    }

    /// Moves the window so that the cursor is in it.
    pub(super) fn scroll(&mut self, cursor: usize, rows: usize, page: usize) {
        self.page = page;
        let last = rows.saturating_sub(page);
        self.offset = self.offset.min(last).min(cursor).max((cursor + 1).saturating_sub(page.max(1)));
    }
}
