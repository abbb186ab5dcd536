//! The network stack's counters: protocols, sockets, packet backlog and socket queues.

use tocsin_shared::time::Timestamp;

use super::fields::{Malformed, hex, number};
use super::file::KernelFile;
use super::section::{Name, Section};
use super::source::{CollectError, Roots, Source, absent_or};

/// One counter of `netstat`, `snmp` or `snmp6`.
type Counter<'a> = (&'a str, &'a str, f64);

/// Whether node_exporter says a counter by default.
fn wanted(protocol: &str, field: &str) -> bool {
    if field == "InErrors" || field == "InErrs" {
        return true;
    }
    match protocol {
        "Ip" => field == "Forwarding",
        "Ip6" | "IpExt" => matches!(field, "InOctets" | "OutOctets"),
        "Icmp" | "Icmp6" => matches!(field, "InMsgs" | "OutMsgs"),
        "TcpExt" => {
            field.starts_with("Listen")
                || field.starts_with("Syncookies")
                || matches!(field, "TCPSynRetrans" | "TCPTimeouts" | "TCPOFOQueue" | "TCPRcvQDrop")
        }
        "Tcp" => matches!(
            field,
            "ActiveOpens"
                | "InSegs"
                | "OutSegs"
                | "OutRsts"
                | "PassiveOpens"
                | "RetransSegs"
                | "CurrEstab"
                | "MaxConn"
        ),
        "Udp" | "Udp6" => {
            matches!(field, "InDatagrams" | "OutDatagrams" | "NoPorts" | "RcvbufErrors" | "SndbufErrors")
        }
        _ => false,
    }
}

/// Reads `/proc/net/netstat` or `snmp`: a line of titles, then a line of values, each after its protocol.
pub(crate) fn parse_netstat(text: &str) -> Result<Vec<Counter<'_>>, Malformed> {
    let mut counters = Vec::new();
    let mut lines = text.lines();
    while let (Some(titles), Some(values)) = (lines.next(), lines.next()) {
        let malformed = || Malformed::new("/proc/net/netstat", values);
        let (protocol, titles) = titles.split_once(':').ok_or_else(malformed)?;
        let (same, values) = values.split_once(':').ok_or_else(malformed)?;
        if protocol != same {
            return Err(malformed());
        }
        let mut values = values.split_ascii_whitespace();
        for field in titles.split_ascii_whitespace() {
            let value = values.next().ok_or_else(malformed)?;
            if wanted(protocol, field) {
                counters.push((protocol, field, number(value).ok_or_else(malformed)?));
            }
        }
    }
    Ok(counters)
}

/// Reads `/proc/net/snmp6`: names like `Ip6InOctets`, one counter a line.
pub(crate) fn parse_snmp6(text: &str) -> Result<Vec<Counter<'_>>, Malformed> {
    let mut counters = Vec::new();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(char::is_whitespace) else { continue };
        let Some(at) = name.find('6') else { continue };
        let (protocol, field) = name.split_at(at + 1);
        if wanted(protocol, field) {
            let value = number(value.trim()).ok_or_else(|| Malformed::new("/proc/net/snmp6", line))?;
            counters.push((protocol, field, value));
        }
    }
    Ok(counters)
}

/// The `netstat` collector.
pub(crate) struct Netstat {
    tables: [KernelFile; 2],
    snmp6: KernelFile,
}

impl Netstat {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self {
            tables: ["net/netstat", "net/snmp"].map(|path| KernelFile::table(roots.proc(path))),
            snmp6: KernelFile::table(roots.proc("net/snmp6")),
        }
    }
}

fn say(counters: Vec<Counter<'_>>, out: &mut Section) {
    for (protocol, field, value) in counters {
        out.put(Name(["node_netstat_", protocol, "_", field, ""]), &[], value);
    }
}

