//! ⇄ `tocsin query`: asks for values now or over a range, and shows them in the form that was asked for.
//!
//! Promise: what the engine warns of goes to stderr, so that the output stays what it is. Without `--step` there is a
//! point for each column that shows it.

use std::time::Duration;

use tocsin_proto::pb;
use tocsin_shared::time::Timestamp;

use crate::arguments::{Query, time};
use crate::client::{Client, answer};
use crate::failure::Failure;
use crate::screen::{Format, Screen, Style, note};
use crate::view::query::{
    InstantView, RangeView, csv_of_instant, csv_of_range, draw_instant, draw_plot, draw_range,
    plain_of_instant, plain_of_range,
};

/// Points of a range when no step is given and no screen says how many are seen.
const RANGE_STEPS: usize = 60;
/// Lines on a terminal unless the caller says: some screens full, and never a minute of scrolling.
const LINES: usize = 100;
/// Steps that people would choose, in seconds.
const STEPS: [u64; 18] =
    [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400];
/// The range of a plot that names none.
const PLOT_SPAN: Duration = Duration::from_secs(3_600);
/// What a plot's axis takes of the terminal, about.
const AXIS_WIDTH: usize = 10;

/// When a query is evaluated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Span {
    /// `None`: the collector's now.
    Instant(Option<Timestamp>),
    Range {
        start: Timestamp,
        end: Timestamp,
        step_ms: i64,
    },
}

impl Span {
    /// Reads the times of the command line.
    pub(super) fn of(query: &Query, format: Format, style: &Style) -> Result<Self, Failure> {
        let now = style.now;
        let read = |text: &String| time(text, now).map_err(Failure::Usage);
        let start = match query.start.as_ref().map(read).transpose()? {
            None if query.plot => Some(now.minus(PLOT_SPAN)),
            start => start,
        };
        let Some(start) = start else {
            return Ok(Self::Instant(query.at.as_ref().map(read).transpose()?));
        };
        let end = query.end.as_ref().map(read).transpose()?.unwrap_or(now);
        if start > end {
            return Err(Failure::Usage(format!(
                "the range ends at {end} before it begins at {start}; exchange --start and --end"
            )));
        }
        let step = query.step.unwrap_or_else(|| step(end.since(start), points(query, format, style)));
        let step_ms = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
        Ok(Self::Range { start, end, step_ms })
    }
}

/// How many points are seen.
fn points(query: &Query, format: Format, style: &Style) -> usize {
    match (format, query.plot, style.width) {
        (Format::Table, true, width) => width.unwrap_or(80).saturating_sub(AXIS_WIDTH).max(RANGE_STEPS / 2),
        (Format::Table, false, Some(width)) => (width / 2).clamp(RANGE_STEPS / 2, RANGE_STEPS),
        _ => RANGE_STEPS,
    }
}

/// A step that people would choose, with at most so many points.
fn step(span: Duration, points: usize) -> Duration {
    let rough = span.as_secs().div_ceil(points as u64).max(1);
    let days = || rough.div_ceil(86_400) * 86_400;
    Duration::from_secs(STEPS.into_iter().find(|step| rough <= *step).unwrap_or_else(days))
}

/// Asks, and shows the answer.
pub(super) async fn query(client: &Client, screen: &Screen, query: Query, span: Span) -> Result<(), Failure> {
    let limit = match query.limit {
        Some(0) => usize::MAX,
        Some(limit) => limit,
        None if screen.style.width.is_some() => LINES,
        None => usize::MAX,
    };
    match span {
        Span::Instant(at) => {
            let at_ms = at.map(Timestamp::as_millis).unwrap_or_default();
            let request = pb::InstantRequest { query: query.expression, at_ms };
            let view: InstantView = answer(client.query().instant(request)).await?.into();
            warn(&view.warnings, &view.infos);
            screen.show(&view, |view, style| match screen.format {
                Format::Csv => csv_of_instant(view),
                Format::Plain => plain_of_instant(view),
                Format::Table | Format::Json => draw_instant(view, limit, style),
            })
        }
        Span::Range { start, end, step_ms } => {
            let (start_ms, end_ms) = (start.as_millis(), end.as_millis());
            let request = pb::RangeRequest { query: query.expression.clone(), start_ms, end_ms, step_ms };
            let view = RangeView::new(start, end, step_ms, client.range(request).await?);
            warn(&view.warnings, &view.infos);
            screen.show(&view, |view, style| match screen.format {
                Format::Csv => csv_of_range(view),
                Format::Plain => plain_of_range(view),
                _ if query.plot => draw_plot(view, &query.expression, style),
                Format::Table | Format::Json => draw_range(view, limit, style),
            })
        }
    }
}

/// Each says itself whether it is a warning or an info.
fn warn(warnings: &[String], infos: &[String]) {
    for text in warnings.iter().chain(infos) {
        note(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_one_that_people_would_choose() {
        for (span, points, expected) in [
            (3_600, 60, 60),
            (3_600, 70, 60),
            (600, 60, 10),
            (30, 60, 1),
            (0, 60, 1),
            (86_400, 60, 1_800),
            (86_400 * 400, 60, 86_400 * 7),
        ] {
            assert_eq!(
                step(Duration::from_secs(span), points),
                Duration::from_secs(expected),
                "{span} {points}"
            );
        }
    }

    #[test]
    fn a_plot_needs_no_start() {
        let style = Style::plain("2026-11-23T10:00:00Z".parse().unwrap());
        let query = |plot, start: Option<&str>| Query {
            expression: "up".into(),
            at: None,
            start: start.map(Into::into),
            end: None,
            step: None,
            plot,
            limit: None,
        };
        let wide = Style { width: Some(250), ..style };
        for (query, style, expected) in [
            (query(false, None), style, None),
            (query(true, None), style, Some((3_600, 60_000))),
            (query(true, Some("10m")), style, Some((600, 10_000))),
            (query(true, Some("10m")), wide, Some((600, 5_000))),
            (query(false, Some("1h")), style, Some((3_600, 60_000))),
        ] {
            let span = Span::of(&query, Format::Table, &style).unwrap();
            let got = match span {
                Span::Instant(_) => None,
                Span::Range { start, end, step_ms } => Some((end.since(start).as_secs(), step_ms)),
            };
            assert_eq!(got, expected, "{query:?}");
        }
        let backwards = Query { end: Some("2h".into()), ..query(false, Some("1h")) };
        assert_eq!(Span::of(&backwards, Format::Table, &style).unwrap_err().exit_code(), 2);
    }
}
