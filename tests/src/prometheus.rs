//! A real Prometheus that scrapes itself and remote-writes to a collector; it ends with its value.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::https::Door;
use crate::scrape::Scraper;
use crate::wait::wait_until;

/// From its start to its first answer, on a busy machine.
const START: Duration = Duration::from_secs(30);

/// Whether there is one on this machine; says so when there is not.
pub fn is_installed() -> bool {
    let found = Command::new("prometheus").arg("--version").output().is_ok();
    if !found {
        println!("skipped: there is no `prometheus` on this machine");
    }
    found
}

/// One that runs.
pub struct Prometheus {
    child: Child,
    address: String,
}

impl Prometheus {
    /// Starts one in a directory: it scrapes itself once a second and writes what it has through this door.
    pub async fn start(dir: &Path, door: &Door) -> anyhow::Result<Self> {
        // It does not say which port it got, so a free one is looked for.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let (ca, credential) = (dir.join("ca.pem"), dir.join("credential"));
        std::fs::write(&ca, &door.authority_pem)?;
        std::fs::write(&credential, &door.credential)?;
        let (front, ca, credential) = (&door.front, ca.display(), credential.display());
        let config = format!(
            "global: {{scrape_interval: 1s}}\n\
             scrape_configs:\n  - job_name: prometheus\n    static_configs: [{{targets: ['{address}']}}]\n\
             remote_write:\n  - url: https://{front}/api/v1/write\n    tls_config: {{ca_file: '{ca}'}}\n    \
             authorization: {{credentials_file: '{credential}'}}\n    metadata_config: {{send_interval: 1s}}\n    \
             queue_config: {{min_backoff: 30ms, max_backoff: 200ms, batch_send_deadline: 300ms}}\n"
        );
        let file = dir.join("prometheus.yml");
        std::fs::write(&file, config)?;
        let log = std::fs::File::create(dir.join("prometheus.log"))?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let started = Self { child, address };
        wait_until("a ready Prometheus", START, async || started.points("up[1m]").ok()).await?;
        Ok(started)
    }

    /// The points of the one series that a range selector selects, as milliseconds and values.
    pub fn points(&self, selector: &str) -> anyhow::Result<Vec<(i64, f64)>> {
        let encoded: String = selector.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let url = format!("http://{}/api/v1/query?query={encoded}", self.address);
        let answer: serde_json::Value = serde_json::from_str(&Scraper::connect(&url)?.fetch_text()?)?;
        let series = answer["data"]["result"].as_array().context("an answer without a result")?;
        ensure!(series.len() <= 1, "{selector} gives {} series", series.len());
        let points = series.first().and_then(|series| series["values"].as_array());
        let point = |point: &serde_json::Value| {
            let seconds = point[0].as_f64().context("a point without a time")?;
            let value: f64 = point[1].as_str().context("a point without a value")?.parse()?;
            Ok(((seconds * 1e3).round() as i64, value))
        };
        points.into_iter().flatten().map(point).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().ok(); // It may have ended by itself.
        self.child.wait().ok(); // As above.
    }
}
