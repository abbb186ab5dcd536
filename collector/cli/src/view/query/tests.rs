//! Golden screens of queries, wide and narrow, and the forms for programs.

use tocsin_proto::pb;
use tocsin_shared::time::Timestamp;
use unicode_width::UnicodeWidthStr as _;

use super::*;
use crate::screen::{Style, json};
use crate::view::tests::golden;

const NOW: i64 = 1_795_428_770_000; // 2026-11-23T10:12:50Z
const HOUR: i64 = 3_600_000;

fn style(width: Option<usize>) -> Style {
    Style { unicode: true, width, ..Style::plain(Timestamp::from_millis(NOW)) }
}

fn series(text: &str, points: Vec<pb::Point>) -> pb::PointSeries {
    let label = |part: &str| {
        let (name, value) = part.split_once('=').unwrap();
        pb::Label { name: name.into(), value: value.into() }
    };
    pb::PointSeries { labels: text.split_whitespace().map(label).collect(), points }
}

fn now(value: f64) -> Vec<pb::Point> {
    vec![pb::Point { at_ms: NOW, value }]
}

/// A wave over the last hour with a hole in it.
fn wave(height: f64, phase: f64) -> Vec<pb::Point> {
    let point = |at: i64| pb::Point {
        at_ms: NOW - HOUR + at * 60_000,
        value: height * ((at as f64 + phase) / 6.0).sin(),
    };
    (0..=60).filter(|at| !(20..25).contains(at)).map(point).collect()
}

fn instant(result_type: &str, series: Vec<pb::PointSeries>, text: &str) -> InstantView {
    let (result_type, text) = (result_type.to_owned(), text.to_owned());
    pb::InstantResponse { at_ms: NOW, result_type, series, text, ..Default::default() }.into()
}

fn range(series: Vec<pb::PointSeries>) -> RangeView {
    let at = Timestamp::from_millis;
    let answer = pb::RangeResponse { series, ..Default::default() };
    RangeView::new(at(NOW - HOUR), at(NOW), 60_000, answer)
}

fn disks() -> InstantView {
    let disk = |host: &str, mount: &str, value| {
        let labels = format!(
            "__name__=node_filesystem_avail_bytes device=/dev/sda1 env=prod instance={host} job=node mountpoint={mount}"
        );
        series(&labels, now(value))
    };
    instant(
        "vector",
        vec![
            disk("db-1", "/", 12e9),
            disk("db-1", "/var/lib/postgresql", 3.5),
            disk("web-日本", "/", f64::NAN),
        ],
        "",
    )
}

macro_rules! golden {
    ($name:literal, $drawn:expr) => {
        golden($name, &$drawn, include_str!(concat!("../golden/", $name)))
    };
}

#[test]
fn labels_that_tell_series_apart_are_columns() {
    let all = usize::MAX;
    golden!("query-columns.txt", draw_instant(&disks(), all, &style(Some(80))));
    golden!("query-narrow.txt", draw_instant(&disks(), all, &style(Some(40))));
    golden!("query-limited.txt", draw_instant(&disks(), 2, &style(None)));
    let unlike: Vec<pb::PointSeries> =
        ["a=1", "b=1", "c=1", "d=1"].into_iter().map(|text| series(text, now(1.0))).collect();
    let drawn = draw_instant(&instant("vector", unlike, ""), all, &style(None));
    assert!(drawn.starts_with("VALUE  SERIES\n    1  {a=\"1\"}\n"), "{drawn}");
    let hostile = series("instance=a\u{1b}[2J \u{1b}x=\u{202e}y", now(1.0));
    let drawn = draw_instant(&instant("vector", vec![hostile], ""), all, &style(None));
    assert!(!drawn.contains(['\u{1b}', '\u{202e}']), "{drawn:?}");
}

#[test]
fn other_results_are_what_they_are() {
    for (view, drawn) in [
        (instant("scalar", vec![series("", now(0.1))], ""), "0.1\n"),
        (instant("string", Vec::new(), "a\u{1b}b"), "a\\u{1b}b\n"),
        (instant("matrix", vec![series("", now(2.0))], ""), "{}\n  2026-11-23T10:12:50.000Z  2\n"),
        (instant("vector", vec![series("", now(3.0))], ""), "VALUE\n    3\n2026-11-23T10:12:50Z\n"),
        (
            instant("vector", Vec::new(), ""),
            "no series matches; look at the name and the labels, or further back with --start\n",
        ),
    ] {
        assert_eq!(draw_instant(&view, usize::MAX, &style(Some(80))), drawn);
    }
    golden!("query.json", json(&instant("vector", vec![series("", now(f64::NAN))], ""), true).unwrap());
}

