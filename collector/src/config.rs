//! The collector's configuration: a TOML file, read once, every mistake of it told together with its line.

mod file;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use file::{Mistake, parse};

use crate::listen::Limits;
use crate::{receive, room};

/// The front's port: the CLI, dashboards, paging tools, enrolment.
pub const FRONT_PORT: u16 = 7640;
/// The agents' port.
pub const AGENTS_PORT: u16 = 7641;
/// The port of health and self-metrics, on loopback.
pub const LOCAL_PORT: u16 = 7642;

/// The reserve of `tocsin up`: a first look takes no quarter of a gigabyte.
const UP_RESERVE: u64 = 32 << 20;

/// Everything the collector can be told. `Default` is what an empty file gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Everything the collector keeps.
    pub data_dir: PathBuf,
    /// Names and addresses by which agents and tools reach it: its certificate carries them, beside this host's own.
    pub names: Vec<String>,
    pub front: SocketAddr,
    pub agents: SocketAddr,
    pub local: SocketAddr,
    /// Whether the local port answers queries of everyone on this host, without a credential.
    pub local_queries: bool,
    /// The operator's own certificate and key for the front.
    pub front_certificate: Option<(PathBuf, PathBuf)>,
    /// Whether the front also speaks TLS 1.2.
    pub front_tls12: bool,
    /// Whether the bundled rules for hosts are in force.
    pub bundled_rules: bool,
    /// Rule files, and directories whose `*.yml` and `*.yaml` are rule files.
    pub rules: Vec<PathBuf>,
    /// How often agents send a heartbeat; three missed ones make a host unreachable.
    pub heartbeat: Duration,
    /// Of agents' certificates.
    pub certificate_lifetime: Duration,
    pub reopen_window: Duration,
    pub auto_resolve_after: Duration,
    pub keep_samples: Duration,
    pub samples_bytes_max: u64,
    /// When the disk runs short, blocks go early, the oldest first, until they take no more than this.
    pub samples_bytes_min: u64,
    pub keep_events: Duration,
    /// Beyond so many bytes the events journal waits for no consumer before it drops what is old enough.
    pub events_bytes_max: u64,
    pub room: room::Config,
    /// What sources that push samples may do.
    pub receive: receive::Config,
    /// Memory, where that is less than what the control group and the machine allow.
    pub memory_max: Option<u64>,
    /// What connections may take, on both listeners.
    pub limits: Limits,
    /// `error`, `warn`, `info`, `debug` or a tracing filter.
    pub log: String,
}

impl Default for Config {
    fn default() -> Self {
        let all = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            data_dir: "/var/lib/tocsin/collector".into(),
            names: Vec::new(),
            front: (all, FRONT_PORT).into(),
            agents: (all, AGENTS_PORT).into(),
            local: (Ipv4Addr::LOCALHOST, LOCAL_PORT).into(),
            local_queries: false,
            front_certificate: None,
            front_tls12: false,
            bundled_rules: true,
            rules: Vec::new(),
            heartbeat: crate::ingest::HEARTBEAT,
            certificate_lifetime: Duration::from_secs(24 * 3600),
            reopen_window: Duration::from_secs(30 * 60),
            auto_resolve_after: Duration::from_secs(60),
            keep_samples: Duration::from_secs(30 * 86_400),
            samples_bytes_max: 20 << 30,
            samples_bytes_min: 1 << 30,
            keep_events: Duration::from_secs(400 * 86_400),
            events_bytes_max: 10 << 30,
            room: room::Config::default(),
            receive: receive::Config::default(),
            memory_max: None,
            limits: Limits { exempt_loopback: true, ..Limits::default() },
            log: "info".to_owned(),
        }
    }
}

impl Config {
    /// What `tocsin up` starts: the defaults, in its own directory and on one address.
    pub fn for_up(data: PathBuf, listen: IpAddr, rules: Vec<PathBuf>) -> Self {
        Self {
            data_dir: data,
            front: (listen, FRONT_PORT).into(),
            agents: (listen, AGENTS_PORT).into(),
            rules,
            room: room::Config { reserve_bytes: UP_RESERVE, ..room::Config::default() },
            ..Self::default()
        }
    }
}
