//! The servers that are compared, started from nothing in directories of their own.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tocsin_proto::pb;

use super::client::Door;
use crate::site::Site;
use crate::wait::wait_until;

/// From a start to the first answer.
const START: Duration = Duration::from_secs(30);

/// Where a running server takes samples and queries.
#[derive(Clone, Debug)]
pub struct Server {
    pub name: &'static str,
    pub pid: u32,
    pub write_door: Door,
    pub write_path: &'static str,
    pub ask_door: Door,
}

/// A peer's process; it ends with this value.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok(); // It may have ended by itself.
        self.0.wait().ok(); // As above.
    }
}

/// Starts one of the peers that are installed: none when there is no such program. `dir` is to be empty.
pub async fn peers(name: &'static str, dir: &Path) -> anyhow::Result<Option<(Server, Running)>> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string(); // They do not say which port they got.
    let data = dir.join("data").display().to_string();
    let arguments = match name {
        "victoria-metrics" => vec![
            format!("-storageDataPath={data}"),
            format!("-httpListenAddr={address}"),
            "-retentionPeriod=12".to_owned(),
        ],
        _ => {
            let config = dir.join("prometheus.yml");
            std::fs::write(&config, "global: {scrape_interval: 1h}\n")?;
            vec![
                format!("--config.file={}", config.display()),
                format!("--storage.tsdb.path={data}"),
                format!("--web.listen-address={address}"),
                "--web.enable-remote-write-receiver".to_owned(),
            ]
        }
    };
    let log = std::fs::File::create(dir.join("log"))?;
    let child =
        Command::new(name).args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
    let running = match child {
        Ok(child) => Running(child),
        Err(_) => {
            println!("left out: there is no `{name}` on this machine");
            return Ok(None);
        }
    };
    let door = Door { address, ..Door::default() };
    let server = Server {
        name,
        pid: running.0.id(),
        write_door: door.clone(),
        write_path: "/api/v1/write",
        ask_door: door,
    };
    wait_until(name, START, async || {
        let mut client = server.ask_door.connect().await.ok()?;
        let (status, _) = client.get("/api/v1/query?query=1").await.ok()?;
        (status == 200).then_some(())
    })
    .await?;
    Ok(Some((server, running)))
}

/// A collector as its users reach it: samples from a named writer and queries of an administrator, both over TLS.
pub async fn tocsin(site: &Site) -> anyhow::Result<Server> {
    let request = pb::CreatePrincipalRequest {
        name: "peers".to_owned(),
        role: pb::Role::Writer as i32,
        ..Default::default()
    };
    let credential = site.api.admin().create_principal(request).await?.into_inner().credential;
    let administrator = crate::api::CredentialFile::read(&site.credential_file())?;
    let front = Door {
        address: site.addresses().front.clone(),
        authority_pem: Some(site.api.authority_pem.clone()),
        credential: administrator.credential,
    };
    Ok(Server {
        name: "tocsin",
        pid: site.pid().context("the collector does not run")?,
        write_door: Door { credential, ..front.clone() },
        write_path: "/api/v1/write",
        ask_door: front,
    })
}