#[test]
fn ranges_are_a_line_a_series() {
    let load = |host: &str, height, phase| {
        series(&format!("__name__=node_load1 env=prod instance={host}"), wave(height, phase))
    };
    let view = range(vec![load("web-1", 1.0, 0.0), load("web-2", 120.0, 9.0)]);
    golden!("range.txt", draw_range(&view, usize::MAX, &style(None)));
    golden!("range-wide.txt", draw_range(&view, usize::MAX, &style(Some(120))));
    golden!("range-narrow.txt", draw_range(&view, 1, &style(Some(60))));
    let ascii = Style { unicode: false, ..style(None) };
    let drawn = draw_range(&view, usize::MAX, &ascii);
    assert!(drawn.is_ascii(), "{drawn}");
}

#[test]
fn plots_have_axes_units_and_a_legend() {
    let load = |host: &str, height, phase| {
        series(&format!("__name__=node_load1 env=prod instance={host}"), wave(height, phase))
    };
    let one = range(vec![load("web-1", 2.0, 0.0)]);
    let two = range(vec![load("web-1", 2.0, 0.0), load("web-2", 1.0, 9.0)]);
    let memory = wave(3e9, 0.0).into_iter().map(|point| pb::Point { value: point.value + 8e9, ..point });
    let memory =
        range(vec![series("__name__=node_memory_MemAvailable_bytes instance=db-1", memory.collect())]);
    golden!("plot.txt", draw_plot(&one, "node_load1", &style(Some(80))));
    golden!("plot-letters.txt", draw_plot(&two, "node_load1", &Style { unicode: false, ..style(Some(60)) }));
    golden!("plot-bytes.txt", draw_plot(&memory, "node_memory_MemAvailable_bytes", &style(None)));
    let many: Vec<pb::PointSeries> =
        (0..2_000).map(|number| load(&format!("web-{number}"), f64::from(number), 0.0)).collect();
    let drawn = draw_plot(&range(many), "node_load1", &style(Some(100)));
    assert!(drawn.contains("web-1999") && !drawn.contains("web-1993 "), "{drawn}");
    assert!(drawn.contains("1,994 more are not drawn"), "{drawn}");
    let colours = draw_plot(&two, "node_load1", &Style { colour: true, ..style(Some(80)) });
    assert!(colours.contains("\u{1b}[36m") && colours.contains("\u{1b}[33m"), "{colours:?}");
}

#[test]
fn every_plot_fits_and_is_never_a_panic() {
    let flat = |value: f64| range(vec![series("instance=a", now(value))]);
    for value in [0.0, 1.0, -1.0, 1e-300, 1e300, -1e18, 5e-324, f64::MAX, f64::MIN, f64::NAN, f64::INFINITY] {
        for width in [None, Some(1), Some(40), Some(80), Some(400)] {
            let drawn = draw_plot(&flat(value), "x", &style(width));
            let most = width.unwrap_or(80).max(40);
            let plane = drawn.lines().take(15).map(|line| line.width()).max().unwrap_or(0);
            assert!(plane <= most || !value.is_finite(), "{value} {width:?}: {plane}\n{drawn}");
        }
    }
    let both = range(vec![
        series("instance=a", vec![pb::Point { at_ms: NOW - HOUR, value: f64::MIN }]),
        series("instance=b", now(f64::MAX)),
    ]);
    draw_plot(&both, "x", &style(Some(80)));
    assert_eq!(draw_plot(&range(vec![]), "x", &style(None)), draw::NO_SERIES);
}

#[test]
fn programs_get_every_point() {
    let mut view = disks();
    view.series[1].labels.insert("note".into(), "=cmd|' /C calc'!A0, \"x\"".into());
    assert_eq!(
        csv_of_instant(&view),
        "__name__,device,env,instance,job,mountpoint,note,time,value\n\
         node_filesystem_avail_bytes,/dev/sda1,prod,db-1,node,/,,2026-11-23T10:12:50.000Z,12000000000\n\
         node_filesystem_avail_bytes,/dev/sda1,prod,db-1,node,/var/lib/postgresql,\
         \"'=cmd|' /C calc'!A0, \"\"x\"\"\",2026-11-23T10:12:50.000Z,3.5\n\
         node_filesystem_avail_bytes,/dev/sda1,prod,web-日本,node,/,,2026-11-23T10:12:50.000Z,NaN\n"
    );
    assert_eq!(csv_of_instant(&instant("string", vec![], "-1")), "value\n'-1\n");
    assert_eq!(
        csv_of_instant(&instant("scalar", vec![series("", now(-1.0))], "")),
        "time,value\n2026-11-23T10:12:50.000Z,-1\n"
    );
    assert_eq!(csv_of_range(&range(vec![])), "time,value\n");
    let two = range(vec![series("__name__=up instance=a", wave(0.0, 0.0).drain(..2).collect())]);
    assert_eq!(
        plain_of_range(&two),
        "up{instance=\"a\"} 0 1795425170000\nup{instance=\"a\"} 0 1795425230000\n"
    );
    assert_eq!(csv_of_range(&two).lines().count(), 3);
    assert_eq!(plain_of_instant(&instant("string", vec![], "a\u{1b}")), "a\\u{1b}\n");
    assert_eq!(
        plain_of_instant(&instant("scalar", vec![series("", now(2.0))], "")),
        format!("{{}} 2 {NOW}\n")
    );
}
