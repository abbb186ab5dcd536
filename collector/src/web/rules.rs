//! The rules in force with what they say now, and every alert that is pending or firing.

use std::collections::HashMap;

use axum::extract::{Request, State};
use axum::response::Response;
use tocsin_promql::Selector;
use tocsin_shared::alert::{Alert, AlertSource, Condition};
use tocsin_shared::labels::Labels;

use super::answer;
use super::call::refused;
use super::failure::Failure;
use super::json::{Json, exponent};
use super::parameters::{Asked, invalid};
use crate::api::Api;
use crate::evaluate::plan::{Plan, Planned};
use crate::evaluate::statistics::GroupStanding;
use crate::rules::RuleKind;

/// What Prometheus writes for a time that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// `/api/v1/alerts`: of rules, jobs and hosts alike.
pub(super) async fn alerts(State(api): State<Api>) -> Result<Response, Failure> {
    let mut active = active(&api, |_| true).await?;
    active.sort_by(|a, b| a.active_since.cmp(&b.active_since).then_with(|| a.dedup_key.cmp(&b.dedup_key)));
    let body = answer::of(|json| {
        json.raw("{\"alerts\":");
        write_alerts(json, &active.iter().collect::<Vec<_>>());
        json.raw("}");
    })?;
    Ok(answer::response(body))
}

/// `/api/v1/rules`.
pub(super) async fn rules(State(api): State<Api>, request: Request) -> Result<Response, Failure> {
    let asked = Asked::read(request).await?;
    let wanted = Wanted::read(&asked)?;
    let active = active(&api, |alert| alert.source == AlertSource::Rule).await?;
    let mut by_rule: HashMap<&str, Vec<&Alert>> = HashMap::new();
    for alert in &active {
        by_rule.entry(&alert.source_id).or_default().push(alert);
    }
    let plan = api.plan.load_full();
    let standing = api.statistics.groups();
    let body = answer::of(|json| {
        json.raw("{\"groups\":[");
        json.each(groups(&plan, &wanted), |json, rules: Vec<&Planned>| {
            let at = rules[0].group_at;
            let standing =
                standing.get(at).filter(|s| *s.file == *rules[0].file && *s.group == *rules[0].group);
            write_group(json, &rules, standing, |json, rule| {
                let alerts = by_rule.get(rule.rule.id.as_str()).map_or(&[][..], Vec::as_slice);
                write_rule(json, &api, rule, (alerts, wanted.alerts), standing);
            });
        });
        json.raw("]}");
    })?;
    Ok(answer::response(body))
}

async fn active(api: &Api, wanted: impl Fn(&Alert) -> bool + Send + 'static) -> Result<Vec<Alert>, Failure> {
    let read = api.read(move |state| state.active_alerts().filter(|a| wanted(a)).cloned().collect()).await;
    read.map_err(refused)
}

/// Which rules are listed.
#[derive(Debug, Default)]
struct Wanted {
    /// Alerting rules alone, recording rules alone, or both.
    alerting: Option<bool>,
    names: Vec<String>,
    groups: Vec<String>,
    files: Vec<String>,
    selectors: Vec<Selector>,
    alerts: bool,
}

impl Wanted {
    fn read(asked: &Asked) -> Result<Self, Failure> {
        let texts = |name| asked.all(name).into_iter().map(str::to_owned).collect();
        let alerting = match asked.first("type").map(str::to_lowercase).as_deref() {
            None => None,
            Some("alert") => Some(true),
            Some("record") => Some(false),
            Some(other) => return Err(invalid("type", format!("not supported value {other:?}"))),
        };
        let alerts = match asked.first("exclude_alerts") {
            None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => true,
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => false,
            Some(other) => return Err(invalid("exclude_alerts", format!("{other:?} is not true or false"))),
        };
        Ok(Self {
            alerting,
            names: texts("rule_name[]"),
            groups: texts("rule_group[]"),
            files: texts("file[]"),
            selectors: asked.selectors()?,
            alerts,
        })
    }

    fn takes(&self, planned: &Planned) -> bool {
        let is = |wanted: &[String], known: &str| wanted.is_empty() || wanted.iter().any(|one| one == known);
        let is_alert = matches!(planned.rule.kind, RuleKind::Alert { .. });
        self.alerting.is_none_or(|alerting| alerting == is_alert)
            && is(&self.names, planned.rule.name())
            && is(&self.groups, &planned.group)
            && is(&self.files, &planned.file)
            && (self.selectors.is_empty() || {
                let labels = labels_of(planned);
                self.selectors.iter().any(|selector| selector.matches(&labels))
            })
    }
}

