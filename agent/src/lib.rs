//! The agent: what a host tells the collector.

pub mod spool;
