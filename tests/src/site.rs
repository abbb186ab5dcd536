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
    environment: Vec<(&'static str, PathBuf)>,
    pub api: Api,
}

impl Site {
    /// Starts a collector with these rules and without the bundled ones.
    pub async fn start(rules: &str) -> anyhow::Result<Self> {
        Self::start_with(rules, "").await
    }

    /// The same, with lines added to the collector's configuration: keys of its top first, then tables.
    pub async fn start_with(rules: &str, configuration: &str) -> anyhow::Result<Self> {
        Self::start_prepared(rules, configuration, |_| Ok(())).await
    }

    /// The same, with more in the collector's environment, also after a restart.
    pub async fn start_in(
        rules: &str,
        configuration: &str,
        environment: Vec<(&'static str, PathBuf)>,
    ) -> anyhow::Result<Self> {
        Self::start_whole("127.0.0.1", Self::directory()?, rules, configuration, environment).await
    }

    /// The same, after the collector's data directory was prepared.
    pub async fn start_prepared(
        rules: &str,
        configuration: &str,
        prepare: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let dir = Self::directory()?;
        prepare(&dir.path().join("collector"))?;
        Self::start_at("127.0.0.1", dir, rules, configuration).await
    }

    /// The same at another loopback address, in a directory in which something may be mounted already.
    pub async fn start_at(
        address: &str,
        dir: TempDir,
        rules: &str,
        configuration: &str,
    ) -> anyhow::Result<Self> {
        Self::start_whole(address, dir, rules, configuration, Vec::new()).await
    }

    async fn start_whole(
        address: &str,
        dir: TempDir,
        rules: &str,
        configuration: &str,
        environment: Vec<(&'static str, PathBuf)>,
    ) -> anyhow::Result<Self> {
        std::fs::write(dir.path().join("rules.yml"), rules)?;
        std::fs::write(dir.path().join(MORE_CONFIGURATION), configuration)?;
        let any = format!("{address}:0");
        let addresses = Addresses { front: any.clone(), agents: any.clone(), local: any };
        let mut collector = spawn(dir.path(), &addresses, &[], &environment)?;
        let (addresses, api) = ready(dir.path(), &mut collector).await?;
        Ok(Self { dir, addresses, collector: Some(collector), environment, api })
    }

    /// A directory for a site.
    pub fn directory() -> anyhow::Result<TempDir> {
        Ok(tempfile::Builder::new().prefix("tocsin-").tempdir()?)
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
        self.spawn_collector(&[])?;
        self.collector_ready().await
    }

    /// From the next start on, the collector's configuration has these lines added instead of those before.
    pub fn configure(&self, configuration: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(self.dir().join(MORE_CONFIGURATION), configuration)?)
    }

    /// The first half of a start, under a tracer if one is given.
    pub fn spawn_collector(&mut self, under: &[String]) -> anyhow::Result<()> {
        ensure!(self.collector.is_none(), "the collector runs");
        self.collector = Some(spawn(self.dir.path(), &self.addresses, under, &self.environment)?);
        Ok(())
    }

    /// The second half: it answers; an error with its last words if it has ended.
    pub async fn collector_ready(&mut self) -> anyhow::Result<()> {
        let collector = self.collector.as_mut().context("the collector does not run")?;
        (self.addresses, self.api) = ready(self.dir.path(), collector).await?;
        Ok(())
    }

    /// The collector's process, running or ended.
    pub fn collector(&mut self) -> anyhow::Result<&mut Process> {
        self.collector.as_mut().context("the collector does not run")
    }

    /// kill -9, unless it has ended by itself; how it ended.
    pub fn end_collector(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        self.collector.take().context("the collector does not run")?.end()
    }

    /// Starts a second collector on the same directory, to its end.
    pub fn second_collector(&self) -> anyhow::Result<std::process::Output> {
        process::output("tocsin-collector", &["run", "--config", text(&self.dir().join("collector.toml"))?])
    }

    /// Enrols a host and starts its agent.
    pub async fn host(&self, name: &str, env: pb::Env) -> anyhow::Result<Host> {
        let host = self.stranger(name)?;
        self.enrol(&host, env, &[]).await?;
        Ok(host)
    }

    /// A host that nobody knows yet.
    pub fn stranger(&self, name: &str) -> anyhow::Result<Host> {
        let (dir, environment) = (self.dir().join(name), Vec::new());
        let host = Host { name: name.to_owned(), dir, environment, agent: None };
        std::fs::create_dir_all(host.textfiles())?;
        std::fs::write(host.config_file(), host.config())?;
        std::fs::File::open(host.config_file())?.sync_all()?; // It outlasts a power cut; the rest is the agent's task.
        Ok(host)
    }

    /// Enrols a host under its name, with further arguments.
    pub async fn enrol(&self, host: &Host, env: pb::Env, more: &[&str]) -> anyhow::Result<()> {
        let token = self.api.token(env, &host.name).await?;
        let (config, file) = (host.config_file(), host.dir.join("token"));
        std::fs::write(&file, token)?;
        let token = format!("@{}", text(&file)?);
        let arguments = enrolment(&self.addresses.front, &token, &host.name);
        let arguments = [&arguments[..], &["--config", text(&config)?], more].concat();
        let enrolled = process::output("tocsin-agent", &arguments)?;
        std::fs::remove_file(file)?;
        ensure!(enrolled.status.success(), "cannot enrol: {}", String::from_utf8_lossy(&enrolled.stderr));
        Ok(())
    }
}

/// The command line that enrols a host.
pub fn enrolment<'a>(front: &'a str, token: &'a str, name: &'a str) -> [&'a str; 7] {
    ["enroll", "--collector", front, "--token", token, "--hostname", name]
}

