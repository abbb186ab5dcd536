//! Hosts.

use tocsin_shared::host::Host;

use super::{InvalidMessage, Number, labels_in, labels_out, maybe_digest, parse, time, time_in, time_out};
use crate::pb;

impl From<&Host> for pb::Host {
    fn from(host: &Host) -> Self {
        let Host {
            agent,
            instance,
            env,
            labels,
            state,
            enrolled_at,
            state_since,
            last_seen,
            agent_version,
            boot_id,
            clock_offset_ms,
            facts,
            recovered_at,
            recovery_until,
            bundle_sha256,
        } = host;
        Self {
            agent: agent.to_string(),
            instance: instance.clone(),
            env: env.number(),
            labels: labels_out(labels),
            state: state.number(),
            enrolled_at_ms: enrolled_at.as_millis(),
            state_since_ms: state_since.as_millis(),
            last_seen_ms: time_out(*last_seen),
            agent_version: agent_version.clone(),
            boot_id: boot_id.clone(),
            clock_offset_ms: *clock_offset_ms,
            facts: labels_out(facts),
            recovered_at_ms: time_out(*recovered_at),
            recovery_until_ms: time_out(*recovery_until),
            bundle_sha256: bundle_sha256.map(|digest| digest.to_vec()).unwrap_or_default(),
        }
    }
}

impl TryFrom<pb::Host> for Host {
    type Error = InvalidMessage;
    fn try_from(host: pb::Host) -> Result<Self, InvalidMessage> {
        let pb::Host {
            agent,
            instance,
            env,
            labels,
            state,
            enrolled_at_ms,
            state_since_ms,
            last_seen_ms,
            agent_version,
            boot_id,
            clock_offset_ms,
            facts,
            recovered_at_ms,
            recovery_until_ms,
            bundle_sha256,
        } = host;
        Ok(Self {
            agent: parse("host.agent", &agent)?,
            instance,
            env: Number::from_number(env)?,
            labels: labels_in(labels),
            state: Number::from_number(state)?,
            enrolled_at: time(enrolled_at_ms),
            state_since: time(state_since_ms),
            last_seen: time_in(last_seen_ms),
            agent_version,
            boot_id,
            clock_offset_ms,
            facts: labels_in(facts),
            recovered_at: time_in(recovered_at_ms),
            recovery_until: time_in(recovery_until_ms),
            bundle_sha256: maybe_digest("host.bundle_sha256", bundle_sha256)?,
        })
    }
}
