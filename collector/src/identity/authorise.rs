//! Who may call what: one table, deny by default.
//!
//! Pure. Promise: a method that is not in `METHODS`, or a path that is not in `PATHS`, is refused to everyone, so a new
//! one is useless until someone decides here who may use it. A role says what kind of call; whether this consumer may move that cursor, or this
//! token fits that host, is decided where the record is.

use tocsin_shared::access::Role;
use tocsin_shared::identity::AgentId;

/// Who calls, as the connection and its credential prove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// No certificate and no credential.
    Anonymous,
    /// A verified certificate: the agent and the certificate's serial.
    Agent(AgentId, String),
    /// A named credential.
    Principal { name: String, role: Role },
}

/// Which callers a method is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Who has no identity yet; what it brings, a join token, is checked in the call.
    Anonymous,
    /// Agents with a certificate.
    Agent,
    /// Viewers and every role above: responders, operators, admins.
    Viewer,
    /// Viewers and above, and paging tools.
    ViewerOrConsumer,
    /// Responders and above.
    Responder,
    /// Operators and admins.
    Operator,
    /// Admins alone.
    Admin,
    /// Admins and paging tools.
    AdminOrConsumer,
    /// Programs that push samples: not even admins, whose credential belongs into no other program's configuration.
    Writer,
    /// Everyone with a certificate or a credential.
    Known,
}

/// Every method there is and whom it is for.
pub const METHODS: &[(&str, Access)] = &[
    ("/tocsin.v1.EnrollmentService/Enroll", Access::Anonymous),
    ("/tocsin.v1.EnrollmentService/Renew", Access::Agent),
    ("/tocsin.v1.EnrollmentService/Challenge", Access::Anonymous),
    // The certificate has run out; what it brings instead, a proof of its key, is checked in the call.
    ("/tocsin.v1.EnrollmentService/Recover", Access::Anonymous),
    ("/tocsin.v1.AgentService/Session", Access::Agent),
    ("/tocsin.v1.QueryService/Instant", Access::Viewer),
    ("/tocsin.v1.QueryService/Range", Access::Viewer),
    ("/tocsin.v1.QueryService/Subscribe", Access::Viewer),
    ("/tocsin.v1.QueryService/Series", Access::Viewer),
    ("/tocsin.v1.QueryService/Labels", Access::Viewer),
    ("/tocsin.v1.QueryService/LabelValues", Access::Viewer),
    ("/tocsin.v1.QueryService/Metadata", Access::Viewer),
    ("/tocsin.v1.QueryService/ListHosts", Access::Viewer),
    ("/tocsin.v1.QueryService/GetHost", Access::Viewer),
    ("/tocsin.v1.AlertService/ListAlerts", Access::Viewer),
    ("/tocsin.v1.FeedService/Subscribe", Access::ViewerOrConsumer),
    ("/tocsin.v1.FeedService/Ack", Access::AdminOrConsumer),
    ("/tocsin.v1.FeedService/ListConsumers", Access::Viewer),
    ("/tocsin.v1.IncidentService/ListIncidents", Access::Viewer),
    ("/tocsin.v1.IncidentService/GetIncident", Access::Viewer),
    ("/tocsin.v1.IncidentService/Acknowledge", Access::Responder),
    ("/tocsin.v1.IncidentService/AddNote", Access::Responder),
    ("/tocsin.v1.IncidentService/Resolve", Access::Responder),
    ("/tocsin.v1.JobService/ListRuns", Access::Viewer),
    ("/tocsin.v1.JobService/ListJobs", Access::Viewer),
    // The output of a job often holds secrets that its author did not think of.
    ("/tocsin.v1.JobService/GetRun", Access::Responder),
    ("/tocsin.v1.AdminService/GetStatus", Access::Viewer),
    ("/tocsin.v1.AdminService/CreateToken", Access::Admin),
    ("/tocsin.v1.AdminService/ListTokens", Access::Admin),
    ("/tocsin.v1.AdminService/LabelHost", Access::Operator),
    ("/tocsin.v1.AdminService/RetireHost", Access::Operator),
    ("/tocsin.v1.AdminService/RevokeHost", Access::Admin),
    ("/tocsin.v1.AdminService/AllowRecovery", Access::Operator),
    ("/tocsin.v1.AdminService/CreatePrincipal", Access::Admin),
    ("/tocsin.v1.AdminService/ListPrincipals", Access::Admin),
    ("/tocsin.v1.AdminService/RevokePrincipal", Access::Admin),
    ("/tocsin.v1.AdminService/GetAuthority", Access::Viewer),
    ("/tocsin.v1.AdminService/BeginRotation", Access::Admin),
    ("/tocsin.v1.AdminService/SwitchRotation", Access::Admin),
    ("/tocsin.v1.AdminService/FinishRotation", Access::Admin),
    ("/tocsin.v1.AdminService/CancelRotation", Access::Admin),
    ("/tocsin.v1.AdminService/ListRules", Access::Viewer),
    ("/tocsin.v1.AdminService/ReloadRules", Access::Operator),
    ("/tocsin.v1.AdminService/AcceptLoss", Access::Admin),
    ("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", Access::Writer),
    ("/grpc.health.v1.Health/Check", Access::Known),
    ("/grpc.health.v1.Health/Watch", Access::Known),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Access::Viewer),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Access::Viewer),
];

