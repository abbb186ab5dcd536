//! The file behind the configuration: known keys, their forms, and what is wrong with the rest.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tocsin_shared::time::parse_duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Config;

/// One thing that is wrong in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

/// Reads a configuration; what the file does not say is the default.
pub fn parse(text: &str) -> Result<Config, Vec<Mistake>> {
    let line = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        vec![Mistake { line: line(at), message: error.message().to_owned() }]
    })?;
    let mut reader = Reader { config: Config::default(), mistakes: Vec::new() };
    for (key, value) in table.into_inner() {
        reader.section("", &key, value);
    }
    reader.check();
    let mut mistakes: Vec<Mistake> = reader
        .mistakes
        .into_iter()
        .map(|(span, message)| Mistake { line: line(span.start), message })
        .collect();
    mistakes.sort_by_key(|mistake| mistake.line);
    if mistakes.is_empty() { Ok(reader.config) } else { Err(mistakes) }
}

struct Reader {
    config: Config,
    mistakes: Vec<(Range<usize>, String)>,
}

/// Every key there is.
const KEYS: &[&str] = &[
    "data_dir",
    "names",
    "heartbeat",
    "log",
    "listen.front",
    "listen.agents",
    "listen.local",
    "listen.local_queries",
    "front.certificate",
    "front.key",
    "front.tls_min",
    "rules.bundled",
    "rules.paths",
    "agents.certificate_lifetime",
    "alerting.reopen_window",
    "alerting.auto_resolve_after",
    "retention.samples",
    "retention.samples_max_bytes",
    "retention.samples_min_bytes",
    "retention.events",
    "retention.events_max_bytes",
    "storage.reserve_bytes",
    "storage.free_floor_bytes",
    "receive.samples_per_second",
    "receive.series_max",
    "receive.body_max_bytes",
    "limits.handshake",
    "limits.opening",
    "limits.request",
    "limits.stall",
    "limits.answer",
    "limits.connections_per_address",
    "limits.connections_per_address_per_second",
    "limits.exempt_loopback",
    "limits.memory_max_bytes",
];

type Key<'a> = Spanned<std::borrow::Cow<'a, str>>;

impl Reader {
    fn section(&mut self, prefix: &str, key: &Key<'_>, value: Spanned<DeValue<'_>>) {
        let name =
            if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        let is_section = prefix.is_empty() && KEYS.iter().any(|known| known.starts_with(&format!("{name}.")));
        match value.into_inner() {
            DeValue::Table(table) if is_section => {
                for (key, value) in table {
                    self.section(&name, &key, value);
                }
            }
            value => {
                if let Err(why) = self.set(&name, &value) {
                    self.mistakes.push((key.span(), format!("{name}: {why}")));
                }
            }
        }
    }

    fn set(&mut self, name: &str, value: &DeValue<'_>) -> Result<(), String> {
        let config = &mut self.config;
        match name {
            "data_dir" => config.data_dir = path(value)?,
            "names" => config.names = texts(value)?,
            "heartbeat" => config.heartbeat = duration(value, 1, 60)?,
            "log" => config.log = text(value)?,
            "listen.front" => config.front = parsed::<SocketAddr>(value, "ADDRESS:PORT")?,
            "listen.agents" => config.agents = parsed::<SocketAddr>(value, "ADDRESS:PORT")?,
            "listen.local" => config.local = loopback(value)?,
            "listen.local_queries" => config.local_queries = boolean(value)?,
            "front.certificate" => self.certificate(Some(path(value)?), None),
            "front.key" => self.certificate(None, Some(path(value)?)),
            "front.tls_min" => match text(value)?.as_str() {
                "1.2" => config.front_tls12 = true,
                "1.3" => config.front_tls12 = false,
                _ => return Err("it is \"1.2\" or \"1.3\"".into()),
            },
            "rules.bundled" => config.bundled_rules = boolean(value)?,
            "rules.paths" => config.rules = texts(value)?.into_iter().map(PathBuf::from).collect(),
            "agents.certificate_lifetime" => config.certificate_lifetime = duration(value, 10, 7 * 86_400)?,
            "alerting.reopen_window" => config.reopen_window = duration(value, 0, 86_400)?,
            "alerting.auto_resolve_after" => config.auto_resolve_after = duration(value, 0, 86_400)?,
            "retention.samples" => config.keep_samples = duration(value, 3600, 3650 * 86_400)?,
            "retention.samples_max_bytes" => config.samples_bytes_max = bytes(value)?,
            "retention.samples_min_bytes" => config.samples_bytes_min = bytes(value)?,
            "storage.reserve_bytes" => config.room.reserve_bytes = bytes(value)?,
            "storage.free_floor_bytes" => config.room.free_floor_bytes = bytes(value)?,
            "retention.events" => config.keep_events = duration(value, 86_400, 3650 * 86_400)?,
            "retention.events_max_bytes" => config.events_bytes_max = bytes(value)?,
            "receive.samples_per_second" => config.receive.samples_per_second = number(value, 1, u32::MAX)?,
            "receive.series_max" => config.receive.series_max = number(value, 1, u32::MAX)? as usize,
            "receive.body_max_bytes" => {
                config.receive.body_bytes_max = usize::try_from(bytes(value)?)
                    .ok()
                    .filter(|bytes| (1 << 10..=64 << 20).contains(bytes))
                    .ok_or("it is between 1KiB and 64MiB")?;
            }
            "limits.handshake" => config.limits.handshake = duration(value, 1, 60)?,
            "limits.opening" => config.limits.opening = duration(value, 1, 60)?,
            "limits.request" => config.limits.request = duration(value, 1, 600)?,
            "limits.stall" => config.limits.stall = duration(value, 1, 600)?,
            "limits.answer" => config.limits.answer = duration(value, 1, 600)?,
            "limits.connections_per_address" => {
                config.limits.per_address = number(value, 1, 10_000)? as usize
            }
            "limits.connections_per_address_per_second" => {
                config.limits.per_address_per_second = number(value, 1, 10_000)?;
            }
            "limits.memory_max_bytes" => {
                config.memory_max = if value.as_str() == Some("auto") { None } else { Some(bytes(value)?) };
            }
            "limits.exempt_loopback" => config.limits.exempt_loopback = boolean(value)?,
            _ => return Err(unknown(name)),
        }
        Ok(())
    }

