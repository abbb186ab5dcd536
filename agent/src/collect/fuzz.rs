//! The parsers of the kernel's files and of text files, for fuzzing: none may panic, whatever is in them.

use super::*;

/// Parses a file's bytes as every kind of file there is.
pub fn parse(data: &[u8]) {
    let text = &String::from_utf8_lossy(data);
    arp::parse(text);
    conntrack::parse(text).ok();
    filefd::parse(text).ok();
    loadavg::parse(text).ok();
    mdadm::parse(text).ok();
    meminfo::parse(text).ok();
    os::parse(text);
    process::parse(text).ok();
    process::parse_limit(text, "Max open files");
    sockstat::parse(text).ok();
    stat::parse(text).ok();
    udp_queues::parse(text).ok();
    vmstat::parse(text).ok();
    netclass::parse(text);
    if let Ok(parsed) = textfile::parse(text) {
        assert!(parsed.len() <= text.len(), "more series than bytes");
    }
    for line in text.lines() {
        cpu::parse(line).ok();
        diskstats::parse(line).ok();
        hwmon::parse(line);
        netdev::parse(line).ok();
        pressure::parse(text, line).ok();
        schedstat::parse(line).ok();
        softnet::parse(line).ok();
    }
}
