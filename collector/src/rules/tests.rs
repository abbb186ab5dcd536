//! Tables of rule files: what is taken, what is refused and where, and the files that are shipped.

use std::time::Duration;

use super::*;

fn rules(body: &str) -> String {
    format!("groups:\n- name: g\n  rules:\n{body}")
}

/// Mistakes as `line:column message`.
fn mistakes(text: &str) -> Vec<String> {
    let mistakes = parse_file("f.yml", text).expect_err(text);
    mistakes.iter().map(|m| format!("{}:{} {}", m.line, m.column, m.message)).collect()
}

#[test]
fn a_file_says_everything_that_is_wrong_with_it_at_once() {
    let text = r#"groups:
- name: one
  intervall: 1m
  rules:
  - alert: A
    expr: up == == 0
    for: 5 minutes
    labels:
      bad-name: x
    annotations:
      summary: "disk {{ $labels.mountpoint is full"
  - record: a:b
    expr: up
    for: 1m
  - expr: up
- name: one
  rules: []
"#;
    let got = mistakes(text);
    let wanted = [
        "3:3 a group has no key \"intervall\"; did you mean interval? (it has name, interval,",
        "6:11 not a PromQL expression: ",
        "7:10 for: not a duration: \"5 minutes\"; write it like 30s, 5m, 1h30m or 1d",
        "9:7 labels: not a label name: \"bad-name\"",
        "11:22 summary: this action is not closed; end it with }}",
        "14:10 a recording rule has no for; only an alerting rule has",
        "15:5 a rule needs alert (the alert's name) or record (the metric it makes)",
        "16:3 group \"one\" is already on line 2; give it its own name",
    ];
    assert_eq!(got.len(), wanted.len(), "{got:#?}");
    for (got, wanted) in got.iter().zip(wanted) {
        assert!(got.starts_with(wanted), "{got}\n  is not\n{wanted}");
    }
}

#[test]
fn each_mistake_has_its_place_and_its_message() {
    for (body, wanted) in [
        ("  - alert: A\n    record: b\n    expr: up\n", "5:13 a rule has alert or record, not both"),
        ("  - alert: A\n", "4:5 a rule needs expr"),
        ("  - alert: A\n    expr: ''\n", "5:11 expr is empty"),
        ("  - alert: ''\n    expr: up\n", "4:12 alert is empty"),
        (
            "  - alert: A\n    expr: up[5m]\n",
            "5:11 not a PromQL expression: a rule needs an instant vector, not a range",
        ),
        (
            "  - alert: A\n    expr: '\"x\"'\n",
            "5:11 not a PromQL expression: a rule needs an instant vector, not a string",
        ),
        ("  - alert: A\n    expr: up\n    expr: up\n", "6:5 expr is given twice"),
        (
            "  - alert: A\n    expr: up\n    clear_expr: up\n",
            "6:17 clear_expr is not supported yet; remove it",
        ),
        ("  - alert: A\n    expr: up\n    params: {a: 1}\n", "6:13 params is not supported yet; remove it"),
        ("  - alert: A\n    expr: up\n    no_data: ok\n", "6:14 of no_data only hold is supported yet"),
        (
            "  - alert: A\n    expr: up\n    no_data: keep\n",
            "6:14 no_data is one of hold, alert, ok, not \"keep\"",
        ),
        (
            "  - alert: A\n    expr: up\n    incident: yes\n",
            "6:15 incident is one of open, none, not \"yes\"",
        ),
        ("  - alert: A\n    expr: up\n    labels: [a]\n", "6:13 labels is a map from names to texts"),
        (
            "  - alert: A\n    expr: up\n    labels: {__name__: a}\n",
            "6:14 labels: not a label name: \"__name__\"",
        ),
        ("  - alert: A\n    expr: up\n    labels: {a: {b: c}}\n", "6:17 a is a text"),
        ("  - record: a-b\n    expr: up\n", "4:13 not a metric name: \"a-b\""),
        (
            "  - record: a\n    expr: up\n    annotations: {a: b}\n",
            "6:18 a recording rule has no annotations",
        ),
        ("  - up\n", "4:5 a rule is a map with the keys alert, record, expr"),
        (
            "  - alert: A\n    expr: up\n    sevice: x\n",
            "6:5 a rule has no key \"sevice\"; did you mean service?",
        ),
        (
            "  - alert: A\n    expr: up\n    annotations:\n      d: |\n        one\n        two {{ $x }}\n",
            "9:16 d: $x is not set",
        ),
        (
            "  - alert: A\n    expr: up\n    annotations: {d: 'a {{ query \"up\" }}'}\n",
            "6:28 d: query is not supported",
        ),
        ("  - alert: A\n   expr: up\n", "5:4 not YAML"),
    ] {
        let got = mistakes(&rules(body));
        assert_eq!(got.len(), 1, "{body}{got:#?}");
        assert!(got[0].starts_with(wanted), "{}\n  is not\n{wanted}", got[0]);
    }
    for (text, wanted) in [
        ("rules: []\n", "1:1 a rule file has no key \"rules\""),
        ("- a\n", "1:1 a rule file is a map with the keys groups"),
        ("groups: {}\n", "1:9 groups is a list"),
        ("groups:\n- rules: []\n", "2:3 a group needs a name"),
        ("groups:\n- name: a\n  limit: many\n", "3:10 limit is a whole number, not \"many\""),
        ("groups: []\n---\ngroups: []\n", "2:1 a second document"),
    ] {
        let got = mistakes(text);
        assert!(got.len() == 1 && got[0].starts_with(wanted), "{got:?}\n  is not\n{wanted}");
    }
}

