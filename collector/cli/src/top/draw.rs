//! How the screen looks: a title, the rows that fit, the details of one host, the keys.
//!
//! Columns leave in the order of their worth when the terminal is narrow. Everything foreign passes `clean`. Only rows in
//! the window are drawn, so that thousands of hosts cost no more than a screen.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use tocsin_proto::pb;
use tocsin_shared::time::Timestamp;
use unicode_width::UnicodeWidthStr as _;

use super::metric::Metric;
use super::model::{Model, Row};
use super::order::Order;
use crate::figures;
use crate::screen::clean;
use crate::table::cut;

/// Lines beside the rows: title, what is shown, headings, keys.
pub(super) const ROWS_AROUND: u16 = 4;
/// Lines of the details, and how many rows stay above them at least.
const DETAILS: u16 = 12;
const ROWS_MIN: u16 = 4;
/// The name of a host is not cut shorter than this while other columns can leave.
const NAME_MIN: usize = 12;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const BARS_ASCII: [char; 8] = ['_', '.', '-', '~', '=', '+', '*', '#'];
/// From these percentages on somebody should look, and somebody has to act.
const HIGH: f64 = 75.0;
const FULL: f64 = 90.0;

/// What the terminal shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looks {
    pub(super) colour: bool,
    pub(super) unicode: bool,
}

impl Looks {
    fn of(self, color: Color) -> Style {
        if self.colour { Style::new().fg(color) } else { Style::new() }
    }

    fn bad(self) -> Style {
        self.of(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn faint(self) -> Style {
        if self.colour { Style::new().add_modifier(Modifier::DIM) } else { Style::new() }
    }

    fn level(self, percent: Option<f64>) -> Style {
        match percent {
            Some(percent) if percent >= FULL => self.bad(),
            Some(percent) if percent >= HIGH => self.of(Color::Yellow),
            _ => Style::new(),
        }
    }

    fn severity(self, severity: pb::Severity) -> Style {
        match severity {
            pb::Severity::Critical | pb::Severity::Error => self.bad(),
            pb::Severity::Warning => self.of(Color::Yellow),
            pb::Severity::Info | pb::Severity::Unspecified => Style::new(),
        }
    }
}

/// A column: heading, width, aligned to the right, and its place in the order in which columns stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Column {
    title: &'static str,
    width: usize,
    right: bool,
    worth: u8,
}

const fn column(title: &'static str, width: usize, right: bool, worth: u8) -> Column {
    Column { title, width, right, worth }
}

/// After the host's name, in this order.
const COLUMNS: [Column; 10] = [
    column("ENV", 4, false, 5),
    column("STATE", 7, false, 10),
    column("LOAD", 6, true, 4),
    column("CPU", 4, true, 7),
    column("MEM", 4, true, 6),
    column("FS", 4, true, 8),
    column("BUSY", 4, true, 2),
    column("NET/s", 6, true, 1),
    column("ALERTS", 6, true, 9),
    column("INCIDENT", 8, true, 3),
];

/// The columns that fit beside a name.
fn columns(width: usize) -> Vec<Column> {
    let mut columns = COLUMNS.to_vec();
    let taken = |columns: &[Column]| columns.iter().map(|column| column.width + 1).sum::<usize>();
    while taken(&columns) + NAME_MIN > width
        && let Some(least) = columns.iter().map(|column| column.worth).min()
    {
        columns.retain(|column| column.worth != least);
    }
    columns
}

/// Draws everything; moves the window of rows so that the cursor is in it.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, order: &mut Order, looks: Looks, now: Timestamp) {
    let area = frame.area();
    let rows = order.rows(model);
    let keys = u16::from(!order.once);
    let details = order.details && !rows.is_empty() && area.height >= ROWS_AROUND + ROWS_MIN + DETAILS / 2;
    let details = if details { DETAILS.min(area.height - ROWS_AROUND - ROWS_MIN) } else { 0 };
    let page = area.height.saturating_sub(ROWS_AROUND - 1 + keys + details);
    let cursor = order.cursor(&rows);
    order.scroll(cursor, rows.len(), usize::from(page));
    let width = usize::from(area.width);
    let mut lines = vec![title(model, width, looks, now), shown(model, order, rows.len(), looks)];
    let columns = columns(width);
    lines.push(headings(&columns, width));
    for (number, row) in rows.iter().enumerate().skip(order.offset).take(usize::from(page)) {
        let mut line = line(row, &columns, width, looks);
        if number == cursor && !order.once {
            line = line.patch_style(Style::new().add_modifier(Modifier::REVERSED));
        } else if model.lost.is_some() {
            line = line.patch_style(looks.faint());
        }
        lines.push(line);
    }
    for (at, line) in (area.y..area.bottom()).zip(&lines) {
        frame.render_widget(line, Rect { y: at, height: 1, ..area });
    }
    if let Some(row) = rows.get(cursor).filter(|_| details > 0) {
        let top = area.bottom() - keys - details;
        for (at, line) in (top..top + details).zip(self::details(model, row, width, looks, now)) {
            frame.render_widget(line, Rect { y: at, height: 1, ..area });
        }
    }
    if keys > 0 && area.height >= ROWS_AROUND {
        frame.render_widget(help(order, width, looks), Rect { y: area.bottom() - 1, height: 1, ..area });
    }
}

