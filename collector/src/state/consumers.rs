//! Consumers of the feed and the sealing of samples: positions that only go forwards.

use tocsin_shared::access::{Consumer, Role};
use tocsin_shared::event::{Actor, EventKind, Sealed, Subject};

use super::command::Refusal;
use super::credentials::check_name;
use super::decide::Decision;

/// How many consumers there may be: every paging tool and dashboard of a large company.
pub(crate) const CONSUMERS_MAX: usize = 1_000;

pub(super) fn create(d: &mut Decision<'_>, name: &str, owner: &str, at_seq: u64) -> Result<(), Refusal> {
    check_name("consumer", name)?;
    if d.state.principal(owner).is_none() {
        return Err(Refusal::not_found("principal", owner));
    }
    if d.state.consumer(name).is_some() {
        return Err(Refusal::AlreadyExists { what: format!("consumer {name}") });
    }
    if d.state.consumers().count() >= CONSUMERS_MAX {
        return Err(Refusal::Exhausted { what: "consumers".into(), max: CONSUMERS_MAX });
    }
    check_position(d, at_seq)?;
    let consumer = Consumer {
        name: name.into(),
        owner: owner.into(),
        acked_seq: at_seq,
        created_at: d.now,
        acked_at: None,
        filter: None,
    };
    d.by_actor(EventKind::ConsumerMoved, d.now, "", Subject::Consumer(consumer));
    Ok(())
}

/// Moves a consumer forwards; a lower position is an old acknowledgement and changes nothing.
pub(super) fn acknowledge(d: &mut Decision<'_>, name: &str, seq: u64) -> Result<(), Refusal> {
    let consumer = d.state.consumer(name).ok_or_else(|| Refusal::not_found("consumer", name))?;
    if !owns(d, &consumer.owner) {
        return Err(Refusal::denied(format!("consumer {name} belongs to {}", consumer.owner)));
    }
    check_position(d, seq)?;
    if seq > consumer.acked_seq {
        let moved = Consumer { acked_seq: seq, acked_at: Some(d.now), ..consumer.clone() };
        d.by_actor(EventKind::ConsumerMoved, d.now, "", Subject::Consumer(moved));
    }
    Ok(())
}

/// Notes with which filter a consumer is read from here on.
pub(super) fn read_with(d: &mut Decision<'_>, name: &str, filter: u32) -> Result<(), Refusal> {
    let consumer = d.state.consumer(name).ok_or_else(|| Refusal::not_found("consumer", name))?;
    if !owns(d, &consumer.owner) {
        return Err(Refusal::denied(format!("consumer {name} belongs to {}", consumer.owner)));
    }
    if consumer.filter != Some(filter) {
        let read = Consumer { filter: Some(filter), ..consumer.clone() };
        d.by_actor(
            EventKind::ConsumerMoved,
            d.now,
            "it is read with another filter",
            Subject::Consumer(read),
        );
    }
    Ok(())
}

/// The owner itself, or an administrator.
fn owns(d: &Decision<'_>, owner: &str) -> bool {
    let Actor::Principal(name) = d.actor else { return false };
    name == owner || d.state.principal(name).is_some_and(|principal| principal.role == Role::Admin)
}

fn check_position(d: &Decision<'_>, seq: u64) -> Result<(), Refusal> {
    let head = d.state.last_seq();
    if seq > head {
        return Err(Refusal::invalid(format!("position {seq} is beyond the head of the feed, {head}")));
    }
    Ok(())
}

pub(super) fn sealed(d: &mut Decision<'_>, sealed: &Sealed) -> Result<(), Refusal> {
    let last = d.state.sealed();
    if sealed.samples_from < last.samples_from {
        return Err(Refusal::invalid(format!(
            "samples are sealed up to {} already, not only {}",
            last.samples_from, sealed.samples_from
        )));
    }
    if sealed != last {
        d.by_actor(EventKind::SamplesSealed, d.now, "", Subject::Sealed(sealed.clone()));
    }
    Ok(())
}