impl Source for Netstat {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        for table in &mut self.tables {
            say(parse_netstat(&table.read()?)?, out);
        }
        if let Ok(text) = self.snmp6.read() {
            say(parse_snmp6(&text)?, out); // Absent where IPv6 is off.
        }
        Ok(())
    }
}

/// One number of `/proc/net/sockstat`: protocol, field, value.
pub(crate) fn parse_sockstat(text: &str) -> Result<Vec<Counter<'_>>, Malformed> {
    let mut counters = Vec::new();
    for line in text.lines() {
        let malformed = || Malformed::new("/proc/net/sockstat", line);
        let (protocol, pairs) = line.split_once(':').ok_or_else(malformed)?;
        let mut words = pairs.split_ascii_whitespace();
        while let Some(field) = words.next() {
            counters.push((protocol, field, words.next().and_then(number).ok_or_else(malformed)?));
        }
    }
    Ok(counters)
}

/// The `sockstat` collector.
pub(crate) struct Sockstat {
    files: [KernelFile; 2],
    page_bytes: f64,
}

impl Sockstat {
    pub(crate) fn new(roots: &Roots, page_bytes: f64) -> Self {
        let files = ["net/sockstat", "net/sockstat6"].map(|path| KernelFile::table(roots.proc(path)));
        Self { files, page_bytes }
    }
}

impl Source for Sockstat {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        let [four, six] = &mut self.files;
        let page_bytes = self.page_bytes;
        let mut say = |text: &str| -> Result<(), CollectError> {
            for (protocol, field, value) in parse_sockstat(text)? {
                out.put(Name(["node_sockstat_", protocol, "_", field, ""]), &[], value);
                if field == "mem" {
                    let name = Name(["node_sockstat_", protocol, "_mem_bytes", "", ""]);
                    out.put(name, &[], value * page_bytes);
                }
            }
            Ok(())
        };
        say(&four.read()?)?;
        six.read().map_or(Ok(()), |text| say(&text)) // Absent where IPv6 is off.
    }
}

/// The columns of `/proc/net/softnet_stat` that are said: column, metric.
const SOFTNET: [(usize, &str); 6] = [
    (0, "node_softnet_processed_total"),
    (1, "node_softnet_dropped_total"),
    (2, "node_softnet_times_squeezed_total"),
    (8, "node_softnet_cpu_collision_total"),
    (9, "node_softnet_received_rps_total"),
    (10, "node_softnet_flow_limit_count_total"),
];
const SOFTNET_BACKLOG: usize = 11;
const SOFTNET_CPU: usize = 12;

/// One line of `/proc/net/softnet_stat`, hexadecimal; newer kernels have more columns.
pub(crate) fn parse_softnet(line: &str) -> Result<Vec<u64>, Malformed> {
    let columns: Option<Vec<u64>> = line.split_ascii_whitespace().map(hex).collect();
    columns.filter(|columns| columns.len() >= 9).ok_or_else(|| Malformed::new("/proc/net/softnet_stat", line))
}

/// The `softnet` collector.
pub(crate) struct Softnet(KernelFile);

impl Softnet {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self(KernelFile::table(roots.proc("net/softnet_stat")))
    }
}

impl Source for Softnet {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        for (at, line) in self.0.read()?.lines().enumerate() {
            let columns = parse_softnet(line)?;
            // Older kernels do not say which processor a line is for; their lines are those of the online ones.
            let cpu = columns.get(SOFTNET_CPU).copied().unwrap_or(at as u64).to_string();
            let labels = [("cpu", cpu.as_str())];
            let backlog = (SOFTNET_BACKLOG, "node_softnet_backlog_len");
            for (column, metric) in SOFTNET.into_iter().chain([backlog]) {
                if let Some(value) = columns.get(column) {
                    out.put(metric, &labels, *value as f64);
                }
            }
        }
        Ok(())
    }
}