fn title(model: &Model, width: usize, looks: Looks, now: Timestamp) -> Line<'static> {
    let all = model.hosts.as_ref().map_or(0, std::collections::BTreeMap::len);
    let silent =
        model.hosts.iter().flat_map(|hosts| hosts.values()).filter(|host| host.state == "unreachable");
    let silent = silent.count();
    let firing: u64 =
        model.hosts.iter().flat_map(|hosts| hosts.values()).map(|host| u64::from(host.alerts)).sum();
    let incidents = model.open_incidents;
    let some = |count: bool| if count { looks.bad() } else { Style::new() };
    let strong = Style::new().add_modifier(Modifier::BOLD);
    let mut spans = vec![
        Span::styled(figures::counted(all as u64, "host"), strong),
        Span::styled(format!("  {silent} unreachable"), some(silent > 0)),
        Span::styled(format!("  {} firing", figures::counted(firing, "alert")), some(firing > 0)),
        Span::styled(format!("  {}", figures::counted(incidents as u64, "incident")), some(incidents > 0)),
    ];
    let said: usize = spans.iter().map(Span::width).sum();
    let clock = figures::seconds(now);
    let place = format!("{}  {clock}", clean(&model.endpoint));
    let right = [place, clock].into_iter().find(|text| said + 2 + text.width() <= width);
    if let Some(right) = right {
        spans.push(Span::raw(format!("{:>1$}", right, width - said)));
    }
    Line::from(spans)
}

/// What is shown of it; or why nothing new comes.
fn shown(model: &Model, order: &Order, rows: usize, looks: Looks) -> Line<'static> {
    if let Some(reason) = &model.lost {
        return Line::styled(format!("not connected, this is old: {}", clean(reason)), looks.bad());
    }
    if model.hosts.is_none() {
        return Line::styled("asking the collector …", looks.faint());
    }
    let mut text = format!("by {}", order.by.name());
    if order.reversed {
        text.push_str(", reversed");
    }
    if let Some(env) = &order.env {
        text.push_str(&format!("  env {env}"));
    }
    if order.typing {
        text.push_str(&format!("  filter: {}_", clean(&order.text)));
    } else if !order.text.is_empty() {
        text.push_str(&format!("  filter \"{}\"", clean(&order.text)));
    }
    if order.env.is_some() || !order.text.is_empty() {
        text.push_str(&format!("  {} shown", figures::count(rows as u64)));
    }
    if order.offset > 0 {
        text.push_str(&format!("  from {}", figures::count(order.offset as u64 + 1)));
    }
    Line::styled(text, looks.faint())
}

fn headings(columns: &[Column], width: usize) -> Line<'static> {
    let mut text = pad("HOST", name_width(columns, width), false);
    for column in columns {
        text.push(' ');
        text.push_str(&pad(column.title, column.width, column.right));
    }
    Line::styled(text, Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED))
}

fn name_width(columns: &[Column], width: usize) -> usize {
    let taken: usize = columns.iter().map(|column| column.width + 1).sum();
    width.saturating_sub(taken).clamp(1, 60)
}

