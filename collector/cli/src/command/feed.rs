//! ⇄ `tocsin feed tail`: prints the feed and goes on where it was, across restarts of the collector and of itself.
//!
//! Promise: an event is acknowledged only after it has been written to the output; after a lost connection nothing
//! between the last printed item and the next is skipped. So an item may be printed twice, never left out.

use std::time::Duration;

use tocsin_proto::pb;
use tocsin_proto::pb::subscribe_request::From as Start;
use tocsin_proto::pb::subscribe_response::Kind;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Code, Streaming};

use super::Context;
use crate::arguments::Tail;
use crate::client::{Client, answer};
use crate::failure::Failure;
use crate::screen::note;
use crate::view::feed::{FeedView, draw_item};

/// Between attempts to connect again: doubled each time, up to the second.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(15);
/// A heartbeat comes every 10 s; without three of them nobody is there.
const SILENCE_MAX: Duration = Duration::from_secs(35);
/// An acknowledgement is an fdatasync of the collector: what is printed within this time shares one.
const ACK_DELAY: Duration = Duration::from_millis(500);

/// Where to begin, and where to go on.
#[derive(Clone, Debug, PartialEq)]
struct Position {
    start: Start,
    in_snapshot: bool,
}

impl Position {
    fn new(tail: &Tail) -> Self {
        let start = match (tail.from.as_deref(), &tail.consumer) {
            (Some("now"), _) | (None, None) => Start::Now(true),
            (Some("earliest"), _) => Start::Earliest(true),
            (Some("snapshot"), _) => Start::Snapshot(true),
            (Some(cursor), _) => Start::Cursor(cursor.to_owned()),
            (None, Some(_)) => Start::Acked(true),
        };
        Self { start, in_snapshot: false }
    }

    /// Moves past an item. Inside a snapshot there is nowhere to go on from but its beginning.
    fn pass(&mut self, item: &pb::SubscribeResponse) {
        match item.kind {
            Some(Kind::SnapshotBegin(_)) => self.in_snapshot = true,
            Some(Kind::SnapshotEnd(_)) => self.in_snapshot = false,
            _ => {}
        }
        if !self.in_snapshot && !item.cursor.is_empty() {
            self.start = Start::Cursor(item.cursor.clone());
        }
    }
}

/// Why a subscription ended.
enum End {
    /// The user asked.
    Stopped,
    /// It is worth trying again.
    Lost(String),
}

/// Whether the same request may succeed a little later. A subscription that a newer one of the same consumer ended
/// is not among these: two that take it from each other would never stop.
fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
    )
}

/// Follows the feed until Ctrl-C.
pub(super) async fn tail(context: &Context, tail: Tail) -> Result<(), Failure> {
    let connection = context.connection()?;
    let mut position = Position::new(&tail);
    // The first connection must succeed: a typing error is not worth waiting for.
    let mut client = Client::connect(&connection).await?;
    let mut stop = std::pin::pin!(stop_signal());
    let mut wait = RETRY_MIN;
    loop {
        let before = position.clone();
        let follower = Follower { context, tail: &tail, client: &client, position: &mut position };
        match follower.follow(stop.as_mut()).await? {
            End::Stopped => return Ok(()),
            End::Lost(reason) => {
                wait = if position == before { (wait * 2).min(RETRY_MAX) } else { RETRY_MIN };
                note(&format!("the feed was lost: {reason}; trying again in {} ms", wait.as_millis()));
            }
        }
        loop {
            tokio::select! {
                () = stop.as_mut() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
            match Client::connect(&connection).await {
                Ok(connected) => break client = connected,
                Err(failure) if failure.exit_code() == 3 => wait = (wait * 2).min(RETRY_MAX),
                Err(failure) => return Err(failure),
            }
        }
    }
}

/// One subscription.
struct Follower<'a> {
    context: &'a Context,
    tail: &'a Tail,
    client: &'a Client,
    position: &'a mut Position,
}

