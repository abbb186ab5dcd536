//! Join tokens and principals. What is secret is shown once, to whoever made it.

use serde::Serialize;
use tocsin_proto::pb;
use tocsin_shared::time::Timestamp;

use super::{LabelMap, Moment, label_list, label_map, maybe, moment, time_cells, word};
use crate::figures;
use crate::screen::{Paint, Style, clean};
use crate::table::{Cell, Table};

/// `tocsin token list`.
#[derive(Clone, Debug, Serialize)]
pub struct TokensView {
    pub tokens: Vec<TokenView>,
}

/// `tocsin token create`.
#[derive(Clone, Debug, Serialize)]
pub struct NewToken {
    /// The secret text.
    pub token: String,
    pub record: TokenView,
    /// What to run on the host.
    pub enroll_command: String,
}

/// A join token.
#[derive(Clone, Debug, Serialize)]
pub struct TokenView {
    pub id: String,
    /// `open`, `used`, `expired`.
    pub state: &'static str,
    pub env: String,
    pub labels: LabelMap,
    pub host_pattern: String,
    pub created_at: Moment,
    pub created_by: String,
    pub expires_at: Moment,
    pub used_at: Option<Moment>,
    /// The id of the agent that enrolled with it.
    pub used_by: Option<String>,
}

impl TokenView {
    /// From the wire; `now` says whether it has expired.
    pub fn new(token: pb::JoinToken, now: Timestamp) -> Self {
        let expires_at = moment(token.expires_at_ms);
        let state = match &token.used {
            Some(_) => "used",
            None if expires_at.0 <= now => "expired",
            None => "open",
        };
        Self {
            state,
            env: word(token.env().as_str_name(), "ENV_"),
            id: token.id,
            labels: label_map(token.labels),
            host_pattern: token.host_pattern,
            created_at: moment(token.created_at_ms),
            created_by: token.created_by,
            expires_at,
            used_at: token.used.as_ref().map(|used| moment(used.at_ms)),
            used_by: token.used.map(|used| used.agent),
        }
    }
}

/// The list of tokens.
pub fn draw_tokens(view: &TokensView, style: &Style) -> String {
    if view.tokens.is_empty() {
        return "there are no join tokens; make one: tocsin token create --env prod\n".into();
    }
    let mut table = Table::new(&["TOKEN", "STATE", "ENV", "HOSTS", "EXPIRES", "", "BY", "USED BY", "LABELS"]);
    for token in &view.tokens {
        let [expires, age] = time_cells(Some(token.expires_at), style);
        table.row([
            token.id.as_str().into(),
            Cell::painted(token.state, state_paint(token.state)),
            token.env.as_str().into(),
            token.host_pattern.as_str().into(),
            expires,
            age,
            token.created_by.as_str().into(),
            token.used_by.as_deref().unwrap_or("–").into(),
            label_list(&token.labels).into(),
        ]);
    }
    table.draw(style)
}

/// A new token and what to do with it.
pub fn draw_new_token(view: &NewToken, style: &Style) -> String {
    let record = &view.record;
    let named = match clean(&record.host_pattern).as_str() {
        "" | "*" => String::new(),
        pattern => format!(" named like {pattern}"),
    };
    format!(
        "{}\n\nOne {} host{named} can enrol with it until {}. It is not shown again.\nOn that host:\n  {}\n",
        style.strong(&clean(&view.token)),
        clean(&record.env),
        figures::when(style.now, record.expires_at.0),
        clean(&view.enroll_command),
    )
}

/// `tocsin principal list`.
#[derive(Clone, Debug, Serialize)]
pub struct PrincipalsView {
    pub principals: Vec<PrincipalView>,
}

/// `tocsin principal create`.
#[derive(Clone, Debug, Serialize)]
pub struct NewPrincipal {
    /// The secret text.
    pub credential: String,
    pub record: PrincipalView,
}

/// `tocsin principal revoke`.
#[derive(Clone, Debug, Serialize)]
pub struct PrincipalDocument {
    pub principal: PrincipalView,
}

/// A person or tool.
#[derive(Clone, Debug, Serialize)]
pub struct PrincipalView {
    pub name: String,
    pub role: String,
    /// `valid`, `expired`, `revoked`.
    pub state: &'static str,
    pub created_at: Moment,
    pub expires_at: Option<Moment>,
    pub revoked_at: Option<Moment>,
}

impl PrincipalView {
    /// From the wire; `now` says whether it has expired.
    pub fn new(principal: pb::Principal, now: Timestamp) -> Self {
        let (expires_at, revoked_at) = (maybe(principal.expires_at_ms), maybe(principal.revoked_at_ms));
        let state = match (revoked_at, expires_at) {
            (Some(_), _) => "revoked",
            (None, Some(Moment(at))) if at <= now => "expired",
            _ => "valid",
        };
        Self {
            role: word(principal.role().as_str_name(), "ROLE_"),
            name: principal.name,
            state,
            created_at: moment(principal.created_at_ms),
            expires_at,
            revoked_at,
        }
    }
}

fn state_paint(state: &str) -> Option<Paint> {
    match state {
        "valid" | "open" => Some(Paint::Good),
        "revoked" => Some(Paint::Bad),
        _ => Some(Paint::Faint),
    }
}

/// The list of principals.
pub fn draw_principals(view: &PrincipalsView, style: &Style) -> String {
    if view.principals.is_empty() {
        return "there are no principals; make one: tocsin principal create NAME --role responder\n".into();
    }
    let mut table = Table::new(&["NAME", "ROLE", "STATE", "CREATED", ">AGE", "EXPIRES", ""]);
    for principal in &view.principals {
        let [created, age] = time_cells(Some(principal.created_at), style);
        let [expires, left] = match principal.expires_at {
            None => ["never".into(), Cell::default()],
            at => time_cells(at, style),
        };
        let state = Cell::painted(principal.state, state_paint(principal.state));
        table.row([
            principal.name.as_str().into(),
            principal.role.as_str().into(),
            state,
            created,
            age,
            expires,
            left,
        ]);
    }
    table.draw(style)
}

/// A new credential and what to do with it.
pub fn draw_new_principal(view: &NewPrincipal, style: &Style) -> String {
    let until = match view.record.expires_at {
        Some(Moment(at)) => format!("until {}", figures::when(style.now, at)),
        None => "until it is revoked".into(),
    };
    format!(
        "{}\n\nThis is the credential of {} ({}), good {until}. It is not shown again: put it into a file of mode 0600.\n",
        style.strong(&clean(&view.credential)),
        clean(&view.record.name),
        clean(&view.record.role),
    )
}

/// What became of a principal.
pub fn draw_principal(view: &PrincipalDocument, _: &Style) -> String {
    let principal = &view.principal;
    format!("{} ({}) is {}\n", clean(&principal.name), clean(&principal.role), principal.state)
}
