//! What operators did, and what they were answered.
//!
//! Each act carries a mark of its own. One that was answered is there once; one whose answer got lost at most once; one
//! that was refused not at all.

use std::collections::BTreeMap;

use tocsin_proto::pb;
use tocsin_proto::pb::event::Subject;

use crate::api::Api;

/// How an act ended for who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    Refused,
    /// The collector was killed meanwhile.
    Lost,
}

/// An act. `kind` is the feed's word for it, or `token` and `principal`, which the feed does not show.
#[derive(Clone, Debug)]
pub struct Act {
    pub kind: &'static str,
    /// An incident's number or a host's name.
    pub on: String,
    pub mark: String,
    pub answer: Answer,
}

impl Act {
    fn as_promised(&self, times: usize) -> Option<String> {
        let good = match self.answer {
            Answer::Done => times == 1,
            Answer::Refused => times == 0,
            Answer::Lost => times <= 1,
        };
        let Self { kind, on, mark, answer } = self;
        (!good)
            .then(|| format!("{kind} {mark} on {on} was answered with {answer:?} and is there {times} times"))
    }
}

/// The mark that an event carries.
fn mark(event: &pb::Event) -> Option<String> {
    match (&event.subject, event.kind.as_str()) {
        (Some(Subject::Incident(incident)), "incident.resolved") => {
            incident.resolution.as_ref().map(|resolution| resolution.text.clone())
        }
        (Some(Subject::Incident(_)), _) => Some(event.note.clone()),
        (Some(Subject::Host(host)), "host.labelled") => marked(host),
        _ => None,
    }
}

fn marked(host: &pb::Host) -> Option<String> {
    host.labels.iter().find(|label| label.name == "mark").map(|label| label.value.clone())
}

fn public(act: &&Act) -> bool {
    act.kind.contains('.')
}

pub(super) fn check(acts: &[Act], events: &[&pb::Event]) -> Vec<String> {
    let mut told: BTreeMap<(String, String), usize> = BTreeMap::new();
    for event in events {
        if let Some(mark) = mark(event) {
            *told.entry((event.kind.clone(), mark)).or_default() += 1;
        }
    }
    let times = |act: &Act| told.get(&(act.kind.to_owned(), act.mark.clone())).copied().unwrap_or(0);
    acts.iter().filter(public).filter_map(|act| act.as_promised(times(act))).collect()
}

/// What lists and timelines say of the acts.
pub(super) async fn ask(api: &Api, acts: &[Act]) -> anyhow::Result<Vec<String>> {
    let tokens = api.admin().list_tokens(pb::ListTokensRequest {}).await?.into_inner().tokens;
    let tokens = tokens.into_iter().map(|token| ("token", token.host_pattern));
    let principals = api.admin().list_principals(pb::ListPrincipalsRequest {}).await?.into_inner().principals;
    let principals = principals.into_iter().map(|principal| ("principal", principal.name));
    let mut there: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for key in tokens.chain(principals) {
        *there.entry(key).or_default() += 1;
    }
    let times = |act: &Act| there.get(&(act.kind, act.mark.clone())).copied().unwrap_or(0);
    let listed = acts.iter().filter(|act| !public(act));
    let mut broken: Vec<String> = listed.filter_map(|act| act.as_promised(times(act))).collect();
    broken.extend(ask_timelines(api, acts).await?);
    broken.extend(ask_labels(api, acts).await?);
    Ok(broken)
}

async fn ask_timelines(api: &Api, acts: &[Act]) -> anyhow::Result<Vec<String>> {
    let mut of_incident: BTreeMap<u64, Vec<&Act>> = BTreeMap::new();
    for act in acts.iter().filter(|act| act.kind.starts_with("incident.")) {
        of_incident.entry(act.on.parse()?).or_default().push(act);
    }
    let mut broken = Vec::new();
    for (number, acts) in of_incident {
        let answer = api.incidents().get_incident(pb::GetIncidentRequest { number }).await?.into_inner();
        let marks: Vec<_> = answer.timeline.iter().map(|event| (event.kind.as_str(), mark(event))).collect();
        let times = |act: &Act| {
            marks.iter().filter(|(kind, mark)| *kind == act.kind && mark.as_ref() == Some(&act.mark)).count()
        };
        broken.extend(acts.into_iter().filter_map(|act| act.as_promised(times(act))));
    }
    Ok(broken)
}

/// A host has the last label that was answered, or one that was asked for later.
async fn ask_labels(api: &Api, acts: &[Act]) -> anyhow::Result<Vec<String>> {
    let hosts = api.query().list_hosts(pb::ListHostsRequest::default()).await?.into_inner().hosts;
    let mut broken = Vec::new();
    for host in hosts.into_iter().filter_map(|status| status.host) {
        let of_host =
            || acts.iter().rev().filter(|act| act.kind == "host.labelled" && act.on == host.instance);
        let may_be = |act: &&Act| act.answer != Answer::Refused;
        let before_last_done = of_host().filter(may_be).position(|act| act.answer == Answer::Done);
        let Some(lost_since) = before_last_done else { continue };
        let mark = marked(&host);
        if !of_host().filter(may_be).take(lost_since + 1).any(|act| Some(&act.mark) == mark.as_ref()) {
            broken.push(format!("{} has the label {mark:?}, not the last one", host.instance));
        }
    }
    Ok(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_is_there_as_often_as_it_was_answered() {
        for (answer, good) in [
            (Answer::Done, [false, true, false]),
            (Answer::Refused, [true, false, false]),
            (Answer::Lost, [true, true, false]),
        ] {
            let act = Act { kind: "incident.noted", on: "1".into(), mark: "m".into(), answer };
            let found = [0, 1, 2].map(|times| act.as_promised(times).is_none());
            assert_eq!(found, good, "{answer:?}");
        }
    }
}
