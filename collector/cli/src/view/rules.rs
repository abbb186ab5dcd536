//! The rules in force.

use serde::Serialize;
use tocsin_proto::pb;
use tocsin_shared::sanitize::for_terminal;

use crate::figures;
use crate::screen::{Paint, Style};
use crate::table::{Cell, Table};

/// `tocsin rules list`.
#[derive(Clone, Debug, Serialize)]
pub struct RulesView {
    pub rules: Vec<RuleView>,
}

/// `tocsin rules reload`.
#[derive(Clone, Debug, Serialize)]
pub struct ReloadedView {
    /// How many rules are in force now.
    pub rules: u32,
}

/// A rule.
#[derive(Clone, Debug, Serialize)]
pub struct RuleView {
    pub rule_id: String,
    /// The alert's or the recorded series' name.
    pub name: String,
    /// `alert` or `recording`.
    pub kind: &'static str,
    /// `host`: as a host's row arrives; `fleet`: at its tick, across hosts.
    pub scope: &'static str,
    pub group: String,
    pub file: String,
    pub expr: String,
    /// The last error of its evaluation.
    pub last_error: Option<String>,
}

impl From<pb::RuleInfo> for RuleView {
    fn from(rule: pb::RuleInfo) -> Self {
        let pb::RuleInfo { rule_id, group, file, name, expr, host_local, recording, last_error } = rule;
        Self {
            rule_id,
            name,
            kind: if recording { "recording" } else { "alert" },
            scope: if host_local { "host" } else { "fleet" },
            group,
            file,
            expr,
            last_error: (!last_error.is_empty()).then_some(last_error),
        }
    }
}

/// The list; the errors stand below it, in full.
pub fn draw_rules(view: &RulesView, style: &Style) -> String {
    if view.rules.is_empty() {
        return "no rules are in force; name their directory in the collector's configuration or with `tocsin up --rules DIR`\n".into();
    }
    let mut table = Table::new(&["NAME", "KIND", "SCOPE", "HEALTH", "GROUP", "FILE", "EXPRESSION"]);
    let mut errors = Table::new(&["", ""]).indented("  ");
    let mut failing = 0;
    for rule in &view.rules {
        let health = match &rule.last_error {
            None => Cell::painted("ok", Some(Paint::Good)),
            Some(error) => {
                failing += 1;
                errors.row([rule.name.as_str().into(), Cell::painted(error, Some(Paint::Bad))]);
                Cell::painted("error", Some(Paint::Bad))
            }
        };
        // An expression may span lines; its line breaks mean nothing.
        let expr = rule.expr.split_whitespace().collect::<Vec<_>>().join(" ");
        table.row([
            rule.name.as_str().into(),
            rule.kind.into(),
            rule.scope.into(),
            health,
            rule.group.as_str().into(),
            rule.file.as_str().into(),
            expr.into(),
        ]);
    }
    let mut text = table.draw(style);
    if failing > 0 {
        text.push_str(&format!(
            "\n{} cannot be evaluated:\n{}",
            figures::counted(failing, "rule"),
            errors.draw(style)
        ));
    }
    text
}

/// What `reload` did.
pub fn draw_reloaded(view: &ReloadedView, _: &Style) -> String {
    format!("{} in force\n", figures::counted(view.rules.into(), "rule"))
}

/// `tocsin rules check`.
#[derive(Clone, Debug, Serialize)]
pub struct CheckView {
    pub files: Vec<CheckedFile>,
    /// The same as text.
    #[serde(skip)]
    pub report: String,
}

/// A rule file that was read.
#[derive(Clone, Debug, Serialize)]
pub struct CheckedFile {
    pub path: String,
    pub ok: bool,
    pub groups: usize,
    pub rules: usize,
    pub mistakes: Vec<MistakeView>,
}

/// What is wrong, and where, from 1.
#[derive(Clone, Debug, Serialize)]
pub struct MistakeView {
    pub line: usize,
    pub column: usize,
    pub message: String,
}

/// A line for each good file and for each mistake.
pub fn draw_check(view: &CheckView, _: &Style) -> String {
    for_terminal(&view.report).into_owned()
}
