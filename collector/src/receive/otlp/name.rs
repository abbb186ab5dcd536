//! OpenTelemetry's names, units and values as Prometheus has them: underscores for what is no letter or digit, and
//! suffixes that say unit and kind.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use tocsin_shared::metric::Kind;

/// Units by their UCUM codes.
const UNITS: [(&str, &str); 27] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("kBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("%", "percent"),
    ("1", ""),
];
/// Units after `per`, in the singular.
const PER_UNITS: [(&str, &str); 7] = [
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

/// Letters and digits stay, runs of anything else become one underscore.
fn words(text: &str, keeps: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || keeps(c) {
            out.push(c);
        } else if !out.ends_with('_') {
            out.push('_');
        }
    }
    out
}

/// An attribute's key as a label's name.
pub(super) fn label_name(key: &str) -> String {
    let name = words(key, |_| false);
    match name.chars().next() {
        Some(c) if c.is_ascii_digit() => format!("key_{name}"),
        _ => name,
    }
}

/// A unit as words: `By/s` is `bytes` per `second`. What is in braces is a remark.
fn unit_words(unit: &str) -> (String, String) {
    let without_remarks = |part: &str| match part.contains(['{', '}']) {
        true => String::new(),
        false => part.trim().to_owned(),
    };
    let known = |table: &[(&str, &str)], part: String| {
        let known = table.iter().find(|(code, _)| *code == part).map(|(_, word)| (*word).to_owned());
        known.unwrap_or_else(|| words(&part, |_| false).trim_matches('_').to_owned())
    };
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    (known(&UNITS, without_remarks(main)), known(&PER_UNITS, without_remarks(per)))
}

/// A unit for metadata.
pub(super) fn unit_word(unit: &str) -> String {
    match unit_words(unit) {
        (main, per) if per.is_empty() => main,
        (main, per) if main.is_empty() => format!("per_{per}"),
        (main, per) => format!("{main}_per_{per}"),
    }
}

/// A metric's name with its unit and what its kind adds; `ratio` if a unit of 1 makes it one.
pub(super) fn metric_name(name: &str, unit: &str, kind: Kind, ratio: bool) -> String {
    let name = words(name, |c| c == ':');
    let mut parts: Vec<&str> = name.split('_').filter(|part| !part.is_empty()).collect();
    let (main, per) = unit_words(unit);
    let has = |parts: &[&str], words: &str| words.split('_').all(|word| parts.contains(&word));
    if !main.is_empty() && !has(&parts, &main) {
        parts.push(&main);
    }
    if !per.is_empty() && !has(&parts, &per) {
        parts.extend(["per", &per]);
    }
    let suffix = match kind {
        Kind::Counter => "total",
        Kind::Gauge if ratio && unit == "1" => "ratio",
        _ => "",
    };
    if !suffix.is_empty() {
        parts.retain(|part| *part != suffix);
        parts.push(suffix);
    }
    let joined = parts.join("_");
    match joined.chars().next() {
        Some(c) if c.is_ascii_digit() => format!("_{joined}"),
        _ => joined,
    }
}

/// An attribute's value as a label's: texts as they are, everything else as JSON has it.
pub(super) fn text_of(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::BytesValue(bytes)) => STANDARD.encode(bytes),
        Some(Value::DoubleValue(number)) => number.to_string(),
        None | Some(Value::StringValueStrindex(_)) => String::new(),
        Some(_) => json_of(value).to_string(),
    }
}

/// Nesting is bounded where the message is decoded.
fn json_of(value: Option<&AnyValue>) -> serde_json::Value {
    use serde_json::Value as Json;
    match value.and_then(|value| value.value.as_ref()) {
        None | Some(Value::StringValueStrindex(_)) => Json::Null,
        Some(Value::StringValue(text)) => Json::from(text.as_str()),
        Some(Value::BoolValue(is)) => Json::from(*is),
        Some(Value::IntValue(number)) => Json::from(*number),
        Some(Value::DoubleValue(number)) => Json::from(*number),
        Some(Value::BytesValue(bytes)) => Json::from(STANDARD.encode(bytes)),
        Some(Value::ArrayValue(list)) => list.values.iter().map(|value| json_of(Some(value))).collect(),
        Some(Value::KvlistValue(list)) => {
            list.values.iter().map(|pair| (pair.key.clone(), json_of(pair.value.as_ref()))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_units_and_kinds() {
        let (gauge, counter, histogram) = (Kind::Gauge, Kind::Counter, Kind::Histogram);
        for (name, unit, kind, ratio, want) in [
            ("http.server.duration", "s", histogram, false, "http_server_duration_seconds"),
            ("http.server.duration.seconds", "s", histogram, false, "http_server_duration_seconds"),
            ("system.network.io", "By", counter, false, "system_network_io_bytes_total"),
            ("requests.total", "", counter, false, "requests_total"),
            ("total.requests", "{request}", counter, false, "requests_total"),
            ("cpu.utilization", "1", gauge, true, "cpu_utilization_ratio"),
            ("queue.length", "1", gauge, false, "queue_length"),
            ("disk.usage", "%", gauge, true, "disk_usage_percent"),
            ("net.rate", "By/s", gauge, true, "net_rate_bytes_per_second"),
            ("hits", "{hit}/min", gauge, true, "hits_per_min"),
            ("strom", "foo.bar", gauge, true, "strom_foo_bar"),
            ("2xx.count", "", gauge, true, "_2xx_count"),
            ("a:b..c--d_", "", gauge, true, "a:b_c_d"),
            ("größe", "", gauge, true, "gr_e"),
            ("mem", "MiBy", gauge, true, "mem_mebibytes"),
        ] {
            assert_eq!(metric_name(name, unit, kind, ratio), want, "{name} {unit}");
        }
        for (key, want) in [
            ("http.status_code", "http_status_code"),
            ("a..b", "a_b"),
            ("1st", "key_1st"),
            ("_own", "_own"),
            ("", ""),
        ] {
            assert_eq!(label_name(key), want, "{key}");
        }
        for (unit, want) in
            [("By", "bytes"), ("By/s", "bytes_per_second"), ("{x}/s", "per_second"), ("1", "")]
        {
            assert_eq!(unit_word(unit), want, "{unit}");
        }
    }
}
