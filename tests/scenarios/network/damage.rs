//! A connection that breaks or lies at any byte: a batch is taken whole or not at all, and once.

use std::sync::Arc;

use tocsin_proto::pb::session_request::Kind as Up;
use tocsin_shared::chain::Chain;
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;
use tocsin_tests::chaos::{Chaos, Damage, How, Spoil, Way};
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
    let mut session = open(agent, clock).await?;
    session.say(batch(base, clock)).await?;
    while session.taken < base + BATCH {
        session.hear().await?;
    }
    Ok(())
}

/// Tries one damage while a batch is sent; whether the batch was taken, and acknowledged, all the same.
async fn damaged(
    (direct, through): (&VirtualAgent, &VirtualAgent),
    (chaos, spoil): (&Chaos, Spoil),
    base: u64,
    clock: pb::ClockReading,
) -> anyhow::Result<(bool, bool)> {
    chaos.spoil(Some(spoil));
    // A record whose length was changed waits for what never comes: a real agent's pings would find that out.
    let delivered = timeout(HANGS, deliver(through, base, clock)).await.is_ok_and(|said| said.is_ok());
    chaos.spoil(None);
    let taken = open(direct, clock).await?.taken;
    anyhow::ensure!(
        [base, base + BATCH].contains(&taken),
        "{spoil:?}: {} of {BATCH} rows taken",
        taken - base
    );
    anyhow::ensure!(!delivered || taken > base, "{spoil:?}: acknowledged and not kept");
    // As an agent does that had no answer: again, whether it is there or not.
    deliver(direct, base, clock).await?;
    Ok((taken > base, delivered))
}

// Cases: N2, N10, N11, N12, N21, C-D1, C-D2
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_or_lies_at_any_byte_takes_a_batch_whole_or_not_and_once()
-> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let chaos = Chaos::to(&site.addresses().agents)?;
    let direct = VirtualAgent::enrol(&site.api, pb::Env::Test, "web-1").await?;
    let mut through = direct.clone();
    through.agents = chaos.address().parse()?;
    let clock = pb::ClockReading { wall_ms: now_ms(), boot_ms: 100_000_000 };
    deliver(&through, 0, clock).await?;
    let passed = |of: &std::sync::atomic::AtomicU64| of.load(std::sync::atomic::Ordering::Relaxed);
    let (up, down) = (passed(&chaos.passed().up), passed(&chaos.passed().down));
    let step =
        |length: u64| if std::env::var_os(LONG).is_some() { 1 } else { length.div_ceil(OFFSETS) as usize };
    let (mut base, mut lost, mut unanswered, mut delivered) = (BATCH, 0, 0, 0);
    for (way, length) in [(Way::Up, up), (Way::Down, down)] {
        for what in [Damage::Flip, Damage::End(How::Reset), Damage::End(How::Finish)] {
            // Up to a little after the end: what comes then, harms nothing.
            for at in (0..length + length / 10).step_by(step(length)) {
                let spoil = Spoil { way, at, what };
                match damaged((&direct, &through), (&chaos, spoil), base, clock).await? {
                    (false, _) => lost += 1,
                    (true, false) => unanswered += 1,
                    (true, true) => delivered += 1,
                }
                base += BATCH;
            }
        }
    }
    println!(
        "{up} bytes up, {down} down; batches lost {lost}, unanswered {unanswered}, delivered {delivered}"
    );
    assert!(lost > unanswered && unanswered > 0 && delivered > 0, "every outcome was seen");
    let values: Vec<f64> = site.api.stored("scenario_damage[2h]").await?.iter().map(|at| at.value).collect();
    assert_eq!(
        values,
        (1..=base).map(|seq| seq as f64).collect::<Vec<_>>(),
        "each row once, in order, as sent"
    );
    let again = site.api.stored("count_over_time(scenario_damage[2h])").await?;
    assert_eq!(again.first().map(|point| point.value), Some(base as f64));
    Ok(())
}
