//! A connection that breaks or lies at any byte: a batch is taken whole or not at all, and once.

use std::sync::Arc;

use tocsin_proto::pb::session_request::Kind as Up;
use tocsin_shared::chain::Chain;
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;
use tocsin_tests::chaos::{Chaos, Damage, Flow, How, Line, Spoil, Way};
use tocsin_tests::counted::Traffic;
use tocsin_tests::virtual_agent::{Session, VirtualAgent, table};
use tokio::time::timeout;

use super::*;
use crate::RULES;

/// Rows in a batch.
const BATCH: u64 = 20;
/// What a session takes here at most, unless it waits for ever.
const HANGS: Duration = Duration::from_secs(2);
/// With this environment variable every byte is tried instead of some.
const LONG: &str = "TOCSIN_LONG";
/// Offsets that are tried for each kind of damage otherwise.
const OFFSETS: u64 = 16;

/// What is done to which way.
const KINDS: [(Way, Damage); 6] = [
    (Way::Up, Damage::Flip),
    (Way::Up, Damage::End(How::Reset)),
    (Way::Up, Damage::End(How::Finish)),
    (Way::Down, Damage::Flip),
    (Way::Down, Damage::End(How::Reset)),
    (Way::Down, Damage::End(How::Finish)),
];

/// A session, its table sent.
async fn open(agent: &VirtualAgent, clock: pb::ClockReading) -> anyhow::Result<Session> {
    let session = agent.session(clock, 1_000, Arc::new(Traffic::default())).await?;
    let series = [Labels::series("scenario_damage", &[])];
    session.say(Up::Table(table(1, &series, &agent.boot_id))).await?;
    Ok(session)
}

/// Rows after `base`; the value of each is its number.
fn batch(base: u64, clock: pb::ClockReading) -> Up {
    let mut chain = Chain::new(1);
    let row = |seq: u64| {
        let mut data = Vec::new();
        let at = Timestamp::from_millis(clock.wall_ms - 3_600_000 + seq as i64 * 100);
        chain.encode(at, clock.boot_ms - 3_600_000 + seq * 100, &[seq as f64], &mut data);
        pb::Row { seq, table_id: 1, chain: base + 1, index: (seq - base - 1) as u32, data: data.into() }
    };
    Up::Rows(pb::Rows { rows: (base + 1..=base + BATCH).map(row).collect() })
}

/// Sends a batch and waits for its acknowledgement.
async fn deliver(agent: &VirtualAgent, base: u64, clock: pb::ClockReading) -> anyhow::Result<()> {
    let mut session = open(agent, clock.clone()).await?;
    session.say(batch(base, clock)).await?;
    while session.taken < base + BATCH {
        session.hear().await?;
    }
    Ok(())
}

/// Tries one damage while a batch is sent; whether the batch was taken all the same.
async fn damaged(
    (direct, through): (&VirtualAgent, &VirtualAgent),
    (chaos, spoil): (&Chaos, Spoil),
    base: u64,
    clock: pb::ClockReading,
) -> anyhow::Result<bool> {
    chaos.spoil(Some(spoil));
    // A record whose length was changed waits for what never comes: a real agent's pings would find that out.
    let delivered =
        timeout(HANGS, deliver(through, base, clock.clone())).await.is_ok_and(|said| said.is_ok());
    chaos.spoil(None);
    let taken = open(direct, clock.clone()).await?.taken;
    anyhow::ensure!(
        [base, base + BATCH].contains(&taken),
        "{spoil:?}: {} of {BATCH} rows taken",
        taken - base
    );
    anyhow::ensure!(!delivered || taken > base, "{spoil:?}: acknowledged and not kept");
    // As an agent does that had no answer: again, whether it is there or not.
    deliver(direct, base, clock).await?;
    Ok(taken > base)
}

/// A batch that is kept while its acknowledgement stays under way for ever; then sent again.
async fn unanswered(
    site: &Site,
    (direct, through): (&VirtualAgent, &VirtualAgent),
    chaos: &Chaos,
    (selector, base): (&str, u64),
    clock: pb::ClockReading,
) -> anyhow::Result<()> {
    let session = open(through, clock.clone()).await?;
    chaos.set(Way::Down, Line { flow: Flow::Held, ..Line::default() });
    session.say(batch(base, clock.clone())).await?;
    wait_until("the batch", SOON, async || {
        let stored = site.api.stored(selector).await.ok()?.len() as u64;
        (stored == base + BATCH).then_some(())
    })
    .await?;
    chaos.end_all(How::Reset);
    chaos.set(Way::Down, Line::default());
    deliver(direct, base, clock).await
}

// Cases: N2, N10, N11, N12, N21, C-D1, C-D2
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_or_lies_at_any_byte_takes_a_batch_whole_or_not_and_once()
-> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let chaos = Chaos::to(&site.addresses().agents)?;
    let clock = pb::ClockReading { wall_ms: now_ms(), boot_ms: 100_000_000, ..Default::default() };
    let mut outcomes = [0; 2];
    // Each kind on a host of its own: one that opened so many sessions would be over its quota.
    for (number, (way, what)) in KINDS.into_iter().enumerate() {
        let host = format!("web-{number}");
        let direct = VirtualAgent::enrol(&site.api, pb::Env::Test, &host).await?;
        let mut through = direct.clone();
        through.agents = chaos.address().parse()?;
        let before = passed(&chaos, way);
        deliver(&through, 0, clock.clone()).await?;
        let (length, mut base) = (passed(&chaos, way) - before, BATCH);
        // Up to a little after the end: what comes then, harms nothing.
        for at in (0..length + length / 10).step_by(step(length)) {
            let spoil = Spoil { way, at, what };
            let taken = damaged((&direct, &through), (&chaos, spoil), base, clock.clone()).await?;
            outcomes[usize::from(taken)] += 1;
            base += BATCH;
        }
        let selector = format!("scenario_damage{{instance={host:?}}}[2h]");
        unanswered(&site, (&direct, &through), &chaos, (&selector, base), clock.clone()).await?;
        base += BATCH;
        let stored = site.api.stored(&selector).await?;
        let values: Vec<f64> = stored.iter().map(|at| at.value).collect();
        let sent: Vec<f64> = (1..=base).map(|seq| seq as f64).collect();
        assert_eq!(values, sent, "each row once, in order, as sent");
    }
    let [lost, taken] = outcomes;
    println!("batches lost {lost}, taken {taken}");
    assert!(lost > 0 && taken > 0, "both outcomes were seen");
    Ok(())
}

/// Bytes that went one way so far.
fn passed(chaos: &Chaos, way: Way) -> u64 {
    let of = match way {
        Way::Up => &chaos.passed().up,
        Way::Down => &chaos.passed().down,
    };
    of.load(std::sync::atomic::Ordering::Relaxed)
}

/// From one tried offset to the next.
fn step(length: u64) -> usize {
    if std::env::var_os(LONG).is_some() { 1 } else { length.div_ceil(OFFSETS) as usize }
}
