//! What becomes of an alert and its incident when its rule is changed, renamed or taken away.

use tocsin_shared::alert::Condition;

use super::tests::Bench;
use super::*;

/// Each alert as `name:condition`, `p` pending, `F` firing, `R` resolved; with its severity if that is no warning.
fn alerts(bench: &Bench) -> String {
    let alerts: Vec<Alert> = bench.ledger.read_blocking(|state| state.alerts().cloned().collect()).unwrap();
    let told = alerts.iter().map(|alert| {
        let condition = match alert.condition {
            Condition::Pending => 'p',
            Condition::Firing => 'F',
            Condition::Resolved => 'R',
            Condition::Inactive => 'i',
        };
        let name = alert.labels.get("alertname").unwrap_or_default();
        let more: Vec<&str> =
            ["team"].iter().filter_map(|label| alert.labels.get(label)).chain(severity(alert)).collect();
        format!("{name}:{condition}{}", more.iter().map(|more| format!(" {more}")).collect::<String>())
    });
    let mut told: Vec<String> = told.collect();
    told.sort();
    told.join(", ")
}

fn severity(alert: &Alert) -> Option<&str> {
    Some(alert.severity.as_str()).filter(|severity| *severity != "warning")
}

/// Each incident: `open`, or the code it was resolved with.
fn incidents(bench: &Bench) -> String {
    let read = |state: &crate::state::State| {
        let told = state.incidents().map(|incident| match &incident.resolution {
            None => "open".to_owned(),
            Some(resolution) => resolution.code.clone(),
        });
        told.collect::<Vec<_>>().join(", ")
    };
    bench.ledger.read_blocking(read).unwrap()
}

/// Rows of 10 s under the old rules and then under the new ones: `x` breached, `.` clear. What is left at the end.
fn play(old: &str, rows: &str, new: &str, more: &str) -> (String, String) {
    let rules_of = |rule: &str| match rule {
        "" => "  rules: []\n".to_owned(),
        rule => format!("  rules:\n  - {{{rule}}}\n"),
    };
    let mut bench = Bench::new(&rules_of(old));
    for (tick, row) in (0..).zip(rows.chars().chain(more.chars())) {
        if tick == rows.len() as i64 {
            bench.reload(&rules_of(new));
        }
        bench.row(1, 10 * tick, [if row == 'x' { 2.0 } else { 0.0 }, 0.0]);
    }
    (alerts(&bench), incidents(&bench))
}

// Cases: R1, R3, C-S5
#[test]
fn a_rule_that_changes_takes_its_alerts_along_and_one_that_goes_ends_them() {
    const A: &str = "alert: A, expr: 'x > 1'";
    const B: &str = "alert: B, expr: 'x > 1'";
    for (old, rows, new, more, left, incident, why) in [
        // `for`
        (", for: 60s", "xxx", ", for: 30s", "x", "A:F", "open", "lowered: it has waited long enough"),
        (", for: 60s", "xxx", ", for: 40s", "x", "A:p", "", "lowered: not yet"),
        (", for: 60s", "xxx", ", for: 40s", "xx", "A:F", "open", "lowered: since its first row"),
        (", for: 30s", "xxx", ", for: 60s", "xxx", "A:p", "", "raised: it waits longer"),
        (", for: 30s", "xxx", ", for: 60s", "xxxx", "A:F", "open", "raised: since its first row"),
        (", for: 20s", "xxx", ", for: 60s", "x", "A:F", "open", "raised: what fires fires"),
        (", for: 20s", "xxx", ", for: 60s", ".", "A:R", "open", "and ends as ever"),
        (", for: 60s", "xxx", "", "x", "A:F", "open", "taken away"),
        // `keep_firing_for`
        (", keep_firing_for: 60s", "x..", "", ".", "A:R", "open", "taken away: it has recovered"),
        ("", "x", ", keep_firing_for: 60s", "..", "A:F", "open", "set: it recovers"),
        // labels and annotations
        ("", "x", ", labels: {severity: critical}", "x", "A:F critical", "open", "worse: the same alert"),
        (", labels: {severity: critical}", "x", "", "x", "A:F", "open", "less bad: the same alert"),
        (
            ", for: 20s",
            "xx",
            ", for: 20s, labels: {severity: critical}",
            "x",
            "A:F critical",
            "open",
            "while it waits",
        ),
        ("", "x", ", labels: {team: bank}", "x", "A:F bank", "open", "a label: the same alert"),
        ("", "x", ", annotations: {summary: other}", "x", "A:F", "open", "a text: the same alert"),
    ] {
        let got = play(&format!("{A}{old}"), rows, &format!("{A}{new}"), more);
        assert_eq!(got, (left.to_owned(), incident.to_owned()), "{old} to {new}: {why}");
    }
    for (old, rows, new, more, left, incidents, why) in [
        // The expression.
        (A, "x", "alert: A, expr: 'x > 5'", "x", "A:R", "open", "no longer so: the row says it"),
        (A, "x", "alert: A, expr: 'x > 0'", "x", "A:F", "open", "still so: the same alert"),
        // Gone, or under another name, which is another rule.
        (A, "x", "", ".", "A:R", "rule_removed", "gone while it fires"),
        ("alert: A, expr: 'x > 1', for: 60s", "x", "", ".", "", "", "gone while it waits"),
        (A, "x", B, "x", "A:R, B:F", "rule_removed, open", "renamed: another alert"),
        (
            "alert: A, expr: 'x > 1', for: 30s",
            "xxx",
            "alert: B, expr: 'x > 1', for: 30s",
            "x",
            "B:p",
            "",
            "renamed: another wait",
        ),
        (A, "x", B, ".", "A:R", "rule_removed", "renamed, and clear"),
    ] {
        assert_eq!(play(old, rows, new, more), (left.to_owned(), incidents.to_owned()), "{why}");
    }
}

