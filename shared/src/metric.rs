//! What a metric is: its kind and its unit, for metadata queries and the exposition of samples.
//!
//! Here are the metrics that agents send, under node_exporter's names. Families whose names are made from the kernel's
//! own words have one row for all, ending in `*`. What others send says itself what it is.

/// How a metric's values behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Only grows, but for restarts.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by buckets that only grow.
    Histogram,
    /// Counts by buckets that go up and down.
    GaugeHistogram,
    /// Quantiles that were computed at the source.
    Summary,
    /// Always 1; its labels are the message.
    Info,
    /// 1 or 0 for each state.
    StateSet,
    /// Whoever sends it leaves its kind open; in truth a counter or a gauge.
    Unknown,
}

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    None,
    Seconds,
    Bytes,
    Ratio,
    Hertz,
    Celsius,
}

impl Kind {
    /// The word that metadata queries and OpenMetrics have for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
            Self::Unknown => "unknown",
        }
    }

    /// The word that the text exposition format 0.0.4 has for it, which knows fewer.
    pub const fn as_text_format(self) -> &'static str {
        match self {
            Self::Counter | Self::Gauge | Self::Histogram | Self::Summary => self.as_str(),
            Self::Info | Self::StateSet => "gauge",
            Self::GaugeHistogram | Self::Unknown => "untyped",
        }
    }
}

impl Unit {
    /// The word at the end of a metric's name; empty for what is only counted.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Ratio => "ratio",
            Self::Hertz => "hertz",
            Self::Celsius => "celsius",
        }
    }
}

/// Families by prefix, for the names that follow no rule or where the kernel makes them up. The first match counts.
const EXCEPTIONS: [(&str, Kind, Unit); 22] = [
    ("node_memory_HugePages_*", Kind::Gauge, Unit::None),
    ("node_memory_*", Kind::Gauge, Unit::Bytes),
    ("node_vmstat_*", Kind::Unknown, Unit::None),
    ("node_netstat_*", Kind::Unknown, Unit::None),
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

/// What the families of the agents' metrics tell, by prefix; the first match counts.
const HELPS: &[(&str, &str)] = &[
    ("node_arp_", "Entries of the ARP table by device, from /proc/net/arp."),
    ("node_bonding_", "Links of bonded network devices, from /sys/class/net."),
    ("node_boot_time_seconds", "When the host was booted, in seconds since 1970, from /proc/stat."),
    ("node_context_switches_total", "Context switches since boot, from /proc/stat."),
    ("node_cpu_guest_seconds_total", "Seconds that CPUs ran guests, by mode, from /proc/stat."),
    ("node_cpu_seconds_total", "Seconds that CPUs spent in each mode, from /proc/stat."),
    ("node_cpu_", "What the kernel says of CPUs: frequencies, throttling, identity."),
    ("node_disk_", "Reads, writes and busy time of block devices, from /proc/diskstats."),
    ("node_dmi_", "Identity of the machine, from /sys/class/dmi."),
    ("node_edac_", "Memory errors that hardware corrected, or did not, from /sys/devices/system/edac."),
    ("node_entropy_", "Entropy that the kernel has for random numbers."),
    ("node_exporter_", "The program that collects this host's metrics."),
    ("node_filefd_", "Open files of the host and how many there may be, from /proc/sys/fs/file-nr."),
    ("node_filesystem_", "Size and room of file systems, in bytes and files, by mount."),
    ("node_forks_total", "Processes and threads started since boot, from /proc/stat."),
    ("node_hwmon_", "Sensors of the hardware: temperatures, fans, voltages, from /sys/class/hwmon."),
    ("node_intr_total", "Interrupts since boot, from /proc/stat."),
    ("node_kernel_hung_", "Tasks that the kernel found hung."),
    ("node_load", "Load average over 1, 5 or 15 minutes, from /proc/loadavg."),
    ("node_md_", "Software RAID arrays, from /proc/mdstat."),
    ("node_memory_", "A line of /proc/meminfo."),
    ("node_netstat_", "Counters of the network protocols, from /proc/net."),
    ("node_network_", "Traffic, errors and state of network devices, from /proc/net/dev and /sys/class/net."),
    ("node_nf_conntrack_", "Tracked connections and how many there may be."),
    ("node_os_", "The operating system, from /etc/os-release."),
    ("node_pressure_", "Seconds that tasks waited for a resource, from /proc/pressure."),
    ("node_procs_", "Processes that run or are blocked, from /proc/stat."),
    ("node_schedstat_", "Seconds that tasks ran or waited for a CPU, from /proc/schedstat."),
    ("node_scrape_collector_", "How collecting a family went: whether it did, and how long it took."),
    ("node_selinux_", "State of SELinux."),
    ("node_sockstat_", "Sockets in use, from /proc/net/sockstat."),
    ("node_softnet_", "Packets at each CPU before the protocols, from /proc/net/softnet_stat."),
    ("node_tcp_", "TCP connections by state."),
    ("node_textfile_", "Files of metrics that others write on the host."),
    ("node_thermal_zone_", "Temperatures of thermal zones, from /sys/class/thermal."),
    ("node_cooling_device_", "State of cooling devices, from /sys/class/thermal."),
    ("node_time_", "The host's clock."),
    ("node_timex_", "How well the host's clock is kept in time, from adjtimex."),
    ("node_udp_queues", "Bytes that wait in queues of UDP sockets."),
    ("node_uname_info", "Kernel and name of the host, from uname."),
    ("node_vmstat_", "A line of /proc/vmstat."),
    ("process_", "The agent's own process: CPU time, memory, open files."),
    ("tocsin_agent_", "The agent itself."),
    ("tocsin_", "Tocsin itself."),
    ("up", "1 for each row that the host's agent has sent."),
];

/// What a metric of an agent tells, in a sentence; empty for what no family is known of.
pub fn help(metric: &str) -> &'static str {
    HELPS.iter().find(|(prefix, _)| metric.starts_with(prefix)).map_or("", |(_, help)| help)
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
            ("node_vmstat_oom_kill", Kind::Unknown, Unit::None),
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
