//! What a block file holds, as bytes: the chunks of all hosts over one window, an index, a footer.
//!
//! ```text
//! magic, format version
//! chunks                  per chunk its head (times, entries), then its columns, each with its crc32
//! index                   strings, series sorted by metric, lists of series, hosts with their chunks (head crc32),
//!                         the names of the blocks it takes the place of (since format 2)
//! footer                  where the index is, its crc32, totals, format version, its own crc32, magic
//! ```
//! Hosts of one kind send the same series, so label sets and lists of series are written once for all hosts.
//! Pure: writes to any `Write` (`write`), reads from slices. Files are `blocks`' business.

mod write;

use std::sync::Arc;

use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;
use uuid::Uuid;

use super::bytes::{Malformed, Reader, unzigzag};
use super::series::SeriesKey;
use super::window::Window;

pub(crate) use write::{Packing, Sealing, Writer, sorted, write};

/// The format this program writes; a newer one is refused and left alone.
pub(crate) const FORMAT: u32 = 2;
/// The oldest format that is read: it has no names of replaced blocks, and is the same otherwise.
const FORMAT_MIN: u32 = 1;
const MAGIC: [u8; 8] = *b"TOCSNBLK";
/// Magic, format version.
pub(crate) const HEADER_LEN: u64 = 12;
/// Index offset, length and crc32; window; samples; series; format version; crc32; magic.
pub(crate) const FOOTER_LEN: usize = 8 + 8 + 4 + 8 + 8 + 8 + 8 + 4 + 4 + 8;

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
            FORMAT_MIN..=FORMAT => {}
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
    /// The names of the blocks whose samples are all in here: one that is still there does not count.
    pub(crate) replaces: Vec<String>,
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

impl Index {
    /// Reads an index. `intern` may give back a label set that is already in memory, so that blocks share them.
    pub(crate) fn from_bytes(
        bytes: &[u8],
        intern: impl Fn(SeriesKey) -> SeriesKey,
    ) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let strings = collect(&mut reader, |reader| Ok(Arc::<str>::from(read_text(reader)?)))?;
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
        let names = match reader.0 {
            [] => Vec::new(), // Format 1.
            _ => collect(&mut reader, read_text)?,
        };
        Ok(Self { series, lists, hosts, replaces: names.into_iter().map(str::to_owned).collect() })
    }
}

fn read_text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Malformed> {
    let len = reader.count()?;
    std::str::from_utf8(reader.take(len)?).map_err(|_| Malformed("text is not UTF-8"))
}

fn collect<'a, T>(
    reader: &mut Reader<'a>,
    mut item: impl FnMut(&mut Reader<'a>) -> Result<T, Malformed>,
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

    use super::write::index_bytes;
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
            replaces: vec!["0-7200000.block".to_owned(), "0-7200000.1.block".to_owned()],
        }
    }

    #[test]
    fn an_index_comes_back_and_finds_columns_by_metric() {
        let index = index();
        let bytes = index_bytes(&index);
        assert_eq!(Index::from_bytes(&bytes, |key| key).unwrap(), index);
        let nothing_replaced = Index { replaces: Vec::new(), ..index.clone() };
        let mut older = index_bytes(&nothing_replaced);
        assert_eq!(older.pop(), Some(0));
        assert_eq!(Index::from_bytes(&older, |key| key).unwrap(), nothing_replaced, "format 1");
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
