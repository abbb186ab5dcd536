//! A paging tool: reads, acknowledges now and then, and is killed between the two as often as the collector is.

use anyhow::Context as _;
use tocsin_proto::pb;
use tocsin_proto::pb::subscribe_request::From as Since;
use tocsin_proto::pb::subscribe_response::Kind as Item;

use super::{AGAIN, Shared};
use crate::api::Api;
use crate::dice::Dice;
use crate::promises::Reading;

/// Events between two acknowledgements, at most.
const ACK_WITHIN: u64 = 12;
/// One reading in so many items ends by the consumer's own death.
const DIES_ONCE_IN: u64 = 60;

/// Where a consumer stands, by what it was told.
#[derive(Default)]
struct Place {
    answered: u64,
    asked: u64,
}

pub(super) async fn run(shared: Shared, name: String, mut dice: Dice) {
    let mut place = Place::default();
    while !shared.is_settling() {
        let (answered, asked) = (place.answered, place.asked);
        let mut seqs = Vec::new();
        if let Err(error) = read(&shared, &name, &mut dice, &mut place, &mut seqs).await {
            shared.promises.failed(&name, &error);
        }
        shared.promises.read(Reading { consumer: name.clone(), answered, asked, seqs });
        tokio::time::sleep(AGAIN).await;
    }
}

async fn read(
    shared: &Shared,
    name: &str,
    dice: &mut Dice,
    place: &mut Place,
    seqs: &mut Vec<u64>,
) -> anyhow::Result<()> {
    let api = Api::connect(&shared.credential).await?;
    // Until something is acknowledged nobody may know the consumer, and `acked` would begin now.
    let from = if place.answered == 0 { Since::Earliest(true) } else { Since::Acked(true) };
    if place.answered == 0 {
        place.asked = 0;
    }
    let request = pb::SubscribeRequest { from: Some(from), consumer: name.into(), ..Default::default() };
    let mut items = api.feed().subscribe(request).await?.into_inner();
    let mut due = 1 + dice.below(ACK_WITHIN);
    while !shared.is_settling() {
        let next = tokio::time::timeout(AGAIN * 10, items.message()).await;
        let Ok(next) = next else { continue };
        let pb::SubscribeResponse { cursor, kind } = next?.context("the feed ended")?;
        let event = match kind {
            Some(Item::Event(event)) => event,
            Some(Item::Gap(gap)) => anyhow::bail!(gap_told(shared, name, &gap)),
            _ => continue,
        };
        shared.promises.saw(&event);
        seqs.push(event.seq);
        if dice.once_in(DIES_ONCE_IN) {
            return Ok(());
        }
        due -= 1;
        if due == 0 {
            due = 1 + dice.below(ACK_WITHIN);
            place.asked = event.seq;
            api.feed().ack(pb::AckRequest { consumer: name.into(), cursor }).await?;
            place.answered = event.seq;
        }
    }
    Ok(())
}

fn gap_told(shared: &Shared, name: &str, gap: &pb::FeedGap) -> String {
    let what = format!("{name} is told that {gap:?} is missing");
    shared.promises.broke(what.clone());
    what
}
