//! One record on disk: a checksummed header and its payload. Bytes in, bytes out; no I/O.
//!
//! ```text
//! magic 4 | payload length 4 | seq 8 | kind 1 | role 1 | payload crc32 4 | header crc32 4 | payload
//! ```
//!
//! Integers are little-endian. The header has a checksum of its own, so that a damaged payload costs one record
//! whose `seq` is still known, and a damaged length is noticed before anyone believes it. Checksums start from a
//! salt: a payload that contains whole frames of another log is never mistaken for this log's own.

use std::ops::Range;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 26;

/// The longest payload. Twice the 4 MiB that gRPC takes in one message, and small enough to allocate on any host.
pub const FRAME_MAX: usize = 8 * 1024 * 1024;

/// Unlikely in text, in protobuf and in zeros.
const MAGIC: [u8; 4] = [0xa7, 0x54, 0xc5, 0x1b];

/// What a frame is to its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A record: its `seq` is its own.
    Numbered,
    /// A header the owner of the log wrote: its `seq` is that of the next record.
    Unnumbered,
    /// What opens a segment: format and version.
    Segment,
}

impl Role {
    const fn code(self) -> u8 {
        match self {
            Self::Numbered => 0,
            Self::Unnumbered => 1,
            Self::Segment => 2,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Numbered),
            1 => Some(Self::Unnumbered),
            2 => Some(Self::Segment),
            _ => None,
        }
    }
}

/// What the header says of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub seq: u64,
    pub kind: u8,
    pub role: Role,
    /// Payload bytes.
    pub bytes: usize,
}

impl Header {
    /// The length of the whole frame.
    pub const fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.bytes
    }
}

/// What the front of some bytes is. Offsets and lengths count from that front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A whole frame; its payload is at `payload`.
    Frame { header: Header, payload: Range<usize> },
    /// The header is right, the payload is not: exactly this frame is lost.
    Spoiled { header: Header },
    /// More bytes are needed: `needed` in all. The header is known once it is there.
    Short { header: Option<Header>, needed: usize },
    /// No frame starts here; the next may start after `skip` bytes.
    Garbage { skip: usize },
}

/// The salt for frames of one format.
pub fn salt(format: &str) -> u32 {
    crc32fast::hash(format.as_bytes())
}

/// Appends a frame to `out`. The payload is at most `FRAME_MAX` bytes: the caller has checked it.
pub fn encode(salt: u32, header: (u64, u8, Role), payload: &[u8], out: &mut Vec<u8>) {
    let (seq, kind, role) = header;
    let length = u32::try_from(payload.len()).expect("FRAME_MAX is far below 4 GiB");
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&[kind, role.code()]);
    out.extend_from_slice(&crc(salt, payload).to_le_bytes());
    let checksum = crc(salt, &out[start..]);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(payload);
}

/// Reads what is at the front of `bytes`. Never allocates, never reads beyond, never panics.
pub fn decode(salt: u32, bytes: &[u8]) -> Decoded {
    let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        let common = bytes.len().min(MAGIC.len());
        return if bytes[..common] == MAGIC[..common] {
            Decoded::Short { header: None, needed: HEADER_BYTES }
        } else {
            Decoded::Garbage { skip: next_magic(bytes) }
        };
    };
    let Some((header, checksum)) = read_header(salt, head) else {
        return Decoded::Garbage { skip: next_magic(bytes) };
    };
    match rest.get(..header.bytes) {
        None => Decoded::Short { header: Some(header), needed: header.frame_bytes() },
        Some(payload) if crc(salt, payload) != checksum => Decoded::Spoiled { header },
        Some(_) => Decoded::Frame { header, payload: HEADER_BYTES..header.frame_bytes() },
    }
}

/// A header and the checksum it gives its payload, if the header's own checksum holds.
fn read_header(salt: u32, head: &[u8; HEADER_BYTES]) -> Option<(Header, u32)> {
    let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if head[..4] != MAGIC || u32_at(22) != crc(salt, &head[..22]) {
        return None;
    }
    let bytes = usize::try_from(u32_at(4)).ok().filter(|bytes| *bytes <= FRAME_MAX)?;
    let seq = u64::from(u32_at(8)) | u64::from(u32_at(12)) << 32;
    Some((Header { seq, kind: head[16], role: Role::from_code(head[17])?, bytes }, u32_at(18)))
}

