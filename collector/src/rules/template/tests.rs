//! Tables of templates and what becomes of them.

use super::*;

fn labels() -> Labels {
    Labels::new([
        ("alertname", "DiskFull"),
        ("instance", "db-1.example.com:9100"),
        ("mountpoint", "/var/lib"),
        ("odd", "a b_c déjà"),
    ])
}

fn expanded(source: &str, value: f64) -> Result<String, String> {
    let template = Template::parse(source).map_err(|error| format!("{}: {error}", error.offset))?;
    template
        .expand(&labels(), value, &Labels::new([("site", "paris")]))
        .map_err(|error| format!("expand: {error}"))
}

#[test]
fn templates_become_the_text_prometheus_makes_of_them() {
    for (source, value, text) in [
        ("plain text", 0.0, "plain text"),
        ("{{ $labels.instance }} at {{ $value }}", 0.25, "db-1.example.com:9100 at 0.25"),
        ("{{$labels.instance}}{{$value}}", 1.0, "db-1.example.com:91001"),
        ("{{ .Labels.mountpoint }} {{ .Value }} {{ .ExternalLabels.site }}", 3.0, "/var/lib 3 paris"),
        ("{{ $externalLabels.site }}{{ $.Value }}", 3.5, "paris3.5"),
        ("{{ $labels.missing }}|", 0.0, "|"),
        (
            "{{ $labels }}",
            0.0,
            "map[alertname:DiskFull instance:db-1.example.com:9100 mountpoint:/var/lib odd:a b_c déjà]",
        ),
        ("{{ index $labels \"mountpoint\" }}{{ len $labels }}", 0.0, "/var/lib4"),
        ("{{ printf \"%.1f%% of %s\" $value $labels.mountpoint }}", 93.256, "93.3% of /var/lib"),
        ("{{ $value | printf \"%.2f\" }}", 2.0, "2.00"),
        ("{{ printf \"%d\" $value }}", 1.5, "%!d(float64=1.5)"),
        ("{{ printf \"%s %s\" \"a\" }}", 0.0, "a %!s(MISSING)"),
        ("{{ printf \"%s\" \"a\" 7 }}", 0.0, "a%!(EXTRA int=7)"),
        ("{{ printf \"[%5d|%-5d|%05d|%+d|%x]\" 42 42 -42 42 255 }}", 0.0, "[   42|42   |-0042|+42|ff]"),
        (
            "{{ printf \"%q %v %t %8.3f %e %g\" \"a\\\"b\" 1 true 1.5 1.5 1e9 }}",
            0.0,
            "\"a\\\"b\" 1 true    1.500 1.500000e+00 1e+09",
        ),
        ("{{ print 1 2 \"a\" \"b\" 3 }}", 0.0, "1 2ab3"),
        ("{{ humanizePercentage $value }}", 0.12345, "12.35%"),
        ("{{ $value | humanize }}", 1_234_567.0, "1.235M"),
        ("{{ $value | humanize }}", 0.0012, "1.2m"),
        ("{{ \"2048\" | humanize1024 }}", 0.0, "2ki"),
        ("{{ $value | humanize1024 }}B", 1_610_612_736.0, "1.5GiB"),
        ("{{ $value | humanizeDuration }}", 93_784.0, "1d 2h 3m 4s"),
        ("{{ $value | humanizeDuration }}", -3_661.0, "-1h 1m 1s"),
        ("{{ $value | humanizeDuration }}", 0.0203, "20.3ms"),
        ("{{ $value | humanizeDuration }}", 59.5, "59.5s"),
        ("{{ $value | humanizeTimestamp }}", 1_435_065_584.128, "2015-06-23 13:19:44.128 +0000 UTC"),
        ("{{ $value | humanizeTimestamp }}", 0.0, "1970-01-01 00:00:00 +0000 UTC"),
        ("{{ $value | humanize }}", f64::INFINITY, "+Inf"),
        ("{{ title $labels.odd }}", 0.0, "A B_c Déjà"),
        ("{{ toUpper \"aé\" }}{{ toLower \"AÉ\" }}", 0.0, "AÉaé"),
        ("{{ $labels.instance | stripPort }}", 0.0, "db-1.example.com"),
        (
            "{{ stripPort \"[::1]:80\" }} {{ stripPort \"::1\" }} {{ stripPort \"host\" }}",
            0.0,
            "::1 ::1 host",
        ),
        (
            "{{ $labels.instance | stripDomain }} {{ stripDomain \"10.0.0.1:9\" }}",
            0.0,
            "db-1:9100 10.0.0.1:9",
        ),
        ("{{ reReplaceAll \"([^.]+)[.].*\" \"${1}!\" $labels.instance }}", 0.0, "db-1!"),
        ("{{ if match \"^/var\" $labels.mountpoint }}yes{{ else }}no{{ end }}", 0.0, "yes"),
        ("{{ if gt $value 90.0 }}high{{ else if gt $value 50.0 }}mid{{ else }}low{{ end }}", 60.0, "mid"),
        ("{{ if gt $value 90 }}high{{ else if gt $value 50 }}mid{{ else }}low{{ end }}", 6.0, "low"),
        (
            "{{ if and (eq $labels.instance \"x\" \"db-1.example.com:9100\") (not false) }}a{{ end }}",
            0.0,
            "a",
        ),
        ("{{ or $labels.missing \"fallback\" }}{{ and 1 0 }}", 0.0, "fallback0"),
        (
            "{{ range $name, $value := $labels }}{{ $name }}={{ len $value }};{{ end }}",
            0.0,
            "alertname=8;instance=21;mountpoint=8;odd=12;",
        ),
        ("{{ range .Labels }}{{ len . }} {{ end }}", 0.0, "8 21 8 12 "),
        (
            "{{ range $v := $labels }}{{ if eq $v \"DiskFull\" }}{{ $v }}{{ $.Value }}{{ end }}{{ end }}",
            4.0,
            "DiskFull4",
        ),
        ("{{ $n := 1 }}{{ range $labels }}{{ $n = . }}{{ end }}{{ $n }}", 0.0, "a b_c déjà"),
        (
            "{{ with $labels.instance }}<{{ . }}>{{ end }}{{ with $labels.no }}x{{ else }}none{{ end }}",
            0.0,
            "<db-1.example.com:9100>none",
        ),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ $y := 3 }}{{ end }}{{ $x }}", 0.0, "2"),
        ("{{ with $x := $labels.no }}{{ else }}<{{ $x }}>{{ end }}", 0.0, "<>"),
        (
            "{{ range $k, $v := $externalLabels }}{{ with $v }}{{ $k }}:{{ . }}{{ end }}{{ end }}",
            0.0,
            "site:paris",
        ),
        ("{{ if lt 1 2 }}{{ if ge 2.0 2 }}{{ if ne \"a\" \"b\" }}in{{ end }}{{ end }}{{ end }}", 0.0, "in"),
        ("{{ 0x10 }} {{ -1.5e3 }} {{ 1_000 }} {{ .5 }}", 0.0, "16 -1500 1000 0.5"),
        ("a {{- /* said nothing */ -}} b", 0.0, "ab"),
        ("a {{- $value -}} b {{/* c */}}d", 1.0, "a1b d"),
        ("{{ \"tab\\t\\u00e9\\x41\\\\\" }}{{ `raw\\n` }}{{ \"}}\" }}", 0.0, "tab\té\x41\\raw\\n}}"),
        ("{{ (printf \"%v\" .Labels).x }}", 0.0, "expand: a string has no field .x"),
        ("{{ humanize \"many\" }}", 0.0, "expand: humanize takes a number, not \"many\""),
        ("{{ gt $value \"1\" }}", 0.0, "expand: a float64 does not compare with a string"),
        ("{{ . }}", 0.0, "expand: {{ . }} is the whole data; print $labels or $value"),
        ("{{ parseDuration \"1h\" }}{{ safeHtml \"<b>\" }}", 0.0, "3600<b>"),
    ] {
        let got = expanded(source, value).unwrap_or_else(|error| error);
        assert_eq!(got, text, "{source}");
    }
}

