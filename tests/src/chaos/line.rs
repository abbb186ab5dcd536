//! One way of one connection: a reader that obeys the line's rate and damage, a writer that obeys its latency.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Damage, Flow, How, Spoil, State, Way};

/// Bytes that are moved at once.
const CHUNK: usize = 16 * 1024;
/// A slow line moves what it moves in a twentieth of a second at once, so that it trickles.
const TRICKLE: Duration = Duration::from_millis(50);
/// Chunks under way at most: a megabyte, which is more than a window of HTTP/2 behind two seconds of latency needs.
const UNDER_WAY: usize = 64;

/// Where and under which orders bytes are moved.
pub(super) struct Track<'a> {
    pub state: watch::Receiver<State>,
    pub way: Way,
    /// Of the connection.
    pub number: u64,
    pub spoil: Option<Spoil>,
    /// Counts bytes that were read.
    pub passed: &'a AtomicU64,
    /// Milliseconds since `begun` at which anything was read last, on either way.
    pub heard: &'a AtomicU64,
    pub begun: Instant,
}

/// Why a way ended.
pub(super) enum End {
    /// Its source, or its sink.
    Closed,
    Damage(How),
}

/// Bytes and the moment of their arrival.
type Sent = (Instant, Vec<u8>);

/// Moves bytes until there are no more.
pub(super) async fn pump(from: &TcpStream, to: &TcpStream, track: Track<'_>) -> End {
    let (sent, arriving) = mpsc::channel(UNDER_WAY);
    let writer = write(to, arriving, track.state.clone(), (track.way, track.number));
    let reader = read(from, sent, track);
    let (end, _) = tokio::join!(reader, writer);
    if let End::Closed = end {
        // The other end learns it; it may have left already.
        nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(to), nix::sys::socket::Shutdown::Write)
            .ok();
    }
    end
}

/// Waits while the line holds what it has; false when the proxy has ended.
async fn is_open(state: &mut watch::Receiver<State>, (way, number): (Way, u64)) -> bool {
    state.wait_for(|state| state.line(way, number).flow != Flow::Held).await.is_ok()
}

async fn read(from: &TcpStream, sent: mpsc::Sender<Sent>, mut track: Track<'_>) -> End {
    let (mut place, mut random, mut last) = (0_u64, Random(0x9e37_79b9_7f4a_7c15), Instant::now());
    loop {
        if !is_open(&mut track.state, (track.way, track.number)).await {
            return End::Closed;
        }
        let line = track.state.borrow().line(track.way, track.number);
        let most = line.rate.map_or(CHUNK, |rate| ((rate as usize) / 20).clamp(1, CHUNK));
        let mut chunk = vec![0; most];
        let got = tokio::select! {
            ready = from.readable() => match ready.and_then(|()| from.try_read(&mut chunk)) {
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => 0,
            },
            _ = track.state.changed() => continue,
            () = sent.closed() => return End::Closed,
        };
        if got == 0 {
            return End::Closed;
        }
        chunk.truncate(got);
        track.passed.fetch_add(got as u64, Ordering::Relaxed);
        track.heard.store(track.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
        let damage = track.spoil.filter(|spoil| (place..place + got as u64).contains(&spoil.at));
        place += got as u64;
        if line.flow == Flow::Lost {
            continue;
        }
        // In order: what was sent later never arrives earlier.
        last = last.max(Instant::now() + line.latency + line.jitter.mul_f64(random.next()));
        if let Some(Spoil { at, what, .. }) = damage {
            let offset = (at + got as u64 - place) as usize;
            match what {
                Damage::Flip => chunk[offset] ^= 0x20,
                Damage::End(_) | Damage::Stall => chunk.truncate(offset),
            }
        }
        let left = sent.send((last, chunk)).await.is_err();
        match damage.map(|spoil| spoil.what) {
            // The writer first gives away what it has.
            Some(Damage::End(how)) => return End::Damage(how),
            Some(Damage::Stall) => std::future::pending().await,
            Some(Damage::Flip) | None if left => return End::Closed,
            Some(Damage::Flip) | None => {}
        }
        if let Some(rate) = line.rate {
            sleep(Duration::from_secs_f64(got as f64 / f64::from(rate.max(1))).min(TRICKLE * 20)).await;
        }
    }
}

/// Gives away what arrives; an error means that nobody is there any more.
async fn write(
    to: &TcpStream,
    mut arriving: mpsc::Receiver<Sent>,
    mut state: watch::Receiver<State>,
    of: (Way, u64),
) -> io::Result<()> {
    while let Some((at, chunk)) = arriving.recv().await {
        sleep_until(at).await;
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            if !is_open(&mut state, of).await {
                return Ok(());
            }
            to.writable().await?;
            match to.try_write(rest) {
                Ok(wrote) => rest = &rest[wrote..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Numbers from 0 to 1 that look random and are the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}
