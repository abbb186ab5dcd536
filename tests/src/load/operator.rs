//! An operator at work: notes, acknowledgements, resolutions, labels, tokens and principals, one after another.

use std::time::Duration;

use tocsin_proto::pb;
use tonic::Status;

use super::{AGAIN, Shared};
use crate::api::Api;
use crate::dice::Dice;
use crate::promises::{Act, Answer, refuses};

/// Longer than any answer of a collector that lives: it was frozen.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn run(shared: Shared, pause: Duration, mut dice: Dice) {
    while !shared.is_settling() {
        if let Err(error) = work(&shared, pause, &mut dice).await {
            shared.promises.failed("the operator", &error);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn work(shared: &Shared, pause: Duration, dice: &mut Dice) -> anyhow::Result<()> {
    let api = Api::connect(&shared.credential).await?;
    while !shared.is_settling() {
        let mut act = draw(shared, &api, dice).await?;
        let done = tokio::time::timeout(PATIENCE, perform(&api, &act)).await;
        let done = done.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")));
        act.answer = match &done {
            Ok(true) => Answer::Done,
            Ok(false) => Answer::Refused, // Accepted, and nothing to do: nothing may be there.
            Err(status) if refuses(status) || status.code() == tonic::Code::Aborted => Answer::Refused,
            Err(_) => Answer::Lost,
        };
        let lost = act.answer == Answer::Lost;
        shared.promises.act(act);
        if lost {
            done?;
        }
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

/// The next act, at random; without an open incident it is one on a host or on nothing.
async fn draw(shared: &Shared, api: &Api, dice: &mut Dice) -> anyhow::Result<Act> {
    let mark = shared.mark();
    let incidents = api.open_incidents().await?;
    let on_incident = !incidents.is_empty() && !dice.once_in(4);
    let (kind, on) = if on_incident {
        let kinds = ["incident.noted", "incident.acknowledged", "incident.resolved"];
        (*dice.one_of(&kinds), dice.one_of(&incidents).number.to_string())
    } else {
        let kind = *dice.one_of(&["host.labelled", "token", "principal"]);
        (kind, format!("host-{}", dice.below(shared.shape.hosts as u64)))
    };
    Ok(Act { kind, on, mark, answer: Answer::Lost })
}

/// Whether it changed what it should change.
async fn perform(api: &Api, act: &Act) -> Result<bool, Status> {
    let mark = act.mark.clone();
    let number = act.on.parse().unwrap_or_default();
    match act.kind {
        "incident.noted" => {
            api.incidents().add_note(pb::AddNoteRequest { number, text: mark }).await?;
        }
        "incident.acknowledged" => {
            let request = pb::AcknowledgeRequest { number, note: mark.clone(), expected_rev: 0 };
            let incident = api.incidents().acknowledge(request).await?.into_inner().incident;
            return Ok(incident.and_then(|incident| incident.ack).is_some_and(|ack| ack.note == mark));
        }
        "incident.resolved" => {
            let (code, text) = ("fixed".into(), mark.clone());
            let request = pb::ResolveRequest { number, code, text, expected_rev: 0 };
            let incident = api.incidents().resolve(request).await?.into_inner().incident;
            let end = incident.and_then(|incident| incident.resolution);
            return Ok(end.is_some_and(|resolution| resolution.text == mark));
        }
        "host.labelled" => {
            let labels = vec![pb::Label { name: "mark".into(), value: mark }];
            api.admin().label_host(pb::LabelHostRequest { name: act.on.clone(), labels }).await?;
        }
        "token" => {
            let env = pb::Env::Test as i32;
            let request = pb::CreateTokenRequest { env, host_pattern: mark, ..Default::default() };
            api.admin().create_token(request).await?;
        }
        _ => {
            let role = pb::Role::Viewer as i32;
            api.admin().create_principal(pb::CreatePrincipalRequest { name: mark, role, ttl_ms: 0 }).await?;
        }
    }
    Ok(true)
}
