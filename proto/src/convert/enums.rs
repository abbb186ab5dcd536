//! The enums: a table each. Zero, and a number this version does not know, are refused.

use tocsin_shared::access::{AuthorityState, Role};
use tocsin_shared::alert::{AlertSource, Condition, ResolveReason};
use tocsin_shared::event::LossState;
use tocsin_shared::host::HostState;
use tocsin_shared::identity::Env;
use tocsin_shared::incident::{IncidentStatus, Level};
use tocsin_shared::lane::Lane;
use tocsin_shared::severity::Severity;

use super::InvalidMessage;
use crate::pb;

macro_rules! enums {
    ($($domain:ident: $($variant:ident),+;)*) => {$(
        impl From<$domain> for pb::$domain {
            fn from(value: $domain) -> Self {
                match value { $($domain::$variant => Self::$variant,)+ }
            }
        }

        impl TryFrom<pb::$domain> for $domain {
            type Error = InvalidMessage;
            fn try_from(value: pb::$domain) -> Result<Self, InvalidMessage> {
                match value {
                    $(pb::$domain::$variant => Ok(Self::$variant),)+
                    pb::$domain::Unspecified => Err(InvalidMessage::new(stringify!($domain), "not given")),
                }
            }
        }

        impl Number for $domain {
            fn number(self) -> i32 {
                pb::$domain::from(self) as i32
            }

            fn from_number(number: i32) -> Result<Self, InvalidMessage> {
                pb::$domain::try_from(number)
                    .map_err(|error| InvalidMessage::new(stringify!($domain), error))?
                    .try_into()
            }
        }
    )*};
}

/// An enum as the number that a message holds.
pub trait Number: Sized {
    /// The wire's number.
    fn number(self) -> i32;
    /// From the wire's number.
    fn from_number(number: i32) -> Result<Self, InvalidMessage>;
}

enums! {
    Env: Prod, Uat, Dr, Test;
    Severity: Info, Warning, Error, Critical;
    Level: High, Medium, Low;
    Lane: Outcomes, State, Samples;
    HostState: Pending, Online, Unreachable, Retired;
    Condition: Pending, Firing, Resolved, Inactive;
    ResolveReason: Source, RuleRemoved, HostRetired;
    AlertSource: Rule, Job, Host;
    LossState: Torn, Covered, Open, Accepted, Restored, Settled, Rewound;
    IncidentStatus: Triggered, Acknowledged, Resolved;
    AuthorityState: Incoming, Issuing, Outgoing, Retired;
    Role: Viewer, Responder, Operator, Admin, Consumer, Writer;
}
