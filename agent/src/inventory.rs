//! What this host is: facts for the list of hosts, taken at each start and sent with the agent's greeting.
//!
//! The machine-id identifies a host to everything that runs on it and must not leave it; only its hash does.

use std::fs;
use std::path::Path;

use ring::digest::{SHA256, digest};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};
use tocsin_shared::time::Timestamp;

/// Facts about a host. A text is empty where the system does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    pub hostname: String,
    /// The distribution and its version, `Debian GNU/Linux 12`.
    pub os: String,
    /// The kernel's release, `6.12.8-amd64`.
    pub kernel: String,
    /// The processor architecture, `x86_64`.
    pub arch: String,
    /// Logical processors.
    pub cpus: u32,
    pub cpu_model: String,
    pub memory_bytes: u64,
    pub booted_at: Timestamp,
    /// The kernel's random name of this boot, a uuid.
    pub boot_id: String,
    /// SHA-256 of the machine-id in hexadecimal; the same across boots, different after a clone was made its own.
    pub machine_id_hash: String,
    /// This agent's version.
    pub agent_version: String,
}

/// Reads the facts of this host. What cannot be read is left empty: an inventory never keeps an agent from starting.
pub fn take() -> Inventory {
    let wanted = RefreshKind::nothing()
        .with_cpu(CpuRefreshKind::nothing())
        .with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(wanted).ok();
    let cpus = system.as_ref().map_or(&[][..], System::cpus);
    let booted = System::boot_time().unwrap_or_default();
    Inventory {
        hostname: System::host_name().unwrap_or_default(),
        os: System::long_os_version().unwrap_or_default(),
        kernel: System::kernel_version().unwrap_or_default(),
        arch: System::cpu_arch(),
        cpus: u32::try_from(cpus.len()).unwrap_or(u32::MAX),
        cpu_model: cpus.first().map(|cpu| cpu.brand().trim().to_owned()).unwrap_or_default(),
        memory_bytes: system.as_ref().map_or(0, System::total_memory),
        booted_at: Timestamp::from_millis(i64::try_from(booted).unwrap_or_default().saturating_mul(1000)),
        boot_id: boot_id(),
        machine_id_hash: hash_machine_id(&line(Path::new("/etc/machine-id"))),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The kernel's random name of this boot; empty where it does not tell.
pub(crate) fn boot_id() -> String {
    line(Path::new("/proc/sys/kernel/random/boot_id"))
}

fn line(path: &Path) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// The hash under which a machine-id may leave the host; empty for an empty or not yet set one.
fn hash_machine_id(id: &str) -> String {
    if id.is_empty() || id == "uninitialized" {
        return String::new();
    }
    digest(&SHA256, id.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_id_leaves_only_as_a_hash() {
        for (id, hash) in [
            ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            ("", ""),
            ("uninitialized", ""),
        ] {
            assert_eq!(hash_machine_id(id), hash);
        }
    }

    #[test]
    fn this_host_has_the_facts_every_host_has() {
        let inventory = take();
        assert!(inventory.cpus > 0 && inventory.memory_bytes > 1 << 20 && !inventory.arch.is_empty());
        assert!(inventory.booted_at > Timestamp::from_millis(0));
        assert_eq!(inventory.boot_id.len(), 36, "a uuid");
        assert!(!inventory.kernel.is_empty());
    }
}