#[test]
fn a_file_means_what_it_says() {
    let text = r#"
groups:
- name: disks
  interval: 1m
  query_offset: 10s
  limit: 5
  labels: {team: storage, severity: info}
  rules:
  - alert: Full
    expr: node_filesystem_avail_bytes < 1
    for: 5m
    keep_firing_for: 1h
    labels: {severity: critical, where: "{{ $labels.mountpoint }}"}
    annotations: {summary: "{{ $value }} left"}
    service: files
    runbook: https://wiki.example.com/full
    incident: none
    no_data: hold
  - alert: Full
    expr: 1
  - record: instance:full:count
    expr: |
      count by (instance) (
        node_filesystem_avail_bytes < 1
      )
    labels: {text: "{{ not a template"}
- name: "odd;name%"
  rules:
  - {alert: A, expr: sum(up)}
"#;
    let file = parse_file("d/disks.yml", text).unwrap();
    let group = &file.groups[0];
    assert_eq!((&*group.name, &*group.file, group.line), ("disks", "d/disks.yml", 3));
    assert_eq!(group.interval, Some(Duration::from_secs(60)));
    assert_eq!((group.query_offset, group.limit), (Some(Duration::from_secs(10)), Some(5)));
    let full = &group.rules[0];
    let (hold, keep_firing_for) = (Duration::from_secs(300), Duration::from_secs(3600));
    assert_eq!(
        full.kind,
        RuleKind::Alert { name: "Full".into(), hold, keep_firing_for, incident: Some(false) }
    );
    let labels: Vec<_> = full.labels.iter().map(|(name, text)| (&**name, text.source())).collect();
    assert_eq!(
        labels,
        [("severity", "critical"), ("team", "storage"), ("where", "{{ $labels.mountpoint }}")]
    );
    assert_eq!((full.service.as_deref(), full.line), (Some("files"), 9));
    assert_eq!(full.runbook.as_deref(), Some("https://wiki.example.com/full"));
    let record = &group.rules[2];
    assert_eq!(record.kind, RuleKind::Record { metric: "instance:full:count".into() });
    assert_eq!(record.expr.text(), "count by (instance) (\n  node_filesystem_avail_bytes < 1\n)\n");
    assert_eq!(record.label("text").map(Template::source), Some("{{ not a template"));
    assert_eq!(record.label("team").map(Template::source), Some("storage"));
    let set = RuleSet::new(vec![file.clone()]).unwrap();
    let ids: Vec<_> = set.rules().map(|(_, rule)| rule.id.to_string()).collect();
    assert_eq!(
        ids,
        [
            "d/disks.yml;disks;Full;0",
            "d/disks.yml;disks;Full;1",
            "d/disks.yml;disks;instance:full:count;0",
            "d/disks.yml;odd%3Bname%25;A;0",
        ]
    );
    assert_eq!(set.get(&full.id).map(|(_, rule)| rule), Some(full));
    assert_eq!(RuleSet::new(vec![file.clone(), file]), Err(DuplicateFile("d/disks.yml".into())));
    assert_eq!(parse_file("empty.yml", "# nothing\n").unwrap().groups, []);
    let windows = "\u{feff}groups:\r\n- name: g\r\n  rules:\r\n  - {alert: A, expr: up}\r\n";
    assert_eq!(parse_file("windows.yml", windows).unwrap().groups[0].rules[0].line, 4);
}

