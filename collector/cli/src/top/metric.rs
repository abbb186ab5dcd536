//! The figures of a host and the expressions that give them, each one value a host.
//!
//! Values are rounded to what is shown: what does not change on the screen is not sent.

/// A figure of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metric {
    Load,
    Cpu,
    Memory,
    Filesystem,
    Busy,
    Received,
    Sent,
}

/// File systems that are always full, or never.
const NO_DISKS: &str = "fstype!~\"squashfs|iso9660|erofs|udf|tmpfs|ramfs|overlay\"";

impl Metric {
    pub(super) const ALL: [Self; 7] =
        [Self::Load, Self::Cpu, Self::Memory, Self::Filesystem, Self::Busy, Self::Received, Self::Sent];

    /// Those whose last hour is shown.
    pub(super) const DRAWN: [Self; 6] =
        [Self::Cpu, Self::Memory, Self::Load, Self::Busy, Self::Received, Self::Sent];

    /// One value for each host, or for one of them.
    pub(super) fn expression(self, instance: Option<&str>) -> String {
        let of = |more: &str| {
            let instance = instance.map(|name| {
                format!(
                    "instance=\"{}\"",
                    name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
                )
            });
            let parts: Vec<&str> =
                [more].into_iter().filter(|part| !part.is_empty()).chain(instance.as_deref()).collect();
            if parts.is_empty() { String::new() } else { format!("{{{}}}", parts.join(",")) }
        };
        let (all, idle, disks, net) = (of(""), of("mode=\"idle\""), of(NO_DISKS), of("device!=\"lo\""));
        match self {
            Self::Load => format!("round(max by (instance) (node_load1{all}), 0.01)"),
            Self::Cpu => {
                format!("round(100 * (1 - avg by (instance) (rate(node_cpu_seconds_total{idle}[1m]))))")
            }
            Self::Memory => format!(
                "round(100 * max by (instance) (1 - node_memory_MemAvailable_bytes{all} / node_memory_MemTotal_bytes{all}))"
            ),
            Self::Filesystem => format!(
                "round(100 * max by (instance) (1 - node_filesystem_avail_bytes{disks} / (node_filesystem_size_bytes{disks} > 0)))"
            ),
            Self::Busy => {
                format!("round(100 * max by (instance) (rate(node_disk_io_time_seconds_total{all}[1m])))")
            }
            Self::Received => {
                format!("round(sum by (instance) (rate(node_network_receive_bytes_total{net}[1m])), 100)")
            }
            Self::Sent => {
                format!("round(sum by (instance) (rate(node_network_transmit_bytes_total{net}[1m])), 100)")
            }
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Filesystem => "fullest fs",
            Self::Busy => "disk busy",
            Self::Received => "received",
            Self::Sent => "sent",
        }
    }

    /// A value as the details show it.
    pub(super) fn shown(self, value: f64) -> String {
        match self {
            Self::Load => format!("{value:.2}"),
            Self::Cpu | Self::Memory | Self::Filesystem | Self::Busy => format!("{value:.0}%"),
            Self::Received | Self::Sent => format!("{}/s", crate::figures::bytes(value.max(0.0) as u64)),
        }
    }
}
