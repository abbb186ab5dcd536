//! What each metric is: its kind and its unit, for the documentation and for metadata queries.
//!
//! Families whose names are made from the kernel's own words have one row for all, ending in `*`.

/// How a metric's values behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, but for restarts.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Always 1; its labels are the message.
    Info,
    /// node_exporter leaves its kind open; in truth a counter or a gauge.
    Untyped,
}

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    None,
    Seconds,
    Bytes,
    Ratio,
    Hertz,
    Celsius,
}

impl Kind {
    /// The word in the exposition format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge | Self::Info => "gauge",
            Self::Untyped => "untyped",
        }
    }
}

/// Families by prefix, for the names that follow no rule or where the kernel makes them up. The first match counts.
const EXCEPTIONS: [(&str, Kind, Unit); 22] = [
    ("node_memory_HugePages_*", Kind::Gauge, Unit::None),
    ("node_memory_*", Kind::Gauge, Unit::Bytes),
    ("node_vmstat_*", Kind::Untyped, Unit::None),
    ("node_netstat_*", Kind::Untyped, Unit::None),
    ("node_intr_total", Kind::Counter, Unit::None),
    ("node_boot_time_seconds", Kind::Gauge, Unit::Seconds),
    ("node_disk_io_now", Kind::Gauge, Unit::None),
    ("node_md_blocks*", Kind::Gauge, Unit::None),
    ("node_network_flags", Kind::Gauge, Unit::None),
    ("node_network_speed_bytes", Kind::Gauge, Unit::Bytes),
    ("node_sockstat_TCP_mem_bytes", Kind::Gauge, Unit::Bytes),
    ("node_sockstat_UDP_mem_bytes", Kind::Gauge, Unit::Bytes),
    ("node_sockstat_*", Kind::Gauge, Unit::None),
    ("node_scrape_collector_duration_seconds", Kind::Gauge, Unit::Seconds),
    ("node_hwmon_temp_alarm", Kind::Gauge, Unit::None),
    ("node_hwmon_chip_names", Kind::Info, Unit::None),
    ("node_hwmon_sensor_label", Kind::Info, Unit::None),
    ("node_thermal_zone_temp", Kind::Gauge, Unit::Celsius),
    ("node_filefd_*", Kind::Gauge, Unit::None),
    ("node_nf_conntrack_*", Kind::Gauge, Unit::None),
    ("node_load*", Kind::Gauge, Unit::None),
    ("node_os_version", Kind::Gauge, Unit::None),
];

/// A metric's kind and unit: by the exceptions, else by what its name ends in, as the naming rules of Prometheus
/// want it (`_total` counts, `_info` informs, the word before says the unit).
pub fn describe(metric: &str) -> (Kind, Unit) {
    let is = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => metric.starts_with(prefix),
        None => metric == pattern,
    };
    if let Some((_, kind, unit)) = EXCEPTIONS.iter().find(|(pattern, ..)| is(pattern)) {
        return (*kind, *unit);
    }
    let (kind, stem) = match metric.strip_suffix("_total") {
        Some(stem) => (Kind::Counter, stem),
        None if metric.ends_with("_info") => (Kind::Info, metric),
        None => (Kind::Gauge, metric),
    };
    let unit = match stem.rsplit('_').next() {
        Some("seconds") => Unit::Seconds,
        Some("bytes") => Unit::Bytes,
        Some("ratio") => Unit::Ratio,
        Some("hertz") => Unit::Hertz,
        Some("celsius") => Unit::Celsius,
        _ => Unit::None,
    };
    (kind, unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_the_kind_and_unit_that_readers_expect() {
        for (metric, kind, unit) in [
            ("node_cpu_seconds_total", Kind::Counter, Unit::Seconds),
            ("node_memory_MemFree_bytes", Kind::Gauge, Unit::Bytes),
            ("node_memory_HugePages_Free", Kind::Gauge, Unit::None),
            ("node_vmstat_oom_kill", Kind::Untyped, Unit::None),
            ("node_boot_time_seconds", Kind::Gauge, Unit::Seconds),
            ("node_uname_info", Kind::Info, Unit::None),
            ("node_network_receive_bytes_total", Kind::Counter, Unit::Bytes),
            ("node_timex_frequency_adjustment_ratio", Kind::Gauge, Unit::Ratio),
            ("node_load1", Kind::Gauge, Unit::None),
            ("process_cpu_seconds_total", Kind::Counter, Unit::Seconds),
        ] {
            assert_eq!(describe(metric), (kind, unit), "{metric}");
        }
    }
}
