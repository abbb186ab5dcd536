//! What a start needs of the rows that head files have, beside their samples: it reads only the journal after them.

use prost::Message;
use tocsin_proto::pb;
use tocsin_shared::event::LaneProgress;
use tocsin_shared::identity::AgentId;
use tocsin_shared::time::Timestamp;
use uuid::Uuid;

/// Where the writer stood when a head file was begun. All rows up to `through` are evaluated before it is listed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Head {
    /// Everything up to here is durable and in the sample store.
    pub through: u64,
    /// The last of it that rules run over; 0 when there was none since the start.
    pub newest_row: u64,
    pub lanes: Vec<LaneProgress>,
    /// First row and youngest event time of each segment, oldest first.
    pub segments: Vec<(u64, Timestamp)>,
    /// The newest row of each host.
    pub newest: Vec<(AgentId, Timestamp)>,
}

impl Head {
    /// For the manifest of head files.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { through, newest_row: _, lanes, segments, newest } = self;
        let segment = |(first, youngest): &(u64, Timestamp)| pb::JournalSegment {
            first: *first,
            youngest_ms: youngest.as_millis(),
        };
        let row = |(agent, at): &(AgentId, Timestamp)| pb::JournalHostRow {
            agent: agent.0.as_bytes().to_vec(),
            at_ms: at.as_millis(),
        };
        let head = pb::JournalHead {
            through: *through,
            lanes: lanes.iter().map(pb::LaneProgress::from).collect(),
            segments: segments.iter().map(segment).collect(),
            newest: newest.iter().map(row).collect(),
        };
        head.encode_to_vec()
    }

    /// From the manifest of head files.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let pb::JournalHead { through, lanes, segments, newest } =
            pb::JournalHead::decode(bytes).map_err(|error| error.to_string())?;
        let lanes = lanes.into_iter().map(LaneProgress::try_from).collect::<Result<_, _>>();
        let row = |row: pb::JournalHostRow| {
            let agent = Uuid::from_slice(&row.agent).map_err(|error| error.to_string())?;
            Ok((AgentId(agent), Timestamp::from_millis(row.at_ms)))
        };
        let segment =
            |segment: pb::JournalSegment| (segment.first, Timestamp::from_millis(segment.youngest_ms));
        Ok(Self {
            through,
            newest_row: 0,
            lanes: lanes.map_err(|error| error.to_string())?,
            segments: segments.into_iter().map(segment).collect(),
            newest: newest.into_iter().map(row).collect::<Result<_, String>>()?,
        })
    }
}