fn line(row: &Row<'_>, columns: &[Column], width: usize, looks: Looks) -> Line<'static> {
    let mut spans = vec![Span::raw(pad(&clean(&row.host.instance), name_width(columns, width), false))];
    for column in columns {
        let (text, style) = cell(row, column, looks);
        spans.push(Span::raw(" "));
        spans.push(Span::styled(pad(&text, column.width, column.right), style));
    }
    Line::from(spans)
}

fn cell(row: &Row<'_>, column: &Column, looks: Looks) -> (String, Style) {
    let percent = |metric| {
        let value = row.figure(metric);
        (value.map(|value| format!("{value:.0}%")).unwrap_or_default(), looks.level(value))
    };
    let host = row.host;
    match column.title {
        "ENV" => (clean(&host.env), Style::new()),
        "STATE" => match host.state.as_str() {
            "online" => ("up".into(), looks.of(Color::Green)),
            "unreachable" => ("UNREACH".into(), looks.bad()),
            "pending" => ("new".into(), looks.of(Color::Yellow)),
            other => (clean(other), looks.faint()),
        },
        "LOAD" => {
            (row.figure(Metric::Load).map(|load| format!("{load:.2}")).unwrap_or_default(), Style::new())
        }
        "CPU" => percent(Metric::Cpu),
        "MEM" => percent(Metric::Memory),
        "FS" => percent(Metric::Filesystem),
        "BUSY" => percent(Metric::Busy),
        "NET/s" => (row.network().map(short_bytes).unwrap_or_default(), Style::new()),
        "ALERTS" if host.alerts > 0 => {
            let worst = row.alerts.first().map_or(pb::Severity::Warning, |alert| alert.severity);
            (host.alerts.to_string(), looks.severity(worst))
        }
        "INCIDENT" => match row.incidents {
            [] => Default::default(),
            [worst, rest @ ..] => {
                let more = if rest.is_empty() { "" } else { "+" };
                let style = if worst.acknowledged { looks.of(Color::Yellow) } else { looks.bad() };
                (format!("P{} #{}{more}", worst.priority, worst.number), style)
            }
        },
        _ => Default::default(),
    }
}

/// `812`, `1.2K`, `34M`: at most five columns.
fn short_bytes(count: f64) -> String {
    let (mut size, mut names) = (count.max(0.0), ["", "K", "M", "G", "T", "P"].into_iter());
    let mut name = names.next().unwrap_or("");
    while size >= 999.5 {
        let Some(next) = names.next() else { break };
        (size, name) = (size / 1024.0, next);
    }
    let digits = usize::from(size < 9.95 && !name.is_empty());
    format!("{size:.digits$}{name}")
}

fn pad(text: &str, width: usize, right: bool) -> String {
    let text = cut(text, width);
    let gap = " ".repeat(width.saturating_sub(text.width()));
    if right { gap + &text } else { text + &gap }
}

/// The host under the cursor: its last hour on the left, what is wrong with it on the right or below.
fn details(model: &Model, row: &Row<'_>, width: usize, looks: Looks, now: Timestamp) -> Vec<Line<'static>> {
    let host = row.host;
    let age = |at: Timestamp| figures::age(now.max(at), at);
    let head = format!(
        " {}  {} for {}  {} ",
        clean(&host.instance),
        clean(&host.state),
        age(host.state_since),
        clean(&host.labels)
    );
    let fill = if looks.unicode { "─" } else { "-" };
    let head = cut(&head, width.saturating_sub(2));
    let rule = format!("{fill}{fill}{head}{}", fill.repeat(width.saturating_sub(2 + head.width())));
    let left = if width >= 100 { width / 2 } else { width };
    let curves = curves(model, row, left, looks);
    let wrong = wrong(model, row, if width >= 100 { width - left } else { width }, looks, age);
    let mut lines = vec![Line::styled(rule, Style::new().add_modifier(Modifier::BOLD))];
    if width < 100 {
        // What is wrong comes first: it must not be cut off.
        lines.extend(wrong);
        lines.extend(curves);
        return lines;
    }
    let (mut curves, mut wrong) = (curves.into_iter(), wrong.into_iter());
    loop {
        let (curve, wrong) = (curves.next(), wrong.next());
        if curve.is_none() && wrong.is_none() {
            return lines;
        }
        let curve = curve.unwrap_or_default();
        let gap = " ".repeat(left.saturating_sub(curve.width()));
        let spans = curve.spans.into_iter().chain([Span::raw(gap)]).chain(wrong.unwrap_or_default().spans);
        lines.push(Line::from(spans.collect::<Vec<_>>()));
    }
}

fn curves(model: &Model, row: &Row<'_>, width: usize, looks: Looks) -> Vec<Line<'static>> {
    const NAME: usize = 11;
    const VALUE: usize = 13;
    let room = width.saturating_sub(NAME + VALUE + 4).min(60);
    let curve = |metric: Metric| {
        let now = row.figure(metric);
        let drawn = sparkline(model.past(&row.host.instance, metric), room, metric, looks);
        Line::from(vec![
            Span::styled(pad(metric.name(), NAME, false), looks.faint()),
            Span::styled(
                pad(&now.map(|value| metric.shown(value)).unwrap_or_default(), VALUE, true),
                if percent_of(metric) { looks.level(now) } else { Style::new() },
            ),
            Span::raw("  "),
            Span::styled(drawn, looks.of(Color::Cyan)),
        ])
    };
    Metric::DRAWN.into_iter().map(curve).collect()
}

fn percent_of(metric: Metric) -> bool {
    matches!(metric, Metric::Cpu | Metric::Memory | Metric::Filesystem | Metric::Busy)
}

/// The newest values that fit; percentages from 0 to 100, others from 0 to the highest.
fn sparkline(values: &[f64], width: usize, metric: Metric, looks: Looks) -> String {
    let values = &values[values.len().saturating_sub(width)..];
    let highest = values.iter().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
    let top = if percent_of(metric) { 100.0 } else { highest.max(f64::MIN_POSITIVE) };
    let bars = if looks.unicode { BARS } else { BARS_ASCII };
    let bar = |value: &f64| match value.is_finite() {
        true => bars[((value / top * 7.0).round().clamp(0.0, 7.0)) as usize],
        false => ' ',
    };
    values.iter().map(bar).collect()
}

fn wrong(
    model: &Model,
    row: &Row<'_>,
    width: usize,
    looks: Looks,
    age: impl Fn(Timestamp) -> String,
) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> = Vec::new();
    let mut say = |text: String, style: Style| lines.push(Line::styled(cut(&text, width), style));
    for incident in row.incidents {
        let handled = if incident.acknowledged { "acknowledged " } else { "" };
        let style = if incident.acknowledged { looks.of(Color::Yellow) } else { looks.bad() };
        say(
            format!("P{} INC-{} {handled}{}", incident.priority, incident.number, clean(&incident.title)),
            style,
        );
    }
    for alert in row.alerts {
        let severity = crate::view::word(alert.severity.as_str_name(), "SEVERITY_");
        let text =
            format!("{severity} {} for {}: {}", clean(&alert.name), age(alert.since), clean(&alert.summary));
        say(text, looks.severity(alert.severity));
    }
    for job in model.jobs(&row.host.instance) {
        let good = job.result.starts_with("succeeded") || job.result.starts_with("running");
        let style = if good { looks.faint() } else { looks.of(Color::Yellow) };
        say(format!("job {} {} {} ago", clean(&job.name), clean(&job.result), age(job.at)), style);
    }
    if lines.is_empty() {
        lines.push(Line::styled("nothing is wrong here", looks.faint()));
    }
    lines
}

fn help(order: &Order, width: usize, looks: Looks) -> Line<'static> {
    let text = if order.typing {
        "type to filter  Enter keep  Esc clear"
    } else {
        const LONG: &str = "q quit  Enter details  / filter  e env  r reverse  sort: p problems n name l load c cpu m mem f fs d disk w net a alerts";
        const SHORT: &str = "q quit  Enter details  / filter  e env  r reverse  sort p n l c m f d w a";
        if LONG.width() <= width { LONG } else { SHORT }
    };
    Line::styled(cut(text, width), looks.faint())
}
