//! Running the collector: its own state, tokens, hosts, principals, rules.
//!
//! Secrets leave here once, in the answer to the call that made them; no list shows their digests.

mod authority;
mod spools;
mod status;

use std::time::Duration;

use tocsin_proto::convert::{Number, labels_in};
use tocsin_proto::pb;
use tocsin_proto::pb::admin_service_server::AdminService;
use tocsin_shared::access::{JoinToken, Principal, Role};
use tocsin_shared::event::{Event, EventKind, Subject};
use tocsin_shared::host::Host;
use tocsin_shared::identity::{AgentId, Env};
use tocsin_shared::secret::{Credential, JoinSecret, NoRandomness};
use tocsin_shared::time::format_duration;
use tonic::{Request, Response, Status};

use super::{Api, Who, blocking, refusal};
use crate::clock::now;
use crate::evaluate::plan::Planned;
use crate::rules::RuleKind;
use crate::state::Command;
use crate::state::command::NewToken;
use authority::Step;

/// How long a token lasts unless asked otherwise, and at most: a token that lies about is an open door.
const TOKEN_TTL: Duration = Duration::from_secs(3600);
const TOKEN_TTL_MAX: Duration = Duration::from_secs(24 * 3600);

#[tonic::async_trait]
impl AdminService for Api {
    async fn get_status(
        &self,
        _: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        Ok(Response::new(self.collector_status().await?))
    }

    async fn create_token(
        &self,
        request: Request<pb::CreateTokenRequest>,
    ) -> Result<Response<pb::CreateTokenResponse>, Status> {
        let who = Who::of(&request)?;
        let pb::CreateTokenRequest { env, labels, host_pattern, ttl_ms } = request.into_inner();
        let ttl = if ttl_ms == 0 { TOKEN_TTL } else { Duration::from_millis(ttl_ms) };
        if ttl > TOKEN_TTL_MAX {
            let most = format_duration(TOKEN_TTL_MAX);
            return Err(Status::invalid_argument(format!(
                "a token lasts at most {most}: create it when it is used"
            )));
        }
        let secret = JoinSecret::generate(self.front.pin()).map_err(no_randomness)?;
        let token = NewToken {
            id: secret.id(),
            secret_sha256: secret.sha256(),
            env: Env::from_number(env).map_err(refusal::invalid)?,
            labels: labels_in(labels),
            host_pattern: if host_pattern.is_empty() { "*".to_owned() } else { host_pattern },
            expires_at: now().plus(ttl),
        };
        let events = self.submit(&who, Command::CreateToken(token)).await?;
        let record = events.iter().find_map(|event| match &event.subject {
            Subject::Token(token) => Some(token_out(token)),
            _ => None,
        });
        Ok(Response::new(pb::CreateTokenResponse { token: secret.text().expose().to_owned(), record }))
    }

    async fn list_tokens(
        &self,
        _: Request<pb::ListTokensRequest>,
    ) -> Result<Response<pb::ListTokensResponse>, Status> {
        let mut tokens = self.read(|state| state.tokens().map(token_out).collect::<Vec<_>>()).await?;
        tokens.sort_by_key(|token| std::cmp::Reverse(token.created_at_ms));
        Ok(Response::new(pb::ListTokensResponse { tokens }))
    }

    async fn label_host(
        &self,
        request: Request<pb::LabelHostRequest>,
    ) -> Result<Response<pb::LabelHostResponse>, Status> {
        let who = Who::of(&request)?;
        let pb::LabelHostRequest { name, labels } = request.into_inner();
        let _one = self.calls.labelling.lock().await;
        let host = self.host(name).await?;
        let pairs = labels.iter().map(|label| (label.name.as_str(), label.value.as_str()));
        let command = Command::LabelHost { agent: host.agent, labels: host.labels.with(pairs) };
        let host = self.change_host(&who, host.agent, command).await?;
        self.samples.set_target(host.agent, host.target_labels());
        Ok(Response::new(pb::LabelHostResponse { host: Some((&host).into()) }))
    }

