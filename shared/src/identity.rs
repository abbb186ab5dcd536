//! Who is who: agents, their spools' epochs, and the environments hosts belong to.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// An agent, as its certificate names it. Issued by the collector at enrolment, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId(pub Uuid);

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for AgentId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(text).map(Self)
    }
}

/// One life of a spool directory: 128 random bits drawn when it is created. Sequence numbers are dense within one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub Uuid);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

/// The environment a host serves. Every host has one; only `Prod` can page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Env {
    Prod,
    Uat,
    Dr,
    Test,
}

impl Env {
    /// Every environment, in the order people list them.
    pub const ALL: [Self; 4] = [Self::Prod, Self::Uat, Self::Dr, Self::Test];

    /// The value of the `env` label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prod => "prod",
            Self::Uat => "uat",
            Self::Dr => "dr",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is not an environment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an environment: {0:?}; it is one of prod, uat, dr, test")]
pub struct InvalidEnv(String);

impl FromStr for Env {
    type Err = InvalidEnv;
    fn from_str(text: &str) -> Result<Self, InvalidEnv> {
        Self::ALL.into_iter().find(|env| env.as_str() == text).ok_or_else(|| InvalidEnv(text.into()))
    }
}
