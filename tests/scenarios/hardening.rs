//! What the units promise, and what must never come out: scores, the watchdog, secrets.

use std::io::Read as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tocsin_proto::pb;
use tocsin_shared::private_file;
use tocsin_tests::feed::Feed;
use tocsin_tests::process::output;
use tocsin_tests::site::{SOON, Site, text};
use tocsin_tests::wait::wait_until;

use crate::RULES;

/// The units, and the exposure that systemd may find in them at most, in tenths.
const UNITS: [(&str, &str); 2] = [("tocsin-agent.service", "20"), ("tocsin-collector.service", "15")];

#[test]
fn the_units_are_as_closed_as_promised() -> anyhow::Result<()> {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    for (unit, threshold) in UNITS {
        let path = deploy.join(unit);
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["security", "--offline=true", "--no-pager", "--threshold", threshold]).arg(&path);
        let scored = match analyze.output() {
            Ok(scored) => scored,
            Err(error) => {
                println!("skipped: systemd-analyze: {error}");
                return Ok(());
            }
        };
        let said = String::from_utf8_lossy(&scored.stdout).into_owned();
        let complaints = String::from_utf8_lossy(&scored.stderr).into_owned();
        if complaints.contains("unrecognized option") {
            println!("skipped: this systemd-analyze scores no files: {complaints}");
            return Ok(());
        }
        let open = said.lines().filter(|line| line.starts_with('✗') || line.contains("Overall"));
        assert!(scored.status.success(), "{unit}: {}", open.collect::<Vec<_>>().join("\n"));
        assert!(!complaints.contains("Unknown"), "{unit}: {complaints}");
        let unit_text = std::fs::read_to_string(&path)?;
        for wall in
            ["MemoryMax=", "TasksMax=", "LimitCORE=0", "LogRateLimitBurst=", "WatchdogSec=30", "Type=notify"]
        {
            assert!(unit_text.contains(wall), "{unit}: {wall}");
        }
    }
    Ok(())
}

/// The service manager's end of the socket: what it was told by now.
struct Told {
    socket: UnixDatagram,
    path: PathBuf,
    said: Vec<String>,
}

impl Told {
    fn new(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("notify");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path, said: Vec::new() })
    }

    fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![("NOTIFY_SOCKET", self.path.clone()), ("WATCHDOG_USEC", "1500000".into())]
    }

    fn count(&mut self, what: &str) -> usize {
        let mut bytes = [0; 256];
        while let Ok(length) = self.socket.recv(&mut bytes) {
            self.said.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        }
        self.said.iter().filter(|said| *said == what).count()
    }
}

// Cases: C12, C14
#[tokio::test(flavor = "multi_thread")]
async fn the_manager_hears_that_both_run_get_on_and_end() -> anyhow::Result<()> {
    let dirs = (tempfile::tempdir()?, tempfile::tempdir()?);
    let (mut of_collector, mut of_agent) = (Told::new(dirs.0.path())?, Told::new(dirs.1.path())?);
    let mut site = Site::start_in(RULES, "", of_collector.environment()).await?;
    let mut host = site.host("db-1", pb::Env::Prod).await?;
    host.environment = of_agent.environment();
    host.start_agent()?;
    for (name, told) in [("collector", &mut of_collector), ("agent", &mut of_agent)] {
        let alive = async || (told.count("READY=1") == 1 && told.count("WATCHDOG=1") > 2).then_some(());
        wait_until(&format!("a living {name}"), SOON, alive).await?;
    }
    host.stop_agent().await?;
    site.stop_collector().await?;
    assert_eq!((of_agent.count("STOPPING=1"), of_collector.count("STOPPING=1")), (1, 1));
    Ok(())
}

