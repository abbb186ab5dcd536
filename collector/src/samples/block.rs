//! What a block file holds, as bytes: the chunks of all hosts over one window, an index, a footer.
//!
//! ```text
//! magic, format version
//! chunks                  per chunk its head (times, entries), then its columns, each with its crc32
//! index                   strings, series sorted by metric, lists of series, hosts with their chunks (head crc32)
//! footer                  where the index is, its crc32, totals, format version, its own crc32, magic
//! ```
//! Hosts of one kind send the same series, so label sets and lists of series are written once for all hosts.
//! Pure: writes to any `Write`, reads from slices. Files are `blocks`' business.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;

use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;
use uuid::Uuid;

use super::bytes::{Malformed, Reader, put_varint, unzigzag, zigzag};
use super::host::Held;
use super::rewrite::{renumbered, rewrite};
use super::series::SeriesKey;
use super::window::Window;

/// The format this program writes; a newer one is refused and left alone.
pub(crate) const FORMAT: u32 = 1;
const MAGIC: [u8; 8] = *b"TOCSNBLK";
/// Magic, format version.
pub(crate) const HEADER_LEN: u64 = 12;
/// Index offset, length and crc32; window; samples; series; format version; crc32; magic.
pub(crate) const FOOTER_LEN: usize = 8 + 8 + 4 + 8 + 8 + 8 + 8 + 4 + 4 + 8;

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

/// The end of a block file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) index_at: u64,
    pub(crate) index_len: u64,
    pub(crate) index_crc: u32,
    pub(crate) window: Window,
    pub(crate) samples: u64,
    pub(crate) series: u64,
}

/// Why bytes are not a block this program can read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidBlock {
    #[error("format {0} is newer than {FORMAT}, the newest this program reads; upgrade the collector")]
    Newer(u32),
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Footer {
    pub(crate) fn to_bytes(self) -> [u8; FOOTER_LEN] {
        let mut out = Vec::with_capacity(FOOTER_LEN);
        out.extend_from_slice(&self.index_at.to_le_bytes());
        out.extend_from_slice(&self.index_len.to_le_bytes());
        out.extend_from_slice(&self.index_crc.to_le_bytes());
        out.extend_from_slice(&self.window.from.as_millis().to_le_bytes());
        out.extend_from_slice(&self.window.to.as_millis().to_le_bytes());
        out.extend_from_slice(&self.samples.to_le_bytes());
        out.extend_from_slice(&self.series.to_le_bytes());
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out.extend_from_slice(&MAGIC);
        out.try_into().expect("FOOTER_LEN is the sum of the fields above")
    }

    /// Reads a footer; the header tells the format, so that a newer footer may differ.
    pub(crate) fn from_bytes(header: &[u8], footer: &[u8]) -> Result<Self, InvalidBlock> {
        let mut head = Reader(header);
        if head.array()? != MAGIC {
            return Err(Malformed("it does not begin as a block").into());
        }
        match head.u32()? {
            FORMAT => {}
            newer if newer > FORMAT => return Err(InvalidBlock::Newer(newer)),
            _ => return Err(Malformed("its format was never written").into()),
        }
        let mut reader = Reader(footer);
        let fields = reader.take(FOOTER_LEN - 12)?;
        if reader.u32()? != crc32fast::hash(fields) || reader.0 != MAGIC {
            return Err(Malformed("its footer does not match its checksum").into());
        }
        let mut fields = Reader(fields);
        Ok(Self {
            index_at: fields.u64()?,
            index_len: fields.u64()?,
            index_crc: fields.u32()?,
            window: Window {
                from: Timestamp::from_millis(fields.i64()?),
                to: Timestamp::from_millis(fields.i64()?),
            },
            samples: fields.u64()?,
            series: fields.u64()?,
        })
    }
}

/// Where a chunk of a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkAt {
    pub(crate) first: i64,
    pub(crate) last: i64,
    /// The list of series of its columns.
    pub(crate) list: u32,
    pub(crate) offset: u64,
    pub(crate) head_len: u32,
    pub(crate) body_len: u32,
    pub(crate) head_crc: u32,
}

/// A host in a block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HostIndex {
    pub(crate) agent: Option<AgentId>,
    /// The target labels when it was sealed.
    pub(crate) target: Labels,
    pub(crate) chunks: Vec<ChunkAt>,
}

/// What a block has, and where.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Index {
    /// Sorted by metric, then by labels.
    pub(crate) series: Vec<SeriesKey>,
    /// Ascending indexes into `series`, one list for each set of columns.
    pub(crate) lists: Vec<Arc<[u32]>>,
    /// Sorted by agent.
    pub(crate) hosts: Vec<HostIndex>,
}

