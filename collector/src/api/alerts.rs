//! Alerts: those that are true from the ledger, those that were from the store.

use std::cmp::{Ordering, Reverse};
use std::collections::HashSet;

use tocsin_proto::pb;
use tocsin_proto::pb::alert_service_server::AlertService;
use tocsin_shared::alert::{Alert, Condition};
use tonic::{Request, Response, Status};

use super::{Api, limit};

/// What a list gives unless asked for another number, and at most.
const LISTED: usize = 1_000;
const LISTED_MAX: usize = 10_000;

#[tonic::async_trait]
impl AlertService for Api {
    async fn list_alerts(
        &self,
        request: Request<pb::ListAlertsRequest>,
    ) -> Result<Response<pb::ListAlertsResponse>, Status> {
        let pb::ListAlertsRequest { include_pending, include_resolved, limit: asked } = request.into_inner();
        let wanted = limit(asked, LISTED, LISTED_MAX);
        let active = self.read(|state| state.active_alerts().cloned().collect::<Vec<_>>()).await?;
        let keys: HashSet<String> = active.iter().map(|alert| alert.dedup_key.clone()).collect();
        let mut shown: Vec<Alert> =
            active.into_iter().filter(|a| include_pending || a.condition == Condition::Firing).collect();
        shown.sort_by(urgent_first);
        shown.truncate(wanted);
        let mut alerts: Vec<pb::Alert> = shown.iter().map(pb::Alert::from).collect();
        if include_resolved && alerts.len() < wanted {
            let resolved = self.stored(move |store| store.resolved_alerts(wanted)).await?;
            // The store is a moment behind: what fires again is active, not resolved.
            alerts.extend(resolved.into_iter().filter(|alert| !keys.contains(&alert.dedup_key)));
            alerts.truncate(wanted);
        }
        Ok(Response::new(pb::ListAlertsResponse { alerts }))
    }
}

/// Firing before pending, the worst first, then the newest.
pub(super) fn urgent_first(a: &Alert, b: &Alert) -> Ordering {
    let rank = |alert: &Alert| {
        let newest = Reverse(alert.fired_at.unwrap_or(alert.active_since));
        (alert.condition != Condition::Firing, Reverse(alert.severity), newest)
    };
    rank(a).cmp(&rank(b)).then_with(|| a.dedup_key.cmp(&b.dedup_key))
}

#[cfg(test)]
mod tests {
    use tocsin_shared::severity::Severity;

    use super::super::testing::{Collector, call};
    use super::*;
    use crate::state::testing::{self, at};

    #[test]
    fn the_most_urgent_comes_first() {
        let alert = |key: &str, condition, severity, fired: i64| Alert {
            condition,
            severity,
            fired_at: (condition == Condition::Firing).then_some(at(fired)),
            active_since: at(fired),
            ..testing::alert(key)
        };
        use {Condition::*, Severity::*};
        let sorted = [
            alert("a", Firing, Critical, 9),
            alert("b", Firing, Critical, 1),
            alert("c", Firing, Warning, 20),
            alert("d", Pending, Critical, 30),
            alert("e", Pending, Info, 40),
        ];
        let mut alerts = sorted.to_vec();
        alerts.reverse();
        alerts.sort_by(urgent_first);
        assert_eq!(alerts, sorted);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn lists_hold_what_was_asked_for() {
        let collector = Collector::start().await;
        collector.fires("one", 0, &["sda"]).await;
        collector.fires("two", 0, &["sdb"]).await;
        collector.fires("slow", 600, &["sdc"]).await;
        let events = collector.fires("two", 0, &[]).await;
        collector.api.stored_through(&events).await;
        use pb::Condition::{Firing, Pending, Resolved};
        for (include_pending, include_resolved, limit, expected) in [
            (false, false, 0, &[Firing][..]),
            (true, false, 0, &[Firing, Pending]),
            (true, true, 0, &[Firing, Pending, Resolved]),
            (false, true, 0, &[Firing, Resolved]),
            (true, true, 2, &[Firing, Pending]),
        ] {
            let request = pb::ListAlertsRequest { include_pending, include_resolved, limit };
            let alerts = collector.api.list_alerts(call(request)).await.unwrap().into_inner().alerts;
            let conditions: Vec<_> = alerts.iter().map(pb::Alert::condition).collect();
            assert_eq!(conditions, expected);
        }
        collector.stop().await;
    }
}
