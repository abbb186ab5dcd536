//! A small life of the events journal, cut at every step in every way; and ended by every call that can fail.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tocsin_shared::disk::{RecordingDisk, Step};

use super::*;

const SEGMENT: Config = Config { segment_bytes: 2_000, scan_all: false };

/// The events of each answer, and at which position they were said.
type Given = Vec<(usize, Vec<Event>)>;

/// Answers that were given, and how many steps the disk had taken by then at most.
#[derive(Clone, Default)]
struct Answers {
    outstanding: Arc<Mutex<Vec<oneshot::Receiver<Decided>>>>,
    given: Arc<Mutex<Given>>,
}

impl Answers {
    /// Notes the answers that are there, in the order in which they were asked for.
    fn note(&self, position: usize) {
        let mut outstanding = self.outstanding.lock().unwrap();
        while let Some(Ok(decided)) = outstanding.first_mut().map(oneshot::Receiver::try_recv) {
            outstanding.remove(0);
            self.given.lock().unwrap().push((position, decided.unwrap()));
        }
    }

    /// The last event that had been said when the disk had taken so many steps.
    fn said_by(&self, position: usize) -> u64 {
        let given = self.given.lock().unwrap();
        let said = given.iter().filter(|(at, _)| *at <= position);
        said.flat_map(|(_, events)| events).map(|event| event.seq).max().unwrap_or(0)
    }

    /// The state after each decision, by its last event.
    fn states(&self) -> BTreeMap<u64, State> {
        let mut state = State::default();
        let mut states = BTreeMap::from([(0, state.clone())]);
        for (_, events) in &*self.given.lock().unwrap() {
            events.iter().for_each(|event| state.apply(event));
            states.insert(state.last_seq(), state.clone());
        }
        states
    }
}

struct Run {
    disk: RecordingDisk,
    answers: Answers,
}

impl Run {
    fn new() -> Self {
        let (disk, answers) = (RecordingDisk::default(), Answers::default());
        let noted = answers.clone();
        disk.before_each(move |position| noted.note(position));
        Self { disk, answers }
    }

    fn start(&self) -> Option<(Ledger, Fatal)> {
        let opened = open_with(SEGMENT, Arc::new(self.disk.clone()), Path::new("/j")).ok()?;
        let fatal = Fatal::new(CancellationToken::new());
        Some((opened.start(Defaults::default(), fatal.clone()), fatal))
    }

    /// Lets commands be decided in one group, and waits for what comes of it.
    async fn decide(&self, ledger: &Ledger, commands: Vec<Command>) -> Result<(), Stopping> {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let held = ledger.read(move |_| wait.recv().is_ok());
        let asked = async {
            for command in commands {
                let (reply, answer) = oneshot::channel();
                self.answers.outstanding.lock().unwrap().push(answer);
                let job =
                    Job::Decide { command: Box::new(command), actor: Actor::System, reply: Some(reply) };
                ledger.jobs.send(job).await.map_err(|_| Stopping)?;
            }
            drop(go);
            Ok(())
        };
        // The writer stands still in the read while the group gathers behind it.
        let (held, asked) = tokio::join!(biased; held, asked);
        held.and(asked)?;
        let settled = ledger.read(|_| ()).await;
        self.answers.note(self.disk.position());
        settled
    }

    /// Groups of one and of several decisions, full segments, three checkpoints, a drop of what they cover.
    async fn live(&self) -> Result<(), Stopping> {
        for session in 0..3 {
            let (ledger, fatal) = self.start().ok_or(Stopping)?;
            let host = |n: u128| {
                let name = format!("web-{n}");
                [Command::CreateToken(token(n, Env::Prod, "*")), Command::Enrol(enrolment(n, &name))]
            };
            for command in host(session * 3 + 1) {
                self.decide(&ledger, vec![command]).await?;
            }
            self.decide(&ledger, [host(session * 3 + 2), host(session * 3 + 3)].concat()).await?;
            if session == 2 {
                ledger.drop_older(Timestamp::MAX, u64::MAX).await?;
            }
            ledger.stop().await;
            // The thread has let go of it when it has said all it had to say.
            while Arc::strong_count(&fatal.why) > 1 {
                tokio::task::yield_now().await;
            }
            if fatal.reason().is_some() {
                return Err(Stopping);
            }
        }
        Ok(())
    }
}

