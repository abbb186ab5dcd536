//! A TCP proxy between agents and their collector that does what networks do on a bad day.
//!
//! It works on bytes and knows nothing of TLS, so the programs behind it are the real ones. What it does can be changed
//! at any time and holds for open connections and new ones alike; a `Spoil` is taken by connections that open after it
//! was set. Each way has its own `Line`: how long bytes are under way, how many a second, and whether they go at all.
//! `Held` bytes are late, as behind a partition that heals; `Lost` ones are gone, as with a middlebox that forgot.
//! Not here: lost and reordered packets below TCP (a kernel's filter does those).

mod line;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use line::{End, pump};

/// What the kernel may hold for the proxy: little, so that a slow line is slow at its entry, too.
const SOCKET_BYTES: u32 = 16 * 1024;
/// Connections that may wait to be accepted: a herd comes through here as well.
const WAITING: u32 = 4096;
/// After the first end, the other way gets this long for its own.
const HALF_CLOSED: Duration = Duration::from_secs(1);

/// From the agent to the collector, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Up,
    Down,
}

/// What becomes of bytes on one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    #[default]
    Forward,
    /// Nothing is read or written: both ends see an open connection without a sign of life.
    Held,
    /// Read and thrown away: a writer notices nothing.
    Lost,
}

/// One way of every connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    pub flow: Flow,
    /// Every byte is under way at least this long.
    pub latency: Duration,
    /// And up to this much longer; bytes never overtake each other.
    pub jitter: Duration,
    /// Bytes a second; none means no bound.
    pub rate: Option<u32>,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// FIN, as a load balancer does.
    Finish,
    /// RST.
    Reset,
}

/// What happens to a connection at its byte `at` of a way; the bytes before it arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spoil {
    pub way: Way,
    pub at: u64,
    pub what: Damage,
}

/// See `Spoil`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The connection ends there.
    End(How),
    /// One bit of that byte is another.
    Flip,
    /// Nothing more goes that way, and the connection stays open.
    Stall,
}

/// Everything that can be changed at run time.
#[derive(Clone, Debug)]
struct State {
    target: SocketAddr,
    up: Line,
    down: Line,
    /// New connections are reset at once.
    refuses: bool,
    /// Ends connections on which nothing was said for so long.
    idle: Option<Duration>,
    /// Ends connections of this age.
    lifetime: Option<Duration>,
    spoil: Option<Spoil>,
    /// Connections with a smaller number are held, up and down.
    stranded: [u64; 2],
    /// Ends the connections of all earlier generations.
    generation: u64,
    end: How,
}

impl State {
    /// How a way of a connection is.
    fn line(&self, way: Way, number: u64) -> Line {
        let (line, stranded) = match way {
            Way::Up => (self.up, self.stranded[0]),
            Way::Down => (self.down, self.stranded[1]),
        };
        if number < stranded { Line { flow: Flow::Held, ..line } } else { line }
    }
}

/// What went through, since the start.
#[derive(Debug, Default)]
pub struct Passed {
    pub accepted: AtomicU64,
    /// Of them, those that reached the target.
    pub reached: AtomicU64,
    pub ended: AtomicU64,
    pub up: AtomicU64,
    pub down: AtomicU64,
}

/// A proxy; its connections end with this value.
pub struct Chaos {
    address: SocketAddr,
    state: watch::Sender<State>,
    passed: Arc<Passed>,
    task: AbortHandle,
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Chaos {
    /// A proxy to `target` that does nothing yet, at a port that the kernel chooses.
    pub fn to(target: &str) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(SOCKET_BYTES)?; // Accepted connections inherit it.
        socket.bind(([127, 0, 0, 1], 0).into())?;
        let address = socket.local_addr()?;
        let listener = socket.listen(WAITING)?;
        let state = State {
            target: parsed(target)?,
            up: Line::default(),
            down: Line::default(),
            refuses: false,
            idle: None,
            lifetime: None,
            spoil: None,
            stranded: [0, 0],
            generation: 0,
            end: How::Finish,
        };
        let (state, told) = watch::channel(state);
        let passed = Arc::new(Passed::default());
        let task = tokio::spawn(accept(listener, told, Arc::clone(&passed))).abort_handle();
        Ok(Self { address, state, passed, task })
    }

    /// Where agents connect to.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// What went through so far.
    pub fn passed(&self) -> &Passed {
        &self.passed
    }

