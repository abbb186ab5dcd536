//! `identity.toml`: who this agent is, and where its collector listens.
//!
//! Pure. A file of a newer format is refused, never guessed at.

use serde::Deserialize;
use tocsin_proto::connect::{Endpoint, InvalidEndpoint};
use tocsin_shared::certificate::AgentUri;
use tocsin_shared::identity::AgentId;
use uuid::Uuid;

/// The version of the file's format.
const FORMAT: u32 = 1;

/// Who the agent is and where its collector is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub agent: AgentId,
    pub cluster: Uuid,
    pub collector: Endpoint,
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
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlace {
    #[serde(rename = "format")]
    _format: u32,
    agent: String,
    cluster: String,
    collector: String,
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
        let RawPlace { _format, agent, cluster, collector } = toml::from_str(text).map_err(toml)?;
        let id = |field, text: String| Uuid::try_parse(&text).map_err(|_| InvalidPlace::Id { field, text });
        Ok(Self {
            agent: AgentId(id("agent", agent)?),
            cluster: id("cluster", cluster)?,
            collector: collector.parse()?,
        })
    }

    /// Writes what `parse` reads. None of the values can hold a quote.
    pub fn print(&self) -> String {
        let Self { agent, cluster, collector } = self;
        format!(
            "# Written by tocsin-agent at enrolment. Only `collector` may be changed by hand.\n\
             format = {FORMAT}\nagent = \"{agent}\"\ncluster = \"{cluster}\"\ncollector = \"{collector}\"\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_and_writes() {
        for collector in ["collector.example.com:9443", "[::1]:9443", "10.0.0.1:1"] {
            let place = Place {
                agent: AgentId(Uuid::from_u128(1)),
                cluster: Uuid::from_u128(2),
                collector: collector.parse().unwrap(),
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
