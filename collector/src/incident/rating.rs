//! How bad an incident is, and how long somebody may take to handle it.

use std::time::Duration;

use tocsin_shared::identity::Env;
use tocsin_shared::incident::{Incident, Level, Priority};
use tocsin_shared::severity::Severity;

use crate::state::Defaults;

/// Impact until someone knows better.
const IMPACT: Level = Level::Medium;

/// How urgent: only production is more than low.
pub(super) fn urgency(env: Env, severity: Severity) -> Level {
    match (env, severity) {
        (Env::Prod, Severity::Critical | Severity::Error) => Level::High,
        (Env::Prod, Severity::Warning) => Level::Medium,
        (Env::Prod, Severity::Info) | (Env::Uat | Env::Dr | Env::Test, _) => Level::Low,
    }
}

/// Sets what follows from environment and severity.
pub(super) fn rate(incident: &mut Incident, severity: Severity) {
    incident.severity = severity;
    incident.impact = IMPACT;
    incident.urgency = urgency(incident.env, severity);
    incident.priority = Priority::from_matrix(incident.impact, incident.urgency);
    incident.pages = incident.env == Env::Prod && incident.urgency == Level::High;
}

/// How long an acknowledgement lasts.
pub(super) fn ack_lasts(config: &Defaults, priority: Priority) -> Duration {
    match priority.number() {
        1 => config.ack_lasts[0],
        2 => config.ack_lasts[1],
        _ => config.ack_lasts[2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing;

    #[test]
    fn only_production_pages() {
        for (env, severity, urgency, priority, pages) in [
            (Env::Prod, Severity::Critical, Level::High, 2, true),
            (Env::Prod, Severity::Error, Level::High, 2, true),
            (Env::Prod, Severity::Warning, Level::Medium, 3, false),
            (Env::Prod, Severity::Info, Level::Low, 4, false),
            (Env::Uat, Severity::Critical, Level::Low, 4, false),
            (Env::Dr, Severity::Critical, Level::Low, 4, false),
            (Env::Test, Severity::Error, Level::Low, 4, false),
        ] {
            let mut incident = testing::incident(1, "key");
            incident.env = env;
            rate(&mut incident, severity);
            let got = (incident.urgency, incident.priority.number(), incident.pages);
            assert_eq!(got, (urgency, priority, pages), "{env} {severity}");
        }
    }

    #[test]
    fn acknowledgements_last_as_long_as_the_priority_allows() {
        for (number, minutes) in [(1, 30), (2, 120), (3, 480), (5, 480)] {
            let priority = Priority::from_number(number).unwrap();
            let expected = Duration::from_secs(60 * minutes);
            assert_eq!(ack_lasts(&Defaults::default(), priority), expected, "P{number}");
        }
    }
}
