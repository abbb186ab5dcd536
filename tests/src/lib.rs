//! Real programs under test, and virtual agents for load.
//!
//! Scenarios (`scenarios/`) start the built programs in temporary directories at ports that the kernel chooses, and
//! speak to them as agents, people and paging tools do. The swarm (`swarm`) stands for a fleet.

pub mod exposition;
pub mod replay;
pub mod encoding;
pub mod resources;
pub mod footprint;
pub mod scrape;
pub mod https;
pub mod prometheus;
pub mod spread;
pub mod counted;
pub mod api;
pub mod wait;
pub mod wall;
pub mod process;
pub mod small_disk;
pub mod memory_group;
pub mod chaos;
pub mod injected;
pub mod feed;
pub mod site;
pub mod virtual_agent;
pub mod swarm;
pub mod peers;
pub mod dice;
pub mod blow;
pub mod promises;
pub mod load;
pub mod sweep;
pub mod volume;
pub mod powercut;
pub mod herd;
pub mod differential;
pub mod raw;
pub mod web;
pub mod fuzz;
