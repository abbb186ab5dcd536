//! `tocsin-agent exec` with real processes: every promise of its header, seen from outside.
//!
//! This file has its own `main`: called with `exec …` it is the wrapper, so that signals, blocked masks and exit
//! statuses are those of a real process; otherwise it runs the cases below, each in its own temporary directory.

#![allow(clippy::unwrap_used)] // A test throughout; without the harness clippy cannot know.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use clap::Parser;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tocsin_agent::jobs::exec::{ExecArgs, exec_main};
use tocsin_agent::jobs::intake::{Intake, IntakeConfig, Submission};
use tocsin_shared::job::{JobEnded, JobRecord, JobStarted, Outcome};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
enum Cli {
    Exec(ExecArgs),
}

const CASES: [(&str, fn()); 23] = [
    ("exit_statuses_are_the_jobs", exit_statuses_are_the_jobs),
    ("signals_kill_the_wrapper_too", signals_kill_the_wrapper_too),
    ("commands_that_do_not_start", commands_that_do_not_start),
    ("bytes_pass_in_both_directions", bytes_pass_in_both_directions),
    ("a_flood_passes_and_leaves_its_tail", a_flood_passes_and_leaves_its_tail),
    ("one_pipe_for_both_keeps_the_order", one_pipe_for_both_keeps_the_order),
    ("a_file_is_read_back", a_file_is_read_back),
    ("nothing_is_captured_when_told_so", nothing_is_captured_when_told_so),
    ("the_job_finds_the_same_world", the_job_finds_the_same_world),
    ("signals_reach_the_job", signals_reach_the_job),
    ("ignored_signals_stay_ignored", ignored_signals_stay_ignored),
    ("a_closed_reader_ends_the_job", a_closed_reader_ends_the_job),
    ("errors_of_the_output_are_the_jobs", errors_of_the_output_are_the_jobs),
    ("background_children_keep_their_output", background_children_keep_their_output),
    ("a_slow_reader_loses_nothing", a_slow_reader_loses_nothing),
    ("without_an_agent_the_outcome_is_dropped", without_an_agent_the_outcome_is_dropped),
    ("a_silent_agent_is_not_waited_for", a_silent_agent_is_not_waited_for),
    ("an_agent_hears_start_and_end", an_agent_hears_start_and_end),
    ("arguments_that_are_too_long_for_the_command", arguments_that_are_too_long_for_the_command),
    ("a_file_system_without_programs", a_file_system_without_programs),
    ("time_limits_are_as_without_the_wrapper", time_limits_are_as_without_the_wrapper),
    ("a_kill_for_want_of_memory_is_told_as_such", a_kill_for_want_of_memory_is_told_as_such),
    ("no_agent_and_no_disk_cost_50_ms", no_agent_and_no_disk_cost_50_ms),
];

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("exec") {
        let Cli::Exec(args) = Cli::parse();
        return exec_main(args);
    }
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let mut failed = 0;
    for (name, case) in CASES.iter().filter(|(name, _)| name.contains(&filter)) {
        let passed = std::panic::catch_unwind(case).is_ok();
        failed += usize::from(!passed);
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A place for one wrapped run: its drop-box, and a socket where nobody listens.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("jobs")).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The wrapper around a command; it may take its time to report unless the case says otherwise.
    fn wrapped(&self, command: &[&str]) -> Command {
        self.wrapped_with(&["--report-within", "30s"], command)
    }

    fn wrapped_with(&self, options: &[&str], command: &[&str]) -> Command {
        let mut wrapper = Command::new(std::env::current_exe().unwrap());
        wrapper.args(["exec", "--job", "nightly backup", "--socket"]).arg(self.path("sock"));
        wrapper.arg("--drop-box").arg(self.path("jobs")).args(options).arg("--").args(command);
        wrapper
    }

    /// Takes the records out of the drop-box, as an agent that starts now does.
    fn ended(&self) -> JobEnded {
        let listening = IntakeConfig { socket: self.path("agent"), ..self.config() };
        match &records(listening, 1)[..] {
            [JobRecord::Ended(ended)] => ended.clone(),
            other => panic!("expected one end, found {other:?}"),
        }
    }

    fn config(&self) -> IntakeConfig {
        IntakeConfig {
            socket: self.path("sock"),
            drop_box: self.path("jobs"),
            scan_every: Duration::from_millis(20),
            ..IntakeConfig::default()
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The first `count` records that an intake receives.
fn records(config: IntakeConfig, count: usize) -> Vec<JobRecord> {
    runtime().block_on(async {
        let (out, mut sink) = tokio::sync::mpsc::channel(4);
        let stop = CancellationToken::new();
        let intake = tokio::spawn(Intake::bind(config, out).unwrap().run(stop.clone()));
        let mut records = Vec::new();
        while records.len() < count {
            let next = tokio::time::timeout(Duration::from_secs(30), sink.recv()).await;
            let Submission { record, reply } = next.expect("a record in time").unwrap();
            reply.send(Ok(())).unwrap();
            records.push(record);
        }
        stop.cancel();
        intake.await.unwrap(); // It removes what was stored.
        records
    })
}

fn shell(script: &str) -> [&str; 3] {
    ["sh", "-c", script]
}

// Cases: P3
fn exit_statuses_are_the_jobs() {
    for status in [0, 1, 255] {
        let place = Place::new();
        let exit = place.wrapped(&shell(&format!("exit {status}"))).status().unwrap();
        assert_eq!(exit.code(), Some(status));
        let ended = place.ended();
        assert_eq!(ended.outcome, Outcome::Exited(u8::try_from(status).unwrap()));
        assert!(ended.ended_boot_ms >= ended.started_boot_ms && ended.started_boot_ms > 0);
        assert_eq!(ended.duration.as_millis() as u64, ended.ended_boot_ms - ended.started_boot_ms);
    }
}

// Cases: P3
fn signals_kill_the_wrapper_too() {
    let real_time = 34;
    for signal in [Signal::SIGTERM as i32, Signal::SIGKILL as i32, Signal::SIGSEGV as i32, real_time] {
        let place = Place::new();
        let exit = place.wrapped(&shell(&format!("kill -{signal} $$"))).status().unwrap();
        assert_eq!(exit.signal(), Some(signal));
        let outcome = place.ended().outcome;
        assert!(matches!(outcome, Outcome::Signalled { signal: s, .. } if s == signal), "{outcome:?}");
        assert!(!exit.core_dumped(), "the wrapper leaves no core of its own");
    }
}

// Cases: P4
fn commands_that_do_not_start() {
    let place = Place::new();
    std::fs::write(place.path("no-format"), "\0not a program").unwrap();
    std::fs::set_permissions(place.path("no-format"), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(place.path("not-executable"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(place.path("not-executable"), PermissionsExt::from_mode(0o644)).unwrap();
    for (program, status, errno) in
        [("missing", 127, 2), ("not-executable", 126, 13), ("no-format", 126, 8), ("", 126, 13)]
    {
        let program = place.path(program);
        let done = place.wrapped(&[program.to_str().unwrap()]).output().unwrap();
        assert_eq!(done.status.code(), Some(status), "{program:?}");
        assert!(!done.stderr.is_empty() && done.stdout.is_empty());
        let Outcome::CouldNotStart { errno: reported, message } = place.ended().outcome else {
            panic!("it ran")
        };
        assert_eq!(reported, errno, "{message}");
    }
    assert_eq!(place.wrapped(&["no-such-command-anywhere"]).status().unwrap().code(), Some(127));
}

// Cases: P5, C-A2
fn bytes_pass_in_both_directions() {
    let place = Place::new();
    let bytes: Vec<u8> = (0..1_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut child = place
        .wrapped(&shell("tee /dev/fd/3 3>&2"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stderr) = (child.stdin.take().unwrap(), child.stderr.take().unwrap());
    let input = bytes.clone();
    let feed = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let errors = std::thread::spawn(move || {
        let mut errors = Vec::new();
        stderr.read_to_end(&mut errors).unwrap();
        errors
    });
    let done = child.wait_with_output().unwrap();
    feed.join().unwrap();
    assert!(done.status.success());
    assert!(done.stdout == bytes, "stdout is the input");
    assert!(errors.join().unwrap() == bytes, "stderr is the input, apart from stdout");
    assert_eq!(place.ended().output_bytes, 2_000_000);
}

// Cases: P5
fn a_flood_passes_and_leaves_its_tail() {
    let place = Place::new();
    let done =
        place.wrapped(&shell("yes 0123456789abcde | head -c 10485760; echo the end")).output().unwrap();
    assert_eq!(done.stdout.len(), 10_485_760 + 8);
    assert!(done.stdout[..10_485_760].chunks(16).all(|line| line == b"0123456789abcde\n"));
    let ended = place.ended();
    assert_eq!((ended.output_tail.len(), ended.output_bytes, ended.truncated), (65_536, 10_485_768, true));
    assert!(ended.output_tail.ends_with("0123456789abcde\nthe end\n"));
}

fn one_pipe_for_both_keeps_the_order() {
    let place = Place::new();
    let script = "i=0; while [ $i -lt 500 ]; do echo $i; i=$((i+1)); echo $i >&2; i=$((i+1)); done";
    let (mut reader, writer) = io::pipe().unwrap();
    let mut command = place.wrapped(&shell(script));
    let mut child = command.stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap();
    drop(command);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    let expected: String = (0..500).map(|n| format!("{n}\n")).collect();
    assert_eq!(text, expected);
    assert_eq!(&*place.ended().output_tail, expected);
}

fn a_file_is_read_back() {
    let place = Place::new();
    let mut file = File::create(place.path("log")).unwrap();
    file.write_all(b"from an earlier run\n").unwrap();
    let mut command = place.wrapped(&shell("echo out; echo PASSWORD=hunter2 >&2; ls -l /proc/self/fd/1"));
    let exit = command.stdout(file.try_clone().unwrap()).stderr(file).status().unwrap();
    assert!(exit.success());
    let log = std::fs::read_to_string(place.path("log")).unwrap();
    assert!(log.starts_with("from an earlier run\nout\nPASSWORD=hunter2\n"), "{log}");
    assert!(log.contains(place.path("log").to_str().unwrap()), "the job has the file itself: {log}");
    let ended = place.ended();
    assert!(ended.output_tail.starts_with("out\nPASSWORD=[redacted]\n"), "{}", ended.output_tail);
    assert_eq!(ended.output_bytes as usize, log.len() - "from an earlier run\n".len());
}

fn nothing_is_captured_when_told_so() {
    let place = Place::new();
    let options = ["--capture", "never", "--report-within", "30s"];
    let done = place.wrapped_with(&options, &["echo", "hello"]).output().unwrap();
    assert_eq!(done.stdout, b"hello\n");
    let ended = place.ended();
    assert_eq!((&*ended.output_tail, ended.output_bytes), ("", 0));
}

// Cases: C-A2
fn the_job_finds_the_same_world() {
    let place = Place::new();
    let script = "umask; pwd; ulimit -a; env | sort; grep -E 'Sig(Blk|Ign|Cgt)|NoNewPrivs' /proc/self/status; \
                  ls /proc/self/fd; ps -o nice= -p $$; cut -d' ' -f5 /proc/self/stat | wc -l; printf '%s|' \"$@\"";
    let arguments = ["sh", "-c", script, "name", "two words", "", "--flag", "*", "-- --"];
    let see = |mut command: Command| {
        let done = command.current_dir("/").env("EXTRA", "1").stdin(Stdio::null()).output().unwrap();
        assert!(done.status.success());
        String::from_utf8(done.stdout).unwrap()
    };
    let mut plain = Command::new(arguments[0]);
    plain.args(&arguments[1..]);
    assert_eq!(see(place.wrapped(&arguments)), see(plain));
}

/// Starts a command and reads its first line, so that whatever it prepared before saying it is done.
fn ready(command: &mut Command) -> std::process::Child {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut byte = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    assert_eq!(line, b"ready\n");
    child
}

fn signal(child: &std::process::Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
}

fn wait(mut child: std::process::Child) -> ExitStatus {
    let _stdin = child.stdin.take(); // Kept open until the end: `wait` would close it.
    child.wait().unwrap()
}

// Cases: C-A2
fn signals_reach_the_job() {
    use Signal::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGWINCH};
    for sent in [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCONT, SIGTSTP, SIGWINCH] {
        let place = Place::new();
        let name = sent.as_str().trim_start_matches("SIG");
        let script = format!("trap 'exit 7' {name}; echo ready; while :; do read line; done");
        let child = ready(&mut place.wrapped(&shell(&script)));
        signal(&child, sent);
        assert_eq!(wait(child).code(), Some(7), "{sent}");
        assert_eq!(place.ended().outcome, Outcome::Exited(7));
    }
    let place = Place::new();
    let child = ready(&mut place.wrapped(&shell("echo ready; read line")));
    signal(&child, Signal::SIGTERM);
    assert_eq!(wait(child).signal(), Some(Signal::SIGTERM as i32), "a job without a trap dies of it");
}

// Cases: C-A2
fn ignored_signals_stay_ignored() {
    let place = Place::new();
    let wrapper = place.wrapped(&shell("echo ready; read line; exit 5"));
    let mut outer = Command::new("sh");
    outer
        .args(["-c", "trap '' HUP CHLD; exec \"$@\"", "sh"])
        .arg(wrapper.get_program())
        .args(wrapper.get_args());
    let mut child = ready(&mut outer);
    signal(&child, Signal::SIGHUP);
    child.stdin.as_mut().unwrap().write_all(b"go on\n").unwrap();
    assert_eq!(wait(child).code(), Some(5), "nohup still works, and so does waiting with SIGCHLD ignored");
}

// Cases: P6
fn a_closed_reader_ends_the_job() {
    let place = Place::new();
    let mut child = place.wrapped(&["yes"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 2];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGPIPE as i32));
}

// Cases: P6
fn errors_of_the_output_are_the_jobs() {
    let place = Place::new();
    let status = |mut command: Command| {
        let full = File::options().write(true).open("/dev/full").unwrap();
        command.stdout(full).stderr(Stdio::null()).status().unwrap().code()
    };
    let mut plain = Command::new("echo");
    plain.arg("x");
    let (wrapped, plain) = (status(place.wrapped(&["echo", "x"])), status(plain));
    assert_eq!(wrapped, plain);
    assert_ne!(wrapped, Some(0));
}

/// A job that leaves a child behind, which writes when its stdin tells it to.
const LEAVES_A_CHILD: &str = "exec 3<&0; (read line <&3; echo later; echo $? >\"$0\") & echo ready; exit 4";

// Cases: P3
fn background_children_keep_their_output() {
    let place = Place::new();
    let status = place.path("status");
    let mut child = ready(&mut place.wrapped(&["sh", "-c", LEAVES_A_CHILD, status.to_str().unwrap()]));
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    assert_eq!(child.wait().unwrap().code(), Some(4), "the wrapper does not wait for the child");
    assert!(place.ended().background_children);
    stdin.write_all(b"go\n").unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "later\n", "and the child's output still arrives");
    assert_eq!(text_when_there(&status), "0\n", "it was not killed by SIGPIPE");
}

/// The text of a file that a process is about to write; the harness's time limit is the bound.
fn text_when_there(path: &Path) -> String {
    loop {
        match std::fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text,
            _ => std::thread::yield_now(),
        }
    }
}

// Cases: P5
fn a_slow_reader_loses_nothing() {
    let place = Place::new();
    // 60,000 bytes fit into the wrapper's pipe but, with a smaller one behind it, not into the reader's.
    let (mut reader, writer) = io::pipe().unwrap();
    nix::fcntl::fcntl(writer.as_fd(), nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let mut command = place.wrapped(&shell("head -c 60000 /dev/zero; echo ended >&2"));
    let mut child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    drop(command);
    let mut told = [0; 6];
    child.stderr.as_mut().unwrap().read_exact(&mut told).unwrap();
    assert_eq!(&told, b"ended\n", "the job could end before anybody read");
    assert!(matches!(place.ended().outcome, Outcome::Exited(0)), "and was reported");
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), 60_000);
    assert!(child.wait().unwrap().success());
}

fn dropped(place: &Place) -> Vec<PathBuf> {
    std::fs::read_dir(place.path("jobs")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

// Cases: P1
fn without_an_agent_the_outcome_is_dropped() {
    let place = Place::new();
    let done = place.wrapped(&shell("echo token=CANARY; exit 3")).env("UNSEEN", "CANARY").output().unwrap();
    assert_eq!(done.status.code(), Some(3));
    let files = dropped(&place);
    assert_eq!(files.len(), 1);
    assert_eq!(std::fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!String::from_utf8_lossy(&std::fs::read(&files[0]).unwrap()).contains("CANARY"));
    let ended = place.ended();
    assert_eq!((ended.job.as_str(), &*ended.output_tail), ("nightly backup", "token=[redacted]\n"));
    assert_eq!(ended.uid, nix::unistd::getuid().as_raw());

    std::fs::remove_dir_all(place.path("jobs")).unwrap();
    assert_eq!(place.wrapped(&["true"]).status().unwrap().code(), Some(0), "no drop-box changes nothing");
}

// Cases: C-A2
fn a_silent_agent_is_not_waited_for() {
    let place = Place::new();
    let _listener = UnixListener::bind(place.path("sock")).unwrap(); // Takes connections, never answers.
    assert!(place.wrapped(&["false"]).status().unwrap().code() == Some(1));
    assert_eq!(dropped(&place).len(), 1, "it went to the drop-box instead");
    let mut done = place.wrapped_with(&["--report-within", "0s"], &shell("echo late; exit 4"));
    assert_eq!(done.status().unwrap().code(), Some(4), "without time to report nothing else changes");
}

fn an_agent_hears_start_and_end() {
    let place = Place::new();
    let mut command = place.wrapped(&["sh", "-c", "echo hello; exit 9", "--password=CANARY"]);
    let (ready, bound) = std::sync::mpsc::channel();
    let config = place.config();
    let agent = std::thread::spawn(move || {
        ready.send(()).unwrap();
        records(config, 2)
    });
    bound.recv().unwrap();
    while !place.path("sock").exists() {
        std::thread::yield_now();
    }
    assert_eq!(command.output().unwrap().status.code(), Some(9));
    let mut records = agent.join().unwrap();
    records.sort_by_key(|record| matches!(record, JobRecord::Ended(_)));
    let [JobRecord::Started(JobStarted { run_id, pid, command, user, .. }), JobRecord::Ended(ended)] =
        &records[..]
    else {
        panic!("expected a start and an end, found {records:?}")
    };
    assert_eq!(ended.run_id, *run_id);
    assert_eq!((&ended.outcome, &*ended.output_tail), (&Outcome::Exited(9), "hello\n"));
    assert_eq!(&**command, "sh -c 'echo hello; exit 9' --password=[redacted]");
    assert!(*pid > 1 && !user.is_empty() && *user == ended.user);
    assert!(dropped(&place).is_empty());
}

/// Runs a tool that needs rights; false, with a printed reason, when it cannot.
fn tool(what: &str, command: &mut Command) -> bool {
    match command.output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            println!("skipped: {what}: {}", String::from_utf8_lossy(&output.stderr).trim());
            false
        }
        Err(error) => {
            println!("skipped: {what}: {error}");
            false
        }
    }
}

/// A file system of its own, until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(place: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir(place).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(place);
        tool("a tmpfs needs root", &mut mount).then(|| Self(place.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().unwrap();
    }
}

fn script(path: &Path, first_line: &str) {
    std::fs::write(path, format!("{first_line}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn could_not_start(place: &Place) -> i32 {
    match place.ended().outcome {
        Outcome::CouldNotStart { errno, .. } => errno,
        other => panic!("{other:?}"),
    }
}

// Cases: P4
fn arguments_that_are_too_long_for_the_command() {
    // The kernel adds an interpreter's line to the arguments, so that the command has more of them than the wrapper.
    let place = Place::new();
    script(&place.path("s"), &format!("#!/bin/sh -{}", "e".repeat(230)));
    std::os::unix::fs::symlink(std::env::current_exe().unwrap(), place.path("w")).unwrap();
    let run = |bytes: usize| {
        let mut wrapper = Command::new("./w");
        wrapper.current_dir(place.dir.path()).env_clear().stderr(Stdio::null());
        wrapper.args(["exec", "--job", "x", "--socket", "a", "--drop-box", "jobs", "--report-within", "9s"]);
        wrapper.args(["--", "./s"]).args(vec!["x".repeat(1000); bytes / 1000]).arg("x".repeat(bytes % 1000));
        wrapper.status()
    };
    // The most that the kernel lets the wrapper have.
    let (mut fits, mut fails) = (1, 8 << 20);
    while fits + 1 < fails {
        let middle = usize::midpoint(fits, fails);
        if run(middle).is_ok() { fits = middle } else { fails = middle }
    }
    std::fs::remove_dir_all(place.path("jobs")).unwrap();
    std::fs::create_dir(place.path("jobs")).unwrap();
    assert_eq!(run(fits).unwrap().code(), Some(126));
    assert_eq!(could_not_start(&place), nix::errno::Errno::E2BIG as i32);
}

// Cases: P4
fn a_file_system_without_programs() {
    let place = Place::new();
    let Some(mounted) = Mounted::tmpfs(&place.path("data"), "noexec,size=64k") else { return };
    let program = mounted.0.join("program");
    script(&program, "#!/bin/sh");
    let mut wrapper = place.wrapped(&[program.to_str().unwrap()]);
    assert_eq!(wrapper.stderr(Stdio::null()).status().unwrap().code(), Some(126));
    assert_eq!(could_not_start(&place), nix::errno::Errno::EACCES as i32);
}

// Cases: P3, C-A2
fn time_limits_are_as_without_the_wrapper() {
    let sleeps = ["sleep", "60"];
    let limited = |options: &[&str], of: &Command| {
        let mut limit = Command::new("timeout");
        limit.args(options).arg("0.2").arg(of.get_program()).args(of.get_args());
        limit.status().unwrap()
    };
    let mut plain = Command::new(sleeps[0]);
    plain.arg(sleeps[1]);
    let place = Place::new();
    let around = limited(&[], &place.wrapped(&sleeps));
    assert_eq!(around.code(), limited(&[], &plain).code());
    let terminated = Outcome::Signalled { signal: 15, core: false, out_of_memory: false };
    assert_eq!(place.ended().outcome, terminated, "the limit ended the job, not only the wrapper");

    let place = Place::new();
    let inside = place.wrapped(&["timeout", "0.1", "sleep", "60"]).status().unwrap();
    assert_eq!((inside.code(), place.ended().outcome), (Some(124), Outcome::Exited(124)));

    let place = Place::new();
    let preserved = ["--preserve-status", "--signal=INT"];
    assert_eq!(limited(&preserved, &place.wrapped(&sleeps)).code(), limited(&preserved, &plain).code());
}

/// A control group whose processes have this much memory together; none, with a printed reason, where that cannot be.
struct Group(PathBuf);

impl Group {
    fn with_memory(bytes: &str) -> Option<Self> {
        let name = format!("tocsin-exec-{}", std::process::id());
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (root, limit) = if v1.is_dir() {
            (v1, "memory.limit_in_bytes")
        } else {
            (Path::new("/sys/fs/cgroup"), "memory.max")
        };
        let group = Self(root.join(name));
        let made = std::fs::create_dir(&group.0).and_then(|()| std::fs::write(group.0.join(limit), bytes));
        if let Err(error) = made {
            println!("skipped: no control group for memory in {}: {error}", root.display());
            return None;
        }
        for (file, value) in [("memory.swappiness", "0"), ("memory.swap.max", "0")] {
            std::fs::write(group.0.join(file), value).unwrap_or_default(); // One of them is there, or no swap.
        }
        Some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        while std::fs::remove_dir(&self.0).is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy) {
            std::thread::yield_now();
        }
    }
}

// Cases: P3
fn a_kill_for_want_of_memory_is_told_as_such() {
    let Some(group) = Group::with_memory("33554432") else { return };
    let enter = |of: &Command| {
        let mut inside = Command::new("sh");
        let procs = group.0.join("cgroup.procs");
        inside.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(procs);
        inside.arg(of.get_program()).args(of.get_args());
        inside
    };
    let place = Place::new();
    let status = enter(&place.wrapped(&["tail", "/dev/zero"])).status().unwrap();
    assert_eq!(status.signal(), Some(9), "the wrapper dies as the job did");
    let killed = |out_of_memory| Outcome::Signalled { signal: 9, core: false, out_of_memory };
    assert_eq!(place.ended().outcome, killed(true));
    let place = Place::new();
    enter(&place.wrapped(&shell("kill -9 $$"))).status().unwrap();
    assert_eq!(place.ended().outcome, killed(false), "in the same group, by hand");
}

// Cases: C-A2, S16
fn no_agent_and_no_disk_cost_50_ms() {
    let place = Place::new();
    let _listener = UnixListener::bind(place.path("sock")).unwrap(); // As an agent that is stopped.
    std::fs::remove_dir(place.path("jobs")).unwrap();
    let Some(mounted) = Mounted::tmpfs(&place.path("jobs"), "size=16k") else { return };
    std::fs::write(mounted.0.join("filler"), [0; 16 << 10]).unwrap();
    assert!(std::fs::write(mounted.0.join("more"), [0; 4096]).is_err(), "the disk is full");
    // The job says when it ends. The wrapper may take 50 ms; a busy machine adds to some runs, and not to all.
    let mut quickest = Duration::MAX;
    for _ in 0..20 {
        let mut wrapper = place.wrapped_with(&[], &shell("date +%s%N"));
        let output = wrapper.output().unwrap();
        let over = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let ended: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        quickest = quickest.min(over.saturating_sub(Duration::from_nanos(ended)));
        if quickest <= Duration::from_millis(55) {
            return; // Of it `date` and the shell need some to end.
        }
    }
    panic!("the wrapper stayed for {quickest:?} at least");
}