/// Every path of plain HTTP on the front, with its method, and whom it is for. `{…}` stands for one segment; `HEAD` is
/// as `GET`.
pub const PATHS: &[(&str, &str, Access)] = &[
    ("GET", "/api/v1/query", Access::Viewer),
    ("POST", "/api/v1/query", Access::Viewer),
    ("GET", "/api/v1/query_range", Access::Viewer),
    ("POST", "/api/v1/query_range", Access::Viewer),
    ("GET", "/api/v1/query_exemplars", Access::Viewer),
    ("POST", "/api/v1/query_exemplars", Access::Viewer),
    ("GET", "/api/v1/format_query", Access::Viewer),
    ("POST", "/api/v1/format_query", Access::Viewer),
    ("GET", "/api/v1/series", Access::Viewer),
    ("POST", "/api/v1/series", Access::Viewer),
    ("GET", "/api/v1/labels", Access::Viewer),
    ("POST", "/api/v1/labels", Access::Viewer),
    ("GET", "/api/v1/label/{name}/values", Access::Viewer),
    ("GET", "/api/v1/metadata", Access::Viewer),
    ("GET", "/api/v1/rules", Access::Viewer),
    ("GET", "/api/v1/alerts", Access::Viewer),
    ("GET", "/api/v1/targets", Access::Viewer),
    ("GET", "/api/v1/status/buildinfo", Access::Viewer),
    ("GET", "/api/v1/status/runtimeinfo", Access::Viewer),
    ("GET", "/api/v1/status/tsdb", Access::Viewer),
    ("GET", "/federate", Access::Viewer),
    ("POST", "/api/v1/write", Access::Writer),
    ("POST", "/v1/metrics", Access::Writer),
    ("POST", "/api/v1/otlp/v1/metrics", Access::Writer),
];