impl Index {
    pub(crate) fn host(&self, agent: Option<AgentId>) -> Option<&HostIndex> {
        self.hosts.binary_search_by(|host| host.agent.cmp(&agent)).ok().map(|at| &self.hosts[at])
    }

    /// The series of a list that have this metric name; all when none is named.
    pub(crate) fn columns(&self, list: u32, metric: Option<&str>) -> &[u32] {
        let Some(list) = self.lists.get(list as usize) else { return &[] };
        let Some(metric) = metric else { return list };
        let low = self.series.partition_point(|(labels, _)| labels.metric() < metric) as u32;
        let high = self.series.partition_point(|(labels, _)| labels.metric() <= metric) as u32;
        let (start, end) = (list.partition_point(|id| *id < low), list.partition_point(|id| *id < high));
        &list[start..end]
    }
}

/// Writes a whole block.
pub(crate) fn write(window: Window, packing: Packing, out: &mut impl Write) -> io::Result<Footer> {
    let (hosts, merged) = match packing {
        Packing::Merged(hosts) => (hosts, true),
        Packing::Copied(hosts) => (hosts, false),
    };
    hosts.sort_by_key(|host| host.agent);
    let mut out = Counted { out, at: 0 };
    out.write(&MAGIC)?;
    out.write(&FORMAT.to_le_bytes())?;
    let series = dictionary(hosts);
    let ids = series.iter().enumerate().map(|(id, key)| (key, id as u32)).collect::<HashMap<_, _>>();
    let mut index =
        Index { series: series.clone(), lists: Vec::new(), hosts: Vec::with_capacity(hosts.len()) };
    let mut known_lists = HashMap::new();
    let (mut samples, mut series_count) = (0, 0);
    for host in hosts.iter() {
        let id_of = |slot: u32| host.keys.get(&slot).and_then(|key| ids.get(key)).copied();
        let rewritten = if merged { rewrite(&host.held, id_of) } else { renumbered(&host.held, id_of) };
        let rewritten = rewritten.map_err(io::Error::other)?;
        series_count += rewritten.series as u64;
        let mut chunks = Vec::new();
        for (list, chunk) in rewritten.chunks {
            samples += chunk.samples;
            let next = index.lists.len() as u32;
            let list_id = *known_lists.entry(list.clone()).or_insert(next);
            if list_id == next {
                index.lists.push(list.into());
            }
            let head = chunk.head.to_bytes();
            chunks.push(ChunkAt {
                first: chunk.first,
                last: chunk.last,
                list: list_id,
                offset: out.at,
                head_len: head.len() as u32,
                body_len: chunk.body.len() as u32,
                head_crc: crc32fast::hash(&head),
            });
            out.write(&head)?;
            out.write(&chunk.body)?;
        }
        index.hosts.push(HostIndex { agent: host.agent, target: host.target.clone(), chunks });
    }
    let bytes = index_bytes(&index);
    let (index_at, index_crc) = (out.at, crc32fast::hash(&bytes));
    let index_len = bytes.len() as u64;
    let footer = Footer { index_at, index_len, index_crc, window, samples, series: series_count };
    out.write(&bytes)?;
    out.write(&footer.to_bytes())?;
    Ok(footer)
}

struct Counted<'a, W> {
    out: &'a mut W,
    at: u64,
}