impl Follower<'_> {
    async fn follow(self, mut stop: std::pin::Pin<&mut impl Future<Output = ()>>) -> Result<End, Failure> {
        let request = pb::SubscribeRequest {
            from: Some(self.position.start.clone()),
            consumer: self.tail.consumer.clone().unwrap_or_default(),
            kinds: self.tail.kinds.clone(),
            accept_filter_change: self.tail.accept_filter_change,
        };
        self.position.in_snapshot = false;
        let mut feed = self.client.feed();
        let mut items: Streaming<pb::SubscribeResponse> = tokio::select! {
            () = stop.as_mut() => return Ok(End::Stopped),
            subscribed = timeout(SILENCE_MAX, feed.subscribe(request)) => match subscribed {
                Ok(Ok(answer)) => answer.into_inner(),
                Ok(Err(status)) => return lost(status),
                Err(_) => return Ok(End::Lost("no answer".into())),
            }
        };
        let mut acks = Acks { consumer: self.tail.consumer.as_deref(), cursor: None, due: Instant::now() };
        let mut heard = Instant::now();
        loop {
            let item = tokio::select! {
                () = stop.as_mut() => {
                    acks.send(self.client).await?;
                    return Ok(End::Stopped);
                }
                () = sleep_until(acks.due), if acks.cursor.is_some() => {
                    match acks.send(self.client).await {
                        Ok(()) => continue,
                        Err(Failure::Refused(status)) => return lost(*status),
                        Err(failure) => return Ok(End::Lost(failure.to_string())),
                    }
                }
                () = sleep_until(heard + SILENCE_MAX) => return Ok(End::Lost("not even a heartbeat".into())),
                item = items.message() => match item {
                    Ok(Some(item)) => item,
                    Ok(None) => return Ok(End::Lost("the collector ended it".into())),
                    Err(status) => return lost(status),
                }
            };
            heard = Instant::now();
            self.print(&item)?;
            self.position.pass(&item);
            if matches!(item.kind, Some(Kind::Event(_) | Kind::SnapshotEnd(_))) && !self.position.in_snapshot
            {
                acks.note(&item.cursor);
            }
        }
    }

    fn print(&self, item: &pb::SubscribeResponse) -> Result<(), Failure> {
        match FeedView::new(item.cursor.clone(), item.kind.clone()) {
            Some(view) => self.context.screen.show_line(&view, draw_item),
            None => Ok(()),
        }
    }
}

fn lost(status: tonic::Status) -> Result<End, Failure> {
    match is_passing(status.code()) {
        true => Ok(End::Lost(status.message().to_owned())),
        false => Err(status.into()),
    }
}

/// What has been printed and not yet been acknowledged.
struct Acks<'a> {
    consumer: Option<&'a str>,
    cursor: Option<String>,
    due: Instant,
}

impl Acks<'_> {
    fn note(&mut self, cursor: &str) {
        if self.consumer.is_none() {
            return;
        }
        if self.cursor.is_none() {
            self.due = Instant::now() + ACK_DELAY;
        }
        self.cursor = Some(cursor.to_owned());
    }

    async fn send(&mut self, client: &Client) -> Result<(), Failure> {
        let (Some(consumer), Some(cursor)) = (self.consumer, self.cursor.take()) else { return Ok(()) };
        answer(client.feed().ack(pb::AckRequest { consumer: consumer.to_owned(), cursor })).await?;
        Ok(())
    }
}

/// Ends at Ctrl-C or SIGTERM. Without a handler for them the process would just end, so their absence changes
/// nothing but the last acknowledgement.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(from: Option<&str>, consumer: Option<&str>) -> Tail {
        Tail {
            from: from.map(Into::into),
            consumer: consumer.map(Into::into),
            kinds: Vec::new(),
            accept_filter_change: false,
        }
    }

    fn item(cursor: &str, kind: Kind) -> pb::SubscribeResponse {
        pb::SubscribeResponse { cursor: cursor.into(), kind: Some(kind) }
    }

    #[test]
    fn a_tail_begins_where_it_is_told() {
        for (from, consumer, start) in [
            (None, None, Start::Now(true)),
            (None, Some("pager"), Start::Acked(true)),
            (Some("earliest"), Some("pager"), Start::Earliest(true)),
            (Some("snapshot"), None, Start::Snapshot(true)),
            (Some("now"), Some("pager"), Start::Now(true)),
            (Some("v1.abc.12"), None, Start::Cursor("v1.abc.12".into())),
        ] {
            assert_eq!(Position::new(&tail(from, consumer)).start, start, "{from:?} {consumer:?}");
        }
    }

    #[test]
    fn it_goes_on_after_the_last_item_and_never_inside_a_snapshot() {
        let mut position = Position::new(&tail(Some("snapshot"), None));
        let event = || Kind::Event(pb::Event::default());
        let cursor = |text: &str| Start::Cursor(text.into());
        for (item, start) in [
            (item("c1", Kind::SnapshotBegin(pb::SnapshotBegin { as_of_seq: 1 })), Start::Snapshot(true)),
            (item("c1", event()), Start::Snapshot(true)),
            (item("c1", Kind::SnapshotEnd(pb::SnapshotEnd { as_of_seq: 1 })), cursor("c1")),
            (item("c2", event()), cursor("c2")),
            (item("c3", Kind::Heartbeat(pb::FeedHeartbeat::default())), cursor("c3")),
            (item("", event()), cursor("c3")),
        ] {
            position.pass(&item);
            assert_eq!(position.start, start, "{item:?}");
        }
    }

    #[test]
    fn two_tails_of_one_consumer_do_not_fight() {
        for (code, passing) in [
            (Code::Unavailable, true),
            (Code::Internal, true),
            (Code::Aborted, false),
            (Code::Cancelled, true),
            (Code::FailedPrecondition, false),
            (Code::Unauthenticated, false),
            (Code::PermissionDenied, false),
        ] {
            assert_eq!(is_passing(code), passing, "{code:?}");
        }
    }
}