// Cases: R1, C-S5
#[test]
fn an_evaluation_that_has_begun_ends_with_the_rules_it_began_with() {
    let rules = |v: usize| {
        let rule = |name: &str| format!("  - {{alert: {name}, expr: 'x > 1', labels: {{v: v{v}}}}}\n");
        format!("  rules:\n{}{}{}", rule("A"), rule("B"), rule("C"))
    };
    let mut bench = Bench::new(&rules(0));
    let (plan, done) = (bench.plan.clone(), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let over = done.clone();
    let reader = std::thread::spawn(move || {
        let texts = [rules(0), rules(1)];
        let mut loads = 0;
        while !over.load(std::sync::atomic::Ordering::Relaxed) {
            super::tests::reload(&plan, &texts[loads % 2]);
            loads += 1;
        }
        loads
    });
    let mut versions = std::collections::BTreeSet::new();
    let mut tick = 0;
    while versions.len() < 2 || tick < 300 {
        bench.row(1, 10 * tick, [2.0, 0.0]);
        let read = |state: &crate::state::State| {
            let labels = state.alerts().map(|alert| alert.labels.get("v").unwrap_or_default().to_owned());
            labels.collect::<std::collections::BTreeSet<_>>()
        };
        let of_row = bench.ledger.read_blocking(read).unwrap();
        assert_eq!(of_row.len(), 1, "rules of two loads over one row: {of_row:?}");
        versions.extend(of_row);
        tick += 1;
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(reader.join().unwrap() > 1);
}

// Cases: R3, C-S5
#[test]
fn an_alert_and_its_incident_outlive_a_change_and_nobody_hears_of_them_twice() {
    let rules = |rest: &str| format!("  rules:\n  - {{alert: A, expr: 'x > 1'{rest}}}\n");
    let mut bench = Bench::new(&rules(""));
    bench.row(1, 0, [2.0, 0.0]);
    for (n, rest) in
        [", for: 10m", ", labels: {team: bank}", ", annotations: {summary: s}", ""].iter().enumerate()
    {
        bench.reload(&rules(rest));
        bench.row(1, 10 * (n as i64 + 1), [2.0, 0.0]);
    }
    let alert = bench.ledger.read_blocking(|state| state.alerts().next().cloned()).unwrap().unwrap();
    assert_eq!((alert.generation, alert.key_seq, alert.incident), (1, 1, Some(1)), "triggered once");
    let key_seq = bench.ledger.read_blocking(|state| state.incident(1).unwrap().key_seq).unwrap();
    assert_eq!(key_seq, 1);
}