impl<W: Write> Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// Every series of every host once, sorted by metric, then by labels.
fn dictionary(hosts: &[Sealing]) -> Vec<SeriesKey> {
    let distinct = hosts.iter().flat_map(|host| host.keys.values()).collect::<std::collections::HashSet<_>>();
    let mut series = distinct.into_iter().cloned().collect::<Vec<_>>();
    series.sort_by(|a, b| a.0.metric().cmp(b.0.metric()).then_with(|| a.cmp(b)));
    series
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

fn index_bytes(index: &Index) -> Vec<u8> {
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
    let mut out = Vec::with_capacity(rest.len() * 2);
    put_varint(&mut out, strings.list.len() as u64);
    for text in strings.list {
        put_varint(&mut out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(&rest);
    out
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

impl Index {
    /// Reads an index. `intern` may give back a label set that is already in memory, so that blocks share them.
    pub(crate) fn from_bytes(
        bytes: &[u8],
        intern: impl Fn(SeriesKey) -> SeriesKey,
    ) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let strings = collect(&mut reader, |reader| {
            let len = reader.count()?;
            let text = std::str::from_utf8(reader.take(len)?).map_err(|_| Malformed("text is not UTF-8"))?;
            Ok(Arc::<str>::from(text))
        })?;
        let series = collect(&mut reader, |reader| {
            let complete = reader.byte()? != 0;
            Ok(intern((read_labels(reader, &strings)?, complete)))
        })?;
        let lists = collect(&mut reader, |reader| read_list(reader, series.len()))?;
        let hosts = collect(&mut reader, |reader| {
            let (known, uuid) = (reader.byte()? != 0, Uuid::from_bytes(reader.array()?));
            let agent = known.then_some(AgentId(uuid));
            let target = read_labels(reader, &strings)?;
            Ok(HostIndex { agent, target, chunks: collect(reader, read_chunk)? })
        })?;
        if !hosts.is_sorted_by_key(|host| host.agent) {
            return Err(Malformed("hosts out of order"));
        }
        Ok(Self { series, lists, hosts })
    }
}

fn collect<T>(
    reader: &mut Reader,
    mut item: impl FnMut(&mut Reader) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    (0..reader.count()?).map(|_| item(reader)).collect()
}

fn read_labels(reader: &mut Reader, strings: &[Arc<str>]) -> Result<Labels, Malformed> {
    let text = |reader: &mut Reader| {
        let id = reader.index()? as usize;
        strings.get(id).cloned().ok_or(Malformed("a label outside the strings"))
    };
    Ok(Labels::new(collect(reader, |reader| Ok((text(reader)?, text(reader)?)))?))
}

fn read_list(reader: &mut Reader, series: usize) -> Result<Arc<[u32]>, Malformed> {
    let mut last = 0u32;
    let list = collect(reader, |reader| {
        last = last.checked_add(reader.index()?).ok_or(Malformed("a series beyond 32 bits"))?;
        if (last as usize) < series { Ok(last) } else { Err(Malformed("a list names no series")) }
    })?;
    Ok(list.into())
}

fn read_chunk(reader: &mut Reader) -> Result<ChunkAt, Malformed> {
    Ok(ChunkAt {
        first: unzigzag(reader.varint()?),
        last: unzigzag(reader.varint()?),
        list: reader.index()?,
        offset: reader.varint()?,
        head_len: reader.index()?,
        body_len: reader.index()?,
        head_crc: reader.u32()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tocsin_shared::labels::Labels;

    use super::*;

    fn index() -> Index {
        let series = |metric: &str, complete| {
            (Labels::series(metric, &[("mode", "idle"), ("path", "\u{e9}")]), complete)
        };
        let chunk = |list| ChunkAt {
            first: -5,
            last: i64::MAX,
            list,
            offset: u64::MAX,
            head_len: u32::MAX,
            body_len: 0,
            head_crc: 7,
        };
        let host = |agent: Option<u128>, chunks| HostIndex {
            agent: agent.map(|number| AgentId(Uuid::from_u128(number))),
            target: Labels::new([("instance", "a"), ("mode", "idle")]),
            chunks,
        };
        Index {
            series: vec![series("cpu", false), series("cpu", true), series("up", false)],
            lists: vec![[0, 1, 2].into(), [2].into(), [].into()],
            hosts: vec![
                host(None, vec![]),
                host(Some(0), vec![chunk(0), chunk(1)]),
                host(Some(9), vec![chunk(2)]),
            ],
        }
    }

    #[test]
    fn an_index_comes_back_and_finds_columns_by_metric() {
        let index = index();
        assert_eq!(Index::from_bytes(&index_bytes(&index), |key| key).unwrap(), index);
        for (list, metric, ids) in [
            (0, None, &[0, 1, 2][..]),
            (0, Some("cpu"), &[0, 1]),
            (0, Some("up"), &[2]),
            (1, Some("cpu"), &[]),
            (0, Some("none"), &[]),
            (9, None, &[]),
        ] {
            assert_eq!(index.columns(list, metric), ids, "{list} {metric:?}");
        }
        assert_eq!(index.host(Some(AgentId(Uuid::from_u128(9)))), index.hosts.last());
        assert_eq!(index.host(Some(AgentId(Uuid::from_u128(8)))), None);
    }

    proptest! {
        /// Checksums keep damage out; what gets past them must still not bring the collector down.
        #[test]
        fn no_bytes_make_an_index_panic(places in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4), cut in any::<usize>()) {
            let mut bytes = index_bytes(&index());
            for (place, byte) in places {
                let place = place % bytes.len();
                bytes[place] = byte;
            }
            let cut = cut % (bytes.len() + 1);
            if let Ok(index) = Index::from_bytes(&bytes, |key| key) {
                (0..4).for_each(|list| drop(index.columns(list, Some("cpu")).to_vec()));
            }
            Index::from_bytes(&bytes[..cut], |key| key).ok();
        }
    }
}
