//! ⇄ Commands that ask once and show the answer.

use tocsin_proto::connect::Endpoint;
use tocsin_proto::pb;
use tonic::Code;

use super::Context;
use super::query::{self, Span};
use crate::arguments::{
    AuthorityCommand, Command, HostCommand, IncidentCommand, JobCommand, JournalCommand, PrincipalCommand,
    RotateCommand, RulesCommand, TokenCommand,
};
use crate::client::{Client, answer};
use crate::failure::Failure;
use crate::screen::Screen;
use crate::view::access::{
    self, NewPrincipal, NewToken, PrincipalDocument, PrincipalView, PrincipalsView, TokenView, TokensView,
};
use crate::view::alert::{self, AlertsView};
use crate::view::authority::{self, AuthorityView};
use crate::view::host::{self, HostDocument, HostView, HostsView, RevokedView};
use crate::view::incident::{self, ChangedIncident, IncidentDocument, IncidentsView};
use crate::view::journal::{self, AcceptedLossView, LostView};
use crate::view::rules::{self, ReloadedView, RulesView};
use crate::view::run::{self, JobView, JobsView, RunDocument, RunView, RunsView};
use crate::view::status::{self, Findings, StatusView};

/// Runs a command that asks once.
pub(super) async fn ask(context: &Context, command: Command) -> Result<(), Failure> {
    // A mistake in the command line is told before anything is connected to.
    let screen = &context.screen;
    if let Command::Query(query) = command {
        let span = Span::of(&query, screen.format, &screen.style)?;
        return query::query(&context.client().await?, screen, query, span).await;
    }
    let client = context.client().await?;
    match command {
        Command::Status => show_status(&client, screen).await,
        Command::Hosts { all } => show_hosts(&client, screen, all).await,
        Command::Host(command) => on_host(&client, screen, command).await,
        Command::Alerts { pending, resolved, limit } => {
            let request =
                pb::ListAlertsRequest { include_pending: pending, include_resolved: resolved, limit };
            let alerts = answer(client.alerts().list_alerts(request)).await?.alerts;
            let view = AlertsView { alerts: alerts.into_iter().map(Into::into).collect() };
            screen.show(&view, alert::draw_alerts)
        }
        Command::Incidents { all, limit } => show_incidents(&client, screen, all, limit).await,
        Command::Incident(command) => on_incident(&client, screen, command).await,
        Command::Jobs => {
            let jobs = answer(client.jobs().list_jobs(pb::ListJobsRequest {})).await?.jobs;
            let view = JobsView { jobs: jobs.into_iter().map(JobView::from).collect() };
            screen.show(&view, run::draw_jobs)
        }
        Command::Job(command) => on_job(&client, screen, command).await,
        Command::Token(command) => on_token(&client, screen, command).await,
        Command::Principal(command) => on_principal(&client, screen, command).await,
        Command::Authority(command) => on_authority(&client, screen, command).await,
        Command::Rules(RulesCommand::Reload) => {
            let rules = answer(client.admin().reload_rules(pb::ReloadRulesRequest {})).await?.rules;
            screen.show(&ReloadedView { rules }, rules::draw_reloaded)
        }
        Command::Rules(_) => {
            let rules = answer(client.admin().list_rules(pb::ListRulesRequest {})).await?.rules;
            let view = RulesView { rules: rules.into_iter().map(Into::into).collect() };
            screen.show(&view, rules::draw_rules)
        }
        Command::Journal(JournalCommand::AcceptLoss { from: first, to: last }) => {
            let open = answer(client.admin().accept_loss(pb::AcceptLossRequest { first, last })).await?.open;
            let open = open.into_iter().map(|loss| LostView { first: loss.first, last: loss.last }).collect();
            screen
                .show(&AcceptedLossView { accepted: LostView { first, last }, open }, journal::draw_accepted)
        }
        Command::Up(_) | Command::Feed(_) | Command::Query(_) | Command::Top(_) | Command::PromqlTest(_) => {
            Err(Failure::Usage("this command does not ask once".into()))
        }
    }
}

/// What may be withheld from this credential is left out; everything else that goes wrong is told.
fn allowed<T: Default>(got: Result<T, Failure>) -> Result<T, Failure> {
    match got {
        Err(Failure::Refused(status)) if status.code() == Code::PermissionDenied => Ok(T::default()),
        got => got,
    }
}

