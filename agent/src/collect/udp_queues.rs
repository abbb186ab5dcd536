//! Bytes that wait in the queues of all UDP sockets.

use tocsin_shared::time::Timestamp;

use super::fields::{Malformed, hex};
use super::file::KernelFile;
use super::section::Section;
use super::source::{CollectError, Roots, Source, absent_or};

/// Sums the transmit and receive queues of a socket table such as `/proc/net/udp`, in bytes.
pub(crate) fn parse(text: &str) -> Result<(f64, f64), Malformed> {
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
            let (transmit, receive) = parse(&text)?;
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
    fn queues_are_summed_over_sockets() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr\n\
                    1: 00000000:0044 00000000:0000 07 00000001:0000000A 00:00000000\n\
                    2: 00000000:0045 00000000:0000 07 00000002:00000001 00:00000000\n";
        assert_eq!(parse(text), Ok((3.0, 11.0)));
        assert!(parse("titles\n1: x\n").is_err());
    }
}
