//! What the README promises, against the real programs: a promise, a file.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod authority;
mod clock;
mod differential;
mod disk_agent;
mod disk_collector;
mod errors;
mod fleet;
mod handling;
mod hardening;
mod hostile;
mod identity;
mod jobs;
mod journal;
mod kills;
mod lives;
mod network;
mod receive;
mod restart;
mod scarce;
mod web;

/// The rule that the scenarios break and mend: a text file of the host says how it stands.
const RULES: &str = r#"
groups:
  - name: scenario
    rules:
      - alert: Breached
        expr: scenario_breach > 0
        labels: {severity: critical}
        annotations: {summary: "{{ $labels.instance }} is breached"}
"#;
