//! One job record as bytes, for the agent's socket and its drop-box: magic and version, length, checksum, payload.
//!
//! Both ends are on one host but not in one trust: the writer may be any user, so every length is checked against
//! its bound before anything is read. The user's name is not here: the agent looks it up for the uid that the kernel
//! vouches for. Integers are little-endian; texts and bytes carry their length.
//! Promise: `decode(encode(record))` is the record without its user's name, and a torn or changed file is refused.

use std::time::Duration;

use tocsin_shared::job::{
    BootId, BoundedText, InvalidJobName, JobEnded, JobName, JobRecord, JobStarted, Outcome, RunId,
    TextTooLong, UserName,
};
use tocsin_shared::time::Timestamp;
use uuid::Uuid;

/// The format and its version. A reader knows the one before, too: records wait in the drop-box over an upgrade.
const MAGIC: [u8; 4] = *b"TJR2";
/// Without boot ids.
const MAGIC_1: [u8; 4] = *b"TJR1";
/// Magic, payload length, checksum.
pub(crate) const HEADER_BYTES: usize = 12;
/// The tail (64 KiB), the command or message (4 KiB) and the fixed fields, rounded up.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 72 * 1024;

/// Why bytes are not a record.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidEnvelope {
    #[error(
        "does not start like a job record of version 1 or 2; wrapper and agent must be of the same release"
    )]
    Magic,
    #[error("payload is {0} bytes long, expected at most {PAYLOAD_BYTES_MAX}")]
    Length(usize),
    #[error("ends in the middle")]
    Torn,
    #[error("checksum does not match")]
    Checksum,
    #[error("{0} bytes follow the record")]
    Trailing(usize),
    #[error("unknown {what} {value}")]
    Unknown { what: &'static str, value: u8 },
    #[error("text is not utf-8")]
    NotUtf8,
    #[error(transparent)]
    Name(#[from] InvalidJobName),
    #[error(transparent)]
    Text(#[from] TextTooLong),
}

/// What the agent answers to a record on the socket, as one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// On disk: the writer may forget it.
    Durable,
    /// Not now (quota, full disk): the writer keeps it in the drop-box.
    Later,
    /// Never: the record is not acceptable.
    Refused,
}

impl Answer {
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Durable => b'D',
            Self::Later => b'L',
            Self::Refused => b'R',
        }
    }
}

/// The payload's length, from a header.
pub(crate) fn payload_length(header: &[u8; HEADER_BYTES]) -> Result<usize, InvalidEnvelope> {
    let mut reader = Reader(header);
    if ![MAGIC, MAGIC_1].contains(&reader.array()?) {
        return Err(InvalidEnvelope::Magic);
    }
    let length = reader.u32()? as usize;
    if length > PAYLOAD_BYTES_MAX { Err(InvalidEnvelope::Length(length)) } else { Ok(length) }
}

/// A record as it travels. The user's name is left out.
pub(crate) fn encode(record: &JobRecord) -> Vec<u8> {
    let mut payload = Vec::with_capacity(512);
    match record {
        JobRecord::Started(started) => put_started(&mut payload, started),
        JobRecord::Ended(ended) => put_ended(&mut payload, ended),
    }
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend(MAGIC);
    bytes.extend(u32::try_from(payload.len()).expect("every field of a record is bounded").to_le_bytes());
    bytes.extend(crc32fast::hash(&payload).to_le_bytes());
    bytes.extend(payload);
    bytes
}

/// Reads header and payload; the user's name is left empty.
pub(crate) fn decode(bytes: &[u8]) -> Result<JobRecord, InvalidEnvelope> {
    let (header, payload) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(InvalidEnvelope::Torn)?;
    let length = payload_length(header)?;
    let (payload, trailing) = payload.split_at_checked(length).ok_or(InvalidEnvelope::Torn)?;
    if !trailing.is_empty() {
        return Err(InvalidEnvelope::Trailing(trailing.len()));
    }
    if crc32fast::hash(payload).to_le_bytes() != header[8..] {
        return Err(InvalidEnvelope::Checksum);
    }
    let has_boot = header[..4] == MAGIC;
    let mut reader = Reader(payload);
    let record = match reader.u8()? {
        1 => JobRecord::Started(take_started(&mut reader, has_boot)?),
        2 => JobRecord::Ended(take_ended(&mut reader, has_boot)?),
        value => return Err(InvalidEnvelope::Unknown { what: "kind of record", value }),
    };
    if reader.0.is_empty() { Ok(record) } else { Err(InvalidEnvelope::Trailing(reader.0.len())) }
}

fn put_started(out: &mut Vec<u8>, started: &JobStarted) {
    let JobStarted { run_id, job, pid, user: _, uid, command, started_at, started_boot_ms, started_boot } =
        started;
    out.push(1);
    out.extend(run_id.0.as_bytes());
    put_text(out, job.as_str());
    out.extend(pid.to_le_bytes());
    out.extend(uid.to_le_bytes());
    put_text(out, command);
    out.extend(started_at.as_millis().to_le_bytes());
    out.extend(started_boot_ms.to_le_bytes());
    put_text(out, started_boot);
}

