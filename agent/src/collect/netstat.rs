//! The network protocols' counters, from `/proc/net/netstat`, `snmp` and `snmp6`. Of some three hundred the ones are
//! said that node_exporter says by default.

use tocsin_shared::time::Timestamp;

use super::fields::{Malformed, number};
use super::file::KernelFile;
use super::section::{Name, Section};
use super::source::{CollectError, Roots, Source};

/// One counter: protocol, field, value.
type Counter<'a> = (&'a str, &'a str, f64);

/// Whether a counter is said: node_exporter's usual ones and `Tcp_MaxConn`, which its dashboard reads.
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
}
