//! Ingest: agents' streams in, durable rows and records out, acknowledgements back.
//!
//! Who an agent is, its certificate says. A row is decoded and checked here, in the session's own task; the journal's
//! writer makes it durable and says so; only then it is acknowledged. A session that falls behind waits, and with it
//! its agent: nothing is dropped. A newer session of an agent ends the older one.

mod backlog;
pub mod clock;
mod delay;
#[doc(hidden)]
pub mod fuzz;
mod limits;
mod opening;
pub mod presence;
mod processes;
pub mod quota;
mod records;
mod rows;
mod session;
pub mod skew;
mod trust;

pub use opening::Opening;
pub use session::Agents;
pub use trust::Telling;

use std::time::Duration;

/// The wire's version that this collector speaks.
pub const PROTOCOL: u32 = 1;
/// How often agents are asked to send a heartbeat. Three missed ones make a host unreachable.
pub const HEARTBEAT: Duration = Duration::from_secs(5);