    async fn retire_host(
        &self,
        request: Request<pb::RetireHostRequest>,
    ) -> Result<Response<pb::RetireHostResponse>, Status> {
        let who = Who::of(&request)?;
        let agent = self.host(request.into_inner().name).await?.agent;
        let command = Command::RetireHost { agent, reason: format!("retired by {}", who.name) };
        let host = self.change_host(&who, agent, command).await?;
        self.presence.cut(agent);
        Ok(Response::new(pb::RetireHostResponse { host: Some((&host).into()) }))
    }

    async fn revoke_host(
        &self,
        request: Request<pb::RevokeHostRequest>,
    ) -> Result<Response<pb::RevokeHostResponse>, Status> {
        let who = Who::of(&request)?;
        let agent = self.host(request.into_inner().name).await?.agent;
        let command = Command::RevokeCertificates { agent, reason: format!("revoked by {}", who.name) };
        let events = self.submit(&who, command).await?;
        self.presence.cut(agent);
        let revoked = events.iter().filter(|event| event.kind == EventKind::CertificateRevoked).count();
        Ok(Response::new(pb::RevokeHostResponse { revoked: u32::try_from(revoked).unwrap_or(u32::MAX) }))
    }

    async fn allow_recovery(
        &self,
        request: Request<pb::AllowRecoveryRequest>,
    ) -> Result<Response<pb::AllowRecoveryResponse>, Status> {
        let who = Who::of(&request)?;
        let agent = self.host(request.into_inner().name).await?.agent;
        let host = self.change_host(&who, agent, Command::AllowRecovery { agent }).await?;
        self.presence.forget_processes(agent);
        Ok(Response::new(pb::AllowRecoveryResponse { host: Some((&host).into()) }))
    }

    async fn create_principal(
        &self,
        request: Request<pb::CreatePrincipalRequest>,
    ) -> Result<Response<pb::CreatePrincipalResponse>, Status> {
        let who = Who::of(&request)?;
        let pb::CreatePrincipalRequest { name, role, ttl_ms } = request.into_inner();
        let credential = Credential::generate().map_err(no_randomness)?;
        let command = Command::CreatePrincipal {
            name,
            role: Role::from_number(role).map_err(refusal::invalid)?,
            secret_sha256: credential.sha256(),
            expires_at: (ttl_ms != 0).then(|| now().plus(Duration::from_millis(ttl_ms))),
        };
        let events = self.submit(&who, command).await?;
        let record = events.iter().find_map(principal_of).map(principal_out);
        let credential = credential.text().expose().to_owned();
        Ok(Response::new(pb::CreatePrincipalResponse { credential, record }))
    }

    async fn list_principals(
        &self,
        _: Request<pb::ListPrincipalsRequest>,
    ) -> Result<Response<pb::ListPrincipalsResponse>, Status> {
        let principals = self.read(|state| state.principals().map(principal_out).collect()).await?;
        Ok(Response::new(pb::ListPrincipalsResponse { principals }))
    }

    async fn revoke_principal(
        &self,
        request: Request<pb::RevokePrincipalRequest>,
    ) -> Result<Response<pb::RevokePrincipalResponse>, Status> {
        let who = Who::of(&request)?;
        let name = request.into_inner().name;
        self.submit(&who, Command::RevokePrincipal { name: name.clone() }).await?;
        let record = self.read(move |state| state.principal(&name).map(principal_out)).await?;
        Ok(Response::new(pb::RevokePrincipalResponse { record }))
    }

    async fn get_authority(
        &self,
        _: Request<pb::GetAuthorityRequest>,
    ) -> Result<Response<pb::GetAuthorityResponse>, Status> {
        let status = Some(self.authority_status().await?);
        Ok(Response::new(pb::GetAuthorityResponse { status }))
    }

    async fn begin_rotation(
        &self,
        request: Request<pb::BeginRotationRequest>,
    ) -> Result<Response<pb::BeginRotationResponse>, Status> {
        let status = Some(self.rotate(&Who::of(&request)?, Step::Begin).await?);
        Ok(Response::new(pb::BeginRotationResponse { status }))
    }