async fn show_status(client: &Client, screen: &Screen) -> Result<(), Failure> {
    let status = answer(client.admin().get_status(pb::GetStatusRequest {})).await?;
    let hosts = client.hosts(pb::ListHostsRequest::default()).await;
    let incidents = pb::ListIncidentsRequest { include_resolved: false, limit: 0 };
    let incidents = answer(client.incidents().list_incidents(incidents)).await;
    let rules = answer(client.admin().list_rules(pb::ListRulesRequest {})).await;
    let consumers = answer(client.feed().list_consumers(pb::ListConsumersRequest {})).await;
    let found = Findings {
        status,
        hosts: allowed(hosts)?.into_iter().map(HostView::from).collect(),
        incidents: allowed(incidents)?.incidents.into_iter().map(Into::into).collect(),
        rules: allowed(rules)?.rules.into_iter().map(Into::into).collect(),
        consumers: allowed(consumers)?.consumers,
    };
    screen.show(&StatusView::new(client.endpoint.to_string(), found), status::draw_status)
}

async fn show_hosts(client: &Client, screen: &Screen, all: bool) -> Result<(), Failure> {
    let request = pb::ListHostsRequest { include_retired: all, ..Default::default() };
    let hosts = client.hosts(request).await?;
    screen.show(&HostsView { hosts: hosts.into_iter().map(HostView::from).collect() }, host::draw_hosts)
}

async fn on_host(client: &Client, screen: &Screen, command: HostCommand) -> Result<(), Failure> {
    let missing = || Failure::Incomplete { what: "host" };
    let host: HostView = match command {
        HostCommand::Show { name } => answer(client.query().get_host(pb::GetHostRequest { name }))
            .await?
            .status
            .ok_or_else(missing)?
            .into(),
        HostCommand::Label { name, labels } => {
            let labels = labels.into_iter().map(|(name, value)| pb::Label { name, value }).collect();
            let request = pb::LabelHostRequest { name, labels };
            answer(client.admin().label_host(request)).await?.host.ok_or_else(missing)?.into()
        }
        HostCommand::Retire { name } => answer(client.admin().retire_host(pb::RetireHostRequest { name }))
            .await?
            .host
            .ok_or_else(missing)?
            .into(),
        HostCommand::AllowRecovery { name } => {
            answer(client.admin().allow_recovery(pb::AllowRecoveryRequest { name }))
                .await?
                .host
                .ok_or_else(missing)?
                .into()
        }
        HostCommand::Revoke { name } => {
            let request = pb::RevokeHostRequest { name: name.clone() };
            let revoked = answer(client.admin().revoke_host(request)).await?.revoked;
            return screen.show(&RevokedView { host: name, revoked }, host::draw_revoked);
        }
    };
    screen.show(&HostDocument { host }, host::draw_host)
}

async fn show_incidents(client: &Client, screen: &Screen, all: bool, limit: u32) -> Result<(), Failure> {
    let request = pb::ListIncidentsRequest { include_resolved: all, limit };
    let incidents = answer(client.incidents().list_incidents(request)).await?.incidents;
    let mut view = IncidentsView { incidents: incidents.into_iter().map(Into::into).collect() };
    incident::sort(&mut view.incidents);
    screen.show(&view, incident::draw_incidents)
}

async fn on_incident(client: &Client, screen: &Screen, command: IncidentCommand) -> Result<(), Failure> {
    let mut incidents = client.incidents();
    let changed = match command {
        IncidentCommand::Show { id } => return show_incident(client, screen, id).await,
        IncidentCommand::Ack { id, message, rev } => {
            let request = pb::AcknowledgeRequest { number: id, note: message, expected_rev: rev };
            answer(incidents.acknowledge(request)).await?.incident
        }
        IncidentCommand::Note { id, message, text } => {
            let text = message.or(text).unwrap_or_default();
            answer(incidents.add_note(pb::AddNoteRequest { number: id, text })).await?.incident
        }
        IncidentCommand::Resolve { id, code, message, rev } => {
            let code = code.as_str().to_owned();
            let request = pb::ResolveRequest { number: id, code, text: message, expected_rev: rev };
            answer(incidents.resolve(request)).await?.incident
        }
    };
    let incident = changed.ok_or(Failure::Incomplete { what: "incident" })?.into();
    screen.show(&ChangedIncident { incident }, incident::draw_changed)
}

async fn show_incident(client: &Client, screen: &Screen, number: u64) -> Result<(), Failure> {
    let got = answer(client.incidents().get_incident(pb::GetIncidentRequest { number })).await?;
    let view = IncidentDocument {
        incident: got.incident.ok_or(Failure::Incomplete { what: "incident" })?.into(),
        alerts: got.alerts.into_iter().map(Into::into).collect(),
        timeline: got.timeline.into_iter().map(Into::into).collect(),
    };
    screen.show(&view, incident::draw_incident)
}

