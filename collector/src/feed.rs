//! The feed: the events journal as consumers read it, from their own cursors.
//!
//! Promises: every public event at least once and in the journal's order, or a gap that says which are missing;
//! internal events are never selected; what a job printed is left out, because consumers need not be responders.
//! Not here: who may subscribe, heartbeats and waiting (`api::feed`); how far a consumer is (`state::consumers`).

pub mod cursor;
pub mod filter;
pub mod lag;
pub mod snapshot;
pub mod subscribers;
pub mod tail;

pub use cursor::{Cursor, Cursors, InvalidCursor, Mark};
pub use filter::{Filter, InvalidFilter};
pub use snapshot::{Snapshot, snapshot};
pub use subscribers::{Connected, Subscribers};
pub(crate) use tail::PIECE_BYTES_MAX;
pub use tail::{Piece, Tail};
