//! What a stranger's connection costs before its handshake is over.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tocsin_shared::tls;
use tocsin_tests::footprint::{self, Footprint};

use super::*;

/// Connections of each kind; few enough for the descriptors of a shell.
const STRANGERS: usize = 400;
/// What one may take at most.
const BYTES: u64 = 64 << 10;
const CPU: Duration = Duration::from_millis(5);
/// Everybody waits as long as this test does.
const LIMITS: &str = "\n[limits]\nhandshake = \"60s\"\n";

/// The first words of a client that goes on to a handshake.
fn first_words(config: Arc<rustls::ClientConfig>) -> anyhow::Result<Vec<u8>> {
    let mut client = rustls::ClientConnection::new(config, ServerName::try_from("localhost")?)?;
    let mut words = Vec::new();
    client.write_tls(&mut words)?;
    Ok(words)
}

fn connections(address: &str, words: &[u8], count: usize) -> anyhow::Result<Vec<TcpStream>> {
    let connected = (0..count).map(|_| {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(words)?;
        anyhow::Ok(stream)
    });
    connected.collect()
}

/// Descriptors of a process.
fn open(pid: u32) -> Option<usize> {
    Some(std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// Waits until the process has done what there was to do: no more CPU time between two looks.
async fn at_rest(pid: u32) -> anyhow::Result<Footprint> {
    let mut last = Duration::MAX;
    wait_until("a collector at rest", SOON * 4, async || {
        tokio::time::sleep(Duration::from_millis(300)).await; // A look, not a wait: time in which it could work.
        let now = footprint::of(pid).ok()?;
        let rests = now.cpu.saturating_sub(last) < Duration::from_millis(15) && last != Duration::MAX;
        last = now.cpu;
        rests.then_some(now)
    })
    .await
}

// Cases: C-X4, H5, H6
#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_connection_costs_little_before_its_handshake_is_over() -> anyhow::Result<()> {
    let site = Site::start_with("groups: []\n", LIMITS).await?;
    let (pid, front) = (site.pid().context("it runs")?, site.addresses().front.clone());
    let whole = first_words(tls::trusting(&site.api.authority_pem, None)?)?;
    let half = &whole[..whole.len() / 2];
    // The first ones find code and tables that were not touched before.
    drop(connections(&front, &whole, 50)?);
    for (name, words) in [("silent", &[][..]), ("half of its first words", half), ("no second word", &whole)]
    {
        let (before, had) = (at_rest(pid).await?, open(pid).context("it runs")?);
        let strangers = connections(&front, words, STRANGERS)?;
        let all = async || (open(pid)? >= had + STRANGERS * 9 / 10).then_some(());
        wait_until("the strangers", SOON, all).await?;
        let after = at_rest(pid).await?;
        let count = u32::try_from(STRANGERS)?;
        let bytes = after.memory.resident.saturating_sub(before.memory.resident) / u64::from(count);
        let cpu = after.cpu.saturating_sub(before.cpu) / count;
        println!("{name}: {bytes} bytes and {cpu:?} a connection");
        assert!(bytes <= BYTES, "{name}: {bytes} bytes a connection");
        assert!(cpu <= CPU, "{name}: {cpu:?} a connection");
        drop(strangers);
        let gone = async || (open(pid)? < had + STRANGERS / 10).then_some(());
        wait_until("their end", SOON, gone).await?;
    }
    Ok(())
}
