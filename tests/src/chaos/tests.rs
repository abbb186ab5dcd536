//! Each fault against an echo server: what arrives, what does not, and how it ends.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(5);
/// Long against loopback, short against a test.
const NEVER: Duration = Duration::from_millis(150);

/// A server that gives back what it gets.
async fn echo() -> (Chaos, AbortHandle) {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let chaos = Chaos::to(&server.local_addr().unwrap().to_string()).unwrap();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await.ok();
            });
        }
    });
    (chaos, task.abort_handle())
}

async fn connect(chaos: &Chaos) -> TcpStream {
    TcpStream::connect(chaos.address()).await.unwrap()
}

/// Says something; what comes back within a time.
async fn said(stream: &mut TcpStream, text: &str, within: Duration) -> Option<String> {
    stream.write_all(text.as_bytes()).await.ok()?;
    let mut back = vec![0; text.len()];
    timeout(within, stream.read_exact(&mut back)).await.ok()?.ok()?;
    String::from_utf8(back).ok()
}

async fn end_of(stream: &mut TcpStream) -> Result<usize, io::ErrorKind> {
    let ended = timeout(SOON, stream.read(&mut [0; 64])).await.expect("an end");
    ended.map_err(|error| error.kind())
}

#[tokio::test]
async fn what_is_held_comes_later_and_what_is_lost_does_not() {
    let (chaos, _echo) = echo().await;
    let mut stream = connect(&chaos).await;
    assert_eq!(said(&mut stream, "one", SOON).await.as_deref(), Some("one"));
    for way in [Way::Up, Way::Down] {
        chaos.set(way, Line { flow: Flow::Held, ..Line::default() });
        assert_eq!(said(&mut stream, "two", NEVER).await, None, "{way:?}");
        chaos.set(way, Line::default());
        let mut back = [0; 3];
        timeout(SOON, stream.read_exact(&mut back)).await.unwrap().unwrap();
        assert_eq!(&back, b"two", "{way:?}: it was only late");
    }
    let mut stranded = connect(&chaos).await;
    assert!(said(&mut stranded, "here", SOON).await.is_some());
    chaos.strand(Way::Down);
    assert_eq!(said(&mut stranded, "there", NEVER).await, None, "what was open is stranded");
    let mut stream = connect(&chaos).await;
    assert_eq!(said(&mut stream, "new", SOON).await.as_deref(), Some("new"), "what is new is not");
    chaos.set(Way::Up, Line { flow: Flow::Lost, ..Line::default() });
    assert_eq!(said(&mut stream, "three", NEVER).await, None);
    chaos.set(Way::Up, Line::default());
    assert_eq!(said(&mut stream, "four", SOON).await.as_deref(), Some("four"), "three never came");
    assert_eq!((chaos.accepted(), chaos.open()), (3, 3));
}

#[tokio::test]
async fn connections_end_as_they_are_told() {
    let (chaos, _echo) = echo().await;
    for (how, end) in [(How::Finish, Ok(0)), (How::Reset, Err(io::ErrorKind::ConnectionReset))] {
        let mut stream = connect(&chaos).await;
        assert!(said(&mut stream, "x", SOON).await.is_some());
        chaos.end_all(how);
        assert_eq!(end_of(&mut stream).await, end, "{how:?}");
    }
    chaos.refuse(true);
    let mut refused = connect(&chaos).await;
    assert_eq!(end_of(&mut refused).await, Err(io::ErrorKind::ConnectionReset));
    chaos.refuse(false);
    let tenth = Duration::from_millis(100);
    for (set, unset) in [
        (Chaos::end_idle as fn(&Chaos, Option<Duration>), Chaos::end_idle as fn(&Chaos, Option<Duration>)),
        (Chaos::end_old, Chaos::end_old),
    ] {
        let mut stream = connect(&chaos).await;
        assert!(said(&mut stream, "x", SOON).await.is_some());
        set(&chaos, Some(tenth));
        assert_eq!(end_of(&mut stream).await, Ok(0));
        unset(&chaos, None);
    }
}

#[tokio::test]
async fn damage_comes_at_its_byte() {
    let (chaos, _echo) = echo().await;
    for (what, back) in [(Damage::Flip, "abcDef"), (Damage::Stall, "abc")] {
        chaos.spoil(Some(Spoil { way: Way::Up, at: 3, what }));
        let mut stream = connect(&chaos).await;
        // In two pieces, so that the place is one of the connection and not of a read.
        for piece in ["ab", "cdef"] {
            stream.write_all(piece.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut got = vec![0; back.len()];
        timeout(SOON, stream.read_exact(&mut got)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&got), back, "{what:?}");
        let goes_on = timeout(NEVER, stream.read(&mut [0])).await;
        assert!(goes_on.is_err(), "it is still open, and no more comes: {goes_on:?}");
    }
    for how in [How::Finish, How::Reset] {
        chaos.spoil(Some(Spoil { way: Way::Down, at: 3, what: Damage::End(how) }));
        let mut stream = connect(&chaos).await;
        stream.write_all(b"abcdef").await.unwrap();
        let mut got = Vec::new();
        let ended = timeout(SOON, stream.read_to_end(&mut got)).await.unwrap();
        assert!(ended.is_err() == (how == How::Reset) && b"abc".starts_with(&got), "{ended:?}, {got:?}");
    }
}

#[tokio::test]
async fn a_line_is_as_slow_and_as_narrow_as_it_is_set() {
    let (chaos, _echo) = echo().await;
    let tenth = Duration::from_millis(100);
    chaos.set_both(Line { latency: tenth, jitter: tenth / 10, ..Line::default() });
    let mut stream = connect(&chaos).await;
    let begun = Instant::now();
    assert!(said(&mut stream, "far", SOON).await.is_some());
    assert!(begun.elapsed() >= tenth * 2, "there and back in {:?}", begun.elapsed());
    chaos.set_both(Line { rate: Some(10_000), ..Line::default() });
    let begun = Instant::now();
    assert!(said(&mut stream, &"narrow".repeat(500), SOON).await.is_some());
    assert!(begun.elapsed() >= tenth * 2, "3,000 bytes at 10,000 a second in {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_flapping_link_is_up_in_the_end() {
    let (chaos, _echo) = echo().await;
    let mut stream = connect(&chaos).await;
    let moment = Duration::from_millis(20);
    chaos.flap(moment, moment, moment * 4).await;
    assert!(end_of(&mut stream).await.is_err());
    assert!(said(&mut connect(&chaos).await, "up", SOON).await.is_some());
    assert!(chaos.accepted() == 2 && chaos.reached() == 2 && chaos.passed().up.load(Ordering::Relaxed) > 0);
}