/// Why a call is refused. gRPC's UNAUTHENTICATED for the first, PERMISSION_DENIED for the others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("this call needs a credential")]
    Unauthenticated,
    #[error("{who} may not call {method}")]
    Forbidden { who: String, method: &'static str },
    #[error("there is no such method")]
    UnknownMethod,
    #[error("there is no such path")]
    UnknownPath,
    #[error("{path} takes other methods: {allowed}")]
    OtherMethod { path: &'static str, allowed: String },
}

/// Whether the caller may call the method, given by its path (`/tocsin.v1.QueryService/Instant`).
pub fn authorise(caller: &Caller, method: &str) -> Result<(), Denied> {
    let row = METHODS.iter().find(|(path, _)| *path == method);
    match (caller, row) {
        (caller, Some((_, access))) if allows(*access, caller) => Ok(()),
        // Also for unknown methods: a stranger does not learn which there are.
        (Caller::Anonymous, _) => Err(Denied::Unauthenticated),
        (caller, Some((method, _))) => Err(Denied::Forbidden { who: describe(caller), method }),
        (_, None) => Err(Denied::UnknownMethod),
    }
}

/// Whether the caller may ask for a path of plain HTTP with this method.
pub fn authorise_path(caller: &Caller, method: &str, path: &str) -> Result<(), Denied> {
    let method = if method == "HEAD" { "GET" } else { method };
    let rows: Vec<_> = PATHS.iter().filter(|(_, pattern, _)| is_like(path, pattern)).collect();
    let row = rows.iter().find(|(known, ..)| *known == method);
    match (caller, row, rows.first()) {
        (caller, Some((_, _, access)), _) if allows(*access, caller) => Ok(()),
        (Caller::Anonymous, ..) => Err(Denied::Unauthenticated),
        (caller, Some((_, path, _)), _) => Err(Denied::Forbidden { who: describe(caller), method: path }),
        (_, None, Some((_, path, _))) => {
            let allowed: Vec<&str> = rows.iter().map(|(known, ..)| *known).collect();
            Err(Denied::OtherMethod { path, allowed: allowed.join(", ") })
        }
        (_, None, None) => Err(Denied::UnknownPath),
    }
}

/// Whether a path has the form of a row: the same segments, with anything but nothing for `{…}`.
fn is_like(path: &str, pattern: &str) -> bool {
    let (mut path, mut pattern) = (path.split('/'), pattern.split('/'));
    loop {
        match (path.next(), pattern.next()) {
            (None, None) => return true,
            (Some(segment), Some(wanted)) if wanted.starts_with('{') && !segment.is_empty() => {}
            (Some(segment), Some(wanted)) if segment == wanted => {}
            _ => return false,
        }
    }
}

fn allows(access: Access, caller: &Caller) -> bool {
    match caller {
        Caller::Anonymous => access == Access::Anonymous,
        Caller::Agent(..) => matches!(access, Access::Agent | Access::Known),
        Caller::Principal { role, .. } => allows_role(access, *role),
    }
}

fn allows_role(access: Access, role: Role) -> bool {
    let people = match access {
        Access::Anonymous | Access::Agent => return false,
        Access::Known => return true,
        Access::Writer => return role == Role::Writer,
        Access::ViewerOrConsumer | Access::AdminOrConsumer if role == Role::Consumer => return true,
        Access::Viewer | Access::ViewerOrConsumer => {
            &[Role::Viewer, Role::Responder, Role::Operator, Role::Admin][..]
        }
        Access::Responder => &[Role::Responder, Role::Operator, Role::Admin],
        Access::Operator => &[Role::Operator, Role::Admin],
        Access::Admin | Access::AdminOrConsumer => &[Role::Admin],
    };
    people.contains(&role)
}

fn describe(caller: &Caller) -> String {
    match caller {
        Caller::Anonymous => "an anonymous caller".to_owned(),
        Caller::Agent(agent, _) => format!("agent {agent}"),
        Caller::Principal { name, role } => format!("{name:?} with the role {}", role.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use uuid::Uuid;

    fn callers() -> [Caller; 8] {
        let principal = |role| Caller::Principal { name: "kim".into(), role };
        [
            Caller::Anonymous,
            Caller::Agent(AgentId(Uuid::nil()), "00".repeat(16)),
            principal(Role::Consumer),
            principal(Role::Viewer),
            principal(Role::Responder),
            principal(Role::Operator),
            principal(Role::Admin),
            principal(Role::Writer),
        ]
    }

    // Columns: anonymous, agent, consumer, viewer, responder, operator, admin, writer. x may, . may not.
    const GOLDEN: &str = "
        x.......  /tocsin.v1.EnrollmentService/Enroll
        .x......  /tocsin.v1.EnrollmentService/Renew
        x.......  /tocsin.v1.EnrollmentService/Challenge
        x.......  /tocsin.v1.EnrollmentService/Recover
        .x......  /tocsin.v1.AgentService/Session
        ...xxxx.  /tocsin.v1.QueryService/Instant
        ...xxxx.  /tocsin.v1.QueryService/Range
        ...xxxx.  /tocsin.v1.QueryService/Subscribe
        ...xxxx.  /tocsin.v1.QueryService/Series
        ...xxxx.  /tocsin.v1.QueryService/Labels
        ...xxxx.  /tocsin.v1.QueryService/LabelValues
        ...xxxx.  /tocsin.v1.QueryService/Metadata
        ...xxxx.  /tocsin.v1.QueryService/ListHosts
        ...xxxx.  /tocsin.v1.QueryService/GetHost
        ...xxxx.  /tocsin.v1.AlertService/ListAlerts
        ..xxxxx.  /tocsin.v1.FeedService/Subscribe
        ..x...x.  /tocsin.v1.FeedService/Ack
        ...xxxx.  /tocsin.v1.FeedService/ListConsumers
        ...xxxx.  /tocsin.v1.IncidentService/ListIncidents
        ...xxxx.  /tocsin.v1.IncidentService/GetIncident
        ....xxx.  /tocsin.v1.IncidentService/Acknowledge
        ....xxx.  /tocsin.v1.IncidentService/AddNote
        ....xxx.  /tocsin.v1.IncidentService/Resolve
        ...xxxx.  /tocsin.v1.JobService/ListRuns
        ...xxxx.  /tocsin.v1.JobService/ListJobs
        ....xxx.  /tocsin.v1.JobService/GetRun
        ...xxxx.  /tocsin.v1.AdminService/GetStatus
        ......x.  /tocsin.v1.AdminService/CreateToken
        ......x.  /tocsin.v1.AdminService/ListTokens
        .....xx.  /tocsin.v1.AdminService/LabelHost
        .....xx.  /tocsin.v1.AdminService/RetireHost
        ......x.  /tocsin.v1.AdminService/RevokeHost
        .....xx.  /tocsin.v1.AdminService/AllowRecovery
        ......x.  /tocsin.v1.AdminService/CreatePrincipal
        ......x.  /tocsin.v1.AdminService/ListPrincipals
        ......x.  /tocsin.v1.AdminService/RevokePrincipal
        ...xxxx.  /tocsin.v1.AdminService/GetAuthority
        ......x.  /tocsin.v1.AdminService/BeginRotation
        ......x.  /tocsin.v1.AdminService/SwitchRotation
        ......x.  /tocsin.v1.AdminService/FinishRotation
        ......x.  /tocsin.v1.AdminService/CancelRotation
        ...xxxx.  /tocsin.v1.AdminService/ListRules
        .....xx.  /tocsin.v1.AdminService/ReloadRules
        ......x.  /tocsin.v1.AdminService/AcceptLoss
        .......x  /opentelemetry.proto.collector.metrics.v1.MetricsService/Export
        .xxxxxxx  /grpc.health.v1.Health/Check
        .xxxxxxx  /grpc.health.v1.Health/Watch
        ...xxxx.  /grpc.reflection.v1.ServerReflection/ServerReflectionInfo
        ...xxxx.  /grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo
        ........  /tocsin.v1.AdminService/Anything
        ........  /tocsin.v1.AdminService
        ........  tocsin.v1.QueryService/Instant
        ........  /tocsin.v1.QueryService/Instant/
        ........  /tocsin.v1.queryservice/instant
        ........  /";

    // Cases: H15
    #[test]
    fn every_method_and_every_caller() {
        let rows: Vec<(&str, &str)> =
            GOLDEN.trim().lines().map(|row| row.trim().split_once("  ").unwrap()).collect();
        for (expected, method) in &rows {
            let got: String = callers()
                .iter()
                .map(|caller| if authorise(caller, method).is_ok() { 'x' } else { '.' })
                .collect();
            assert_eq!(got, *expected, "{method}");
        }
        let golden: BTreeSet<&str> = rows.iter().map(|(_, method)| *method).collect();
        for (method, _) in METHODS {
            assert!(golden.contains(method), "{method} has no row in the golden table");
        }
        assert_eq!(METHODS.iter().map(|row| row.0).collect::<BTreeSet<_>>().len(), METHODS.len(), "twice");
    }

    // Columns as above.
    const GOLDEN_PATHS: &str = "
        ...xxxx.  GET /api/v1/query
        ...xxxx.  HEAD /api/v1/query
        ...xxxx.  POST /api/v1/query
        ...xxxx.  GET /api/v1/query_range
        ...xxxx.  POST /api/v1/query_range
        ...xxxx.  GET /api/v1/query_exemplars
        ...xxxx.  POST /api/v1/query_exemplars
        ...xxxx.  GET /api/v1/format_query
        ...xxxx.  POST /api/v1/format_query
        ...xxxx.  GET /api/v1/series
        ...xxxx.  POST /api/v1/series
        ...xxxx.  GET /api/v1/labels
        ...xxxx.  POST /api/v1/labels
        ...xxxx.  GET /api/v1/label/{name}/values
        ...xxxx.  GET /api/v1/label/instance/values
        ...xxxx.  GET /api/v1/metadata
        ...xxxx.  GET /api/v1/rules
        ...xxxx.  GET /api/v1/alerts
        ...xxxx.  GET /api/v1/targets
        ...xxxx.  GET /api/v1/status/buildinfo
        ...xxxx.  GET /api/v1/status/runtimeinfo
        ...xxxx.  GET /api/v1/status/tsdb
        ...xxxx.  GET /federate
        .......x  POST /api/v1/write
        .......x  POST /v1/metrics
        .......x  POST /api/v1/otlp/v1/metrics
        ........  GET /api/v1/write
        ........  POST /federate
        ........  DELETE /api/v1/series
        ........  PUT /api/v1/query
        ........  get /api/v1/query
        ........  GET /api/v1/label//values
        ........  GET /api/v1/label/a/b/values
        ........  GET /api/v1/label/instance/values/
        ........  GET //api/v1/query
        ........  GET /API/v1/query
        ........  GET /api/v1/admin/tsdb/snapshot
        ........  POST /tocsin.v1.AdminService/CreateToken
        ........  GET /";

    // Cases: H15
    #[test]
    fn every_path_and_every_caller() {
        let rows: Vec<(&str, &str)> =
            GOLDEN_PATHS.trim().lines().map(|row| row.trim().split_once("  ").unwrap()).collect();
        for (expected, request) in &rows {
            let (method, path) = request.split_once(' ').unwrap();
            let may = |caller: &Caller| authorise_path(caller, method, path).is_ok();
            let got: String = callers().iter().map(|caller| if may(caller) { 'x' } else { '.' }).collect();
            assert_eq!(got, *expected, "{request}");
        }
        let golden: BTreeSet<&str> = rows.iter().map(|(_, request)| *request).collect();
        for (method, path, _) in PATHS {
            assert!(golden.contains(&*format!("{method} {path}")), "{method} {path} has no row in the table");
        }
    }

    #[test]
    fn a_path_that_is_refused_says_why() {
        let [anonymous, _, consumer, viewer, ..] = callers();
        for (caller, method, path, says) in [
            (&anonymous, "GET", "/api/v1/query", "this call needs a credential"),
            (&anonymous, "GET", "/nothing", "this call needs a credential"),
            (&consumer, "GET", "/api/v1/query", "\"kim\" with the role consumer may not call /api/v1/query"),
            (&viewer, "PUT", "/api/v1/query", "/api/v1/query takes other methods: GET, POST"),
            (&viewer, "GET", "/nothing", "there is no such path"),
        ] {
            assert_eq!(authorise_path(caller, method, path).unwrap_err().to_string(), says);
        }
    }

    #[test]
    fn refusals_say_who_and_what() {
        let [anonymous, agent, _, viewer, ..] = callers();
        let method = "/tocsin.v1.AdminService/CreateToken";
        for (caller, method, says) in [
            (&anonymous, method, "this call needs a credential"),
            (&anonymous, "/nothing", "this call needs a credential"),
            (
                &viewer,
                method,
                "\"kim\" with the role viewer may not call /tocsin.v1.AdminService/CreateToken",
            ),
            (&viewer, "/nothing", "there is no such method"),
            (
                &agent,
                method,
                "agent 00000000-0000-0000-0000-000000000000 may not call /tocsin.v1.AdminService/CreateToken",
            ),
        ] {
            assert_eq!(authorise(caller, method).unwrap_err().to_string(), says);
        }
    }
}