// Cases: C12, C13
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_whose_writer_hangs_does_not_feed_the_watchdog() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut told = Told::new(dir.path())?;
    let site = Site::start_in(RULES, "", told.environment()).await?;
    wait_until("a living collector", SOON, async || (told.count("WATCHDOG=1") > 0).then_some(())).await?;
    let pid = site.pid().map(|pid| pid.to_string()).unwrap_or_default();
    let mut strace = Command::new("strace");
    strace.args([
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=fdatasync",
        "-e",
        "inject=fdatasync:delay_enter=60000000",
    ]);
    strace.args(["-p", &pid]);
    let mut strace = match strace.spawn() {
        Ok(strace) => strace,
        Err(error) => {
            println!("skipped: strace: {error}");
            return Ok(());
        }
    };
    let api = site.api.clone();
    let asking = tokio::spawn(async move {
        loop {
            api.token(pb::Env::Test, "*").await.ok(); // Each needs the journal's writer.
        }
    });
    // Fed every half second until the writer hangs; then never again.
    let (mut fed, mut since) = (told.count("WATCHDOG=1"), Instant::now());
    let starved = wait_until("a watchdog that is not fed", SOON, async || {
        let now = told.count("WATCHDOG=1");
        if now != fed {
            (fed, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_secs(2)).then_some(())
    });
    let starved = starved.await;
    asking.abort();
    strace.kill()?;
    strace.wait()?;
    starved
}

/// Everything below a directory but what holds secrets on purpose, and their own files.
fn files(dir: &Path, kept: &[&str], found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if kept.contains(&name) {
            continue;
        }
        match std::fs::symlink_metadata(&path)? {
            facts if facts.is_dir() => files(&path, kept, found)?,
            facts if facts.is_file() => found.push(path),
            _ => {}
        }
    }
    Ok(())
}

fn pem_body(path: &Path) -> anyhow::Result<String> {
    let text = private_file::read(path)?.unwrap_or_default();
    Ok(text.lines().nth(1).unwrap_or_default().to_owned())
}

