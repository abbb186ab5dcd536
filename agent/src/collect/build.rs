//! Which build of the agent this is.

use tocsin_shared::time::Timestamp;

use super::section::Section;
use super::source::{CollectError, Source};

/// Says which build this is, also under the name that dashboards made for node_exporter read.
pub(crate) struct BuildInfo;

impl Source for BuildInfo {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        let version = env!("CARGO_PKG_VERSION");
        let arch = std::env::consts::ARCH;
        out.put("tocsin_agent_build_info", &[("version", version), ("arch", arch)], 1.0);
        let goarch = match arch {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let labels =
            [("version", version), ("branch", "tocsin-agent"), ("goos", "linux"), ("goarch", goarch)];
        out.put("node_exporter_build_info", &labels, 1.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashboards_find_the_build_under_both_names() {
        let mut section = Section::default();
        section.begin();
        BuildInfo.read(Timestamp::default(), &mut section).unwrap();
        section.end();
        for (slot, metric) in
            section.slots().iter().zip(["tocsin_agent_build_info", "node_exporter_build_info"])
        {
            assert_eq!(slot.labels.metric(), metric);
            assert_eq!(slot.labels.get("version"), Some(env!("CARGO_PKG_VERSION")));
        }
        assert_eq!(section.slots().len(), 2);
    }
}
