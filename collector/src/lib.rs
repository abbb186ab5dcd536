//! The collector: ingest → journal → samples → evaluate → alert → incident → feed, each a module, in that order.

pub mod alert;
pub mod clock;
pub mod evaluate;
pub mod identity;
pub mod incident;
pub mod ingest;
pub mod jobs;
pub mod journal;
pub mod listen;
pub mod rules;
pub mod samples;
pub mod state;
pub mod store;
