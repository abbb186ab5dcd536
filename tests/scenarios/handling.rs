//! From a breach to its end: on the feed within a second, handled by a person, and only production wakes one.

use std::time::Duration;

use tocsin_proto::pb;
use tocsin_tests::feed::Feed;
use tocsin_tests::site::{SOON, Site};

use crate::RULES;

/// From the tick that breached to the feed.
const PROMISED: Duration = Duration::from_secs(1);

fn of(number: u64) -> impl Fn(&tocsin_tests::feed::Received) -> bool {
    move |received| received.incident().is_some_and(|incident| incident.number == number)
}

// Cases: R15, F10, C-I4
#[tokio::test(flavor = "multi_thread")]
async fn a_breach_is_on_the_feed_within_a_second_and_is_handled_to_its_end() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let feed = Feed::follow(site.credential_file());
    let mut host = site.host("web-1", pb::Env::Prod).await?;
    host.set("scenario_breach", 0.0)?;
    host.start_agent()?;
    feed.wait_for("host.online", SOON, |_| true).await?;

    host.set("scenario_breach", 1.0)?;
    let triggered = feed.wait_for("alert.triggered", SOON, |_| true).await?;
    let late = triggered.at_ms - triggered.event.occurred_at_ms;
    assert!((0..PROMISED.as_millis() as i64).contains(&late), "on the feed {late} ms after the tick");
    let alert = triggered.alert().unwrap();
    let label =
        |name: &str| alert.labels.iter().find(|label| label.name == name).map(|label| label.value.as_str());
    let labels = ["alertname", "instance", "env", "job"].map(label);
    assert_eq!(labels, [Some("Breached"), Some("web-1"), Some("prod"), Some("node")]);
    assert_eq!(alert.annotations[0].value, "web-1 is breached");

    let incident = feed.wait_for("incident.triggered", SOON, |_| true).await?.incident().unwrap().clone();
    assert!(incident.pages, "a critical alert in production pages");
    let number = incident.number;
    let note = "looking at it".to_owned();
    site.api.incidents().acknowledge(pb::AcknowledgeRequest { number, note, expected_rev: 0 }).await?;
    let acknowledged = feed.wait_for("incident.acknowledged", SOON, of(number)).await?;
    assert!(acknowledged.incident().unwrap().ack.is_some());

    let stale =
        pb::ResolveRequest { number, code: "fixed".into(), text: String::new(), expected_rev: incident.rev };
    let refused = site.api.incidents().resolve(stale).await.unwrap_err();
    assert!(refused.message().contains("rev") || refused.code() == tonic::Code::Aborted, "{refused}");

    host.set("scenario_breach", 0.0)?;
    feed.wait_for("alert.resolved", SOON, |_| true).await?;
    feed.wait_for("incident.resolved", SOON, of(number)).await?;
    in_order(&feed, number);
    Ok(())
}

/// Positions increase, and what is said of one incident or one alert is counted without a gap.
fn in_order(feed: &Feed, number: u64) {
    let received = feed.received();
    assert!(received.is_sorted_by(|a, b| a.event.seq < b.event.seq), "the feed is in order");
    let incident: Vec<u64> = received
        .iter()
        .filter_map(|received| received.incident())
        .filter(|incident| incident.number == number)
        .map(|incident| incident.key_seq)
        .collect();
    assert_eq!(incident, (1..=incident.len() as u64).collect::<Vec<_>>(), "the incident's own count");
    let alert: Vec<u64> =
        received.iter().filter_map(|received| received.alert()).map(|alert| alert.key_seq).collect();
    assert_eq!(alert, [1, 2], "the alert's own count");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_outside_production_wakes_nobody() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let feed = Feed::follow(site.credential_file());
    let mut host = site.host("uat-1", pb::Env::Uat).await?;
    host.set("scenario_breach", 1.0)?;
    host.start_agent()?;
    let triggered = feed.wait_for("incident.triggered", SOON, |_| true).await?;
    let incident = triggered.incident().unwrap();
    assert_eq!((incident.env, incident.pages), (pb::Env::Uat as i32, false));
    Ok(())
}