    async fn switch_rotation(
        &self,
        request: Request<pb::SwitchRotationRequest>,
    ) -> Result<Response<pb::SwitchRotationResponse>, Status> {
        let who = Who::of(&request)?;
        let pb::SwitchRotationRequest { strand } = request.into_inner();
        let status = Some(self.rotate(&who, Step::Switch { strand }).await?);
        Ok(Response::new(pb::SwitchRotationResponse { status }))
    }

    async fn finish_rotation(
        &self,
        request: Request<pb::FinishRotationRequest>,
    ) -> Result<Response<pb::FinishRotationResponse>, Status> {
        let who = Who::of(&request)?;
        let pb::FinishRotationRequest { strand } = request.into_inner();
        let status = Some(self.rotate(&who, Step::Finish { strand }).await?);
        Ok(Response::new(pb::FinishRotationResponse { status }))
    }

    async fn cancel_rotation(
        &self,
        request: Request<pb::CancelRotationRequest>,
    ) -> Result<Response<pb::CancelRotationResponse>, Status> {
        let status = Some(self.rotate(&Who::of(&request)?, Step::Cancel).await?);
        Ok(Response::new(pb::CancelRotationResponse { status }))
    }

    async fn list_rules(
        &self,
        _: Request<pb::ListRulesRequest>,
    ) -> Result<Response<pb::ListRulesResponse>, Status> {
        let plan = self.plan.load_full();
        let rules = plan.rules.iter().map(|planned| self.rule_info(planned)).collect();
        Ok(Response::new(pb::ListRulesResponse { rules }))
    }

    async fn accept_loss(
        &self,
        request: Request<pb::AcceptLossRequest>,
    ) -> Result<Response<pb::AcceptLossResponse>, Status> {
        let who = Who::of(&request)?;
        let pb::AcceptLossRequest { first, last } = request.into_inner();
        let events = self.submit(&who, Command::AcceptLoss { first, last }).await?;
        self.stored_through(&events).await;
        tracing::warn!(actor = %who.name, first, last, "goes on without lost events of the journal");
        let open = self.read(|state| state.losses.open().map(Into::into).collect()).await?;
        Ok(Response::new(pb::AcceptLossResponse { open }))
    }

    async fn reload_rules(
        &self,
        request: Request<pb::ReloadRulesRequest>,
    ) -> Result<Response<pb::ReloadRulesResponse>, Status> {
        let who = Who::of(&request)?;
        let reload = self.reload.clone();
        let rules = blocking(move || reload()).await?.map_err(refusal::mistakes)?;
        tracing::info!(actor = %who.name, rules, "rules were read again");
        Ok(Response::new(pb::ReloadRulesResponse { rules: u32::try_from(rules).unwrap_or(u32::MAX) }))
    }
}

impl Api {
    /// Changes a host; gives it as it is after that.
    async fn change_host(&self, who: &Who, agent: AgentId, command: Command) -> Result<Host, Status> {
        let events = self.submit(who, command).await?;
        self.stored_through(&events).await;
        let host = self.read(move |state| state.host(agent).cloned()).await?;
        host.ok_or_else(|| refusal::unknown("agent", agent))
    }

    fn rule_info(&self, planned: &Planned) -> pb::RuleInfo {
        let rule = &planned.rule;
        pb::RuleInfo {
            rule_id: rule.id.as_str().to_owned(),
            group: planned.group.to_string(),
            file: planned.file.to_string(),
            name: rule.name().to_owned(),
            expr: rule.expr.text().to_owned(),
            host_local: planned.host_local,
            recording: matches!(rule.kind, RuleKind::Record { .. }),
            last_error: self.statistics.error_of(rule.id.as_str()).unwrap_or_default(),
        }
    }
}

fn no_randomness(error: NoRandomness) -> Status {
    Status::internal(error.to_string())
}

fn token_out(token: &JoinToken) -> pb::JoinToken {
    pb::JoinToken { secret_sha256: Vec::new(), ..token.into() }
}

fn principal_out(principal: &Principal) -> pb::Principal {
    pb::Principal { secret_sha256: Vec::new(), ..principal.into() }
}

fn principal_of(event: &Event) -> Option<&Principal> {
    match &event.subject {
        Subject::Principal(principal) => Some(principal),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