/// Where the next frame could start after the first byte; a magic cut off at the end counts. Blocks without a magic's
/// first byte, such as zeros, are passed over whole.
fn next_magic(bytes: &[u8]) -> usize {
    const BLOCK: usize = 256;
    let mut at = 1;
    while at < bytes.len() {
        let end = (at + BLOCK).min(bytes.len());
        if !bytes[at..end].contains(&MAGIC[0]) {
            at = end;
            continue;
        }
        let is_magic = |at: &usize| {
            let rest = &bytes[*at..];
            let common = rest.len().min(MAGIC.len());
            rest[..common] == MAGIC[..common]
        };
        match (at..end).find(is_magic) {
            Some(found) => return found,
            None => at = end,
        }
    }
    bytes.len()
}

/// Where frames could start in some bytes: for tests that tear a write of several frames between them.
pub(crate) fn starts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    bytes.windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC).map(|(at, _)| at)
}

fn crc(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The seqs of all whole frames and of all spoiled ones.
    fn walk(salt: u32, mut bytes: &[u8]) -> (Vec<u64>, Vec<u64>) {
        let (mut whole, mut spoiled) = (Vec::new(), Vec::new());
        while !bytes.is_empty() {
            let used = match decode(salt, bytes) {
                Decoded::Frame { header, .. } => {
                    whole.push(header.seq);
                    header.frame_bytes()
                }
                Decoded::Spoiled { header } => {
                    spoiled.push(header.seq);
                    header.frame_bytes()
                }
                Decoded::Short { .. } => break,
                Decoded::Garbage { skip } => skip,
            };
            bytes = &bytes[used..];
        }
        (whole, spoiled)
    }

    fn frames(salt: u32, payloads: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (seq, payload) in (1..).zip(payloads) {
            encode(salt, (seq, 7, Role::Numbered), payload, &mut bytes);
        }
        bytes
    }

    // Cases: S4
    #[test]
    fn any_flipped_bit_costs_exactly_its_frame() {
        let payloads: [&[u8]; 3] = [b"first", b"", b"the third"];
        let clean = frames(9, &payloads);
        let ends = [HEADER_BYTES + 5, 2 * HEADER_BYTES + 5, clean.len()];
        for bit in 0..clean.len() * 8 {
            let mut bytes = clean.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let hit = (1..).zip(ends).find(|(_, end)| bit / 8 < *end).unwrap().0;
            let expected: Vec<u64> = (1..=3).filter(|seq| *seq != hit).collect();
            assert_eq!(walk(9, &bytes).0, expected, "bit {bit}");
        }
    }

    // Cases: S5
    #[test]
    fn lengths_are_bounded_before_they_are_believed() {
        let mut bytes = frames(0, &[b"payload"]);
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        let checksum = crc(0, &bytes[..22]);
        bytes[22..26].copy_from_slice(&checksum.to_le_bytes());
        assert!(matches!(decode(0, &bytes), Decoded::Garbage { .. }), "too long, whatever its checksum says");
    }

    #[test]
    fn frames_of_another_log_inside_a_payload_are_not_ours() {
        let inner = frames(salt("inner"), &[b"a", b"b"]);
        let mut outer = frames(salt("outer"), &[&inner, b"after"]);
        outer[0] ^= 1;
        assert_eq!(walk(salt("outer"), &outer).0, [2]);
    }

    #[test]
    fn every_cut_is_short() {
        let bytes = frames(1, &[b"payload"]);
        for length in 0..bytes.len() {
            assert!(matches!(decode(1, &bytes[..length]), Decoded::Short { .. }), "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn noise_is_never_a_frame_and_always_advances(noise in prop::collection::vec(any::<u8>(), 0..600)) {
            let (whole, spoiled) = walk(3, &noise);
            prop_assert!(whole.is_empty() && spoiled.is_empty());
        }

        #[test]
        fn frames_after_noise_are_found(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = noise;
            encode(3, (5, 1, Role::Numbered), b"here", &mut bytes);
            prop_assert_eq!(walk(3, &bytes).0, vec![5]);
        }
    }
}