// Cases: R17
#[test]
fn anchors_and_merge_keys_work_and_bombs_do_not() {
    let text = rules(
        "  - &a {alert: A, expr: up, labels: &l {team: x}}\n  - {<<: *a, alert: B}\n  - {alert: C, expr: up, labels: {<<: *l, y: z}}\n",
    );
    let file = parse_file("f.yml", &text).unwrap();
    let got: Vec<_> = file.groups[0].rules.iter().map(|rule| (rule.name(), rule.labels.len())).collect();
    assert_eq!(got, [("A", 1), ("B", 1), ("C", 2)]);

    let mut laughs = "groups:\n- &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        laughs.push_str(&format!("- &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", ")));
    }
    let many: String = (0..100).map(|n| format!("- {{name: g{n}, rules: *r}}\n")).collect();
    let rule = "  - {alert: A, expr: up}\n".repeat(60);
    let deep = format!("groups: {}", "[".repeat(200));
    for (text, wanted) in [
        (laughs, "aliases unfold to more than"),
        (format!("groups:\n- name: g\n  rules: &r\n{rule}{many}"), "the file has more than 5000 rules"),
        (deep, "values go deeper"),
        (format!("groups: {}", " ".repeat(FILE_BYTES_MAX)), "the file is larger than"),
        (
            rules(&format!("  - {{alert: A, expr: up, runbook: {}}}", "x".repeat(TEXT_BYTES_MAX + 1))),
            "runbook is longer",
        ),
        (rules(&format!("  - {{alert: A, expr: '{}'}}", "x".repeat(TEXT_BYTES_MAX + 1))), "expr is longer"),
        (rules(&format!("  - {{alert: A, expr: '{}up'}}", "-".repeat(40_000))), "not a PromQL expression"),
        (rules(&format!("  - {{alert: A, expr: '{}up'}}", "(".repeat(8_000))), "not a PromQL expression"),
        ("groups: &a [*a]\n".to_owned(), "an alias inside the value"),
    ] {
        let got = mistakes(&text);
        assert!(got.iter().any(|got| got.contains(wanted)), "{wanted}: {:?}", got.first());
    }
}

#[test]
fn host_local_means_that_instance_is_kept() {
    for (expr, local) in [
        ("up == 0", true),
        ("1 - avg without (cpu) (rate(node_cpu_seconds_total{mode=\"idle\"}[5m])) > .8", true),
        ("avg by (instance) (rate(node_cpu_seconds_total[5m])) > 1", true),
        ("node_load5 / on (instance) count by (instance) (node_cpu_seconds_total)", true),
        ("a and on (instance, device) b == 0", true),
        ("a - ignoring (state) b", true),
        ("time() - node_boot_time_seconds < 600", true),
        ("label_replace(up, \"host\", \"$1\", \"instance\", \"(.*):.*\")", true),
        ("topk by (instance) (1, up)", true),
        ("max_over_time(rate(a[1m])[5m:1m]) > 0", true),
        ("sum(up) < 3", false),
        ("sum by (job) (up)", false),
        ("avg without (instance) (up)", false),
        ("a / on (job) b", false),
        ("a - ignoring (instance) b", false),
        ("a * on (instance) group_left (device) b", true),
        ("a * on (job) group_left (instance) b", false),
        ("absent(up)", false),
        ("up > scalar(sum(up))", false),
        ("vector(1)", false),
        ("topk(3, node_load1)", false),
        ("label_replace(up, \"instance\", \"x\", \"\", \"\")", false),
        ("hour() > 8", false),
        ("1 > bool 2", false),
    ] {
        let file = parse_file("f.yml", &rules(&format!("  - alert: A\n    expr: '{expr}'\n")))
            .unwrap_or_else(|mistakes| panic!("{expr}: {mistakes:?}"));
        assert_eq!(file.groups[0].rules[0].expr.is_host_local(), local, "{expr}");
    }
}

#[test]
fn the_report_counts_good_files_and_lists_mistakes() {
    let good = rules("  - {alert: A, expr: up}\n  - {alert: B, expr: sum(up)}\n");
    let files = [
        ("a/good.yml".to_owned(), parse_file("good.yml", &good)),
        ("a/bad.yml".to_owned(), parse_file("bad.yml", "groups:\n- name: x\n  rule: []\n")),
    ];
    assert_eq!(
        report(&files),
        "a/good.yml: 1 group, 2 rules (1 host-local, 1 across hosts)\n\
         a/bad.yml:3:3: a group has no key \"rule\"; did you mean rules? \
         (it has name, interval, query_offset, limit, labels, rules)\n"
    );
}

