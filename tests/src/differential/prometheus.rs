//! A real Prometheus: started on a port of its own in a directory of its own, filled by remote write, asked by HTTP.
//!
//! Where none is installed, that is printed and the test is skipped.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use prost::Message;
use tempfile::TempDir;
use tocsin_shared::labels::Labels;

use super::data::Data;
use crate::wait::wait_until;

/// A start reads nothing here and takes half a second on a quiet machine.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// Samples of a request are this close together: what is an hour older than the newest is refused.
const REQUEST_SPAN: i64 = 10 * 60_000;

/// A running Prometheus; it ends with this value.
pub struct Prometheus {
    child: Child,
    address: String,
    _dir: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Prometheus {
    /// Starts the installed one; `None` where there is none.
    pub async fn start() -> anyhow::Result<Option<Self>> {
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("prometheus.yml"), "global: {}\n")?;
        let log = dir.path().join("log");
        let argument = |name: &str, file: &str| format!("--{name}={}", dir.path().join(file).display());
        let child = Command::new("prometheus")
            .args([argument("config.file", "prometheus.yml"), argument("storage.tsdb.path", "data")])
            .args(["--web.listen-address=127.0.0.1:0", "--web.enable-remote-write-receiver"])
            .args(["--log.format=logfmt", "--storage.tsdb.retention.time=100y"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                println!("skipped: prometheus cannot be run: {error}");
                return Ok(None);
            }
        };
        let listens = wait_until("prometheus listening", STARTS_WITHIN, async || {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let line = said.lines().find(|line| line.contains("msg=\"Listening on\""))?.to_owned();
            Some(line.split_once("address=")?.1.trim().to_owned())
        });
        let address = match listens.await {
            Ok(address) => address,
            Err(error) => {
                child.kill().ok();
                child.wait().ok();
                bail!("{error}; it said:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
            }
        };
        let prometheus = Self { child, address, _dir: dir };
        let ready = async || prometheus.get("/-/ready", &[]).ok().filter(|(status, _)| *status == 200);
        wait_until("prometheus ready", STARTS_WITHIN, ready).await?;
        Ok(Some(prometheus))
    }

    /// HOST:PORT of its HTTP API.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends all samples by remote write, in the order of time.
    pub fn fill(&self, data: &Data) -> anyhow::Result<()> {
        let times = || data.series.iter().flat_map(|(_, samples)| samples.iter().map(|(at, _)| *at));
        let (Some(first), Some(last)) = (times().min(), times().max()) else { return Ok(()) };
        let mut from = first;
        while from <= last {
            let series = data.series.iter().map(|(labels, samples)| {
                let inside = samples.iter().filter(|(at, _)| (from..from + REQUEST_SPAN).contains(at));
                let samples = inside.map(|&(timestamp, value)| PbSample { value, timestamp }).collect();
                PbSeries { labels: labels_out(labels), samples }
            });
            let timeseries = series.filter(|series| !series.samples.is_empty()).collect();
            let body = snap::raw::Encoder::new().compress_vec(&PbWrite { timeseries }.encode_to_vec())?;
            let headers = "Content-Encoding: snappy\r\nContent-Type: application/x-protobuf\r\n\
                           X-Prometheus-Remote-Write-Version: 0.1.0\r\n";
            let (status, said) = exchange(&self.address, "POST", "/api/v1/write", headers, &body)?;
            ensure!(status / 100 == 2, "it refuses samples: {status} {said}");
            from += REQUEST_SPAN;
        }
        Ok(())
    }

    fn get(&self, path: &str, parameters: &[(&str, &str)]) -> anyhow::Result<(u16, String)> {
        get(&self.address, path, parameters)
    }
}

/// Asks an HTTP API of Prometheus' kind; gives the status and the body.
pub fn get(address: &str, path: &str, parameters: &[(&str, &str)]) -> anyhow::Result<(u16, String)> {
    let pairs: Vec<String> =
        parameters.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    exchange(address, "GET", &format!("{path}?{}", pairs.join("&")), "", &[])
}

fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// One connection for each request: HTTP/1.0 ends an answer with the connection, so there are no chunks to read.
fn exchange(
    address: &str,
    method: &str,
    target: &str,
    headers: &str,
    body: &[u8],
) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
    let head = format!("{method} {target} HTTP/1.0\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without an end of its headers")?;
    let status = head.split(' ').nth(1).context("an answer without status")?.parse()?;
    Ok((status, body.to_owned()))
}

fn labels_out(labels: &Labels) -> Vec<PbLabel> {
    labels.iter().map(|(name, value)| PbLabel { name: name.to_owned(), value: value.to_owned() }).collect()
}

/// `prometheus.WriteRequest` of remote write 1.0, as far as it is sent.
#[derive(Clone, PartialEq, prost::Message)]
struct PbWrite {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<PbSeries>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<PbLabel>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<PbSample>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbLabel {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbSample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}
