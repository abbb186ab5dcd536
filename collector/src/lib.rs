//! The collector: ingest → journal → samples → evaluate → alert → incident → feed, each a module, in that order.

pub mod clock;
pub mod rate;
pub mod contain;
pub mod config;
pub mod identity;
pub mod listen;
pub mod memory;
pub mod room;
pub mod ingest;
pub mod receive;
pub mod journal;
pub mod samples;
pub mod metadata;
mod ask;
pub mod rules;
pub mod evaluate;
pub mod state;
pub mod alert;
pub mod incident;
pub mod jobs;
pub mod store;
pub mod feed;
pub mod api;
pub mod web;
pub mod run;
