//! Fuzz targets: what takes bytes from elsewhere, as plain functions that panic when something is wrong.
//!
//! Two use them: a test that replays a small corpus and mutates it for a moment (`scenarios` of stable Rust), and
//! cargo-fuzz (`tests/fuzz`) for as long as one likes. A target keeps nothing between two calls.

mod disk;
mod mutate;
mod text;
mod wire;

pub use mutate::{Mutator, play};

/// One target.
pub struct Target {
    pub name: &'static str,
    /// Panics when something is wrong.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "spool_open", run: disk::spool_open, seeds: disk::edit_seeds },
    Target { name: "spool_replay_ops", run: disk::spool_replay_ops, seeds: disk::operation_seeds },
    Target { name: "journal_open", run: disk::journal_open, seeds: disk::edit_seeds },
    Target { name: "event_decode", run: disk::event_decode, seeds: disk::event_seeds },
    Target {
        name: "block_open",
        run: tocsin_collector::samples::fuzz::block,
        seeds: tocsin_collector::samples::fuzz::seeds,
    },
    Target { name: "ingest_batch", run: wire::ingest_batch, seeds: wire::session_seeds },
    Target {
        name: "receive_request",
        run: tocsin_collector::receive::fuzz::request,
        seeds: tocsin_collector::receive::fuzz::seeds,
    },
    Target { name: "agent_from_server", run: wire::agent_from_server, seeds: wire::answer_seeds },
    Target { name: "job_envelope", run: tocsin_agent::jobs::fuzz::envelope, seeds: wire::envelope_seeds },
    Target { name: "csr_parse", run: wire::csr_parse, seeds: wire::csr_seeds },
    Target { name: "tls_accept", run: wire::tls_accept, seeds: wire::tls_seeds },
    Target { name: "h2_frames", run: wire::h2_frames, seeds: wire::frame_seeds },
    Target { name: "rule_parse_eval", run: text::rule_parse_eval, seeds: text::rule_seeds },
    Target { name: "cursor_parse", run: text::cursor_parse, seeds: text::cursor_seeds },
    Target { name: "config_parse", run: text::config_parse, seeds: text::config_seeds },
    Target { name: "procfs_parse", run: tocsin_agent::collect::fuzz::parse, seeds: text::procfs_seeds },
    Target { name: "render_tty", run: text::render_tty, seeds: text::tty_seeds },
];

/// Runs a target once, for cargo-fuzz.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of the table");
    (target.run)(data);
}