/// Sums the transmit and receive queues of a socket table such as `/proc/net/udp`, in bytes.
pub(crate) fn parse_queues(text: &str) -> Result<(f64, f64), Malformed> {
    let (mut transmit, mut receive) = (0u64, 0u64);
    for line in text.lines().skip(1) {
        let queues = line.split_ascii_whitespace().nth(4).and_then(|field| field.split_once(':'));
        let sums = queues.and_then(|(tx, rx)| Some((hex(tx)?, hex(rx)?)));
        let (tx, rx) = sums.ok_or_else(|| Malformed::new("/proc/net/udp", line))?;
        (transmit, receive) = (transmit.saturating_add(tx), receive.saturating_add(rx));
    }
    Ok((transmit as f64, receive as f64))
}

/// The `udp_queues` collector.
pub(crate) struct UdpQueues([(&'static str, KernelFile); 2]);

impl UdpQueues {
    pub(crate) fn new(roots: &Roots) -> Self {
        let files = [("v4", "net/udp"), ("v6", "net/udp6")];
        Self(files.map(|(version, path)| (version, KernelFile::table(roots.proc(path)))))
    }
}

impl Source for UdpQueues {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        let mut found = false;
        for (version, file) in &mut self.0 {
            let text = match file.read().map_err(|error| absent_or(error, "UDP sockets")) {
                Ok(text) => text,
                Err(CollectError::Absent(_)) => continue,
                Err(error) => return Err(error),
            };
            let (transmit, receive) = parse_queues(&text)?;
            out.put("node_udp_queues", &[("queue", "tx"), ("ip", version)], transmit);
            out.put("node_udp_queues", &[("queue", "rx"), ("ip", version)], receive);
            found = true;
        }
        if found { Ok(()) } else { Err(CollectError::Absent("UDP sockets")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_counters_are_paired_with_their_titles() {
        let text = "TcpExt: SyncookiesSent Odd ListenDrops\nTcpExt: 1 2 3\nTcp: MaxConn InErrs\nTcp: -1 5\n";
        assert_eq!(
            parse_netstat(text).unwrap(),
            [
                ("TcpExt", "SyncookiesSent", 1.0),
                ("TcpExt", "ListenDrops", 3.0),
                ("Tcp", "MaxConn", -1.0),
                ("Tcp", "InErrs", 5.0)
            ]
        );
        for text in ["Tcp: InErrs\nUdp: 1\n", "Tcp: InErrs OutSegs\nTcp: 1\n", "a\nb\n"] {
            assert!(parse_netstat(text).is_err(), "{text}");
        }
        let six =
            parse_snmp6("Ip6InOctets                     128\nIcmp6InMsgs 1\nIp6InReceives 2\n").unwrap();
        assert_eq!(six, [("Ip6", "InOctets", 128.0), ("Icmp6", "InMsgs", 1.0)]);
    }

    #[test]
    fn socket_counts_are_read() {
        let text = "sockets: used 15\nTCP: inuse 1 orphan 0 mem 266\n";
        let want =
            [("sockets", "used", 15.0), ("TCP", "inuse", 1.0), ("TCP", "orphan", 0.0), ("TCP", "mem", 266.0)];
        assert_eq!(parse_sockstat(text).unwrap(), want);
        assert!(parse_sockstat("TCP: inuse\n").is_err());
    }

    #[test]
    fn backlog_lines_are_hexadecimal() {
        assert_eq!(parse_softnet("0000001a 0 2 0 0 0 0 0 3").unwrap()[..3], [26, 0, 2]);
        assert!(parse_softnet("1 2 3").is_err());
    }

    #[test]
    fn queues_are_summed_over_sockets() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr\n\
                    1: 00000000:0044 00000000:0000 07 00000001:0000000A 00:00000000\n\
                    2: 00000000:0045 00000000:0000 07 00000002:00000001 00:00000000\n";
        assert_eq!(parse_queues(text), Ok((3.0, 11.0)));
        assert!(parse_queues("titles\n1: x\n").is_err());
    }
}
