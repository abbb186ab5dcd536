//! Who handles what is true: the handling axis.
//!
//! Pure. Promises: at most one open incident per key; numbers are dense, but for those that lost events may have used; an acknowledgement expires and never hides a
//! worsening; an incident resolves by itself only after all its alerts are resolved. Timers are absolute instants.
//!
//! An operator may resolve an incident while its alerts fire. The alerts go on firing; what counts as news afterwards
//! reopens it (or opens another, after the reopen window): an alert that fires anew, gets worse, or a job that fails
//! again. That the same alert is still true is no news.

mod handling;
mod membership;
mod rating;
#[cfg(test)]
mod tests;

pub use handling::{RESOLVE_CODES, TIMERS_PER_TICK};
pub(crate) use handling::{acknowledge, note, resolve, tick, unacknowledge};
pub(crate) use membership::follow_alerts;
pub use membership::incident_key;
pub(crate) use membership::{Place, alert_ended, enter, leave, place};