async fn metrics(site: &Site) -> anyhow::Result<String> {
    use std::io::Write as _;
    let mut stream = std::net::TcpStream::connect(&site.addresses().local)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

const CANARY: &str = "canary0hunter2zebra";

// Cases: C-X5
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_comes_out_anywhere() -> anyhow::Result<()> {
    let mut site = Site::start_with(RULES, "log = \"trace\"\n").await?;
    let mut host = site.host("db-1", pb::Env::Prod).await?;
    host.say_everything()?;
    host.start_agent()?;
    let feed = Feed::follow(site.credential_file());
    feed.wait_for("host.online", SOON, |_| true).await?; // Its socket and drop-box are there.
    let principal =
        pb::CreatePrincipalRequest { name: "pager".into(), role: pb::Role::Viewer.into(), ttl_ms: 0 };
    let principal = site.api.admin().create_principal(principal).await?.into_inner().credential;
    let token = site.api.token(pb::Env::Prod, "web-*").await?;
    let own = std::fs::read_to_string(site.credential_file())?;
    let own = own.lines().find_map(|line| line.strip_prefix("credential = \"")).unwrap_or_default();
    let secrets: Vec<(&str, String)> = vec![
        ("the administrator's credential", own.trim_end_matches('"').to_owned()),
        ("a principal's credential", principal.clone()),
        ("a token", token.clone()),
        ("the authority's key", pem_body(&site.dir().join("collector/authority/ca.key"))?),
        ("the agent's key", pem_body(&host.data_dir().join("identity/agent.pem"))?),
        ("a password in a command and its output", CANARY.to_owned()),
    ];
    assert!(secrets.iter().all(|(_, secret)| secret.len() > 15), "each is known");

    let mut said: Vec<(String, Vec<u8>)> = Vec::new();
    let job = format!("echo password={CANARY}; echo https://bob:{CANARY}@example.org/ >&2; exit 3");
    host.job("nightly", &["sh", "-c", &job, &format!("--password={CANARY}")])?; // Its own output is its own.
    let other = site.api.with_credential(&principal)?;
    other.admin().get_status(pb::GetStatusRequest {}).await.ok();
    site.api
        .with_credential(&format!("{principal}x"))?
        .admin()
        .get_status(pb::GetStatusRequest {})
        .await
        .ok();
    wait_until("the failed job", SOON, async || {
        let (mut jobs, request) =
            (site.api.jobs(), pb::ListRunsRequest { job_name: "nightly".into(), limit: 0 });
        jobs.list_runs(request).await.ok().filter(|runs| !runs.get_ref().runs.is_empty())
    })
    .await?;
    let credential = site.credential_file();
    for command in [
        &["status"][..],
        &["hosts"],
        &["alerts"],
        &["incidents"],
        &["jobs"],
        &["token", "list"],
        &["principal", "list"],
        &["feed", "consumers"],
        &["query", "up"],
    ] {
        for format in ["table", "json"] {
            let arguments = [command, &["--credential", text(&credential)?, "--output", format]].concat();
            let ended = output("tocsin", &arguments)?;
            said.push((format!("tocsin {command:?}"), [ended.stdout, ended.stderr].concat()));
        }
    }
    said.push(("/metrics".into(), metrics(&site).await?.into_bytes()));

    // Mistakes: secrets in the wrong place, wrong, cut short, used.
    let wrong = site.dir().join("wrong.toml");
    for (program, line) in [
        ("tocsin-collector", format!("credential = \"{principal}\"\n")),
        (
            "tocsin-collector",
            format!("names = [\"{principal}\"]\nheartbeat = \"{CANARY}\npassword={CANARY}\n"),
        ),
        ("tocsin-agent", format!("token = \"{token}\"\n")),
        ("tocsin-agent", format!("[jobs]\ntoken = {token}\n")),
    ] {
        std::fs::write(&wrong, line)?;
        let ended = output(program, &["run", "--config", text(&wrong)?])?;
        assert!(!ended.status.success(), "{program} takes what is no configuration");
        said.push((format!("{program} with a mistake"), [ended.stdout, ended.stderr].concat()));
    }
    private_file::replace(&wrong, &format!("endpoint = 7\ncredential = \"{principal}\"\n"))?;
    let ended = output("tocsin", &["status", "--credential", text(&wrong)?])?;
    said.push(("tocsin with a mistake".into(), [ended.stdout, ended.stderr].concat()));
    let front = &site.addresses().front;
    let data = site.dir().join("wrong-agent.toml");
    std::fs::write(&data, format!("data_dir = {:?}\n", site.dir().join("wrong-agent")))?;
    for token in [token.clone(), format!("{token}x"), token[..60].to_owned()] {
        let arguments = ["enroll", "--collector", front, "--token", &token, "--hostname", "db-9", "--config"];
        let ended = output("tocsin-agent", &[&arguments[..], &[text(&data)?]].concat())?;
        assert!(!ended.status.success(), "the token is not for db-9");
        said.push(("tocsin-agent enroll".into(), [ended.stdout, ended.stderr].concat()));
    }
    host.stop_agent().await?;
    site.stop_collector().await?;

    for (log, level) in [(site.log()?, "TRACE"), (host.log()?, "DEBUG")] {
        assert!(log.contains(level), "the logs say all that they can");
    }
    let mut left = Vec::new();
    let kept = ["credential.toml", "ca.key", "agent.pem", "pending.key", "wrong.toml"];
    files(site.dir(), &kept, &mut left)?;
    assert!(left.len() > 10, "{left:?}");
    for path in left {
        said.push((path.display().to_string(), std::fs::read(&path)?));
    }
    let leaks = said.iter().flat_map(|(place, bytes)| {
        let holds = |secret: &str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        let found = secrets.iter().filter(move |(_, secret)| holds(secret));
        found.map(move |(name, _)| format!("{name} in {place}"))
    });
    assert_eq!(leaks.collect::<Vec<_>>(), Vec::<String>::new());
    Ok(())
}
