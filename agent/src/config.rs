//! `agent.toml`: what the operator says, read once, all mistakes reported together.
//!
//! Promises: every key is optional and has a default that suits a server; an unknown key is a mistake, never ignored;
//! after `Config` exists nobody checks it again. Where the collector listens is not here but in the identity, which
//! enrolment writes; `collector` only overrides it.
//! With another `data_dir` than the usual one, the job socket and the drop-box move into it: that is an agent beside
//! the host's own.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use regex::Regex;
use serde::Deserialize;
use tocsin_proto::connect::Endpoint;
use tocsin_shared::time::{format_duration, parse_duration};
use toml::Spanned;

use crate::jobs::exec::{DROP_BOX_DEFAULT, SOCKET_DEFAULT};
use crate::{collect, spool};

/// Where the agent keeps its identity and spool unless told otherwise.
pub const DATA_DIR_DEFAULT: &str = "/var/lib/tocsin/agent";
/// The tick unless told otherwise.
pub const INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
/// Faster than this a tick costs more than it tells; slower, rules over five minutes see one row.
const INTERVALS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// A longer file is not one that a person wrote.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    /// Instead of the endpoint in the identity.
    pub collector: Option<Endpoint>,
    /// Time between two rows; a whole number of milliseconds, 1 s to 5 min.
    pub interval: Duration,
    pub spool: spool::Config,
    pub jobs: Jobs,
    pub collect: collect::Config,
    pub log_level: LogLevel,
}

/// Where job wrappers hand in what they saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jobs {
    pub socket: PathBuf,
    pub drop_box: PathBuf,
}

/// How much the agent says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
}

impl LogLevel {
    const ALL: [(&'static str, Self); 4] =
        [("error", Self::Error), ("warn", Self::Warn), ("info", Self::Info), ("debug", Self::Debug)];

    /// Its name in the file.
    pub fn as_str(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, level)| *level == self).map_or("info", |(name, _)| name)
    }
}

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// From 1; none when it is about no line.
    pub line: Option<usize>,
    pub text: String,
}

