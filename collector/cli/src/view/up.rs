//! What `tocsin up` says once everything runs.

use serde::Serialize;

use crate::screen::{Style, clean};

/// `tocsin up`.
#[derive(Clone, Debug, Serialize)]
pub struct UpView {
    /// Where operators, paging tools and enrolments connect to.
    pub front: String,
    /// Where agents connect to.
    pub agents: String,
    /// Health and self-metrics.
    pub local: String,
    pub data_dir: String,
    pub credential_file: String,
    pub env: String,
    pub interval: String,
    /// How this program was called, so that what is shown can be pasted.
    #[serde(skip)]
    pub program: String,
    /// Whether `tocsin` finds the credential without `--data`.
    #[serde(skip)]
    pub usual_place: bool,
}

/// A few lines: what runs, where the data lies, what to try.
pub fn draw_up(view: &UpView, style: &Style) -> String {
    let data = clean(&view.data_dir);
    let tocsin = clean(&view.program);
    let with = if view.usual_place { String::new() } else { format!(" --data {data}") };
    format!(
        "{}: a collector, and an agent for this host ({}, every {})\n\
         \x20 data     {data}\n\
         \x20 front    {}   operators, paging tools, enrolment\n\
         \x20 agents   {}   other hosts' agents\n\
         \x20 health   http://{}\n\
         \n\
         Try in another terminal:\n\
         \x20 {tocsin}{with} status\n\
         \x20 {tocsin}{with} query node_load1\n\
         \x20 {tocsin}{with} feed tail\n\
         \n\
         Ctrl-C stops it.\n",
        style.strong("tocsin is running"),
        view.env,
        view.interval,
        view.front,
        view.agents,
        view.local,
    )
}
