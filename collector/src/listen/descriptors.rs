//! ⇄ How many connections the process's descriptors allow, and what people are told when they allow fewer.
//!
//! The soft limit is raised as far as the hard one lets it, and no further than is of use. What is left beside the
//! collector's files is shared by the two listeners in proportion.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::Limits;

/// Descriptors that are not for connections: journals, blocks, the store, the local listener.
const FILES: u64 = 64;
/// Connections of a listener even where there are hardly any descriptors.
const CONNECTIONS_MIN: u64 = 8;

/// The limits of both listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doors {
    pub agents: Limits,
    pub front: Limits,
}

impl Doors {
    /// As many connections as the process may have, after its own limit was raised; says so when that is few.
    pub fn within_descriptors(self) -> Self {
        let wanted = self.wanted();
        let descriptors = raise(wanted);
        let within = self.within(descriptors);
        if within != self {
            tracing::warn!(
                descriptors,
                agents = within.agents.connections,
                others = within.front.connections,
                "the limit of open files is low: more connections are turned away; {wanted} are enough (`LimitNOFILE=` of the service, `ulimit -n` of a shell)"
            );
        }
        within
    }

    fn wanted(&self) -> u64 {
        (self.agents.connections + self.front.connections) as u64 + FILES
    }

    /// What so many descriptors allow.
    pub(super) fn within(self, descriptors: u64) -> Self {
        if descriptors >= self.wanted() {
            return self;
        }
        let all = self.wanted() - FILES;
        let share = |limits: Limits| {
            let wanted = limits.connections as u64;
            let share = descriptors.saturating_sub(FILES) * wanted / all.max(1);
            let connections = share.max(CONNECTIONS_MIN).min(wanted);
            Limits { connections: usize::try_from(connections).unwrap_or(usize::MAX), ..limits }
        };
        Self { agents: share(self.agents), front: share(self.front) }
    }
}

/// Raises the soft limit to `wanted` if the hard one allows it; how many there are.
fn raise(wanted: u64) -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return u64::MAX };
    let better = wanted.min(hard);
    if soft >= better {
        return soft;
    }
    match setrlimit(Resource::RLIMIT_NOFILE, better, hard) {
        Ok(()) => better,
        Err(error) => {
            tracing::debug!(%error, soft, better, "the limit of open files cannot be raised");
            soft
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Cases: C10
    #[test]
    fn connections_leave_descriptors_to_files_and_to_the_other_listener() {
        let of = |connections| Limits { connections, ..Limits::default() };
        let doors = Doors { agents: of(12_000), front: of(2_000) };
        for (descriptors, agents, front) in [
            (1_048_576, 12_000, 2_000),
            (14_064, 12_000, 2_000),
            (14_063, 11_999, 1_999),
            (1_024, 822, 137),
            (100, 30, 8),
            (64, 8, 8),
            (0, 8, 8),
        ] {
            let within = doors.within(descriptors);
            let connections = (within.agents.connections, within.front.connections);
            assert_eq!(connections, (agents, front), "{descriptors}");
        }
    }

    // Cases: C10
    #[test]
    fn the_soft_limit_is_raised_and_never_lowered() {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(raise(1), soft);
        let more = (soft + 1).min(hard);
        assert_eq!(raise(more), more);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (more, hard));
        assert_eq!(raise(u64::MAX), hard);
    }
}
