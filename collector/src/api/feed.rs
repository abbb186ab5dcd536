//! The feed's service: who may subscribe as whom, waiting, heartbeats, acknowledgements.
//!
//! Each subscription is a task with its own reader of the journal and a short queue: a slow consumer waits for itself
//! alone, and takes memory for a piece of events and its queue, however far behind it is.

pub(crate) mod lags;
mod stream;

use tocsin_proto::pb;
use tocsin_proto::pb::feed_service_server::FeedService;
use tocsin_proto::pb::subscribe_request::From;
use tocsin_shared::access::{Consumer, Role};
use tocsin_shared::event::{Loss, LossState, Subject};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Api, Who, blocking, refusal};
use crate::feed::{Cursor, Cursors, Filter, InvalidCursor, PIECE_BYTES_MAX, Tail};
use crate::state::{Command, Refusal, State};
use stream::Subscription;

/// Items that wait for a slow subscriber. An item with a job's output has some 70 KiB; with the piece that was read
/// from the journal all that one subscriber may hold is a megabyte.
const QUEUE: usize = 6;
const _: () = assert!(QUEUE * (72 << 10) + PIECE_BYTES_MAX <= 1 << 20);

type Items = ReceiverStream<Result<pb::SubscribeResponse, Status>>;

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Earliest,
    Snapshot,
    After(u64),
    Acked,
}

#[tonic::async_trait]
impl FeedService for Api {
    type SubscribeStream = Items;