/// Why a file is not a configuration: every mistake in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct InvalidConfig(pub Vec<Mistake>);

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() > 1 {
            write!(f, "{} mistakes", self.0.len())?;
        }
        let separator = if self.0.len() > 1 { "\n  " } else { "" };
        for Mistake { line, text } in &self.0 {
            match line {
                Some(line) => write!(f, "{separator}line {line}: {text}")?,
                None => write!(f, "{separator}{text}")?,
            }
        }
        Ok(())
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is longer than {FILE_BYTES_MAX} bytes: is it the right file", path.display())]
    TooLong { path: PathBuf },
    #[error("{}: {source}", path.display())]
    Invalid { path: PathBuf, source: InvalidConfig },
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    data_dir: Option<Spanned<String>>,
    collector: Option<Spanned<String>>,
    interval: Option<Spanned<String>>,
    log_level: Option<Spanned<String>>,
    #[serde(default)]
    spool: RawSpool,
    #[serde(default)]
    jobs: RawJobs,
    #[serde(default)]
    collect: RawCollect,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSpool {
    max_bytes: Option<Spanned<RawBytes>>,
    reserve_bytes: Option<Spanned<RawBytes>>,
    free_floor_bytes: Option<Spanned<RawBytes>>,
    free_floor_percent: Option<Spanned<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RawBytes {
    Number(i64),
    Text(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawJobs {
    socket: Option<Spanned<String>>,
    drop_box: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCollect {
    filesystem_exclude_types: Option<Spanned<String>>,
    filesystem_exclude_mounts: Option<Spanned<String>>,
    disk_exclude_devices: Option<Spanned<String>>,
    network_exclude_devices: Option<Spanned<String>>,
    textfile_directory: Option<Spanned<String>>,
    #[serde(default)]
    disabled: Vec<Spanned<String>>,
}

impl Default for Config {
    fn default() -> Self {
        Self::in_dir(PathBuf::from(DATA_DIR_DEFAULT))
    }
}

impl Config {
    /// The defaults for an agent whose data is in `data_dir`.
    pub fn in_dir(data_dir: PathBuf) -> Self {
        let jobs = Jobs::beside(&data_dir);
        Self {
            data_dir,
            collector: None,
            interval: INTERVAL_DEFAULT,
            spool: spool::Config::default(),
            jobs,
            collect: collect::Config::default(),
            log_level: LogLevel::default(),
        }
    }

    /// For the agent inside `tocsin up`: a small spool, everything below `data`.
    pub fn for_up(data: PathBuf, interval: Duration) -> Self {
        let jobs = Jobs { socket: data.join("jobs.sock"), drop_box: data.join("jobs") };
        let spool = spool::Config {
            max_bytes: 128 << 20,
            reserve_bytes: 4 << 20,
            free_floor_bytes: 256 << 20,
            free_floor_percent: 1,
            ..spool::Config::default()
        };
        let interval = interval.clamp(INTERVALS.0, INTERVALS.1);
        let textfile_directory = Some(data.join("textfile"));
        let collect = collect::Config { textfile_directory, ..collect::Config::default() };
        Self { interval, spool, jobs, collect, ..Self::in_dir(data) }
    }

    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(read)?.len() > FILE_BYTES_MAX {
            return Err(ConfigError::TooLong { path: path.to_owned() });
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        Self::parse(&text).map_err(|source| ConfigError::Invalid { path: path.to_owned(), source })
    }

    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Self, InvalidConfig> {
        let raw: RawConfig = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| line_of(text, span.start));
            InvalidConfig(vec![Mistake { line, text: error.message().trim().replace('\n', "; ") }])
        })?;
        let mut check = Check { text, mistakes: Vec::new() };
        let config = check.config(raw);
        check.mistakes.sort_by_key(|mistake| mistake.line);
        if check.mistakes.is_empty() { Ok(config) } else { Err(InvalidConfig(check.mistakes)) }
    }
}

impl Jobs {
    fn beside(data_dir: &Path) -> Self {
        if data_dir == Path::new(DATA_DIR_DEFAULT) {
            return Self { socket: SOCKET_DEFAULT.into(), drop_box: DROP_BOX_DEFAULT.into() };
        }
        Self { socket: data_dir.join("jobs.sock"), drop_box: data_dir.join("jobs") }
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// Turns raw values into valid ones and gathers what is wrong.
struct Check<'a> {
    text: &'a str,
    mistakes: Vec<Mistake>,
}

impl Check<'_> {
    fn config(&mut self, raw: RawConfig) -> Config {
        let RawConfig { data_dir, collector, interval, log_level, spool, jobs, collect } = raw;
        let data_dir = self.value("data_dir", data_dir, absolute);
        let mut config = Config::in_dir(data_dir.unwrap_or_else(|| DATA_DIR_DEFAULT.into()));
        config.collector = self
            .value("collector", collector, |text: String| text.parse().map_err(|error| format!("{error}")));
        config.interval = self.value("interval", interval, interval_in).unwrap_or(config.interval);
        config.log_level = self.value("log_level", log_level, log_level_in).unwrap_or_default();
        config.spool = self.spool(spool);
        let RawJobs { socket, drop_box } = jobs;
        config.jobs.socket = self.value("jobs.socket", socket, absolute).unwrap_or(config.jobs.socket);
        config.jobs.drop_box =
            self.value("jobs.drop_box", drop_box, absolute).unwrap_or(config.jobs.drop_box);
        config.collect = self.collect(collect);
        config
    }

    fn spool(&mut self, raw: RawSpool) -> spool::Config {
        let RawSpool { max_bytes, reserve_bytes, free_floor_bytes, free_floor_percent } = raw;
        let at = max_bytes.as_ref().or(reserve_bytes.as_ref()).map(|value| value.span().start);
        let mut spool = spool::Config::default();
        for (name, raw, field) in [
            ("spool.max_bytes", max_bytes, &mut spool.max_bytes),
            ("spool.reserve_bytes", reserve_bytes, &mut spool.reserve_bytes),
            ("spool.free_floor_bytes", free_floor_bytes, &mut spool.free_floor_bytes),
        ] {
            *field = self.value(name, raw, bytes_in).unwrap_or(*field);
        }
        let percent = |number: i64| {
            u8::try_from(number).ok().filter(|number| *number <= 90).ok_or("expected 0 to 90".to_owned())
        };
        let floor = self.value("spool.free_floor_percent", free_floor_percent, percent);
        spool.free_floor_percent = floor.unwrap_or(spool.free_floor_percent);
        // Two segments a lane, and the files beside them.
        let least = spool.reserve_bytes.saturating_add(spool.segment_bytes * 8);
        if spool.max_bytes < least {
            let text = format!(
                "spool.max_bytes: {} is too small, expected at least {least}: the reserve and two segments a lane",
                spool.max_bytes
            );
            self.mistakes.push(Mistake { line: at.map(|at| line_of(self.text, at)), text });
        }
        spool
    }

    fn known_collector(&mut self, name: Spanned<String>) -> Option<String> {
        let (line, name) = (line_of(self.text, name.span().start), name.into_inner());
        let names = collect::names();
        if names.contains(&name.as_str()) {
            return Some(name);
        }
        let text = format!("collect.disabled: no collector {name:?}; there are {}", names.join(", "));
        self.mistakes.push(Mistake { line: Some(line), text });
        None
    }

    fn collect(&mut self, raw: RawCollect) -> collect::Config {
        let RawCollect {
            filesystem_exclude_types,
            filesystem_exclude_mounts,
            disk_exclude_devices,
            network_exclude_devices,
            textfile_directory,
            disabled,
        } = raw;
        let pattern = |text: String| Regex::new(&text).map_err(|error| error.to_string().replace('\n', " "));
        collect::Config {
            filesystem_exclude_types: self.value(
                "collect.filesystem_exclude_types",
                filesystem_exclude_types,
                pattern,
            ),
            filesystem_exclude_mounts: self.value(
                "collect.filesystem_exclude_mounts",
                filesystem_exclude_mounts,
                pattern,
            ),
            disk_exclude_devices: self.value("collect.disk_exclude_devices", disk_exclude_devices, pattern),
            network_exclude_devices: self.value(
                "collect.network_exclude_devices",
                network_exclude_devices,
                pattern,
            ),
            textfile_directory: self.value("collect.textfile_directory", textfile_directory, absolute),
            disabled: disabled.into_iter().filter_map(|name| self.known_collector(name)).collect(),
            ..collect::Config::default()
        }
    }

    fn value<R, T>(
        &mut self,
        name: &str,
        raw: Option<Spanned<R>>,
        read: impl FnOnce(R) -> Result<T, String>,
    ) -> Option<T> {
        let raw = raw?;
        let at = raw.span().start;
        match read(raw.into_inner()) {
            Ok(value) => Some(value),
            Err(error) => {
                let line = Some(line_of(self.text, at));
                self.mistakes.push(Mistake { line, text: format!("{name}: {error}") });
                None
            }
        }
    }
}

fn absolute(text: String) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err(format!("{:?} is no absolute path", path.display())) }
}