/// What must hold of a journal that is opened after a cut.
async fn check(disk: MemoryDisk, said: u64, states: &BTreeMap<u64, State>, text: &str) {
    let open = || open_with(SEGMENT, Arc::new(disk.clone()), Path::new("/j")).unwrap();
    let opened = open();
    let last = opened.state().last_seq();
    assert!(last >= said, "{text}: {said} was said, {last} is there");
    let whole = states.get(&last).unwrap_or_else(|| panic!("{text}: half of a decision up to {last}"));
    assert_eq!(opened.state(), whole, "{text}: another state");
    assert_eq!(opened.problems, [""; 0], "{text}");
    let state = opened.state().clone();
    drop(opened);
    let again = open();
    assert_eq!(
        (again.state(), &again.problems),
        (&state, &Vec::new()),
        "{text}: another opening, another state"
    );
    let ledger = again.start(Defaults::default(), Fatal::new(CancellationToken::new()));
    enrol(&ledger, 99).await.unwrap().unwrap();
    ledger.stop().await;
    disk.crash(Crash::Dropped);
    assert!(open().state().host(agent(99)).is_some(), "{text}: it does not go on");
}

// Cases: C1, C2, C6, C18, C19
#[tokio::test]
async fn after_any_power_cut_what_was_answered_is_there_and_decisions_are_whole() {
    let run = Run::new();
    run.live().await.unwrap();
    let (states, mut cuts) = (run.answers.states(), 0);
    for cut in run.disk.history().power_cuts_within(128) {
        let (said, text) = (run.answers.said_by(cut.after), cut.to_string());
        check(cut.disk, said, &states, &text).await;
        cuts += 1;
    }
    println!("{} steps, {cuts} states", run.disk.position());
    assert!(cuts > 150, "the history is too poor to prove anything: {cuts}");
}

// Cases: C1
#[tokio::test]
async fn what_a_start_after_a_kill_has_folded_survives_a_power_cut() {
    let run = Run::new();
    run.live().await.unwrap();
    let (states, history) = (run.answers.states(), run.disk.history());
    for after in 0..=run.disk.position() {
        let disk = history.killed(after);
        let shown = open_with(SEGMENT, Arc::new(disk.clone()), Path::new("/j")).unwrap();
        let last = shown.state().last_seq();
        for cut in disk.history().power_cuts_at(disk.position()) {
            let text = format!("killed after {after} steps; then {cut}");
            let found = open_with(SEGMENT, Arc::new(cut.disk), Path::new("/j")).unwrap();
            assert_eq!(found.state().last_seq(), last, "{text}");
            assert_eq!(Some(found.state()), states.get(&last), "{text}");
        }
    }
}

// Cases: C8, S13
#[tokio::test]
async fn any_failing_call_is_the_end_and_nobody_is_answered_after_it() {
    for kind in [std::io::ErrorKind::Other, std::io::ErrorKind::StorageFull] {
        for after in 0.. {
            let run = Run::new();
            run.disk.memory().fail(Fault { operation: None, after, kind, stays: false });
            let ended = run.live().await;
            run.answers.note(run.disk.position());
            if run.disk.memory().calls() <= after {
                assert!(ended.is_ok() && after > 50, "{after} calls are too few");
                break; // Nothing had failed.
            }
            let waited_out = kind == std::io::ErrorKind::StorageFull && ended.is_ok();
            assert!(ended == Err(Stopping) || waited_out, "call {after} fails and it goes on");
            let steps = run.disk.history().steps().to_vec();
            let failed = steps.iter().position(|step| matches!(step, Step::SyncDataFailed { .. }));
            let later = failed.map_or(&[][..], |failed| &steps[failed + 1..]);
            // Without room a checkpoint is put off, and the file that was to be one is cleared away.
            let ends_in_new = |path: &Path| path.extension().is_some_and(|end| end == "new");
            let of_checkpoint = failed.is_some_and(|failed| match &steps[failed] {
                Step::SyncDataFailed { file: failed } => steps.iter().any(
                    |step| matches!(step, Step::Create { path, file } if file == failed && ends_in_new(path)),
                ),
                _ => false,
            });
            let cleared = |step: &Step| matches!(step, Step::Remove { path } if ends_in_new(path));
            assert!(
                later.iter().all(cleared) || (waited_out && of_checkpoint),
                "call {after} fails: something is written after a failed fsync"
            );
            let (states, end) = (run.answers.states(), run.disk.position());
            for cut in run.disk.history().power_cuts_at(end) {
                let text = format!("call {after} fails: {kind}; {cut}");
                let found = open_with(SEGMENT, Arc::new(cut.disk), Path::new("/j")).unwrap();
                let (last, said) = (found.state().last_seq(), run.answers.said_by(end));
                assert!(last >= said, "{text}: {said} was said, {last} is there");
                let answered = states.get(&last);
                assert!(answered.is_none_or(|state| state == found.state()), "{text}: another state");
            }
        }
    }
}
