//! Faults below TCP, made by the kernel's packet filter on the loopback interface for one port. Needs root and `nft`.

use std::process::Command;

/// A table of the packet filter; gone with this value.
pub(super) struct Filter(String);

impl Filter {
    /// Drops packets to and from this port that match; none, with the reason printed, where that cannot be done.
    pub(super) fn drop_at(address: &str, matching: &str) -> anyhow::Result<Option<Self>> {
        let port: std::net::SocketAddr = address.parse()?;
        let (port, name) = (port.port(), format!("tocsin_test_{}", port.port()));
        let rules = format!(
            "add table ip {name}; \
             add chain ip {name} input {{ type filter hook input priority 0; }}; \
             add rule ip {name} input tcp dport {port} {matching} drop; \
             add rule ip {name} input tcp sport {port} {matching} drop"
        );
        match Command::new("nft").arg(&rules).output() {
            Ok(said) if said.status.success() => Ok(Some(Self(name))),
            Ok(said) => {
                println!("skipped: nft refuses: {}", String::from_utf8_lossy(&said.stderr).trim());
                Ok(None)
            }
            Err(error) => {
                println!("skipped: no nft, which drops packets: {error}");
                Ok(None)
            }
        }
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        // If it cannot be removed, it concerns a port that nobody uses any more.
        Command::new("nft").args(["delete", "table", "ip", &self.0]).status().ok();
    }
}