async fn on_job(client: &Client, screen: &Screen, command: JobCommand) -> Result<(), Failure> {
    match command {
        JobCommand::Runs { name, limit } => {
            let request = pb::ListRunsRequest { job_name: name, limit };
            let runs = answer(client.jobs().list_runs(request)).await?.runs;
            let view = RunsView { runs: runs.into_iter().map(|run| RunView::new(run, false)).collect() };
            screen.show(&view, run::draw_runs)
        }
        JobCommand::Show { run_id } => {
            let run = answer(client.jobs().get_run(pb::GetRunRequest { run_id })).await?.run;
            let run = RunView::new(run.ok_or(Failure::Incomplete { what: "run" })?, true);
            screen.show(&RunDocument { run }, run::draw_run)
        }
    }
}

async fn on_token(client: &Client, screen: &Screen, command: TokenCommand) -> Result<(), Failure> {
    let now = screen.style.now;
    let TokenCommand::Create { env, labels, host, ttl } = command else {
        let tokens = answer(client.admin().list_tokens(pb::ListTokensRequest {})).await?.tokens;
        let view =
            TokensView { tokens: tokens.into_iter().map(|token| TokenView::new(token, now)).collect() };
        return screen.show(&view, access::draw_tokens);
    };
    let request = pb::CreateTokenRequest {
        env: pb::Env::from(env).into(),
        labels: labels.into_iter().map(|(name, value)| pb::Label { name, value }).collect(),
        host_pattern: host,
        ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
    };
    let made = answer(client.admin().create_token(request)).await?;
    let record = TokenView::new(made.record.ok_or(Failure::Incomplete { what: "token" })?, now);
    let enroll_command = enroll_command(&client.endpoint, &made.token);
    screen.show(&NewToken { token: made.token, record, enroll_command }, access::draw_new_token)
}

/// What to run on the host. The loopback address would lead it to itself, so it is left for the reader to fill in.
fn enroll_command(endpoint: &Endpoint, token: &str) -> String {
    let loopback = endpoint.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let place = match loopback || endpoint.host == "localhost" {
        true => format!("THIS_COLLECTOR:{}", endpoint.port),
        false => endpoint.to_string(),
    };
    format!("tocsin-agent enroll --collector {place} --token {token}")
}

async fn on_authority(client: &Client, screen: &Screen, command: AuthorityCommand) -> Result<(), Failure> {
    let mut admin = client.admin();
    let status = match command {
        AuthorityCommand::Show => answer(admin.get_authority(pb::GetAuthorityRequest {})).await?.status,
        AuthorityCommand::Rotate(RotateCommand::Begin) => {
            answer(admin.begin_rotation(pb::BeginRotationRequest {})).await?.status
        }
        AuthorityCommand::Rotate(RotateCommand::Switch { strand }) => {
            answer(admin.switch_rotation(pb::SwitchRotationRequest { strand })).await?.status
        }
        AuthorityCommand::Rotate(RotateCommand::Finish { strand }) => {
            answer(admin.finish_rotation(pb::FinishRotationRequest { strand })).await?.status
        }
        AuthorityCommand::Rotate(RotateCommand::Cancel) => {
            answer(admin.cancel_rotation(pb::CancelRotationRequest {})).await?.status
        }
    };
    let view: AuthorityView = status.ok_or(Failure::Incomplete { what: "state of the authorities" })?.into();
    screen.show(&view, authority::draw_authority)
}

async fn on_principal(client: &Client, screen: &Screen, command: PrincipalCommand) -> Result<(), Failure> {
    let (now, missing) = (screen.style.now, || Failure::Incomplete { what: "principal" });
    match command {
        PrincipalCommand::Create { name, role, ttl } => {
            let ttl_ms =
                ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)).unwrap_or_default();
            let request = pb::CreatePrincipalRequest { name, role: pb::Role::from(role).into(), ttl_ms };
            let made = answer(client.admin().create_principal(request)).await?;
            let record = PrincipalView::new(made.record.ok_or_else(missing)?, now);
            screen.show(&NewPrincipal { credential: made.credential, record }, access::draw_new_principal)
        }
        PrincipalCommand::List => {
            let list = answer(client.admin().list_principals(pb::ListPrincipalsRequest {})).await?.principals;
            let principals = list.into_iter().map(|principal| PrincipalView::new(principal, now)).collect();
            screen.show(&PrincipalsView { principals }, access::draw_principals)
        }
        PrincipalCommand::Revoke { name } => {
            let request = pb::RevokePrincipalRequest { name };
            let record =
                answer(client.admin().revoke_principal(request)).await?.record.ok_or_else(missing)?;
            screen.show(
                &PrincipalDocument { principal: PrincipalView::new(record, now) },
                access::draw_principal,
            )
        }
    }
}
