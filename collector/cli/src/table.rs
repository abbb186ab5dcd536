//! Tables whose columns line up by display width, also with wide characters and colours.
//!
//! Pure. Every cell is cleaned here; a long one is cut with `…`, because a row that wraps is no longer a row. The
//! whole text is in the JSON output.

use unicode_width::UnicodeWidthStr as _;

use crate::screen::{Paint, Style, clean};

/// Cells wider than this are cut; the last column may be longer because nothing stands after it.
const CELL_WIDTH_MAX: usize = 48;
const LAST_CELL_WIDTH_MAX: usize = 120;

/// One cell: text from anywhere, and how bad it is.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    paint: Option<Paint>,
}

impl Cell {
    /// A cell in a colour.
    pub fn painted(text: impl AsRef<str>, paint: Option<Paint>) -> Self {
        Self { text: clean(text.as_ref()), paint }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::painted(text, None)
    }
}

/// Columns and rows.
#[derive(Clone, Debug)]
pub struct Table {
    titles: Vec<Cell>,
    /// Columns that are aligned to the right.
    right: Vec<bool>,
    rows: Vec<Vec<Cell>>,
    indent: &'static str,
}

impl Table {
    /// A table with these headings; one that begins with `>` is aligned to the right. Without any text in them
    /// the line of headings is left out.
    pub fn new(header: &[&'static str]) -> Self {
        let column = |title: &&'static str| ((*title).trim_start_matches('>').into(), title.starts_with('>'));
        Self::titled(header.iter().map(column).collect())
    }

    /// A table with headings from anywhere, each with whether its column is aligned to the right.
    pub fn titled(columns: Vec<(String, bool)>) -> Self {
        let (titles, right): (Vec<String>, Vec<bool>) = columns.into_iter().unzip();
        let titles = titles.into_iter().map(|title| Cell::painted(title, Some(Paint::Strong))).collect();
        Self { titles, right, rows: Vec::new(), indent: "" }
    }

    /// The same table, each line indented.
    pub fn indented(mut self, indent: &'static str) -> Self {
        self.indent = indent;
        self
    }

    /// Adds a row; it has as many cells as there are headings.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let mut cells: Vec<Cell> = cells.into_iter().collect();
        cells.resize_with(self.titles.len(), Cell::default);
        let last = self.titles.len().saturating_sub(1);
        for (at, cell) in cells.iter_mut().enumerate() {
            cell.text = cut(&cell.text, if at == last { LAST_CELL_WIDTH_MAX } else { CELL_WIDTH_MAX });
        }
        self.rows.push(cells);
    }

    /// The lines, two spaces between columns, none at the end.
    pub fn draw(&self, style: &Style) -> String {
        let headed = self.titles.iter().any(|title| !title.text.is_empty());
        let lines = || headed.then_some(&self.titles).into_iter().chain(&self.rows);
        let widths: Vec<usize> = (0..self.titles.len())
            .map(|at| lines().map(|cells| cells[at].text.width()).max().unwrap_or(0))
            .collect();
        lines().map(|cells| self.line(cells, &widths, style)).collect()
    }

    fn line(&self, cells: &[Cell], widths: &[usize], style: &Style) -> String {
        let mut line = self.indent.to_owned();
        let last = cells.iter().rposition(|cell| !cell.text.is_empty()).unwrap_or(0);
        for (at, cell) in cells.iter().enumerate().take(last + 1) {
            let gap = " ".repeat(widths[at] - cell.text.width());
            let painted = style.paint(cell.paint, &cell.text);
            match (self.right[at], at == last) {
                (true, _) => line.push_str(&format!("{gap}{painted}")),
                (false, true) => line.push_str(&painted),
                (false, false) => line.push_str(&format!("{painted}{gap}")),
            }
            if at < last {
                line.push_str("  ");
            }
        }
        line.push('\n');
        line
    }
}

/// The text, or its beginning and `…`, at most `width_max` columns wide.
pub fn cut(text: &str, width_max: usize) -> String {
    if text.width() <= width_max {
        return text.to_owned();
    }
    if width_max == 0 {
        return String::new();
    }
    let mut short = String::new();
    for c in text.chars() {
        short.push(c);
        if short.width() >= width_max {
            short.pop();
            break;
        }
    }
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use tocsin_shared::time::Timestamp;

    const PLAIN: Style = Style::plain(Timestamp::MIN);

    #[test]
    fn columns_line_up_by_what_is_seen() {
        let mut table = Table::new(&["NAME", ">COUNT", "NOTE"]);
        table.row(["web-1".into(), "7".into(), "fine".into()]);
        table.row(["日本".into(), "1,204".into(), "".into()]);
        table.row(["é".into(), Cell::default(), "last".into()]);
        let drawn = table.draw(&PLAIN);
        assert_eq!(
            drawn,
            "NAME   COUNT  NOTE\n\
             web-1      7  fine\n\
             日本   1,204\n\
             é             last\n"
        );
    }

    #[test]
    fn colours_do_not_move_columns() {
        let mut table = Table::new(&["", ""]).indented("  ");
        table.row([Cell::painted("bad", Some(Paint::Bad)), "x".into()]);
        table.row(["longer".into(), "y".into()]);
        let drawn = table.draw(&Style { colour: true, ..PLAIN });
        assert_eq!(drawn, "  \u{1b}[1;31mbad\u{1b}[0m     x\n  longer  y\n");
    }

    #[test]
    fn hostile_cells_stay_in_their_cell() {
        let mut table = Table::new(&["A", "B"]);
        table.row(["x\n\u{1b}[1A\u{202e}".into(), "y".repeat(500).into()]);
        let drawn = table.draw(&PLAIN);
        assert_eq!(drawn.lines().count(), 2);
        assert!(drawn.contains("x\\n\\u{1b}[1A\\u{202e}  yyy"));
        assert!(drawn.ends_with("y…\n"));
        assert!(drawn.lines().all(|line| line.width() <= CELL_WIDTH_MAX + 2 + LAST_CELL_WIDTH_MAX));
    }

    #[test]
    fn cutting_keeps_to_the_width() {
        for (text, width, short) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("日本語", 4, "日…"),
            ("", 1, ""),
            ("abc", 1, "…"),
            ("abc", 0, ""),
        ] {
            assert_eq!(cut(text, width), short);
        }
    }
}
