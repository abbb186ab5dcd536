//! What goes wrong before anything runs: one clear message, an exit code, no panic.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use tocsin_tests::process::output;
use tocsin_tests::site::{Addresses, collector_config, text};

use crate::RULES;

/// A directory with a valid configuration of a collector in it, to be spoilt.
struct Collector {
    dir: tempfile::TempDir,
}

impl Collector {
    fn new(rules: &str, front: &str) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let any = "127.0.0.1:0".to_owned();
        let addresses = Addresses { front: front.into(), agents: any.clone(), local: any };
        std::fs::write(dir.path().join("rules.yml"), rules)?;
        let config = collector_config(&dir.path().join("data"), &dir.path().join("rules.yml"), &addresses)?;
        std::fs::write(dir.path().join("collector.toml"), config)?;
        Ok(Self { dir })
    }

    fn add(&self, line: &str) -> anyhow::Result<()> {
        let path = self.dir.path().join("collector.toml");
        Ok(std::fs::write(&path, format!("{line}\n{}", std::fs::read_to_string(&path)?))?)
    }

    fn run(&self) -> anyhow::Result<Output> {
        output("tocsin-collector", &["run", "--config", text(&self.dir.path().join("collector.toml"))?])
    }
}

/// The one line that says why, and what it has to say.
fn complains(program: &str, ended: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success(), "{program} ended well; it said {said}");
    assert!(ended.status.code().is_some_and(|code| code < 100), "{program}: {}: {said}", ended.status);
    assert!(!said.contains("panicked"), "{said}");
    let complaints: Vec<&str> =
        said.lines().filter(|line| line.starts_with(&format!("{program}: "))).collect();
    assert_eq!(complaints.len(), 1, "one message of {program}: {said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
}

#[test]
fn a_collector_with_a_bad_configuration_says_the_line() -> anyhow::Result<()> {
    let collector = Collector::new(RULES, "127.0.0.1:0")?;
    collector.add("heartbaet = \"5s\"")?;
    complains("tocsin-collector", &collector.run()?, &["line 1", "heartbaet"]);
    let missing = output("tocsin-collector", &["run", "--config", "/nowhere/collector.toml"])?;
    complains("tocsin-collector", &missing, &["/nowhere/collector.toml"]);
    Ok(())
}

// Cases: R2 (partly)
#[test]
fn a_collector_with_bad_rules_says_where() -> anyhow::Result<()> {
    let collector = Collector::new(&RULES.replace("scenario_breach > 0", "sum(((up"), "127.0.0.1:0")?;
    complains("tocsin-collector", &collector.run()?, &["rules.yml"]);
    Ok(())
}

#[test]
fn a_collector_whose_port_is_taken_says_which() -> anyhow::Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    complains("tocsin-collector", &Collector::new(RULES, &address)?.run()?, &[&address]);
    Ok(())
}

#[test]
fn a_directory_that_cannot_be_used_is_named() -> anyhow::Result<()> {
    let collector = Collector::new(RULES, "127.0.0.1:0")?;
    let data = collector.dir.path().join("data");
    std::fs::write(&data, "a file where a directory should be")?;
    complains("tocsin-collector", &collector.run()?, &[text(&data)?]);
    if nix::unistd::geteuid().is_root() {
        println!(
            "skipped: root may write anywhere; run as another user to see an unwritable directory refused"
        );
        return Ok(());
    }
    std::fs::remove_file(&data)?;
    std::fs::set_permissions(collector.dir.path(), std::fs::Permissions::from_mode(0o500))?;
    let ended = collector.run()?;
    std::fs::set_permissions(collector.dir.path(), std::fs::Permissions::from_mode(0o700))?;
    complains("tocsin-collector", &ended, &[text(&data)?]);
    Ok(())
}

fn enrol(dir: &Path, collector: &str, token: &str) -> anyhow::Result<Output> {
    output("tocsin-agent", &["enroll", "--collector", collector, "--token", token, "--data", text(dir)?])
}

#[test]
fn an_agent_that_cannot_enrol_says_why() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    complains("tocsin-agent", &enrol(dir.path(), "127.0.0.1:1", "not-a-token")?, &["token"]);
    let token = tocsin_shared::secret::JoinSecret::generate([7; 32])?.text();
    complains("tocsin-agent", &enrol(dir.path(), "127.0.0.1:1", token.expose())?, &["127.0.0.1:1"]);
    let file = dir.path().join("file");
    std::fs::write(&file, "")?;
    complains("tocsin-agent", &enrol(&file, "127.0.0.1:1", token.expose())?, &[text(&file)?]);
    Ok(())
}

#[test]
fn an_agent_that_cannot_run_says_why() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("agent.toml");
    std::fs::write(&config, "interval = \"10 parsecs\"\ncolour = 1\n")?;
    let ended = output("tocsin-agent", &["run", "--config", text(&config)?])?;
    complains("tocsin-agent", &ended, &["agent.toml", "line"]);
    Ok(())
}

#[test]
fn the_command_line_without_a_collector_says_so() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let credential = dir.path().join("credential.toml");
    let none = output("tocsin", &["status", "--credential", text(&credential)?])?;
    complains("tocsin", &none, &["credential.toml"]);
    let wrong = output("tocsin", &["staus"])?;
    assert_eq!(wrong.status.code(), Some(2), "a wrong command line");
    Ok(())
}

#[test]
fn a_credential_that_others_can_read_is_refused() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let credential = dir.path().join("credential.toml");
    std::fs::write(&credential, "endpoint = \"127.0.0.1:1\"\nca = \"\"\ncredential = \"tocsinc_x\"\n")?;
    std::fs::set_permissions(&credential, std::fs::Permissions::from_mode(0o644))?;
    let ended = output("tocsin", &["status", "--credential", text(&credential)?])?;
    complains("tocsin", &ended, &["credential.toml", "chmod 600"]);
    Ok(())
}
