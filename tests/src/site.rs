//! A small site: one collector and its hosts, all real programs in a directory of their own.
//!
//! Ports are chosen by the kernel at the first start and kept over restarts, because the hosts know them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use tempfile::TempDir;
use tocsin_proto::pb;

use crate::api::{Api, CredentialFile};
use crate::process::{self, Process};
use crate::wait::wait_until;

/// A start from nothing makes keys and files; slow disks take their time.
pub const START: Duration = Duration::from_secs(30);
/// From a cause to what can be seen of it, on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_secs(15);

/// What a test adds to the collector's configuration, kept over restarts.
const MORE_CONFIGURATION: &str = "more.toml";

/// The collector's part of the disk, unless a test says otherwise.
const STORAGE: &str = "\n[storage]\nreserve_bytes = \"1MiB\"\nfree_floor_bytes = \"1MiB\"\n";

/// Where a collector listens.
#[derive(Clone, Debug, Deserialize)]
pub struct Addresses {
    pub front: String,
    pub agents: String,
    pub local: String,
}

/// A collector in a directory, running or not, and what its administrator needs.
pub struct Site {
    dir: TempDir,
    addresses: Addresses,
    collector: Option<Process>,
    pub api: Api,
}

impl Site {
    /// Starts a collector with these rules and without the bundled ones.
    pub async fn start(rules: &str) -> anyhow::Result<Self> {
        Self::start_with(rules, "").await
    }

    /// The same, with lines added to the collector's configuration.
    pub async fn start_with(rules: &str, configuration: &str) -> anyhow::Result<Self> {
        Self::start_prepared(rules, configuration, |_| Ok(())).await
    }

    /// The same, after the collector's data directory was prepared.
    pub async fn start_prepared(
        rules: &str,
        configuration: &str,
        prepare: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("tocsin-").tempdir()?;
        prepare(&dir.path().join("collector"))?;
        std::fs::write(dir.path().join("rules.yml"), rules)?;
        std::fs::write(dir.path().join(MORE_CONFIGURATION), configuration)?;
        let any = "127.0.0.1:0".to_owned();
        let addresses = Addresses { front: any.clone(), agents: any.clone(), local: any };
        let (collector, addresses, api) = start(dir.path(), &addresses).await?;
        Ok(Self { dir, addresses, collector: Some(collector), api })
    }

    /// Everything of the site is below here.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    pub fn credential_file(&self) -> PathBuf {
        credential_file(self.dir())
    }

    /// The collector's process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.collector.as_ref().map(Process::pid)
    }

    /// What the collector said so far.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.dir().join("collector.log"))?)
    }

    /// kill -9.
    pub fn kill_collector(&mut self) -> anyhow::Result<()> {
        self.collector.take().context("the collector does not run")?.kill()
    }

    /// A clean stop; an error if it does not end well.
    pub async fn stop_collector(&mut self) -> anyhow::Result<()> {
        let status = self.collector.take().context("the collector does not run")?.terminate(SOON).await?;
        ensure!(status.success(), "the collector ended with {status} after SIGTERM");
        Ok(())
    }

    /// How the collector ends by itself.
    pub async fn collector_ends(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        self.collector.take().context("the collector does not run")?.ends(SOON).await
    }

    /// Starts the collector again, where it was.
    pub async fn start_collector(&mut self) -> anyhow::Result<()> {
        ensure!(self.collector.is_none(), "the collector runs");
        let (collector, addresses, api) = start(self.dir.path(), &self.addresses).await?;
        (self.collector, self.addresses, self.api) = (Some(collector), addresses, api);
        Ok(())
    }

    /// Enrols a host and starts its agent.
    pub async fn host(&self, name: &str, env: pb::Env) -> anyhow::Result<Host> {
        let dir = self.dir().join(name);
        let host = Host { name: name.to_owned(), dir, agent: None };
        std::fs::create_dir_all(host.textfiles())?;
        std::fs::write(host.config_file(), host.config())?;
        let token = self.api.token(env, name).await?;
        let config = host.config_file();
        let arguments =
            ["enroll", "--collector", &self.addresses.front, "--token", &token, "--hostname", name];
        let enrolled =
            process::output("tocsin-agent", &[&arguments[..], &["--config", text(&config)?]].concat())?;
        ensure!(enrolled.status.success(), "cannot enrol: {}", String::from_utf8_lossy(&enrolled.stderr));
        Ok(host)
    }
}

