//! Writing a block: host after host, then the index of what was written.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;
use uuid::Uuid;

use super::super::bytes::{put_varint, zigzag};
use super::super::host::Held;
use super::super::rewrite::{Rewritten, renumbered, rewrite};
use super::super::series::SeriesKey;
use super::super::window::Window;
use super::{ChunkAt, FORMAT, Footer, HostIndex, Index, MAGIC};

/// What is to be sealed of one host.
pub(crate) struct Sealing {
    pub(crate) agent: Option<AgentId>,
    pub(crate) target: Labels,
    /// The key of each slot that a chunk names.
    pub(crate) keys: HashMap<u32, SeriesKey>,
    pub(crate) held: Vec<Held>,
}

/// How chunks go into a file.
pub(crate) enum Packing<'a> {
    /// Chunks of a host merged and packed anew, for good: more rows a chunk pack better.
    Merged(&'a mut [Sealing]),
    /// As they are, for a while.
    Copied(&'a mut [Sealing]),
}

/// Writes a whole block of what is in memory.
pub(crate) fn write(window: Window, packing: Packing, out: &mut impl Write) -> io::Result<Footer> {
    let (hosts, merged) = match packing {
        Packing::Merged(hosts) => (hosts, true),
        Packing::Copied(hosts) => (hosts, false),
    };
    hosts.sort_by_key(|host| host.agent);
    let series = sorted(hosts.iter().flat_map(|host| host.keys.values()));
    let ids = series.iter().enumerate().map(|(id, key)| (key, id as u32)).collect::<HashMap<_, _>>();
    let mut writer = Writer::begin(out, series.clone())?;
    for host in hosts.iter() {
        let id_of = |slot: u32| host.keys.get(&slot).and_then(|key| ids.get(key)).copied();
        let rewritten = if merged { rewrite(&host.held, id_of) } else { renumbered(&host.held, id_of) };
        writer.host(host.agent, &host.target, rewritten.map_err(io::Error::other)?)?;
    }
    writer.finish(window, Vec::new())
}

/// Every series once, sorted by metric, then by labels: as an index has them.
pub(crate) fn sorted<'a>(keys: impl Iterator<Item = &'a SeriesKey>) -> Vec<SeriesKey> {
    let mut series = keys.collect::<HashSet<_>>().into_iter().cloned().collect::<Vec<_>>();
    series.sort_by(|a, b| a.0.metric().cmp(b.0.metric()).then_with(|| a.cmp(b)));
    series
}

/// A block that is being written.
pub(crate) struct Writer<'a, W> {
    out: &'a mut W,
    at: u64,
    index: Index,
    lists: HashMap<Vec<u32>, u32>,
    samples: u64,
    series: u64,
}

impl<'a, W: Write> Writer<'a, W> {
    /// Begins a block of these series, sorted as an index has them.
    pub(crate) fn begin(out: &'a mut W, series: Vec<SeriesKey>) -> io::Result<Self> {
        let index = Index { series, lists: Vec::new(), hosts: Vec::new(), replaces: Vec::new() };
        let mut writer = Self { out, at: 0, index, lists: HashMap::new(), samples: 0, series: 0 };
        writer.put(&MAGIC)?;
        writer.put(&FORMAT.to_le_bytes())?;
        Ok(writer)
    }

    /// Adds a host; in ascending order of agents.
    pub(crate) fn host(
        &mut self,
        agent: Option<AgentId>,
        target: &Labels,
        rewritten: Rewritten,
    ) -> io::Result<()> {
        self.series += rewritten.series as u64;
        let mut chunks = Vec::with_capacity(rewritten.chunks.len());
        for (list, chunk) in rewritten.chunks {
            self.samples += chunk.samples;
            let next = self.index.lists.len() as u32;
            let list_id = *self.lists.entry(list.clone()).or_insert(next);
            if list_id == next {
                self.index.lists.push(list.into());
            }
            let head = chunk.head.to_bytes();
            chunks.push(ChunkAt {
                first: chunk.first,
                last: chunk.last,
                list: list_id,
                offset: self.at,
                head_len: head.len() as u32,
                body_len: chunk.body.len() as u32,
                head_crc: crc32fast::hash(&head),
            });
            self.put(&head)?;
            self.put(&chunk.body)?;
        }
        self.index.hosts.push(HostIndex { agent, target: target.clone(), chunks });
        Ok(())
    }

    /// Writes the index and the footer. `replaces` names the blocks whose samples are all in this one.
    pub(crate) fn finish(mut self, window: Window, replaces: Vec<String>) -> io::Result<Footer> {
        self.index.replaces = replaces;
        let bytes = index_bytes(&self.index);
        let (index_at, index_len, index_crc) = (self.at, bytes.len() as u64, crc32fast::hash(&bytes));
        let (samples, series) = (self.samples, self.series);
        let footer = Footer { index_at, index_len, index_crc, window, samples, series };
        self.put(&bytes)?;
        self.put(&footer.to_bytes())?;
        Ok(footer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

#[derive(Default)]
struct Strings<'a> {
    ids: HashMap<&'a str, u64>,
    list: Vec<&'a str>,
}

impl<'a> Strings<'a> {
    fn put(&mut self, text: &'a str, out: &mut Vec<u8>) {
        let next = self.list.len() as u64;
        let id = *self.ids.entry(text).or_insert(next);
        if id == next {
            self.list.push(text);
        }
        put_varint(out, id);
    }

    fn put_labels(&mut self, labels: &'a Labels, out: &mut Vec<u8>) {
        put_varint(out, labels.len() as u64);
        for (name, value) in labels.iter() {
            self.put(name, out);
            self.put(value, out);
        }
    }
}

pub(crate) fn index_bytes(index: &Index) -> Vec<u8> {
    let (mut strings, mut rest) = (Strings::default(), Vec::new());
    put_varint(&mut rest, index.series.len() as u64);
    for (labels, complete) in &index.series {
        rest.push(u8::from(*complete));
        strings.put_labels(labels, &mut rest);
    }
    put_varint(&mut rest, index.lists.len() as u64);
    for list in &index.lists {
        put_varint(&mut rest, list.len() as u64);
        let before = std::iter::once(0).chain(list.iter().copied());
        list.iter().zip(before).for_each(|(id, before)| put_varint(&mut rest, u64::from(id - before)));
    }
    put_varint(&mut rest, index.hosts.len() as u64);
    for host in &index.hosts {
        rest.push(u8::from(host.agent.is_some()));
        rest.extend_from_slice(host.agent.map_or(Uuid::nil(), |agent| agent.0).as_bytes());
        strings.put_labels(&host.target, &mut rest);
        put_varint(&mut rest, host.chunks.len() as u64);
        host.chunks.iter().for_each(|chunk| put_chunk(chunk, &mut rest));
    }
    put_varint(&mut rest, index.replaces.len() as u64);
    index.replaces.iter().for_each(|name| put_text(name, &mut rest));
    let mut out = Vec::with_capacity(rest.len() * 2);
    put_varint(&mut out, strings.list.len() as u64);
    strings.list.iter().for_each(|text| put_text(text, &mut out));
    out.extend_from_slice(&rest);
    out
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_chunk(chunk: &ChunkAt, out: &mut Vec<u8>) {
    let ChunkAt { first, last, list, offset, head_len, body_len, head_crc } = *chunk;
    put_varint(out, zigzag(first));
    put_varint(out, zigzag(last));
    for field in [u64::from(list), offset, u64::from(head_len), u64::from(body_len)] {
        put_varint(out, field);
    }
    out.extend_from_slice(&head_crc.to_le_bytes());
}
