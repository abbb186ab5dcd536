//! What ends if nobody looks after it: the collector's own certificates, as alerts about no host.
//!
//! A certificate is renewed at half of its life. With a quarter left that has failed for a long time and somebody is
//! told; with a tenth left it is critical. A new certificate ends the alert.

use tocsin_shared::labels::Labels;
use tocsin_shared::severity::Severity;
use tocsin_shared::time::Timestamp;

use super::decide::Decision;
use super::own::Own;

/// The source of the alerts; which certificate it is tells them apart.
const EXPIRING: &str = "collector/certificate";

/// How bad it is that a certificate of this validity is still in use at `now`.
pub(crate) fn urgency(from: Timestamp, to: Timestamp, now: Timestamp) -> Option<Severity> {
    let (life, left) = (to.since(from), to.since(now));
    if left * 10 <= life {
        Some(Severity::Critical)
    } else if left * 4 <= life {
        Some(Severity::Warning)
    } else {
        None
    }
}

/// A certificate of the collector's was looked at: `which` of them, and its validity. Each degree is an alert of its
/// own within one incident, so that the worse one is told, too.
pub(super) fn certificate_seen(d: &mut Decision<'_>, which: &str, from: Timestamp, to: Timestamp) {
    let urgency = urgency(from, to, d.now);
    let summary = format!("the collector's certificate for {which} ends at {to} and is not renewed");
    for severity in [Severity::Warning, Severity::Critical] {
        let own = Own {
            source: EXPIRING,
            alertname: "CertificateExpiring",
            identity: Labels::new([("certificate", which), ("severity", severity.as_str())]),
            severity,
            instance: None,
            look_first: None,
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
    fn a_certificate_that_is_not_renewed_is_told_twice_and_then_over() {
        let mut desk = Desk::default();
        let seen = |to| Command::CertificateSeen { which: "front".into(), from: at(to - 1_000), to: at(to) };
        for (now, to, expected, why) in [
            (500, 1_000, &[""; 0][..], "half of its life: it is being renewed"),
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
}
