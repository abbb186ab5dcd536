//! Numbers that are none: they neither open an alert nor end one, whichever way a rule is put.

use tocsin_shared::alert::Condition;
use tocsin_shared::event::EventKind;

use super::tests::Bench;
use super::*;
use crate::journal::ledger;

/// The condition of the one alert: `-` none or inactive, `p` pending, `F` firing, `K` kept firing, `R` resolved.
fn letter(bench: &Bench) -> char {
    let alert = bench.ledger.read_blocking(|state| state.alerts().next().cloned()).unwrap();
    alert.map_or('-', |alert| match (alert.condition, alert.recovering_since) {
        (Condition::Pending, _) => 'p',
        (Condition::Firing, None) => 'F',
        (Condition::Firing, Some(_)) => 'K',
        (Condition::Resolved, _) => 'R',
        (Condition::Inactive, _) => '-',
    })
}

/// What `x` is: `x` breached, `.` clear, `n` no number.
fn value(letter: char) -> f64 {
    match letter {
        'x' => 2.0,
        'n' => f64::NAN,
        _ => 0.0,
    }
}

/// The conditions at ticks of 10 s. `|` restarts, `~` loads the rules anew.
fn play(rule: &str, timeline: &str) -> String {
    let rules =
        format!("  interval: 10s\n  rules:\n  - {{record: r, expr: 'x * 1'}}\n  - {{alert: A, {rule}}}\n");
    let mut bench = Bench::new(&rules);
    let (mut tick, mut conditions) = (0, String::new());
    for step in timeline.chars() {
        match step {
            '|' => bench.restart(),
            '~' => bench.reload(&rules),
            row => {
                bench.row(1, 10 * tick, [value(row), 0.0]);
                (tick, _) = (tick + 1, conditions.push(letter(&bench)));
            }
        }
    }
    conditions
}

// Cases: R4, C-S6
#[test]
fn no_number_neither_opens_nor_ends_an_alert() {
    const FOR: &str = ", for: 30s";
    const KEEP: &str = ", keep_firing_for: 20s";
    for expr in [
        "x > 1",
        "1 < x",
        "x != 0",
        "x * 2 > 1 + x",
        "x > 1 and y == 0",
        "y == 0 and on (instance) x > 1",
        "x > 1 or y > 5",
        "y == 0 unless x < 1",
        "x > 1 unless x > 5",
        "count by (instance) (x > 1) > 0",
        "max_over_time((x > 1)[10s:10s])",
        "r > 1",
        // Across hosts.
        "sum by (job) (x) > 1",
        "count(x > 1)",
        "absent(x < 1)",
        "vector(scalar(x)) > 1",
    ] {
        for (rest, timeline, conditions, why) in [
            ("", "nnx", "--F", "it opens nothing"),
            ("", "xn.", "FFR", "it ends nothing, and a number does"),
            ("", "xnnnnnx.", "FFFFFFFR", "however long"),
            ("", "xn|nn.", "FFFFR", "over a restart"),
            ("", "xn~nn.", "FFFFR", "with rules loaded anew"),
            ("", ".n.", "---", "nothing was, nothing is"),
            (FOR, "xxxx", "pppF", "with numbers"),
            (FOR, "xnnnnn", "pppppp", "it is no evidence for a wait"),
            (FOR, "xxnxx", "ppppF", "time without a number does not count"),
            (FOR, "xxxnx", "ppppF", "and starts nothing again"),
            (FOR, "xn.", "pp-", "a number ends the wait"),
            (KEEP, "x...", "FKKR", "with numbers"),
            (KEEP, "x.nnnn", "FKKKKK", "it is no recovery"),
            (KEEP, "x.n..", "FKKKR", "time without a number does not count there either"),
            (KEEP, "x.nx", "FKKF", "breached again"),
        ] {
            let rule = format!("expr: '{expr}'{rest}");
            assert_eq!(play(&rule, timeline), conditions, "{rule}: {timeline}: {why}");
        }
    }
}

// Cases: R4, C-S6
#[test]
fn who_wants_to_hear_of_no_number_can() {
    for (expr, timeline, conditions) in
        [("(x != bool x) == 1", "xnn.", "-FFR"), ("x > bool 1 == 1", "xn", "FR"), ("x", "n.", "-F")]
    {
        assert_eq!(play(&format!("expr: '{expr}'"), timeline), conditions, "{expr}");
    }
}

// Cases: R4
#[test]
fn extreme_numbers_are_numbers() {
    for (values, conditions) in [
        ([f64::INFINITY, 0.0, f64::INFINITY], "FRF"),
        ([f64::NEG_INFINITY, f64::NAN, f64::MAX], "--F"),
        ([9_007_199_254_740_993_u64 as f64, -0.0, f64::from_bits(1)], "FRR"),
    ] {
        let mut bench = Bench::new("  rules:\n  - {alert: A, expr: 'x > 1'}\n");
        let after = |(tick, value): (i64, &f64)| {
            bench.row(1, 10 * tick, [*value, 0.0]);
            letter(&bench)
        };
        assert_eq!((0..).zip(&values).map(after).collect::<String>(), conditions, "{values:?}");
    }
}

// Cases: R4, C-S6
#[test]
fn no_number_says_as_little_among_late_rows() {
    for (late, last, told, condition, why) in [
        ("xn", 'n', "T", 'F', "what fired among late rows fires"),
        ("x.", 'n', "L", 'R', "what ended among them has ended"),
        ("nn", 'n', "", '-', "nothing was"),
        ("xn", '.', "L", 'R', "a number of now ends it"),
    ] {
        let mut bench = Bench::new("  rules:\n  - {alert: A, expr: 'x > 1'}\n");
        bench.row(1, 0, [0.0, 0.0]);
        let newest = bench.append(1, 30, [value(last), 0.0]);
        bench.evaluator.row(DurableRow { follows: false, complete: false, ..newest }).unwrap();
        for (tick, letter) in (1..).zip(late.chars()) {
            let row = bench.append(1, 10 * tick, [value(letter), 0.0]);
            bench.evaluator.row(DurableRow { complete: tick == 2, ..row }).unwrap();
        }
        while bench.evaluator.has_late_rows() {
            bench.evaluator.fill(1).unwrap();
        }
        assert_eq!(
            (public(&bench).as_str(), letter(&bench)),
            (told, condition),
            "{late} before {last}: {why}"
        );
    }
}

/// What people were told of alerts: `T` triggered, `R` resolved, `L` late.
fn public(bench: &Bench) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    bench.ledger.read_blocking(|_| ()).unwrap(); // All that was posted before is decided then.
    let mut reader = runtime.block_on(bench.ledger.reader()).unwrap();
    let mut told = String::new();
    while let Some(entry) = reader.next().unwrap() {
        told.extend(match ledger::decode(&entry.payload, entry.seq).unwrap().kind {
            EventKind::AlertTriggered => Some('T'),
            EventKind::AlertResolved => Some('R'),
            EventKind::AlertLate => Some('L'),
            _ => None,
        });
    }
    told
}