fn take_started(reader: &mut Reader<'_>, has_boot: bool) -> Result<JobStarted, InvalidEnvelope> {
    Ok(JobStarted {
        run_id: reader.run_id()?,
        job: JobName::parse(reader.text()?)?,
        pid: reader.u32()?,
        user: UserName::default(),
        uid: reader.u32()?,
        command: reader.bounded()?,
        started_at: reader.timestamp()?,
        started_boot_ms: reader.u64()?,
        started_boot: reader.boot(has_boot)?,
    })
}

fn put_ended(out: &mut Vec<u8>, ended: &JobEnded) {
    let JobEnded { run_id, job, uid, user: _, started_at, ended_at, started_boot_ms, ended_boot_ms, .. } =
        ended;
    let JobEnded { duration, outcome, output_tail, output_bytes, truncated, background_children, .. } = ended;
    // Wrappers count nothing but their own run: `alike` is the agent's.
    let JobEnded { started_boot, ended_boot, alike: _, .. } = ended;
    out.push(2);
    out.extend(run_id.0.as_bytes());
    put_text(out, job.as_str());
    out.extend(uid.to_le_bytes());
    out.extend(started_at.as_millis().to_le_bytes());
    out.extend(ended_at.as_millis().to_le_bytes());
    out.extend(started_boot_ms.to_le_bytes());
    out.extend(ended_boot_ms.to_le_bytes());
    out.extend(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).to_le_bytes());
    put_outcome(out, outcome);
    put_text(out, output_tail);
    out.extend(output_bytes.to_le_bytes());
    out.push(u8::from(*truncated));
    out.push(u8::from(*background_children));
    put_text(out, started_boot);
    put_text(out, ended_boot);
}

fn take_ended(reader: &mut Reader<'_>, has_boot: bool) -> Result<JobEnded, InvalidEnvelope> {
    Ok(JobEnded {
        run_id: reader.run_id()?,
        job: JobName::parse(reader.text()?)?,
        uid: reader.u32()?,
        user: UserName::default(),
        started_at: reader.timestamp()?,
        ended_at: reader.timestamp()?,
        started_boot_ms: reader.u64()?,
        ended_boot_ms: reader.u64()?,
        duration: Duration::from_millis(reader.u64()?),
        outcome: take_outcome(reader)?,
        output_tail: reader.bounded()?,
        output_bytes: reader.u64()?,
        truncated: reader.bool()?,
        background_children: reader.bool()?,
        started_boot: reader.boot(has_boot)?,
        ended_boot: reader.boot(has_boot)?,
        alike: 0,
    })
}

fn put_outcome(out: &mut Vec<u8>, outcome: &Outcome) {
    match outcome {
        Outcome::Exited(status) => out.extend([1, *status]),
        Outcome::Signalled { signal, core, out_of_memory } => {
            out.push(if *out_of_memory { 4 } else { 2 });
            out.extend(signal.to_le_bytes());
            out.push(u8::from(*core));
        }
        Outcome::CouldNotStart { errno, message } => {
            out.push(3);
            out.extend(errno.to_le_bytes());
            put_text(out, message);
        }
        Outcome::Interrupted { reason } => {
            out.push(5);
            put_text(out, reason);
        }
    }
}

