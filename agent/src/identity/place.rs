//! `identity.toml`: who this agent is, and where its collector listens.
//!
//! Pure. A file of a newer format is refused, never guessed at.

use serde::Deserialize;
use tocsin_proto::connect::{Endpoint, InvalidEndpoint};
use tocsin_shared::certificate::AgentUri;
use tocsin_shared::identity::AgentId;
use tocsin_shared::secret::{Sha256, hex};
use uuid::Uuid;

/// The version of the file's format.
const FORMAT: u32 = 1;

/// Who the agent is and where its collector is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub agent: AgentId,
    pub cluster: Uuid,
    pub collector: Endpoint,
    /// Where it enrolled, for when its certificate has run out; none in an identity of an older agent.
    pub front: Option<Front>,
}

/// The collector's front listener and what its chain ends in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Front {
    pub endpoint: Endpoint,
    /// SHA-256 of the last certificate of the chain, as the join token had it.
    pub pin: Sha256,
}

/// Why a text is not an `identity.toml`.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPlace {
    #[error("{0}")]
    Toml(String),
    #[error("it has format {0}, this agent reads format {FORMAT}; upgrade the agent")]
    Format(u32),
    #[error("`{field}` is not a uuid: {text:?}")]
    Id { field: &'static str, text: String },
    #[error("`collector`: {0}")]
    Collector(#[from] InvalidEndpoint),
    #[error("`front_pin` is not 64 hex digits")]
    Pin,
    #[error("`front` and `front_pin` belong together: give both or none")]
    HalfFront,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlace {
    #[serde(rename = "format")]
    _format: u32,
    agent: String,
    cluster: String,
    collector: String,
    front: Option<String>,
    front_pin: Option<String>,
}

#[derive(Deserialize)]
struct RawFormat {
    format: u32,
}

impl Place {
    /// The agent's name in certificates.
    pub fn name(&self) -> AgentUri {
        AgentUri { cluster: self.cluster, agent: self.agent }
    }

    /// Reads the file's text.
    pub fn parse(text: &str) -> Result<Self, InvalidPlace> {
        let toml = |error: toml::de::Error| InvalidPlace::Toml(error.message().to_owned());
        // First of all the format: a newer file may have fields that we do not know.
        let RawFormat { format } = toml::from_str(text).map_err(toml)?;
        if format != FORMAT {
            return Err(InvalidPlace::Format(format));
        }
        let RawPlace { _format, agent, cluster, collector, front, front_pin } =
            toml::from_str(text).map_err(toml)?;
        let id = |field, text: String| Uuid::try_parse(&text).map_err(|_| InvalidPlace::Id { field, text });
        Ok(Self {
            agent: AgentId(id("agent", agent)?),
            cluster: id("cluster", cluster)?,
            collector: collector.parse()?,
            front: read_front(front, front_pin)?,
        })
    }

    /// Writes what `parse` reads. None of the values can hold a quote.
    pub fn print(&self) -> String {
        let Self { agent, cluster, collector, front } = self;
        let mut text = format!(
            "# Written by tocsin-agent at enrolment. Only `collector` and `front` may be changed by hand.\n\
             format = {FORMAT}\nagent = \"{agent}\"\ncluster = \"{cluster}\"\ncollector = \"{collector}\"\n"
        );
        if let Some(Front { endpoint, pin }) = front {
            text += &format!("front = \"{endpoint}\"\nfront_pin = \"{}\"\n", hex(pin));
        }
        text
    }
}

fn read_front(front: Option<String>, pin: Option<String>) -> Result<Option<Front>, InvalidPlace> {
    match (front, pin) {
        (None, None) => Ok(None),
        (Some(front), Some(pin)) => Ok(Some(Front { endpoint: front.parse()?, pin: read_pin(&pin)? })),
        _ => Err(InvalidPlace::HalfFront),
    }
}

/// A pin as people and `identity.toml` write it: 64 hex digits.
pub fn read_pin(text: &str) -> Result<Sha256, InvalidPlace> {
    let digit = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(digit).collect();
    let pin: Option<Sha256> = bytes.and_then(|bytes| bytes.try_into().ok());
    pin.filter(|pin| hex(pin) == text).ok_or(InvalidPlace::Pin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_and_writes() {
        let front = |endpoint: &str| Front { endpoint: endpoint.parse().unwrap(), pin: [0xa5; 32] };
        for (collector, front) in [
            ("collector.example.com:9443", Some(front("collector.example.com:9444"))),
            ("[::1]:9443", Some(front("[::1]:9444"))),
            ("10.0.0.1:1", None),
        ] {
            let place = Place {
                agent: AgentId(Uuid::from_u128(1)),
                cluster: Uuid::from_u128(2),
                collector: collector.parse().unwrap(),
                front,
            };
            assert_eq!(Place::parse(&place.print()).unwrap(), place);
        }
    }

    #[test]
    fn a_wrong_place_says_what_is_wrong() {
        let id = Uuid::nil();
        let good = format!("format = 1\nagent = \"{id}\"\ncluster = \"{id}\"\ncollector = \"c:1\"\n");
        assert!(Place::parse(&good).is_ok());
        for (text, says) in [
            (String::new(), "missing field `format`"),
            (good.replace("format = 1", "format = 2\nnews = true"), "upgrade the agent"),
            (format!("{good}news = true\n"), "unknown field `news`"),
            (format!("{good}front = \"c:2\"\n"), "belong together"),
            (format!("{good}front = \"c:2\"\nfront_pin = \"é5\"\n"), "`front_pin` is not 64 hex digits"),
            (good.replace("agent = \"0", "agent = \"x"), "`agent` is not a uuid"),
            (good.replace("cluster = \"0", "cluster = \"x"), "`cluster` is not a uuid"),
            (good.replace("c:1", "c"), "names no port"),
            (good[..good.len() - 4].to_owned(), "string"),
        ] {
            let error = Place::parse(&text).unwrap_err().to_string();
            assert!(error.contains(says), "{says}: {error}");
        }
    }
}