/// The rules that are wanted, by group; no group without one.
fn groups<'p>(plan: &'p Plan, wanted: &Wanted) -> Vec<Vec<&'p Planned>> {
    let mut groups: Vec<Vec<&Planned>> = Vec::new();
    for planned in plan.rules.iter().filter(|planned| wanted.takes(planned)) {
        match groups.last_mut() {
            Some(rules) if rules[0].group_at == planned.group_at => rules.push(planned),
            _ => groups.push(vec![planned]),
        }
    }
    groups
}

/// The labels of a rule as its file has them.
fn labels_of(planned: &Planned) -> Labels {
    Labels::new(planned.rule.labels.iter().map(|(name, text)| (&**name, text.source())))
}

/// How long a run of the group took at a time, on average since it was loaded.
fn mean(standing: Option<&GroupStanding>) -> f64 {
    standing.map_or(0.0, |s| s.time.spent.as_secs_f64() / s.time.runs.max(1) as f64)
}

fn last(standing: Option<&GroupStanding>) -> String {
    standing.and_then(|standing| standing.last_run).map_or(NEVER.to_owned(), |at| at.to_string())
}

fn write_group(
    json: &mut Json,
    rules: &[&Planned],
    standing: Option<&GroupStanding>,
    write: impl Fn(&mut Json, &Planned),
) {
    let first = rules[0];
    let interval = if first.host_local { first.gap } else { first.interval };
    json.raw("{\"name\":").text(&first.group).raw(",\"file\":").text(&first.file).raw(",\"rules\":[");
    json.each(rules, |json, rule| write(json, rule));
    json.raw("],\"interval\":").number(interval.as_secs_f64());
    json.raw(",\"limit\":").int(first.limit.map_or(0, |limit| i64::try_from(limit).unwrap_or(i64::MAX)));
    json.raw(",\"evaluationTime\":").number(mean(standing));
    json.raw(",\"lastEvaluation\":").text(&last(standing)).raw("}");
}

fn write_rule(
    json: &mut Json,
    api: &Api,
    planned: &Planned,
    (alerts, list_alerts): (&[&Alert], bool),
    standing: Option<&GroupStanding>,
) {
    let error = api.statistics.error_of(planned.rule.id.as_str());
    let health = match (&error, standing) {
        (Some(_), _) => "err",
        (None, Some(standing)) if 0 < standing.time.runs => "ok",
        (None, _) => "unknown",
    };
    json.raw("{");
    if let RuleKind::Alert { .. } = planned.rule.kind {
        json.raw("\"state\":").text(state(alerts)).raw(",");
    }
    json.raw("\"name\":").text(planned.rule.name()).raw(",\"query\":").text(planned.expr.text());
    let labels = labels_of(planned);
    if let RuleKind::Alert { hold, keep_firing_for, .. } = &planned.rule.kind {
        json.raw(",\"duration\":").number(hold.as_secs_f64());
        json.raw(",\"keepFiringFor\":").number(keep_firing_for.as_secs_f64());
        json.raw(",\"labels\":").labels(&labels);
        let annotations = planned.rule.annotations.iter().map(|(name, text)| (&**name, text.source()));
        json.raw(",\"annotations\":").labels(&Labels::new(annotations));
        json.raw(",\"alerts\":");
        write_alerts(json, if list_alerts { alerts } else { &[] });
    } else if !labels.is_empty() {
        json.raw(",\"labels\":").labels(&labels);
    }
    json.raw(",\"health\":").text(health);
    if let Some(error) = error {
        json.raw(",\"lastError\":").text(&error);
    }
    json.raw(",\"evaluationTime\":").number(mean(standing));
    json.raw(",\"lastEvaluation\":").text(&last(standing)).raw(",\"type\":");
    json.text(if matches!(planned.rule.kind, RuleKind::Alert { .. }) { "alerting" } else { "recording" });
    json.raw("}");
}

/// The worst of what its alerts are.
fn state(alerts: &[&Alert]) -> &'static str {
    let is = |condition| alerts.iter().any(|alert| alert.condition == condition);
    if is(Condition::Firing) {
        "firing"
    } else if is(Condition::Pending) {
        "pending"
    } else {
        "inactive"
    }
}

fn write_alerts(json: &mut Json, alerts: &[&Alert]) {
    json.raw("[");
    json.each(alerts, |json, alert| {
        json.raw("{\"labels\":").labels(&alert.labels).raw(",\"annotations\":").labels(&alert.annotations);
        json.raw(",\"state\":").text(alert.condition.as_str());
        json.raw(",\"activeAt\":").text(&alert.active_since.to_string());
        if let Some(since) = alert.recovering_since {
            json.raw(",\"keepFiringSince\":").text(&since.to_string());
        }
        json.raw(",\"value\":").text(&exponent(alert.value)).raw("}");
    });
    json.raw("]");
}
