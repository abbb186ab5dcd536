//! Texts: rules and queries, cursors, configurations, the kernel's files, what is shown on a terminal.

use tocsin_collector::feed::Cursors;
use tocsin_collector::rules::{Template, parse_file};
use tocsin_promql::{Expr, Limits, MemorySource, instant, range};
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;

/// Small, so that a query that could be slow is refused instead.
const LIMITS: Limits = Limits { samples: 20_000, series: 500, steps: 20 };

fn source() -> MemorySource {
    let mut source = MemorySource::new();
    for host in ["a", "b"] {
        for (metric, scale) in [("up", 0.0), ("node_load1", 0.5), ("requests_total", 7.0)] {
            let labels = Labels::series(metric, &[("instance", host), ("le", "0.5")]);
            for step in 0..20 {
                let value = if step == 9 { f64::NAN } else { f64::from(step) * scale };
                source.push(&labels, Timestamp::from_millis(i64::from(step) * 15_000), value);
            }
        }
    }
    source
}

fn evaluate(expr: &Expr) {
    let source = source();
    let at = Timestamp::from_millis;
    instant(expr, &source, at(300_000), &LIMITS).ok();
    range(expr, &source, at(0), at(300_000), std::time::Duration::from_secs(30), &LIMITS).ok();
}

/// A rule file, and a query: read or refused, and what is read can be evaluated.
pub(super) fn rule_parse_eval(data: &[u8]) {
    let text = &String::from_utf8_lossy(data);
    if let Ok(expr) = Expr::parse(text) {
        evaluate(&expr);
    }
    let labels = Labels::series("up", &[("instance", "a")]);
    let expand = |template: &Template| {
        if let Ok(text) = template.expand(&labels, f64::NAN, &Labels::empty()) {
            assert!(text.len() <= tocsin_collector::rules::OUTPUT_BYTES_MAX);
        }
    };
    if let Ok(template) = Template::parse(text) {
        expand(&template);
    }
    if let Ok(file) = parse_file("fuzz.yml", text) {
        for rule in file.groups.iter().flat_map(|group| &group.rules) {
            evaluate(rule.expr.expr());
            rule.labels.iter().chain(&rule.annotations).for_each(|(_, template)| expand(template));
        }
    }
}

pub(super) fn rule_seeds() -> Vec<Vec<u8>> {
    let bundled = include_str!("../../../deploy/rules/host.yml");
    let file: String = bundled.lines().take(40).flat_map(|line| [line, "\n"]).collect();
    let texts = [
        file.as_str(),
        "groups: [{name: g, rules: [{alert: A, expr: 'up == 0', for: 5m, annotations: {s: '{{ $value | humanize }}'}}]}]",
        "sum by (instance) (rate(requests_total[5m])) / on (instance) group_left node_load1 offset 1m > bool 0.5",
        "histogram_quantile(0.9, requests_total) or absent(nothing) unless -up ^ 2 @ end()",
        "max_over_time(rate(requests_total{instance=~\"a|b.*\"}[1m])[5m:30s])",
        "topk(2, label_replace(up, \"x\", \"$1\", \"instance\", \"(.*)\"))",
        "{{ range query \"up\" }}{{ .Labels.instance }} {{ printf \"%.2f\" .Value }}{{ else }}none{{ end }}",
        "{{ if gt $value 1.0 }}{{ $labels.instance | toUpper | reReplaceAll \"(A)\" \"$1\" }}{{ end }}",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// A cursor: what is taken is what this store would have written.
pub(super) fn cursor_parse(data: &[u8]) {
    let (text, cursors) = (String::from_utf8_lossy(data), Cursors::new("a1-b2"));
    match cursors.read(&text, 1_000) {
        Ok(cursor) => assert_eq!(cursors.read(&cursors.write(cursor), 1_000), Ok(cursor)),
        Err(refused) => assert!(refused.to_string().len() < 4_096, "the refusal repeats all of it"),
    }
}

pub(super) fn cursor_seeds() -> Vec<Vec<u8>> {
    ["a1-b2-0", "a1-b2-1000", "a1-b2-1001", "a1-b2-snapshot", "c3-5", "", "-", "a1-b2-18446744073709551615"]
        .map(|text| text.as_bytes().to_vec())
        .into()
}

pub(super) fn config_parse(data: &[u8]) {
    let text = &String::from_utf8_lossy(data);
    let lines = text.lines().count() + 1;
    if let Err(mistakes) = tocsin_collector::config::parse(text) {
        assert!(!mistakes.is_empty() && mistakes.iter().all(|mistake| mistake.line <= lines));
    }
    tocsin_agent::config::Config::parse(text).ok();
}

pub(super) fn config_seeds() -> Vec<Vec<u8>> {
    let parts = |text: &str| -> Vec<Vec<u8>> {
        // Without comments, and in halves: a mutation shall hit a value.
        let lines: Vec<&str> =
            text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
        lines.chunks(lines.len() / 2 + 1).map(|half| half.join("\n").into_bytes()).collect()
    };
    let mut seeds = parts(include_str!("../../../deploy/collector.toml"));
    seeds.extend(parts(include_str!("../../../deploy/agent.toml")));
    seeds
}

pub(super) fn procfs_seeds() -> Vec<Vec<u8>> {
    let texts = [
        include_str!("../../../agent/src/collect/fixtures/proc/diskstats"),
        include_str!("../../../agent/src/collect/fixtures/proc/loadavg"),
        include_str!("../../../agent/src/collect/fixtures/proc/mdstat"),
        include_str!("../../../agent/src/collect/fixtures/proc/meminfo"),
        include_str!("../../../agent/src/collect/fixtures/proc/stat"),
        "nf_conntrack 5\nsockets: used 290\nTCP: inuse 6 orphan 0 tw 0 alloc 8 mem 1\n",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=123456\nfull avg10=0.1 total=5\n",
        "# TYPE m counter\n# HELP m help \\n\nm{a=\"b\\\"c\",le=\"+Inf\"} 1.5e3 1700000000000\nn NaN\n",
        "  lo: 100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0\n",
        "0000a3b1 00000000 00000001 00000000 00000000 00000000 00000000 00000000 00000000 00000000\n",
        "NAME=\"Debian GNU/Linux\"\nVERSION_ID='12'\nID=debian\n",
        "1 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25\n",
    ];
    texts.iter().map(|text| text.bytes().take(1_500).collect()).collect()
}

/// What is shown on a terminal cannot move its cursor, nor show another text than it is.
pub(super) fn render_tty(data: &[u8]) {
    let text = &String::from_utf8_lossy(data);
    let shown = tocsin_shared::sanitize::for_terminal(text);
    for c in shown.chars() {
        let hidden = matches!(c, '\u{7f}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        assert!((' ' <= c || c == '\n' || c == '\t') && !hidden, "{c:?} is shown");
    }
    assert_eq!(tocsin_shared::sanitize::for_terminal(&shown), shown, "what is clean stays");
}

pub(super) fn tty_seeds() -> Vec<Vec<u8>> {
    [
        "plain",
        "\u{1b}[2J\u{1b}]0;owned\u{7}",
        "user\u{202e}txt.exe\u{2066}",
        "\u{9b}31m\u{e0041}\r\n\t\u{200b}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}