/// Every template of a file expands for some labels and a number.
fn expand_all(file: &RuleFile) {
    use tocsin_shared::labels::Labels;
    let labels = Labels::new([("instance", "web-1"), ("device", "sda1"), ("mountpoint", "/")]);
    for rule in file.groups.iter().flat_map(|group| &group.rules) {
        for (name, template) in rule.labels.iter().chain(&rule.annotations) {
            let text = template.expand(&labels, 0.5, &Labels::empty());
            let text = text.unwrap_or_else(|error| panic!("{} {name}: {error}", rule.name()));
            assert!(!text.contains("{{") && !text.contains("%!"), "{} {name}: {text}", rule.name());
        }
    }
}

#[test]
fn the_bundled_rules_are_whole() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/rules/host.yml");
    let text = std::fs::read_to_string(path).unwrap();
    let file = parse_file("host.yml", &text).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"));
    let rules: Vec<&Rule> = file.groups.iter().flat_map(|group| &group.rules).collect();
    assert!(rules.len() >= 30, "{} rules", rules.len());
    expand_all(&file);
    for rule in &rules {
        let name = rule.name();
        assert!(rule.expr.is_host_local(), "{name} joins hosts");
        for key in ["summary", "description", "look_first"] {
            assert!(
                rule.annotation(key).is_some_and(|text| !text.source().is_empty()),
                "{name} has no {key}"
            );
        }
        let severity = rule.label("severity").map(Template::source).unwrap_or_default();
        assert!(severity.parse::<tocsin_shared::severity::Severity>().is_ok(), "{name}: {severity:?}");
        assert_eq!(rules.iter().filter(|other| other.name() == name).count(), 1, "{name} is there twice");
        let same = rules.iter().filter(|other| other.expr.text() == rule.expr.text()).count();
        assert_eq!(same, 1, "another rule looks for the same as {name}");
        // A slope of a counter falls at every reboot, and the information series never change their value.
        for wrong in ["deriv(node_vmstat", "changes(node_uname_info", "|nfs\""] {
            assert!(!rule.expr.text().contains(wrong), "{name}: {wrong}");
        }
    }
}

#[test]
fn public_rule_files_are_taken_unchanged() {
    let shared = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared");
    for (path, rules, local) in [("rules/host-and-hardware.yml", 35, 35), ("capture/rules30.yml", 30, 30)] {
        let Ok(text) = std::fs::read_to_string(format!("{shared}/{path}")) else {
            println!("{path} is not beside the repository; nothing was checked");
            continue;
        };
        let file = parse_file(path, &text).unwrap_or_else(|mistakes| panic!("{path}: {mistakes:#?}"));
        expand_all(&file);
        let all: Vec<&Rule> = file.groups.iter().flat_map(|group| &group.rules).collect();
        let host_local = all.iter().filter(|rule| rule.expr.is_host_local()).count();
        assert_eq!((all.len(), host_local), (rules, local), "{path}");
    }
}

const WHOLE: &str = "groups:\n- name: one\n  interval: 1m\n  labels: &l {team: \"x y\", a: 'b'}\n  rules:\n  \
            - alert: A\n    expr: |\n      up\n        == 0\n    for: 5m\n    labels: {<<: *l, c: d}\n    \
            annotations:\n      summary: >-\n        disk {{ $labels.mountpoint }}\n        is {{ $value }}\n      \
            description: plain {{ $value | humanize }} text # a comment\n  - {record: \"a:b\", expr: \"sum(up)\"}\n";

#[test]
fn the_file_to_be_cut_is_right() {
    let file = parse_file("f.yml", WHOLE).unwrap();
    assert_eq!(file.groups[0].rules.len(), 2);
    assert_eq!(file.groups[0].rules[0].labels.len(), 3);
}

proptest::proptest! {
    /// A file with a piece cut out of it, or replaced, is read or refused; mistakes come by line.
    #[test]
    fn no_file_makes_it_panic(from in 0usize..520, len in 0usize..60, put in "[-:{}\\[\\]&*|>'\"#!%@ \\na<]{0,6}") {
        let text: String = WHOLE.chars().take(from).chain(put.chars()).chain(WHOLE.chars().skip(from + len)).collect();
        if let Err(mistakes) = parse_file("f.yml", &text) {
            assert!(!mistakes.is_empty() && mistakes.is_sorted_by_key(|mistake| mistake.line));
        }
    }
}