    async fn subscribe(&self, request: Request<pb::SubscribeRequest>) -> Result<Response<Items>, Status> {
        let who = Who::of(&request)?;
        let pb::SubscribeRequest { from, consumer, kinds, accept_filter_change } = request.into_inner();
        let filter = Filter::parse(&kinds).map_err(refusal::invalid)?;
        let place = self.calls.feeds.clone().try_acquire_owned();
        let place =
            place.map_err(|_| Status::resource_exhausted("too many feeds are read already: end one"))?;
        let lost =
            |loss: &&Loss| !matches!(loss.state, LossState::Torn | LossState::Rewound | LossState::Restored);
        let lost =
            move |state: &State| state.losses().filter(lost).map(|l| (l.first, l.last)).collect::<Vec<_>>();
        let (head, lost) = self.read(move |state| (state.last_seq(), lost(state))).await?;
        let reader = self.ledger.reader().await.map_err(refusal::stopping)?;
        let wanted = (!accept_filter_change).then(|| filter.checksum());
        let resumes = matches!(from, Some(From::Cursor(_) | From::Acked(_)));
        let mut start = self.start(from, head, wanted).await?;
        let mut connected = None;
        if !consumer.is_empty() {
            let begins_after = match start {
                Start::After(seq) => seq,
                Start::Earliest => reader.position().saturating_sub(1),
                Start::Snapshot | Start::Acked => head,
            };
            let record = self.consumer(&who, consumer, begins_after).await?;
            if record.filter.is_some_and(|known| resumes && wanted.is_some_and(|wanted| wanted != known)) {
                let what = format!("consumer {}", record.name);
                return Err(refusal::invalid_cursor(InvalidCursor::OtherFilter { what }));
            }
            if record.filter != Some(filter.checksum()) {
                let (consumer, filter) = (record.name.clone(), filter.checksum());
                self.submit(&who, Command::ConsumerFilter { consumer, filter }).await?;
            }
            if start == Start::Acked {
                start = Start::After(record.acked_seq);
            }
            connected = Some(self.calls.subscribers.take_over(&record.name));
            self.calls.subscribers.wants(&record.name, filter.clone());
        }
        let (items, stream) = mpsc::channel(QUEUE);
        let (tail, begins_with_snapshot) = match start {
            Start::Earliest => (Tail::earliest(reader), false),
            Start::Snapshot => (Tail::after(reader, head), true),
            Start::After(seq) => (Tail::after(reader, seq), false),
            Start::Acked => return Err(Status::invalid_argument("`acked` is a consumer's: name it")),
        };
        let subscription = Subscription::new(self, who, filter, items, connected);
        tokio::spawn(async move {
            subscription.run(tail.without(lost), begins_with_snapshot).await;
            drop(place);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn ack(&self, request: Request<pb::AckRequest>) -> Result<Response<pb::AckResponse>, Status> {
        let who = Who::of(&request)?;
        let pb::AckRequest { consumer, cursor } = request.into_inner();
        let head = self.read(|state| state.last_seq()).await?;
        let seq = match self.cursor(&cursor, head, None).await? {
            Cursor::After(seq) => seq,
            Cursor::Snapshot => 0, // A part of a snapshot is no position: the ledger looks who asks, and nothing moves.
        };
        let name = consumer.clone();
        let events = self.submit(&who, Command::AckFeed { consumer: name, seq }).await?;
        let moved = events.into_iter().find_map(|event| match event.subject {
            Subject::Consumer(consumer) => Some(consumer),
            _ => None,
        });
        let record = match moved {
            Some(consumer) => Some(consumer),
            None => self.read(move |state| state.consumer(&consumer).cloned()).await?,
        };
        Ok(Response::new(pb::AckResponse { consumer: record.as_ref().map(pb::Consumer::from) }))
    }

    async fn list_consumers(
        &self,
        _: Request<pb::ListConsumersRequest>,
    ) -> Result<Response<pb::ListConsumersResponse>, Status> {
        let (head, consumers) =
            self.read(|state| (state.last_seq(), state.consumers().cloned().collect::<Vec<_>>())).await?;
        let first = self.ledger.reader().await.map_err(refusal::stopping)?.position();
        let status = |consumer: &Consumer| pb::ConsumerStatus {
            consumer: Some(consumer.into()),
            lag: head.saturating_sub(consumer.acked_seq),
            connected: self.calls.subscribers.is_connected(&consumer.name),
            gapped: consumer.acked_seq + 1 < first,
        };
        Ok(Response::new(pb::ListConsumersResponse { consumers: consumers.iter().map(status).collect() }))
    }
}

impl Api {
    fn cursors(&self) -> Cursors {
        Cursors::new(self.store_epoch.clone())
    }

    /// Reads a cursor, and looks whether it is of this history and, where it is `wanted`, of this filter.
    async fn cursor(&self, text: &str, head: u64, wanted: Option<u32>) -> Result<Cursor, Status> {
        let mark = self.cursors().read(text, head).map_err(refusal::invalid_cursor)?;
        wanted.map_or(Ok(()), |wanted| mark.read_with(wanted)).map_err(refusal::invalid_cursor)?;
        if let (Cursor::After(seq), Some(_)) = (mark.cursor, mark.event) {
            let found = self.checksum_at(seq).await?;
            mark.still_is(found).map_err(refusal::invalid_cursor)?;
        }
        Ok(mark.cursor)
    }

    /// The checksum of an event as it stands in the journal, if it is there.
    async fn checksum_at(&self, seq: u64) -> Result<Option<u32>, Status> {
        let mut tail = Tail::after(self.ledger.reader().await.map_err(refusal::stopping)?, seq);
        let looked = blocking(move || tail.look_back().map(|()| tail.checksum())).await?;
        looked.map_err(refusal::journal)
    }

    async fn start(&self, from: Option<From>, head: u64, wanted: Option<u32>) -> Result<Start, Status> {
        Ok(match from {
            Some(From::Cursor(text)) => match self.cursor(&text, head, wanted).await? {
                Cursor::Snapshot => Start::Snapshot,
                Cursor::After(seq) => Start::After(seq),
            },
            Some(From::Earliest(true)) => Start::Earliest,
            Some(From::Now(true)) => Start::After(head),
            Some(From::Snapshot(true)) => Start::Snapshot,
            Some(From::Acked(true)) => Start::Acked,
            _ => {
                let why = "say where to begin: a cursor, earliest, now, snapshot or acked";
                return Err(Status::invalid_argument(why));
            }
        })
    }

    /// The consumer that a caller wants to be, made when there is none; it begins after a position.
    async fn consumer(&self, who: &Who, name: String, begins_after: u64) -> Result<Consumer, Status> {
        if !matches!(who.role, Role::Consumer | Role::Admin) {
            let why = "a named consumer is for paging tools: subscribe without a name, or with a consumer's credential";
            return Err(Status::permission_denied(why));
        }
        let known = self.known_consumer(&name).await?;
        let record = match known {
            Some(record) => record,
            None => {
                let owner = who.name.clone();
                let create = Command::CreateConsumer { name: name.clone(), owner, at_seq: begins_after };
                let created = self.ledger.submit(create, who.actor()).await.map_err(refusal::stopping)?;
                match created {
                    // Another subscription may just have made it.
                    Ok(_) | Err(Refusal::AlreadyExists { .. }) => {}
                    Err(refusal) => return Err(refusal::refused(refusal)),
                }
                let unknown = || Status::internal(format!("consumer {name} was made and is not there"));
                self.known_consumer(&name).await?.ok_or_else(unknown)?
            }
        };
        if record.owner != who.name && who.role != Role::Admin {
            let why = format!("consumer {} belongs to {}", record.name, record.owner);
            return Err(Status::permission_denied(why));
        }
        Ok(record)
    }

    async fn known_consumer(&self, name: &str) -> Result<Option<Consumer>, Status> {
        let name = name.to_owned();
        self.read(move |state| state.consumer(&name).cloned()).await
    }
}

#[cfg(test)]
mod tests;
