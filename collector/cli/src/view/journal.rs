//! What was decided about lost events of the journal.

use serde::Serialize;

use crate::screen::Style;

/// A range of lost events; both ends are among them.
#[derive(Clone, Debug, Serialize)]
pub struct LostView {
    pub first: u64,
    pub last: u64,
}

/// `tocsin journal accept-loss`.
#[derive(Clone, Debug, Serialize)]
pub struct AcceptedLossView {
    pub accepted: LostView,
    /// What is still lost and waits for a decision.
    pub open: Vec<LostView>,
}

/// What is done, and what is left to decide.
pub fn draw_accepted(view: &AcceptedLossView, _: &Style) -> String {
    let LostView { first, last } = view.accepted;
    let mut text = format!("the collector goes on without events {first} to {last}\n");
    for LostView { first, last } in &view.open {
        text.push_str(&format!("events {first} to {last} are lost, too: incidents stay read only\n"));
    }
    if view.open.is_empty() {
        text.push_str("incidents can be changed again; what fires gets its incident within moments\n");
    }
    text
}