async fn start(dir: &Path, addresses: &Addresses) -> anyhow::Result<(Process, Addresses, Api)> {
    let data = dir.join("collector");
    let (config, bound) = (dir.join("collector.toml"), data.join("addresses.toml"));
    let mut more = std::fs::read_to_string(dir.join(MORE_CONFIGURATION))?;
    if !more.contains("[storage]") {
        more.push_str(STORAGE); // Many collectors at once share the machine's disk.
    }
    std::fs::write(&config, collector_config(&data, &dir.join("rules.yml"), addresses)? + &more)?;
    if bound.exists() {
        std::fs::remove_file(&bound)?; // Of the last start.
    }
    let arguments = ["run", "--config", text(&config)?];
    let mut collector = Process::start("tocsin-collector", &arguments, &dir.join("collector.log"))?;
    let mut ended = None;
    let ready = wait_until("a ready collector", START, async || {
        ended = collector.still_runs().err();
        if ended.is_some() {
            return Some(None);
        }
        let addresses: Addresses = toml::from_str(&std::fs::read_to_string(&bound).ok()?).ok()?;
        let file = CredentialFile::read(&credential_file(dir)).ok()?;
        let file = CredentialFile { endpoint: addresses.front.clone(), ..file };
        let api = Api::connect(&file).await.ok()?;
        api.admin().get_status(pb::GetStatusRequest {}).await.ok()?;
        Some(Some((addresses, api)))
    });
    match (ready.await?, ended) {
        (Some((addresses, api)), _) => Ok((collector, addresses, api)),
        (None, Some(error)) => Err(error),
        (None, None) => unreachable!("it ended or is ready"),
    }
}

fn credential_file(dir: &Path) -> PathBuf {
    dir.join("collector/credential.toml")
}

/// The configuration of a collector: quick where a person would be patient.
pub fn collector_config(data: &Path, rules: &Path, addresses: &Addresses) -> anyhow::Result<String> {
    let Addresses { front, agents, local } = addresses;
    let mut config = String::new();
    writeln!(config, "data_dir = {:?}\nheartbeat = \"1s\"", text(data)?)?;
    writeln!(config, "[listen]\nfront = {front:?}\nagents = {agents:?}\nlocal = {local:?}")?;
    writeln!(config, "[rules]\nbundled = false\npaths = [{:?}]", text(rules)?)?;
    writeln!(config, "[alerting]\nauto_resolve_after = \"1s\"")?;
    Ok(config)
}

/// A path as the programs take it.
pub fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

/// An enrolled host, its agent running or not.
pub struct Host {
    pub name: String,
    dir: PathBuf,
    agent: Option<Process>,
}

impl Host {
    fn textfiles(&self) -> PathBuf {
        self.dir.join("textfiles")
    }

    fn config_file(&self) -> PathBuf {
        self.dir.join("agent.toml")
    }

    /// The agent's process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.agent.as_ref().map(Process::pid)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("agent")
    }

    /// What the agent said so far.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.dir.join("agent.log"))?)
    }

    fn config(&self) -> String {
        let data = self.data_dir();
        let (socket, drop_box) = (self.socket(), self.drop_box());
        let textfiles = self.textfiles();
        format!(
            "data_dir = {data:?}\ninterval = \"1s\"\n\
             [spool]\nreserve_bytes = \"1MiB\"\nfree_floor_bytes = \"1MiB\"\nfree_floor_percent = 0\n\
             [jobs]\nsocket = {socket:?}\ndrop_box = {drop_box:?}\n\
             [collect]\ntextfile_directory = {textfiles:?}\n"
        )
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("jobs.sock")
    }

    fn drop_box(&self) -> PathBuf {
        self.dir.join("drop-box")
    }

    /// Starts the agent.
    pub fn start_agent(&mut self) -> anyhow::Result<()> {
        ensure!(self.agent.is_none(), "the agent of {} runs", self.name);
        let config = self.config_file();
        let log = self.dir.join("agent.log");
        self.agent = Some(Process::start("tocsin-agent", &["run", "--config", text(&config)?], &log)?);
        Ok(())
    }

    /// kill -9.
    pub fn kill_agent(&mut self) -> anyhow::Result<()> {
        self.agent.take().context("the agent does not run")?.kill()
    }

    /// A clean stop; an error if it does not end well.
    pub async fn stop_agent(&mut self) -> anyhow::Result<()> {
        let status = self.agent.take().context("the agent does not run")?.terminate(SOON).await?;
        ensure!(status.success(), "the agent ended with {status} after SIGTERM");
        Ok(())
    }

    /// What the host measures from its next tick on.
    pub fn set(&self, metric: &str, value: f64) -> anyhow::Result<()> {
        let (new, place) = (self.dir.join("new"), self.textfiles().join(format!("{metric}.prom")));
        std::fs::write(&new, format!("{metric} {value}\n"))?;
        std::fs::rename(new, place)?; // Whole or not at all, as a tick may read it now.
        Ok(())
    }

    /// Runs a command as a job of the host.
    pub fn job(&self, name: &str, command: &[&str]) -> anyhow::Result<std::process::Output> {
        let (socket, drop_box) = (self.socket(), self.drop_box());
        let arguments = [
            "exec",
            "--job",
            name,
            "--socket",
            text(&socket)?,
            "--drop-box",
            text(&drop_box)?,
            "--report-within",
            "5s",
            "--",
        ];
        process::output("tocsin-agent", &[&arguments[..], command].concat())
    }
}
