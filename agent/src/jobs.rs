//! Scheduled jobs on this host: the wrapper that runs them, and the intake of what it reports.
//!
//! `exec` is a short-lived process of its own, run as the job's user; `intake` is a task of the agent. They meet at
//! a unix socket, or at the drop-box directory when the agent is not there, and speak the encoding in `envelope`.

mod envelope;
#[doc(hidden)]
pub mod fuzz;

pub mod exec;
pub mod intake;
