//! What administrators do, and what is refused to them.

use std::sync::Arc;

use tocsin_shared::labels::Labels;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::super::testing::{Collector, call};
use super::*;
use crate::evaluate::plan::Plan;
use crate::rules::{RuleSet, parse_file};
use crate::state::testing::{agent, at};

// Cases: C-X5
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_once_and_its_digest_never() {
    let collector = Collector::start().await;
    let api = &collector.api;
    let request = |ttl_ms| pb::CreateTokenRequest {
        env: pb::Env::Uat as i32,
        labels: vec![pb::Label { name: "team".into(), value: "shop".into() }],
        host_pattern: String::new(),
        ttl_ms,
    };
    let before = now();
    let created = api.create_token(call(request(0))).await.unwrap().into_inner();
    let secret: JoinSecret = created.token.parse().unwrap();
    let record = created.record.unwrap();
    assert_eq!((record.id.as_str(), record.host_pattern.as_str()), (secret.id().as_str(), "*"));
    assert_eq!((record.created_by.as_str(), record.env()), ("ann", pb::Env::Uat));
    assert!(record.expires_at_ms >= before.plus(TOKEN_TTL).as_millis());
    assert!(record.expires_at_ms <= now().plus(TOKEN_TTL).as_millis());
    assert_eq!(secret.ca_pin(), api.front.pin());
    let digest = secret.sha256();
    assert!(api.read(move |state| state.token_by_digest(&digest).is_some()).await.unwrap());
    let listed = api.list_tokens(call(pb::ListTokensRequest {})).await.unwrap().into_inner().tokens;
    assert_eq!(listed.len(), 2, "the one that web-1 enrolled with, too");
    assert!(listed.iter().all(|token| token.secret_sha256.is_empty()));

    let day = 24 * 3_600_000;
    api.create_token(call(request(day))).await.unwrap();
    let no_env = pb::CreateTokenRequest { env: 0, ..request(0) };
    for refused in [request(day + 1), no_env] {
        assert_eq!(api.create_token(call(refused)).await.unwrap_err().code(), Code::InvalidArgument);
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_merged_and_go_over_the_samples() {
    let collector = Collector::start().await;
    let api = &collector.api;
    let table: Arc<[Labels]> = [Labels::series("up", &[])].into();
    api.samples.append(agent(1), &table, at(0), &[1.0]).unwrap();
    let label = |name: &str, pairs: &[(&str, &str)]| {
        let labels = pairs.iter().map(|(n, v)| pb::Label { name: (*n).into(), value: (*v).into() });
        call(pb::LabelHostRequest { name: name.into(), labels: labels.collect() })
    };
    for (name, pairs, expected) in [
        ("web-1", &[("rack", "r1")][..], r#"{rack="r1", team="shop"}"#),
        (&agent(1).to_string(), &[("team", ""), ("rack", "r2")], r#"{rack="r2"}"#),
        ("web-1", &[], r#"{rack="r2"}"#),
    ] {
        let host = api.label_host(label(name, pairs)).await.unwrap().into_inner().host.unwrap();
        assert_eq!(labels_in(host.labels).to_string(), expected);
    }
    let wanted =
        |labels: &Labels| labels.get("rack") == Some("r2") && labels.get("instance") == Some("web-1");
    let wanted = crate::samples::Wanted { equals: &[("rack", "r2")], matches: &wanted };
    assert_eq!(api.samples.view().series(&wanted, (at(-1), at(1))).len(), 1);
    for (name, pairs, code) in [
        ("web-2", &[("rack", "r1")][..], Code::NotFound),
        ("web-1", &[("env", "test")], Code::InvalidArgument),
    ] {
        assert_eq!(api.label_host(label(name, pairs)).await.unwrap_err().code(), code);
    }
    collector.stop().await;
}

// Cases: I8
#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_revoked_and_retired() {
    let collector = Collector::start().await;
    let api = &collector.api;
    let session = || {
        let end = CancellationToken::new();
        api.presence.begin(agent(1), 1, end.clone(), std::time::Instant::now(), at(0));
        end
    };
    let end = session();
    let name = || "web-1".to_owned();
    for expected in [1, 0] {
        let request = call(pb::RevokeHostRequest { name: name() });
        assert_eq!(api.revoke_host(request).await.unwrap().into_inner().revoked, expected);
    }
    assert!(end.is_cancelled());
    collector.fires("one", 0, &["sda"]).await;
    let end = session();
    let retired = api.retire_host(call(pb::RetireHostRequest { name: name() })).await.unwrap().into_inner();
    assert_eq!(retired.host.unwrap().state(), pb::HostState::Retired);
    assert!(end.is_cancelled());
    let status = api.get_status(call(pb::GetStatusRequest {})).await.unwrap().into_inner();
    assert_eq!((status.hosts, status.alerts_firing), (vec![0, 0, 0, 1], 0));
    let again = api.retire_host(call(pb::RetireHostRequest { name: name() })).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound, "its name is free");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn principals_come_and_go() {
    let collector = Collector::start().await;
    let api = &collector.api;
    let create = |name: &str, role: pb::Role| {
        call(pb::CreatePrincipalRequest { name: name.into(), role: role as i32, ttl_ms: 0 })
    };
    let created = api.create_principal(create("pager", pb::Role::Consumer)).await.unwrap().into_inner();
    let credential: Credential = created.credential.parse().unwrap();
    let registry = api.ledger.registry();
    assert_eq!(registry.principal(&credential.sha256(), now()), Some(("pager", Role::Consumer)));
    for (name, role, code) in [
        ("pager", pb::Role::Viewer, Code::AlreadyExists),
        ("Not A Name", pb::Role::Viewer, Code::InvalidArgument),
        ("kim", pb::Role::Unspecified, Code::InvalidArgument),
    ] {
        assert_eq!(api.create_principal(create(name, role)).await.unwrap_err().code(), code, "{name}");
    }
    let listed = api.list_principals(call(pb::ListPrincipalsRequest {})).await.unwrap().into_inner();
    let names: Vec<_> = listed.principals.iter().map(|principal| principal.name.as_str()).collect();
    assert_eq!(names, ["ann", "pager"]);
    assert!(listed.principals.iter().all(|principal| principal.secret_sha256.is_empty()));
    let revoke = |name: &str| call(pb::RevokePrincipalRequest { name: name.into() });
    let revoked = api.revoke_principal(revoke("pager")).await.unwrap().into_inner().record.unwrap();
    assert_ne!(revoked.revoked_at_ms, 0);
    assert_eq!(api.ledger.registry().principal(&credential.sha256(), now()), None);
    assert_eq!(api.revoke_principal(revoke("ann")).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(api.revoke_principal(revoke("kim")).await.unwrap_err().code(), Code::NotFound);
    collector.stop().await;
}

// Cases: R2 (partly), C-S5
#[tokio::test(flavor = "multi_thread")]
async fn rules_are_listed_and_read_again() {
    let mut collector = Collector::start().await;
    let text = "groups:\n- name: g\n  rules:\n  - {alert: A, expr: 'up == 0'}\n  - {record: 'r:s', expr: 'sum(up)'}\n";
    let set = RuleSet::new(vec![parse_file("f.yml", text).unwrap()]).unwrap();
    let plan = collector.api.plan.clone();
    collector.api.reload = Arc::new(move || {
        plan.store(Arc::new(Plan::new(1, &set)));
        Ok(2)
    });
    let reload = call(pb::ReloadRulesRequest {});
    assert_eq!(collector.api.reload_rules(reload).await.unwrap().into_inner().rules, 2);
    let rules = collector.api.list_rules(call(pb::ListRulesRequest {})).await.unwrap().into_inner().rules;
    let lines: Vec<_> = rules
        .iter()
        .map(|rule| (&*rule.file, &*rule.group, &*rule.name, &*rule.expr, rule.host_local, rule.recording))
        .collect();
    let expected =
        [("f.yml", "g", "A", "up == 0", true, false), ("f.yml", "g", "r:s", "sum(up)", false, true)];
    assert_eq!(lines, expected);
    collector.api.reload = Arc::new(|| Err("f.yml:3:1: no such key".to_owned()));
    let status = collector.api.reload_rules(call(pb::ReloadRulesRequest {})).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "f.yml:3:1: no such key"));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_tells_how_the_collector_is() {
    let collector = Collector::start().await;
    let api = &collector.api;
    let events = collector.fires("one", 0, &["sda"]).await;
    api.stored_through(&events).await;
    api.about.problems.lock().unwrap().extend(["the disk is slow".to_owned()]);
    api.projection
        .problems
        .lock()
        .unwrap()
        .extend(["the disk is slow", "the store is new"].map(str::to_owned));
    let status = api.get_status(call(pb::GetStatusRequest {})).await.unwrap().into_inner();
    assert_eq!((&*status.version, &*status.cluster_id), ("1.2.3", "c1"));
    assert_eq!((status.hosts, status.alerts_firing, status.incidents_open), (vec![1, 0, 0, 0], 1, 1));
    assert_eq!(status.events_head, events.last().unwrap().seq);
    assert_eq!(status.store_applied, status.events_head);
    assert_eq!(status.problems, ["the disk is slow", "the store is new"]);
    assert!(status.events_journal_bytes > 0 && status.resident_bytes > 1 << 20);
    collector.stop().await;
}

// Cases: I6, C-X6
#[tokio::test]
async fn a_rotation_is_durable_names_who_is_left_behind_and_can_be_repeated() {
    let collector = Collector::start().await;
    let api = &collector.api;
    let states = |status: &pb::AuthorityStatus| -> Vec<&'static str> {
        status
            .authorities
            .iter()
            .map(|a| a.state().as_str_name().trim_start_matches("AUTHORITY_STATE_"))
            .collect()
    };
    let shown = async |api: &Api| {
        api.get_authority(call(pb::GetAuthorityRequest {})).await.unwrap().into_inner().status.unwrap()
    };
    let first = shown(api).await;
    assert_eq!((states(&first), first.hosts, first.to_renew.len()), (vec!["ISSUING"], 1, 0));
    assert_eq!(first.unreported, ["web-1"]);
    for _ in 0..2 {
        let begun = api.begin_rotation(call(pb::BeginRotationRequest {})).await.unwrap().into_inner().status;
        let begun = begun.unwrap();
        assert_eq!(states(&begun), ["ISSUING", "INCOMING"]);
        assert_eq!(begun.bundle_pem.matches("BEGIN CERTIFICATE").count(), 2);
        assert_eq!(begun.bundle_sha256, tocsin_shared::tls::bundle_sha256(&begun.bundle_pem).unwrap());
        assert!(begun.switch_from_ms > now().as_millis());
    }
    for (strand, says) in [(None, "1 of the hosts have not reported"), (Some(2), "which is 1: web-1")] {
        let refused = api.switch_rotation(call(pb::SwitchRotationRequest { strand })).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains(says), "{refused}");
    }
    let switched = pb::SwitchRotationRequest { strand: Some(1) };
    let switched = api.switch_rotation(call(switched)).await.unwrap().into_inner().status.unwrap();
    assert_eq!(
        (states(&switched), switched.to_renew),
        (vec!["OUTGOING", "ISSUING"], vec!["web-1".to_owned()])
    );
    let refused = api.cancel_rotation(call(pb::CancelRotationRequest {})).await.unwrap_err();
    assert!(refused.message().contains("signs already"), "{refused}");
    let refused = api.begin_rotation(call(pb::BeginRotationRequest {})).await.unwrap_err();
    assert!(refused.message().contains("`tocsin authority rotate finish` first"), "{refused}");
    for strand in [Some(1), None] {
        let finish = pb::FinishRotationRequest { strand };
        let finished = api.finish_rotation(call(finish)).await.unwrap().into_inner().status.unwrap();
        assert_eq!(states(&finished), ["RETIRED", "ISSUING"]);
    }
    let collector = collector.restart().await;
    let again = shown(&collector.api).await;
    assert_eq!((states(&again), again.cluster_id), (vec!["RETIRED", "ISSUING"], first.cluster_id));
    assert_eq!(collector.api.authorities.current().number, 2);
    let begun = collector.api.begin_rotation(call(pb::BeginRotationRequest {})).await.unwrap();
    assert_eq!(states(&begun.into_inner().status.unwrap()), ["RETIRED", "ISSUING", "INCOMING"]);
    let cancelled = collector.api.cancel_rotation(call(pb::CancelRotationRequest {})).await.unwrap();
    assert_eq!(states(&cancelled.into_inner().status.unwrap()), ["RETIRED", "ISSUING", "RETIRED"]);
    collector.stop().await;
}