// Cases: F10, C-I2
#[tokio::test(flavor = "multi_thread")]
async fn a_person_resolves_what_has_ended_and_the_timeline_tells_it() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let feed = Feed::follow(site.credential_file());
    let mut host = site.host("web-1", pb::Env::Prod).await?;
    host.set("scenario_breach", 1.0)?;
    host.start_agent()?;
    let number = feed.wait_for("incident.triggered", SOON, |_| true).await?.incident().unwrap().number;
    let mut incidents = site.api.incidents();
    incidents.acknowledge(pb::AcknowledgeRequest { number, ..Default::default() }).await?;
    incidents.add_note(pb::AddNoteRequest { number, text: "restarted it".into() }).await?;
    let resolve =
        pb::ResolveRequest { number, code: "workaround".into(), text: "restart".into(), expected_rev: 0 };
    incidents.resolve(resolve).await?;
    let answer = incidents.get_incident(pb::GetIncidentRequest { number }).await?.into_inner();
    let kinds: Vec<&str> = answer.timeline.iter().map(|event| event.kind.as_str()).collect();
    let incident = |kind: &&&str| kind.starts_with("incident.");
    let said: Vec<&&str> = kinds.iter().filter(incident).collect();
    assert_eq!(
        said,
        [&"incident.triggered", &"incident.acknowledged", &"incident.noted", &"incident.resolved"]
    );
    assert_eq!(
        answer.incident.and_then(|incident| incident.resolution).map(|end| end.code),
        Some("workaround".into())
    );
    Ok(())
}

// Cases: R1, R2, C-S5
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_rule_file_is_refused_and_the_old_rules_stay_in_force() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let feed = Feed::follow(site.credential_file());
    let mut host = site.host("web-1", pb::Env::Prod).await?;
    host.set("scenario_breach", 0.0)?;
    host.start_agent()?;
    feed.wait_for("host.online", SOON, |_| true).await?;
    let in_force = async || {
        let rules = site.api.admin().list_rules(pb::ListRulesRequest {}).await?.into_inner().rules;
        anyhow::Ok(rules.into_iter().map(|rule| rule.name).collect::<Vec<_>>())
    };
    let reload = async || site.api.admin().reload_rules(pb::ReloadRulesRequest {}).await;

    // The good half of a broken file counts as little as the broken one.
    let renamed = RULES.replace("Breached", "Renamed");
    std::fs::write(
        site.dir().join("rules.yml"),
        format!("{renamed}      - alert: Broken\n        expr: sum(((up\n"),
    )?;
    let refused = reload().await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("rules.yml"), "{refused}");
    assert_eq!(in_force().await?, ["Breached"]);
    host.set("scenario_breach", 1.0)?;
    let triggered = feed.wait_for("alert.triggered", SOON, |_| true).await?;
    let name = |received: &tocsin_tests::feed::Received| {
        let labels = received.alert().map(|alert| alert.labels.clone()).unwrap_or_default();
        labels.into_iter().find(|label| label.name == "alertname").map(|label| label.value)
    };
    assert_eq!(name(&triggered).as_deref(), Some("Breached"), "evaluated by the old rules");

    std::fs::write(site.dir().join("rules.yml"), renamed)?;
    assert_eq!(reload().await?.into_inner().rules, 1);
    assert_eq!(in_force().await?, ["Renamed"]);
    let resolved = feed.wait_for("alert.resolved", SOON, |_| true).await?;
    assert_eq!(name(&resolved).as_deref(), Some("Breached"));
    let ended = feed.wait_for("incident.resolved", SOON, |_| true).await?;
    let resolution = ended.incident().and_then(|incident| incident.resolution.clone());
    assert_eq!(resolution.map(|resolution| resolution.code).as_deref(), Some("rule_removed"));
    feed.wait_for("alert.triggered", SOON, move |received| name(received).as_deref() == Some("Renamed"))
        .await?;
    Ok(())
}