    /// Connections that were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.passed.accepted.load(Ordering::Relaxed)
    }

    /// Connections that reached the target so far.
    pub fn reached(&self) -> u64 {
        self.passed.reached.load(Ordering::Relaxed)
    }

    /// Connections that are open now.
    pub fn open(&self) -> u64 {
        self.accepted() - self.passed.ended.load(Ordering::Relaxed)
    }

    /// Where new connections lead to from now on.
    pub fn lead_to(&self, target: &str) -> anyhow::Result<()> {
        let target = parsed(target)?;
        self.change(|state| state.target = target);
        Ok(())
    }

    /// How one way is from now on.
    pub fn set(&self, way: Way, line: Line) {
        self.change(|state| match way {
            Way::Up => state.up = line,
            Way::Down => state.down = line,
        });
    }

    /// How both ways are from now on.
    pub fn set_both(&self, line: Line) {
        self.change(|state| (state.up, state.down) = (line, line));
    }

    /// Holds one way of the connections that are open now, for ever: neither end hears that the other has gone.
    pub fn strand(&self, way: Way) {
        let accepted = self.accepted();
        self.change(|state| match way {
            Way::Up => state.stranded[0] = accepted,
            Way::Down => state.stranded[1] = accepted,
        });
    }

    /// Whether new connections are reset.
    pub fn refuse(&self, refuses: bool) {
        self.change(|state| state.refuses = refuses);
    }

    /// Ends connections that say nothing for so long, as a forgetful middlebox does.
    pub fn end_idle(&self, after: Option<Duration>) {
        self.change(|state| state.idle = after);
    }

    /// Ends connections of this age, as a load balancer does.
    pub fn end_old(&self, age: Option<Duration>) {
        self.change(|state| state.lifetime = age);
    }

    /// What happens to connections that open from now on.
    pub fn spoil(&self, spoil: Option<Spoil>) {
        self.change(|state| state.spoil = spoil);
    }

    /// Ends every open connection now.
    pub fn end_all(&self, how: How) {
        self.change(|state| (state.generation, state.end) = (state.generation + 1, how));
    }

    /// A link that is up for a while and down for a while, for so long; it is up at the end.
    pub async fn flap(&self, up: Duration, down: Duration, during: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < during {
            sleep(up).await;
            self.refuse(true);
            self.end_all(How::Reset);
            sleep(down).await;
            self.refuse(false);
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(change);
    }
}

fn parsed(target: &str) -> anyhow::Result<SocketAddr> {
    target.parse().with_context(|| format!("{target} is no address"))
}

async fn accept(listener: TcpListener, state: watch::Receiver<State>, passed: Arc<Passed>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let number = passed.accepted.fetch_add(1, Ordering::Relaxed);
        let (state, passed) = (state.clone(), Arc::clone(&passed));
        connections.spawn(async move {
            connection(client, state, number, &passed).await;
            passed.ended.fetch_add(1, Ordering::Relaxed);
        });
    }
}

/// One connection to its end.
async fn connection(client: TcpStream, mut state: watch::Receiver<State>, number: u64, passed: &Passed) {
    let now = state.borrow_and_update().clone();
    let server = if now.refuses { None } else { TcpStream::connect(now.target).await.ok() };
    let Some(server) = server else { return reset(&client) };
    passed.reached.fetch_add(1, Ordering::Relaxed);
    for stream in [&client, &server] {
        stream.set_nodelay(true).ok(); // A socket that refuses the option still works.
    }
    let (begun, heard) = (Instant::now(), AtomicU64::new(0));
    let ways = async {
        let spoil = |way| now.spoil.filter(|spoil| spoil.way == way);
        let mut up = std::pin::pin!(pump(
            &client,
            &server,
            line::Track {
                state: state.clone(),
                way: Way::Up,
                number,
                spoil: spoil(Way::Up),
                passed: &passed.up,
                heard: &heard,
                begun,
            }
        ));
        let mut down = std::pin::pin!(pump(
            &server,
            &client,
            line::Track {
                state: state.clone(),
                way: Way::Down,
                number,
                spoil: spoil(Way::Down),
                passed: &passed.down,
                heard: &heard,
                begun,
            }
        ));
        let first = tokio::select! { end = &mut up => (end, true), end = &mut down => (end, false) };
        match first {
            (End::Damage(how), _) => how,
            // What still comes the other way may have to arrive: the last words of a server, for one.
            (End::Closed, true) => late(tokio::time::timeout(HALF_CLOSED, down).await),
            (End::Closed, false) => late(tokio::time::timeout(HALF_CLOSED, up).await),
        }
    };
    let how = tokio::select! {
        how = ways => how,
        how = told(state.clone(), &heard, begun) => how,
    };
    if how == How::Reset {
        reset(&client);
        reset(&server);
    }
}

fn late(ended: Result<End, tokio::time::error::Elapsed>) -> How {
    match ended {
        Ok(End::Damage(how)) => how,
        _ => How::Finish,
    }
}

/// Lets the drop that follows send RST instead of FIN.
fn reset(stream: &TcpStream) {
    stream.set_zero_linger().ok(); // A socket that is gone already needs none.
}

/// Waits for whatever ends the connection from outside: a command, its age, its silence.
async fn told(mut state: watch::Receiver<State>, heard: &AtomicU64, begun: Instant) -> How {
    let born = state.borrow().generation;
    loop {
        let now = state.borrow_and_update().clone();
        if now.generation > born {
            return now.end;
        }
        let silent = now.idle.map(|idle| begun + Duration::from_millis(heard.load(Ordering::Relaxed)) + idle);
        let old = now.lifetime.map(|age| begun + age);
        let next = [silent, old].into_iter().flatten().min();
        if next.is_some_and(|next| next <= Instant::now()) {
            return How::Finish;
        }
        let timer = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return How::Finish },
            () = timer => {}
        }
    }
}

#[cfg(test)]
mod tests;