#[test]
fn numbers_print_as_go_prints_them() {
    for (value, text) in [
        (0.0, "0"),
        (-0.0, "-0"),
        (0.1 + 0.2, "0.30000000000000004"),
        (100_000.0, "100000"),
        (999_999.5, "999999.5"),
        (1_000_000.0, "1e+06"),
        (1_234_567.5, "1.2345675e+06"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (-12.5, "-12.5"),
        (1e100, "1e+100"),
        (f64::NAN, "NaN"),
        (f64::NEG_INFINITY, "-Inf"),
    ] {
        assert_eq!(expanded("{{ $value }}", value).unwrap(), text);
    }
}

#[test]
fn wrong_templates_are_refused_when_they_are_read() {
    for (source, error) in [
        ("a {{ $value ", "2: this action is not closed; end it with }}"),
        ("{{ $valeu }}", "3: $valeu is not set; there are $labels, $value and $externalLabels"),
        ("{{ humanise $value }}", "3: no function is called humanise; humanize is"),
        ("{{ query \"up\" }}", "3: query is not supported: templates cannot query"),
        ("{{ range query \"up\" }}{{ end }}", "9: query is not supported: templates cannot query"),
        ("{{ (query \"up\" | first).Value }}", "4: query is not supported: templates cannot query"),
        ("{{ $x | value }}", "3: $x is not set"),
        ("{{ $value | value }}", "12: value is not supported: templates cannot query"),
        ("{{ define \"x\" }}{{ end }}", "3: define is not supported: there are no named templates"),
        ("{{ if true }}{{ $x := 1 }}{{ else }}{{ $x }}{{ end }}", "39: $x is not set"),
        ("{{ range $k, $v := $labels }}{{ else }}{{ $v }}{{ end }}", "42: $v is not set"),
        ("{{ $x = 1 }}", "3: $x is not set"),
        ("{{ .labels.x }}", "3: there is no .labels; there are .Labels, .Value and .ExternalLabels"),
        ("{{ if $value }}x", "0: this block is not closed; end it with {{ end }}"),
        ("x{{ end }}", "1: {{ end }} without an if, range or with"),
        ("{{ else }}", "0: {{ else }} without an if, range or with"),
        ("{{ if true }}{{ else }}{{ else }}{{ end }}", "23: a second {{ else }}"),
        ("{{ }}", "0: a value is missing"),
        ("{{ $value | }}", "10: a value is missing"),
        ("{{ $value $labels }}", "10: only a function takes arguments"),
        ("{{ $value | $labels }}", "12: after | a function is expected"),
        ("{{ humanize }}", "3: humanize takes 1 arguments, not 0"),
        ("{{ match \"(\" \"x\" }}", "3: not a regular expression"),
        ("{{ printf \"%s }}", "10: this \" has no partner on its line"),
        ("{{ (1 }}", "3: this ( has no partner"),
        ("{{ \"\\q\" }}", "4: not an escape: \\q"),
        ("{{ /* x }}", "0: this comment is not closed"),
        ("{{ 1x }}", "3: not a number: 1x"),
        ("{{ $externalURL }}", "3: $externalURL is not supported"),
        ("{{ # }}", "3: unexpected '#'"),
        ("{{ range $labels }}{{ $v := . }}{{ end }}{{ $v }}", "44: $v is not set"),
    ] {
        let got = expanded(source, 0.0).expect_err(source);
        assert!(got.starts_with(error), "{source}: {got}");
    }
}

// Cases: R18
#[test]
fn hostile_templates_end_soon_and_small() {
    let deep = "{{ if true }}".repeat(40);
    let parens = format!("{{{{ {} }}}}", "(".repeat(40));
    let loops = "{{ range $labels }}".repeat(20) + &"{{ end }}".repeat(20);
    let doubling = format!("{{{{ $x := \"aaaaaaaa\" }}}}{}", "{{ $x = print $x $x }}".repeat(30));
    let regexes: String = (0..60).map(|n| format!("{{{{ match \"a{n}\" \"b\" }}}}")).collect();
    let wide = "{{ printf \"%999999999d\" 1 }}".to_owned();
    let blown = format!("{{{{ $x := printf \"%60000d\" 1 }}}}{}", "{{ reReplaceAll \" \" $x $x }}");
    for (source, wanted) in [
        (deep, "blocks go deeper"),
        (parens, "parentheses go deeper"),
        (loops, "the template takes too long"),
        (doubling, "the text is longer"),
        (regexes, "the template takes too long"),
        (wide, "the text is longer"),
        (blown, "the text is longer"),
        ("x".repeat(OUTPUT_BYTES_MAX + 1), "the text is longer"),
    ] {
        let got = expanded(&source, 0.0).expect_err(wanted);
        assert!(got.contains(wanted), "{wanted}: {got}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(source in "[{}$. a-z()|\"`=:,0-9%\\\\*/-]{0,60}", value: f64) {
        for source in [source.clone(), format!("{{{{{source}}}}}"), format!("{{{{ printf \"{source}\" $value }}}}")] {
            if let Ok(template) = Template::parse(&source) {
                template.expand(&labels(), value, &Labels::empty()).ok();
            }
        }
    }
}
