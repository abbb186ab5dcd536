//! One subscription: reads, sends, waits, and says when it ends and why.

use std::sync::Arc;
use std::time::Duration;

use tocsin_proto::pb;
use tocsin_proto::pb::subscribe_response::Kind;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::super::{Api, Who, blocking, refusal};
use crate::clock::now;
use crate::feed::{Connected, Cursor, Cursors, Filter, Mark, Piece, Snapshot, Tail, snapshot};
use crate::journal::ledger::Registry;

type Items = mpsc::Sender<Result<pb::SubscribeResponse, Status>>;

/// Where to go on, and the checksum of the event there as far as it is known.
type Place = (Cursor, Option<u32>);

/// Why a subscription ends.
enum End {
    /// Its subscriber left.
    Left,
    /// The subscriber is told this.
    Told(Status),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Told(status)
    }
}

pub(super) struct Subscription {
    api: Api,
    who: Who,
    filter: Filter,
    cursors: Cursors,
    items: Items,
    /// As which consumer, if as one.
    connected: Option<Connected>,
    taken_over: CancellationToken,
    /// Changes of who may come in.
    registry: watch::Receiver<Arc<Registry>>,
    last_sent: Instant,
}

impl Subscription {
    pub(super) fn new(
        api: &Api,
        who: Who,
        filter: Filter,
        items: Items,
        connected: Option<Connected>,
    ) -> Self {
        let taken_over = connected.as_ref().map(|consumer| consumer.taken_over().clone());
        Self {
            cursors: api.cursors(),
            api: api.clone(),
            who,
            filter,
            items,
            connected,
            taken_over: taken_over.unwrap_or_default(),
            registry: api.ledger.registry_changes(),
            last_sent: Instant::now(),
        }
    }

    pub(super) async fn run(mut self, tail: Tail, begins_with_snapshot: bool) {
        let ended = self.follow(tail, begins_with_snapshot).await;
        self.connected = None; // From here on nobody is connected, whether or not the reason is read.
        if let Err(End::Told(status)) = ended {
            self.items.send(Err(status)).await.ok(); // The subscriber may have left already.
        }
    }

    async fn follow(&mut self, mut tail: Tail, begins_with_snapshot: bool) -> Result<(), End> {
        if begins_with_snapshot {
            let as_of = self.send_snapshot((Cursor::Snapshot, None), None).await?;
            tail.skip_to(as_of);
        }
        let mut head = self.api.ledger.head();
        loop {
            head.borrow_and_update(); // What becomes durable from here on wakes us.
            let before = (Cursor::After(tail.position()), tail.checksum());
            let (read_on, piece) = self.read(tail).await?;
            tail = read_on;
            match piece {
                Piece::Gap { first, last } => self.send_gap(before, first, last).await?,
                Piece::Events { events, more } => {
                    for (event, checksum) in events {
                        let place = (Cursor::After(event.seq), Some(checksum));
                        self.send(place, Kind::Event((&event).into())).await?;
                    }
                    let place = (Cursor::After(tail.position()), tail.checksum());
                    self.beat_if_due(place, &head).await?;
                    if !more {
                        self.wait(&mut head, place).await?;
                    }
                }
            }
        }
    }

    async fn read(&self, mut tail: Tail) -> Result<(Tail, Piece), End> {
        let filter = self.filter.clone();
        let (tail, piece) = blocking(move || {
            let piece = tail.read(&filter);
            (tail, piece)
        })
        .await?;
        Ok((tail, piece.map_err(refusal::journal)?))
    }

    /// Tells what is missing, then what is open: from there the events that are kept go on, some of which the
    /// snapshot has in it already.
    async fn send_gap(&mut self, before: Place, first: u64, last: u64) -> Result<(), End> {
        let gap = pb::FeedGap { first_missing_seq: first, last_missing_seq: last };
        self.send(before, Kind::Gap(gap)).await?;
        self.send_snapshot(before, Some(last)).await?;
        Ok(())
    }

    /// Sends what is open. Until its end, a subscriber that comes back begins at `again`; after it, at
    /// `goes_on_after` or the snapshot's own position.
    async fn send_snapshot(&mut self, again: Place, goes_on_after: Option<u64>) -> Result<u64, End> {
        let (filter, at) = (self.filter.clone(), now());
        let Snapshot { as_of, records } = self.api.read(move |state| snapshot(state, &filter, at)).await?;
        self.send(again, Kind::SnapshotBegin(pb::SnapshotBegin { as_of_seq: as_of })).await?;
        for record in records {
            self.send(again, Kind::Event((&record).into())).await?;
        }
        let end = match goes_on_after {
            Some(last) => (Cursor::After(last), None), // That one is missing.
            None => (Cursor::After(as_of), self.api.checksum_at(as_of).await?),
        };
        self.send(end, Kind::SnapshotEnd(pb::SnapshotEnd { as_of_seq: as_of })).await?;
        Ok(as_of)
    }

    /// Waits for new events; sends a heartbeat whenever nothing else was sent for long enough.
    async fn wait(&mut self, head: &mut watch::Receiver<u64>, place: Place) -> Result<(), End> {
        loop {
            let due = self.last_sent + self.api.calls.heartbeat;
            tokio::select! {
                biased;
                () = self.taken_over.cancelled() => return Err(taken_over()),
                () = self.api.stop.cancelled() => return Err(stopping()),
                () = self.items.closed() => return Err(End::Left),
                changed = self.registry.changed() => {
                    changed.map_err(|_| stopping())?;
                    self.api.still_admitted(&self.who)?;
                }
                () = tokio::time::sleep_until(due) => self.beat_if_due(place, head).await?,
                changed = head.changed() => return changed.map_err(|_| stopping()),
            }
        }
    }

    async fn beat_if_due(&mut self, place: Place, head: &watch::Receiver<u64>) -> Result<(), End> {
        let silent: Duration = self.last_sent.elapsed();
        if silent < self.api.calls.heartbeat {
            return Ok(());
        }
        self.api.still_admitted(&self.who)?; // Credentials run out without an event.
        let head_seq = *head.borrow();
        let beat = pb::FeedHeartbeat { at_ms: now().as_millis(), head_seq };
        self.send(place, Kind::Heartbeat(beat)).await
    }

    async fn send(&mut self, (cursor, event): Place, kind: Kind) -> Result<(), End> {
        let mark = Mark { cursor, filter: Some(self.filter.checksum()), event };
        let item = pb::SubscribeResponse { cursor: self.cursors.write(mark), kind: Some(kind) };
        loop {
            tokio::select! {
                biased;
                () = self.taken_over.cancelled() => return Err(taken_over()),
                () = self.api.stop.cancelled() => return Err(stopping()),
                changed = self.registry.changed() => {
                    changed.map_err(|_| stopping())?;
                    self.api.still_admitted(&self.who)?;
                }
                room = self.items.reserve() => {
                    room.map_err(|_| End::Left)?.send(Ok(item));
                    break;
                }
            }
        }
        self.last_sent = Instant::now();
        Ok(())
    }
}

fn taken_over() -> End {
    End::Told(Status::aborted("another subscriber took over"))
}

fn stopping() -> End {
    End::Told(Status::unavailable("the collector is stopping"))
}