fn interval_in(text: String) -> Result<Duration, String> {
    let interval = parse_duration(&text).map_err(|error| error.to_string())?;
    if (INTERVALS.0..=INTERVALS.1).contains(&interval) {
        return Ok(interval);
    }
    let (least, most) = (format_duration(INTERVALS.0), format_duration(INTERVALS.1));
    Err(format!("{text} is out of range, expected {least} to {most}"))
}

fn log_level_in(text: String) -> Result<LogLevel, String> {
    let found = LogLevel::ALL.into_iter().find(|(name, _)| *name == text);
    found.map(|(_, level)| level).ok_or_else(|| format!("{text:?} is none of error, warn, info, debug"))
}

/// Bytes as a number, or with a unit: KiB, MiB, GiB.
fn bytes_in(raw: RawBytes) -> Result<u64, String> {
    let text = match raw {
        RawBytes::Number(number) => {
            return u64::try_from(number).map_err(|_| format!("{number} is less than nothing"));
        }
        RawBytes::Text(text) => text,
    };
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: u64 = match text[digits.len()..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(format!("{text:?} is no size; write 512MiB, or bytes as a number")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no size; write 512MiB"))?;
    number.checked_mul(unit).ok_or_else(|| format!("{text:?} is more than a disk holds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../deploy/agent.toml");

    fn shown(config: &Config) -> String {
        format!("{config:#?}")
    }

    #[test]
    fn the_example_says_the_defaults() {
        assert_eq!(shown(&Config::parse(EXAMPLE).unwrap()), shown(&Config::default()), "as it is delivered");
        // What is commented out as `#key = value` is the default too.
        let uncommented: String = EXAMPLE
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '#'])).unwrap_or(line))
            .filter(|line| !line.starts_with("collector ="))
            .map(|line| format!("{line}\n"))
            .collect();
        let config = Config::parse(&uncommented).unwrap();
        for (what, said, default) in [
            ("interval", format!("{:?}", config.interval), format!("{:?}", Config::default().interval)),
            ("spool", format!("{:?}", config.spool), format!("{:?}", Config::default().spool)),
            ("jobs", format!("{:?}", config.jobs), format!("{:?}", Config::default().jobs)),
            ("data_dir", format!("{:?}", config.data_dir), format!("{:?}", Config::default().data_dir)),
            ("log_level", format!("{:?}", config.log_level), format!("{:?}", Config::default().log_level)),
        ] {
            assert_eq!(said, default, "{what}");
        }
        for key in ["data_dir", "interval", "max_bytes", "socket", "filesystem_exclude_mounts", "log_level"] {
            assert!(EXAMPLE.contains(key), "{key} is not shown");
        }
    }

    #[test]
    fn mistakes_are_named_with_their_lines() {
        for (text, mistakes) in [
            ("interval = \"10s\"", &[][..]),
            ("\ninterval = \"0s\"", &["line 2: interval: 0s is out of range, expected 1s to 5m"]),
            ("interval = \"soon\"", &["line 1: interval: not a duration"]),
            ("intervall = \"10s\"", &["line 1: unknown field `intervall`"]),
            ("[spool]\nmax_byte = 1", &["line 2: unknown field `max_byte`"]),
            ("data_dir = 5", &["line 1: invalid type"]),
            (
                "data_dir = \"here\"\n[spool]\nfree_floor_percent = 200\nmax_bytes = \"1 ZiB\"",
                &[
                    "line 1: data_dir: \"here\" is no absolute path",
                    "line 4: spool.max_bytes: \"1 ZiB\" is no size",
                    "line 3: spool.free_floor_percent: expected 0 to 90",
                ],
            ),
            ("[spool]\nmax_bytes = \"32MiB\"", &["line 2: spool.max_bytes: 33554432 is too small"]),
            ("collector = \"http://x:1\"", &["line 1: collector: \"http://x:1\" asks for plain HTTP"]),
            (
                "[collect]\ndisk_exclude_devices = \"(\"",
                &["line 2: collect.disk_exclude_devices: regex parse error"],
            ),
            (
                "[collect]\ndisabled = [\"timex\",\n\"meminof\"]",
                &["line 3: collect.disabled: no collector \"meminof\"; there are cpu, "],
            ),
            ("log_level = \"loud\"", &["line 1: log_level: \"loud\" is none of"]),
            ("interval = ", &["line 1: "]),
        ] {
            let said = Config::parse(text).err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(said.is_empty(), mistakes.is_empty(), "{text}: {said}");
            for mistake in mistakes {
                assert!(said.contains(mistake), "{text}: {said}");
            }
        }
    }

    #[test]
    fn sizes_and_places() {
        let config = Config::parse(
            "data_dir = \"/srv/agent\"\n[spool]\nmax_bytes = \"1GiB\"\nreserve_bytes = 1048576\n",
        )
        .unwrap();
        assert_eq!((config.spool.max_bytes, config.spool.reserve_bytes), (1 << 30, 1 << 20));
        assert_eq!(config.jobs.socket, Path::new("/srv/agent/jobs.sock"), "an agent beside the host's own");
        assert_eq!(Config::default().jobs.socket, Path::new(SOCKET_DEFAULT));
        let up = Config::for_up("/tmp/up".into(), Duration::from_millis(1));
        assert_eq!((up.interval, up.spool.reserve_bytes), (Duration::from_secs(1), 4 << 20));
    }
}
