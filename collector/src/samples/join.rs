//! Several blocks as one: host after host, so that memory holds one host's part at a time.
//!
//! Of a series and time that several blocks have, the sample written first stays; `sources` are in that order. Columns
//! become as long as a chunk may be and are packed with more effort: what is written once is kept for weeks.
//! Not here: which blocks, and when (`days`); files (`blocks::joining`).

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::Arc;

use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;

use super::block::{Writer, sorted};
use super::blocks::{Block, BlockError};
use super::bytes::Malformed;
use super::host::Held;
use super::rewrite::repack;
use super::series::SeriesKey;
use super::window::Window;

/// Writes the block that takes the place of `sources`; stops short, with `false`, once `go_on` says no: it is asked
/// between hosts.
pub(crate) fn join(
    sources: &[Arc<Block>],
    window: Window,
    out: &mut impl Write,
    failed: impl Fn(io::Error) -> BlockError,
    go_on: &dyn Fn() -> bool,
) -> Result<bool, BlockError> {
    let series = sorted(sources.iter().flat_map(|block| &block.index.series));
    let parts = sources.iter().map(|block| Part::new(block, &series)).collect::<Vec<_>>();
    let mut writer = Writer::begin(out, series).map_err(&failed)?;
    let agents = sources.iter().flat_map(|block| block.index.hosts.iter().map(|host| host.agent));
    for agent in agents.collect::<BTreeSet<_>>() {
        if !go_on() {
            return Ok(false);
        }
        let (target, held) = held(&parts, agent)?;
        let repacked = repack(&held).map_err(|source| sources[0].damaged(source))?;
        writer.host(agent, &target, repacked).map_err(&failed)?;
    }
    let replaces = sources.iter().map(|block| block.entry.name.clone()).collect();
    writer.finish(window, replaces).map_err(&failed)?;
    Ok(true)
}

/// A source, with its lists of series as numbers in the joined block.
struct Part<'a> {
    block: &'a Block,
    lists: Vec<Arc<[u32]>>,
}

impl<'a> Part<'a> {
    fn new(block: &'a Block, series: &[SeriesKey]) -> Self {
        let mut next = 0;
        let ids = block.index.series.iter().map(|key| {
            // Both are in the same order.
            while series.get(next).is_some_and(|known| known != key) {
                next += 1;
            }
            next as u32
        });
        let ids = ids.collect::<Vec<_>>();
        let renumbered = |list: &Arc<[u32]>| list.iter().map(|id| ids[*id as usize]).collect();
        Self { block, lists: block.index.lists.iter().map(renumbered).collect() }
    }
}

/// The chunks of a host in the order in which they were written, and its target labels as they were last.
fn held(parts: &[Part], agent: Option<AgentId>) -> Result<(Labels, Vec<Held>), BlockError> {
    let (mut target, mut held) = (Labels::empty(), Vec::new());
    for Part { block, lists } in parts {
        let Some(host) = block.index.host(agent) else { continue };
        target = host.target.clone();
        for at in &host.chunks {
            let slots = lists.get(at.list as usize);
            let slots = slots.ok_or_else(|| block.damaged(Malformed("a chunk of no list of series")))?;
            let chunk = block.chunk(at)?;
            if chunk.head.entries.len() != slots.len() {
                return Err(block.damaged(Malformed("a chunk and its list of series differ")));
            }
            held.push(Held { slots: Arc::clone(slots), chunk: Arc::new(chunk), saved: true });
        }
    }
    Ok((target, held))
}
