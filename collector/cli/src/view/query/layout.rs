//! Which labels of a result become columns: those that tell its series apart. What all have in common is said once.
//!
//! Pure. Columns read better than selectors while they are few, mostly filled, and fit; otherwise there are none.

use std::collections::BTreeSet;

use super::{LabelMap, SeriesView};

/// More columns are a wall of text.
const COLUMNS_MAX: usize = 8;
/// Of ten cells, as many must have something in them.
const FILLED_OF_TEN: usize = 6;

/// How the labels of a result are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// What all series have.
    pub(super) common: LabelMap,
    /// Names of labels that are columns; `None`: each series shows its selector.
    pub(super) columns: Option<Vec<String>>,
}

impl Layout {
    pub(super) fn of(series: &[SeriesView]) -> Self {
        let names: BTreeSet<&String> = series.iter().flat_map(|series| series.labels.keys()).collect();
        let mut common = LabelMap::new();
        let mut columns: Vec<String> = Vec::new();
        for name in names {
            let first = series[0].labels.get(name);
            let same = series.iter().all(|series| series.labels.get(name) == first);
            match first {
                // Whose value it is stands in its line, also when there is one line.
                Some(value) if same && name != "instance" => {
                    common.insert(name.clone(), value.clone());
                }
                _ => columns.push(name.clone()),
            }
        }
        let place = |name: &String| match name.as_str() {
            "__name__" => 0,
            "instance" => 1,
            _ => 2,
        };
        columns.sort_by_key(place); // A stable sort: the others stay in the order of their names.
        let filled = |name: &String| series.iter().filter(|series| series.labels.contains_key(name)).count();
        let cells: usize = columns.iter().map(filled).sum();
        let readable =
            columns.len() <= COLUMNS_MAX && columns.len() * series.len() * FILLED_OF_TEN <= cells * 10;
        Self { common, columns: readable.then_some(columns) }
    }

    /// Without columns, and so with nothing taken out of the selectors.
    pub(super) fn selectors() -> Self {
        Self::default()
    }

    /// Headings of the columns.
    pub(super) fn titles(&self) -> Vec<(String, bool)> {
        let title = |name: &String| match name.as_str() {
            "__name__" => ("METRIC".to_owned(), false),
            name => (name.to_uppercase(), false),
        };
        self.columns.iter().flatten().map(title).collect()
    }

    /// What a series has in the columns.
    pub(super) fn cells<'a>(&'a self, series: &'a SeriesView) -> impl Iterator<Item = &'a str> {
        let cell = |name: &String| series.labels.get(name).map_or("", String::as_str);
        self.columns.iter().flatten().map(cell)
    }
}