    fn certificate(&mut self, certificate: Option<PathBuf>, key: Option<PathBuf>) {
        let (old_certificate, old_key) = self.config.front_certificate.take().unwrap_or_default();
        self.config.front_certificate =
            Some((certificate.unwrap_or(old_certificate), key.unwrap_or(old_key)));
    }

    /// What no single key can know.
    fn check(&mut self) {
        if self
            .config
            .front_certificate
            .as_ref()
            .is_some_and(|(a, b)| a.as_os_str().is_empty() || b.as_os_str().is_empty())
        {
            self.mistakes.push((0..0, "front.certificate and front.key go together".into()));
        }
    }
}

fn unknown(name: &str) -> String {
    let near = KEYS.iter().min_by_key(|known| strsim::levenshtein(known, name));
    match near.filter(|near| strsim::levenshtein(near, name) <= 3) {
        Some(near) => format!("no such key; did you mean {near}?"),
        None => format!("no such key; there are {}", KEYS.join(", ")),
    }
}

fn text(value: &DeValue<'_>) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| "it is a text in quotes".to_owned())
}

fn path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    match text(value)? {
        path if path.is_empty() => Err("it is empty".into()),
        path => Ok(path.into()),
    }
}

fn texts(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let list = value.as_array().ok_or("it is a list of texts: [\"a\", \"b\"]")?;
    list.iter().map(|item| text(item.get_ref())).collect()
}

fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "it is true or false".to_owned())
}

fn number(value: &DeValue<'_>, from: u32, to: u32) -> Result<u32, String> {
    let number = match value {
        DeValue::Integer(number) => number.as_str().parse().ok(),
        _ => None,
    };
    let within = number.filter(|number| (from..=to).contains(number));
    within.ok_or_else(|| format!("it is a number between {from} and {to}"))
}

fn parsed<T: FromStr>(value: &DeValue<'_>, form: &str) -> Result<T, String> {
    text(value)?.parse().map_err(|_| format!("it is {form} in quotes"))
}

/// Health and self-metrics need no credential, so they stay on this host.
fn loopback(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    let address: SocketAddr = parsed(value, "ADDRESS:PORT")?;
    let why = "health and self-metrics need no credential, so they stay on a loopback address";
    if address.ip().is_loopback() { Ok(address) } else { Err(why.into()) }
}

fn duration(value: &DeValue<'_>, from: u64, to: u64) -> Result<Duration, String> {
    let span = parse_duration(&text(value)?).map_err(|error| error.to_string())?;
    let (from, to) = (Duration::from_secs(from), Duration::from_secs(to));
    if (from..=to).contains(&span) {
        return Ok(span);
    }
    let written = tocsin_shared::time::format_duration;
    Err(format!("it is between {} and {}", written(from), written(to)))
}

/// `20GiB`, `512MiB`, or a number of bytes.
fn bytes(value: &DeValue<'_>) -> Result<u64, String> {
    let text = match value {
        DeValue::Integer(number) => number.as_str().to_owned(),
        other => text(other)?,
    };
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = text[..text.len() - unit.len()].parse().map_err(|_| "it is like \"20GiB\"")?;
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err("it is like \"20GiB\"; units are KiB, MiB, GiB, TiB".into()),
    };
    number
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "it is too small or too large".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mistakes_are_told_together_with_their_lines() {
        let text = "data_dir = 5\nheartbeat = \"soon\"\n[listen]\nfornt = \"x\"\nlocal = \"0.0.0.0:1\"\n[retention]\nsamples_max_bytes = \"2XB\"\n";
        let mistakes = parse(text).unwrap_err();
        let found: Vec<(usize, &str)> =
            mistakes.iter().map(|m| (m.line, m.message.split(':').next().unwrap_or(""))).collect();
        let want = [
            (1, "data_dir"),
            (2, "heartbeat"),
            (4, "listen.fornt"),
            (5, "listen.local"),
            (7, "retention.samples_max_bytes"),
        ];
        assert_eq!(found, want);
        assert!(mistakes[2].message.contains("did you mean listen.front"), "{}", mistakes[2]);
        assert_eq!(parse("a = [").unwrap_err().len(), 1);
    }

    #[test]
    fn the_example_says_the_defaults() {
        let example = include_str!("../../../deploy/collector.toml");
        assert_eq!(parse(example), Ok(Config::default()));
        let all_keys = KEYS.iter().all(|key| example.contains(key.rsplit('.').next().unwrap_or(key)));
        assert!(all_keys, "the example names every key");
        assert_eq!(parse(""), Ok(Config::default()));
    }

    #[test]
    fn values_are_read() {
        let text = "names = [\"c.example\"]\n[listen]\nfront = \"[::1]:0\"\n[rules]\nbundled = false\npaths = [\"/r\"]\n[front]\ntls_min = \"1.2\"\n[retention]\nsamples_max_bytes = 1024\n";
        let config = parse(text).unwrap();
        assert_eq!((config.names.len(), config.bundled_rules, config.front_tls12), (1, false, true));
        assert_eq!((config.front.port(), config.samples_bytes_max), (0, 1024));
    }
}