/// Copies a directory with all that is in it; what lies there already is replaced.
pub fn copy_dir(from: &Path, to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status()?;
    ensure!(copied.success(), "cannot copy {} to {}", from.display(), to.display());
    Ok(())
}

fn bound(dir: &Path) -> PathBuf {
    dir.join("collector/addresses.toml")
}

fn spawn(
    dir: &Path,
    addresses: &Addresses,
    under: &[String],
    environment: &[(&'static str, PathBuf)],
) -> anyhow::Result<Process> {
    let (config, bound) = (dir.join("collector.toml"), bound(dir));
    let mut more = std::fs::read_to_string(dir.join(MORE_CONFIGURATION))?;
    if !more.contains("[storage]") {
        more.push_str(STORAGE); // Many collectors at once share the machine's disk.
    }
    let own = collector_config(&dir.join("collector"), &dir.join("rules.yml"), addresses)?;
    std::fs::write(&config, with_more(&own, &more))?;
    if bound.exists() {
        std::fs::remove_file(&bound)?; // Of the last start.
    }
    let arguments = ["run", "--config", text(&config)?];
    let log = dir.join("collector.log");
    Process::launch(under, "tocsin-collector", &arguments, &log, environment)
}

async fn ready(dir: &Path, collector: &mut Process) -> anyhow::Result<(Addresses, Api)> {
    let bound = bound(dir);
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
        (Some(ready), _) => Ok(ready),
        (None, Some(error)) => Err(error),
        (None, None) => unreachable!("it ended or is ready"),
    }
}

/// A configuration with a test's lines: those before the first section replace the usual ones, the rest is added.
fn with_more(usual: &str, more: &str) -> String {
    let sections = if more.starts_with('[') { 0 } else { more.find("\n[").map_or(more.len(), |at| at + 1) };
    let (top, sections) = more.split_at(sections);
    // Where the collector listens is written already: a test's lines go below it.
    let listen = "[listen]\n";
    let (own, sections) = match sections.strip_prefix(listen) {
        Some(rest) => rest.split_at(rest.find("\n[").map_or(rest.len(), |at| at + 1)),
        None => ("", sections),
    };
    let usual = &usual.replacen(listen, &format!("{listen}{own}"), 1);
    let key = |line: &str| line.split('=').next().map(|key| key.trim().to_owned());
    let replaced = |line: &&str| !top.lines().any(|mine| key(mine) == key(line));
    let usual: String = usual.lines().filter(replaced).map(|line| format!("{line}\n")).collect();
    format!("{top}{usual}{sections}")
}

fn credential_file(dir: &Path) -> PathBuf {
    dir.join("collector/credential.toml")
}

/// The configuration of a collector: quick where a person would be patient.
pub fn collector_config(data: &Path, rules: &Path, addresses: &Addresses) -> anyhow::Result<String> {
    let Addresses { front, agents, local } = addresses;
    let mut config = String::new();
    writeln!(config, "data_dir = {:?}\nheartbeat = \"1s\"", text(data)?)?;
    let (host, _) = front.rsplit_once(':').with_context(|| format!("no port in {front}"))?;
    if host != "127.0.0.1" {
        writeln!(config, "names = [{host:?}]")?; // The certificate has the usual loopback addresses only.
    }
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
    /// What is added to the agent's environment.
    pub environment: Vec<(&'static str, PathBuf)>,
    agent: Option<Process>,
}

impl Host {
    fn textfiles(&self) -> PathBuf {
        self.dir.join("textfiles")
    }

    pub fn config_file(&self) -> PathBuf {
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

    /// Outcomes that wait in the drop-box.
    pub fn dropped(&self) -> anyhow::Result<usize> {
        Ok(std::fs::read_dir(self.drop_box())?.count())
    }

    /// Where wrappers hand in.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("jobs.sock")
    }

    fn drop_box(&self) -> PathBuf {
        self.dir.join("drop-box")
    }

    /// From the next start on, the agent connects to this address instead of the one it enrolled at.
    pub fn connects_to(&self, address: &str) -> anyhow::Result<()> {
        self.configure(|config| format!("collector = {address:?}\n{config}"))
    }

    /// From the next start on, the agent's configuration is what this makes of it.
    pub fn configure(&self, change: impl FnOnce(String) -> String) -> anyhow::Result<()> {
        let config = std::fs::read_to_string(self.config_file())?;
        Ok(std::fs::write(self.config_file(), change(config))?)
    }

    /// Lets the agent log all that it can.
    pub fn say_everything(&self) -> anyhow::Result<()> {
        Ok(std::fs::write(self.config_file(), format!("log_level = \"debug\"\n{}", self.config()))?)
    }

    /// Starts the agent.
    pub fn start_agent(&mut self) -> anyhow::Result<()> {
        self.start_agent_under(&[])
    }

    /// The same under a tracer.
    pub fn start_agent_under(&mut self, under: &[String]) -> anyhow::Result<()> {
        ensure!(self.agent.is_none(), "the agent of {} runs", self.name);
        let config = self.config_file();
        let log = self.dir.join("agent.log");
        let arguments = ["run", "--config", text(&config)?];
        self.agent = Some(Process::launch(under, "tocsin-agent", &arguments, &log, &self.environment)?);
        Ok(())
    }

    /// The agent's process, running or ended.
    pub fn agent(&mut self) -> anyhow::Result<&mut Process> {
        self.agent.as_mut().context("the agent does not run")
    }

    /// kill -9, unless it has ended by itself; how it ended.
    pub fn end_agent(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        self.agent.take().context("the agent does not run")?.end()
    }

    /// Starts a second agent on the same directory, to its end.
    pub fn second_agent(&self) -> anyhow::Result<std::process::Output> {
        process::output("tocsin-agent", &["run", "--config", text(&self.config_file())?])
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

    /// Puts a text file of metrics where the agent reads them.
    pub fn write_textfile(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let new = self.dir.join("new-file");
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(new, self.textfiles().join(name))?) // Whole or not at all, as a tick may read it now.
    }

    /// Runs a command as a job of the host.
    pub fn job(&self, name: &str, command: &[&str]) -> anyhow::Result<std::process::Output> {
        job(&self.dir, name, command)
    }
}

/// Runs a command as a job of the host in a directory, whoever holds the host itself.
pub fn job(host: &Path, name: &str, command: &[&str]) -> anyhow::Result<std::process::Output> {
    let (socket, drop_box) = (host.join("jobs.sock"), host.join("drop-box"));
    let place = ["--job", name, "--socket", text(&socket)?, "--drop-box", text(&drop_box)?];
    let arguments = [&["exec"], &place[..], &["--report-within", "5s", "--"], command].concat();
    process::output("tocsin-agent", &arguments)
}