fn take_outcome(reader: &mut Reader<'_>) -> Result<Outcome, InvalidEnvelope> {
    match reader.u8()? {
        1 => Ok(Outcome::Exited(reader.u8()?)),
        tag @ (2 | 4) => {
            let (signal, core) = (reader.i32()?, reader.bool()?);
            Ok(Outcome::Signalled { signal, core, out_of_memory: tag == 4 })
        }
        3 => Ok(Outcome::CouldNotStart { errno: reader.i32()?, message: reader.bounded()? }),
        5 => Ok(Outcome::Interrupted { reason: reader.bounded()? }),
        value => Err(InvalidEnvelope::Unknown { what: "outcome", value }),
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend(u32::try_from(text.len()).expect("every text of a record is bounded").to_le_bytes());
    out.extend(text.as_bytes());
}

/// What is left to read of a payload.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], InvalidEnvelope> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(InvalidEnvelope::Torn)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], InvalidEnvelope> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(InvalidEnvelope::Torn)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, InvalidEnvelope> {
        Ok(self.array::<1>()?[0])
    }

    fn bool(&mut self) -> Result<bool, InvalidEnvelope> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(InvalidEnvelope::Unknown { what: "flag", value }),
        }
    }

    fn i32(&mut self) -> Result<i32, InvalidEnvelope> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, InvalidEnvelope> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, InvalidEnvelope> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn timestamp(&mut self) -> Result<Timestamp, InvalidEnvelope> {
        Ok(Timestamp::from_millis(i64::from_le_bytes(self.array()?)))
    }

    fn run_id(&mut self) -> Result<RunId, InvalidEnvelope> {
        Ok(RunId(Uuid::from_bytes(self.array()?)))
    }

    fn text(&mut self) -> Result<&'a str, InvalidEnvelope> {
        let length = self.u32()? as usize;
        std::str::from_utf8(self.bytes(length)?).map_err(|_| InvalidEnvelope::NotUtf8)
    }

    fn boot(&mut self, is_there: bool) -> Result<BootId, InvalidEnvelope> {
        if is_there { self.bounded() } else { Ok(BootId::default()) }
    }

    fn bounded<const MAX: usize>(&mut self) -> Result<BoundedText<MAX>, InvalidEnvelope> {
        Ok(BoundedText::parse(self.text()?.to_owned())?)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use tocsin_shared::job::{CommandLine, Message, OutputTail};

    pub(crate) fn started(uid: u32) -> JobRecord {
        JobRecord::Started(JobStarted {
            run_id: RunId(Uuid::from_u128(7)),
            job: JobName::parse("backup").unwrap(),
            pid: 42,
            user: UserName::default(),
            uid,
            command: CommandLine::keep_start("sh -c true"),
            started_at: Timestamp::from_millis(-5),
            started_boot_ms: 99,
            started_boot: BootId::keep_start("boot"),
        })
    }

    pub(crate) fn ended(run: u128, uid: u32, outcome: Outcome, tail: &str) -> JobRecord {
        JobRecord::Ended(JobEnded {
            run_id: RunId(Uuid::from_u128(run)),
            job: JobName::parse("backup").unwrap(),
            uid,
            user: UserName::default(),
            started_at: Timestamp::from_millis(1),
            ended_at: Timestamp::from_millis(2),
            started_boot_ms: 3,
            ended_boot_ms: 4,
            duration: Duration::from_millis(1),
            outcome,
            output_tail: OutputTail::keep_end(tail),
            output_bytes: u64::MAX,
            truncated: true,
            background_children: false,
            started_boot: BootId::keep_start("boot"),
            ended_boot: BootId::keep_start("boot"),
            alike: 0,
        })
    }

    fn records() -> Vec<JobRecord> {
        let message = Message::keep_start("no such file");
        vec![
            started(1000),
            ended(1, 0, Outcome::Exited(255), ""),
            ended(2, 1000, Outcome::Signalled { signal: 11, core: true, out_of_memory: false }, "line\n\0€"),
            ended(5, 1000, Outcome::Signalled { signal: 9, core: false, out_of_memory: true }, ""),
            ended(6, 1000, Outcome::Interrupted { reason: Message::keep_start("the host was rebooted") }, ""),
            ended(3, 1, Outcome::CouldNotStart { errno: 2, message }, &"x".repeat(70_000)),
        ]
    }

    #[test]
    fn what_goes_in_comes_out() {
        for record in records() {
            let bytes = encode(&record);
            assert!(bytes.len() <= HEADER_BYTES + PAYLOAD_BYTES_MAX);
            assert_eq!(decode(&bytes), Ok(record));
        }
    }

    // Cases: S21 (partly)
    #[test]
    fn records_of_the_version_before_are_read() {
        for record in records() {
            let mut bytes = encode(&record);
            let boots = match record {
                JobRecord::Started(_) => 4 + "boot".len(),
                JobRecord::Ended(_) => 2 * (4 + "boot".len()),
            };
            bytes.truncate(bytes.len() - boots);
            let payload = bytes.split_off(HEADER_BYTES);
            let mut older = MAGIC_1.to_vec();
            older.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
            older.extend(crc32fast::hash(&payload).to_le_bytes());
            older.extend(payload);
            let expected = match record {
                JobRecord::Started(started) => {
                    JobRecord::Started(JobStarted { started_boot: BootId::default(), ..started })
                }
                JobRecord::Ended(ended) => JobRecord::Ended(JobEnded {
                    started_boot: BootId::default(),
                    ended_boot: BootId::default(),
                    ..ended
                }),
            };
            assert_eq!(decode(&older), Ok(expected));
        }
    }

    #[test]
    fn torn_and_changed_bytes_are_refused() {
        let bytes = encode(&records()[2]);
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), Err(InvalidEnvelope::Torn), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x20;
            assert!(decode(&changed).is_err(), "changed at {at}");
        }
        let longer = [bytes, vec![0]].concat();
        assert_eq!(decode(&longer), Err(InvalidEnvelope::Trailing(1)));
    }

    #[test]
    fn a_length_is_believed_only_within_its_bound() {
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&MAGIC);
        header[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(payload_length(&header), Err(InvalidEnvelope::Length(u32::MAX as usize)));
        header[3] = b'3';
        assert_eq!(payload_length(&header), Err(InvalidEnvelope::Magic), "a newer version is refused");
    }

    proptest! {
        #[test]
        fn any_payload_is_read_or_refused(payload in proptest::collection::vec(any::<u8>(), 0..200), kind in 1u8..4) {
            let payload = [vec![kind], payload].concat();
            let mut bytes = MAGIC.to_vec();
            bytes.extend((payload.len() as u32).to_le_bytes());
            bytes.extend(crc32fast::hash(&payload).to_le_bytes());
            bytes.extend(&payload);
            if let Ok(record) = decode(&bytes) {
                prop_assert_eq!(encode(&record), bytes, "one record has one encoding");
            }
        }
    }
}
