//! What ends if nobody looks after it: the collector's own certificates and its authority, as alerts about no host.
//!
//! A certificate is renewed at half of its life: with less left that has failed, and it is said, without an incident.
//! With a quarter left somebody is told; with a tenth left it is critical. A new certificate ends the alert. Nobody
//! renews the authority but people: its alert says how.

use tocsin_shared::labels::Labels;
use tocsin_shared::severity::Severity;
use tocsin_shared::time::Timestamp;

use super::decide::Decision;
use super::own::Own;

/// The name under which the authority is looked at.
pub(crate) const AUTHORITY: &str = "authority";

/// The source of the alerts; which certificate it is tells them apart.
const EXPIRING: &str = "collector/certificate";

/// How bad it is that a certificate of this validity is still in use at `now`.
pub(crate) fn urgency(from: Timestamp, to: Timestamp, now: Timestamp) -> Option<Severity> {
    let (life, left) = (to.since(from), to.since(now));
    if left * 10 <= life {
        Some(Severity::Critical)
    } else if left * 4 <= life {
        Some(Severity::Warning)
    } else if left * 2 < life {
        Some(Severity::Info)
    } else {
        None
    }
}

/// A certificate of the collector's was looked at: `which` of them, and its validity. Each degree is an alert of its
/// own within one incident, so that the worse one is told, too.
pub(super) fn certificate_seen(d: &mut Decision<'_>, which: &str, from: Timestamp, to: Timestamp) {
    let urgency = urgency(from, to, d.now);
    let (summary, look_first) = match which {
        AUTHORITY => (
            format!("the certificate authority ends at {to}, and with it all that it signed"),
            "`tocsin authority rotate begin` puts a new one beside it; `tocsin authority show` says what is next",
        ),
        which => (
            format!("the collector's certificate for {which} ends at {to} and is not renewed"),
            "the collector's log: why the certificate could not be renewed or read",
        ),
    };
    for severity in [Severity::Info, Severity::Warning, Severity::Critical] {
        let own = Own {
            source: EXPIRING,
            alertname: "CertificateExpiring",
            identity: Labels::new([("certificate", which), ("severity", severity.as_str())]),
            severity,
            instance: None,
            look_first: Some(look_first),
        };
        own.stands(d, urgency.filter(|urgency| *urgency >= severity).map(|_| summary.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Command;
    use crate::state::testing::{Desk, at};

    // Cases: I7
    #[test]
    fn a_certificate_that_is_not_renewed_is_told_three_times_and_then_over() {
        let mut desk = Desk::default();
        let seen = |to| Command::CertificateSeen { which: "front".into(), from: at(to - 1_000), to: at(to) };
        for (now, to, expected, why) in [
            (500, 1_000, &[""; 0][..], "half of its life: it is being renewed"),
            (501, 1_000, &["alert.triggered"], "less than half: said, and no incident"),
            (749, 1_000, &[], "more than a quarter left"),
            (750, 1_000, &["alert.triggered", "incident.triggered"], "a quarter left"),
            (751, 1_000, &[], "told once"),
            (900, 1_000, &["alert.triggered"], "a tenth left"),
            (950, 1_000, &[], "told once"),
            (2_000, 1_000, &[], "over"),
            (2_001, 3_000, &["alert.resolved", "incident.updated"], "a new one"),
            (2_002, 3_000, &[], "all is well"),
        ] {
            desk.now = now;
            let told = desk.done(seen(to));
            assert_eq!(told.first(), expected.first(), "{why}: {told:?}");
        }
        assert_eq!(desk.incident(1).severity, Severity::Critical);
    }

    // Cases: I7
    #[test]
    fn the_authority_says_how_it_is_replaced() {
        let mut desk = Desk::default();
        desk.now = 600;
        let seen = |to| Command::CertificateSeen { which: AUTHORITY.into(), from: at(0), to: at(to) };
        assert_eq!(desk.done(seen(1_000)), ["alert.triggered"]);
        let alert = desk.state.active_alerts().next().unwrap();
        assert_eq!((alert.severity, alert.opens_incident), (Severity::Info, false));
        let advice = alert.annotations.get("look_first").unwrap_or_default();
        assert!(advice.contains("tocsin authority rotate begin"), "{advice}");
        assert_eq!(desk.done(seen(100_000)), ["alert.resolved"], "another one signs");
    }
}
