//! From the text of a rule file to its groups, or to everything that is wrong with it.
//!
//! Decides which keys exist, which of them Tocsin acts on, and what each may hold. A key it cannot act on is a
//! mistake, never ignored. One mistake does not hide the next: what can still be checked is checked.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tocsin_shared::labels::METRIC_NAME;
use tocsin_shared::time::parse_duration;

use super::expression::{self, Expression};
use super::mistake::{Mistake, nearest};
use super::rule::{Rule, RuleFile, RuleGroup, RuleId, RuleKind};
use super::template::{Template, TemplateError};
use super::yaml::{self, Node, Value};

/// The largest file; public rule collections have files of up to 200 KiB.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// The most rules of one file, aliases counted; five times the largest public collection.
pub const RULES_MAX: usize = 5_000;

/// The longest single text of a file.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Mistakes told at once; whoever made more has one cause for them.
const MISTAKES_MAX: usize = 1_000;

const FILE_KEYS: &[&str] = &["groups"];
const GROUP_KEYS: &[&str] = &["name", "interval", "query_offset", "limit", "labels", "rules"];
const RULE_KEYS: &[&str] = &[
    "alert",
    "record",
    "expr",
    "for",
    "keep_firing_for",
    "labels",
    "annotations",
    "service",
    "runbook",
    "incident",
    "no_data",
    "clear_expr",
    "params",
    "overrides",
];

/// Keys that only an alerting rule has.
const ALERT_ONLY: &[&str] = &["for", "keep_firing_for", "annotations", "incident", "no_data"];

/// Keys with a meaning that is not acted on: better a refusal than a rule that does something else.
const NOT_YET: &[&str] = &["clear_expr", "params", "overrides"];

/// Reads a Prometheus rule file. `name` is the file's name, which becomes part of its rules' ids.
/// The error holds all mistakes of the file, in the order of their lines.
pub fn parse_file(name: &str, text: &str) -> Result<RuleFile, Vec<Mistake>> {
    let mut reader = Reader { file: name.into(), mistakes: Vec::new(), rules: 0 };
    if text.len() > FILE_BYTES_MAX {
        reader.mistake(1, 1, format!("the file is larger than {FILE_BYTES_MAX} bytes; split it"));
        return Err(reader.mistakes);
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text); // The byte order mark of some editors.
    let groups = match yaml::read(text) {
        Ok(Some(root)) if !matches!(root.value, Value::Null) => reader.file(&root),
        Ok(_) => Vec::new(), // Prometheus, too, takes an empty file.
        Err(error) => {
            reader.mistake(error.line, error.column, error.message);
            Vec::new()
        }
    };
    if reader.mistakes.is_empty() {
        return Ok(RuleFile { name: reader.file, groups });
    }
    reader.mistakes.sort();
    reader.mistakes.dedup(); // A value used through aliases is wrong once.
    Err(reader.mistakes)
}

struct Reader {
    file: Arc<str>,
    mistakes: Vec<Mistake>,
    rules: usize,
}

/// The keys of a map that may stand there, each once.
struct Fields {
    entries: Vec<(&'static str, Rc<Node>)>,
}

impl Fields {
    fn get(&self, key: &str) -> Option<&Rc<Node>> {
        self.entries.iter().find(|(known, _)| *known == key).map(|(_, node)| node)
    }
}

/// A group's labels as they go into its rules.
type Texts = Vec<(Box<str>, Template)>;

impl Reader {
    fn mistake(&mut self, line: usize, column: usize, message: impl Into<String>) {
        if self.mistakes.len() < MISTAKES_MAX {
            self.mistakes.push(Mistake { file: self.file.clone(), line, column, message: message.into() });
        }
    }

    fn wrong(&mut self, node: &Node, message: impl Into<String>) {
        self.mistake(node.line, node.column, message);
    }

    fn file(&mut self, root: &Node) -> Vec<RuleGroup> {
        let Some(fields) = self.fields(root, "a rule file", FILE_KEYS) else { return Vec::new() };
        let mut groups: Vec<RuleGroup> = Vec::new();
        let mut lines: HashMap<Box<str>, usize> = HashMap::new();
        for node in fields.get("groups").map(|node| self.list(node, "groups")).unwrap_or_default() {
            if self.rules > RULES_MAX {
                break;
            }
            let Some(group) = self.group(&node) else { continue };
            if let Some(line) = lines.insert(group.name.clone(), node.line) {
                self.wrong(
                    &node,
                    format!("group {:?} is already on line {line}; give it its own name", group.name),
                );
            }
            groups.push(group);
        }
        groups
    }

    fn group(&mut self, node: &Node) -> Option<RuleGroup> {
        let fields = self.fields(node, "a group", GROUP_KEYS)?;
        let name = fields.get("name").and_then(|name| self.text(name, "name")).unwrap_or_default();
        if name.is_empty() {
            self.wrong(node, "a group needs a name");
        }
        let interval = self.duration(&fields, "interval").filter(|interval| !interval.is_zero());
        let query_offset = self.duration(&fields, "query_offset");
        let limit = fields.get("limit").and_then(|node| self.limit(node));
        let labels = self.texts(&fields, "labels", Template::parse);
        let mut places: HashMap<Box<str>, usize> = HashMap::new();
        let mut rules = Vec::new();
        for node in fields.get("rules").map(|node| self.list(node, "rules")).unwrap_or_default() {
            self.rules += 1;
            if self.rules > RULES_MAX {
                self.wrong(&node, format!("the file has more than {RULES_MAX} rules; split it"));
                break;
            }
            if let Some(mut rule) = self.rule(&node, &labels) {
                let place = places.entry(rule.name().into()).or_default();
                rule.id = RuleId::new(&self.file, &name, rule.name(), *place);
                *place += 1;
                rules.push(rule);
            }
        }
        let (name, file) = (name.into(), self.file.clone());
        Some(RuleGroup { name, file, interval, query_offset, limit, rules, line: node.line })
            .filter(|group| !group.name.is_empty())
    }

    /// A rule, or None when it has mistakes.
    fn rule(&mut self, node: &Node, group_labels: &Texts) -> Option<Rule> {
        let before = self.mistakes.len();
        let fields = self.fields(node, "a rule", RULE_KEYS)?;
        for key in NOT_YET {
            if let Some(node) = fields.get(key) {
                self.wrong(node, format!("{key} is not supported yet; remove it"));
            }
        }
        let kind = self.kind(node, &fields);
        let expr = self.expression(node, &fields);
        let is_alert = fields.get("record").is_none();
        let read = if is_alert { Template::parse } else { literal };
        let mut labels = self.texts(&fields, "labels", read);
        for (name, template) in group_labels {
            if !labels.iter().any(|(known, _)| known == name) {
                let template = if is_alert { template.clone() } else { Template::literal(template.source()) };
                labels.push((name.clone(), template));
            }
        }
        labels.sort_by(|a, b| a.0.cmp(&b.0));
        let annotations = self.texts(&fields, "annotations", Template::parse);
        let service = self.optional_text(&fields, "service");
        let runbook = self.optional_text(&fields, "runbook");
        if self.mistakes.len() > before {
            return None;
        }
        let id = RuleId::new("", "", "", 0); // The group knows the rule's place and sets it.
        Some(Rule { id, kind: kind?, expr: expr?, labels, annotations, service, runbook, line: node.line })
    }

    fn kind(&mut self, node: &Node, fields: &Fields) -> Option<RuleKind> {
        match (fields.get("alert"), fields.get("record")) {
            (Some(alert), None) => self.alert(alert, fields),
            (None, Some(record)) => self.record(record, fields),
            (Some(_), Some(record)) => {
                self.wrong(record, "a rule has alert or record, not both");
                None
            }
            (None, None) => {
                self.wrong(node, "a rule needs alert (the alert's name) or record (the metric it makes)");
                None
            }
        }
    }

    fn alert(&mut self, alert: &Node, fields: &Fields) -> Option<RuleKind> {
        let name = self.named(alert, "alert")?;
        let hold = self.duration(fields, "for").unwrap_or_default();
        let keep_firing_for = self.duration(fields, "keep_firing_for").unwrap_or_default();
        let incident = self.word(fields, "incident", &["open", "none"]).map(|word| word == "open");
        if self.word(fields, "no_data", &["hold", "alert", "ok"]).is_some_and(|word| word != "hold")
            && let Some(node) = fields.get("no_data")
        {
            self.wrong(node, "of no_data only hold is supported yet: without data an alert stays as it is");
        }
        Some(RuleKind::Alert { name, hold, keep_firing_for, incident })
    }

    fn record(&mut self, record: &Node, fields: &Fields) -> Option<RuleKind> {
        for key in ALERT_ONLY {
            if let Some(node) = fields.get(key) {
                self.wrong(node, format!("a recording rule has no {key}; only an alerting rule has"));
            }
        }
        let metric = self.named(record, "record")?;
        if !is_name(&metric, true) {
            self.wrong(record, format!("not a metric name: {metric:?}; letters, digits, _ and : make one"));
        }
        Some(RuleKind::Record { metric })
    }

    fn named(&mut self, node: &Node, what: &str) -> Option<Box<str>> {
        let text = self.text(node, what)?;
        if text.is_empty() {
            self.wrong(node, format!("{what} is empty"));
        }
        Some(text.into())
    }

    fn expression(&mut self, rule: &Node, fields: &Fields) -> Option<Expression> {
        let Some(node) = fields.get("expr") else {
            self.wrong(rule, "a rule needs expr, the PromQL expression it evaluates");
            return None;
        };
        let text = self.text(node, "expr")?;
        if text.trim().is_empty() {
            self.wrong(node, "expr is empty");
            return None;
        }
        match expression::check(&text) {
            Ok(expression) => Some(expression),
            Err(reason) => {
                self.wrong(node, format!("not a PromQL expression: {reason}"));
                None
            }
        }
    }

    /// The keys of a map; says what does not belong there.
    fn fields(&mut self, node: &Node, what: &str, allowed: &'static [&'static str]) -> Option<Fields> {
        let mut fields = Fields { entries: Vec::new() };
        let Value::Map(pairs) = &node.value else {
            self.wrong(node, format!("{what} is a map with the keys {}", allowed.join(", ")));
            return None;
        };
        for (key, value) in pairs {
            let Value::Text(name) = &key.value else {
                self.wrong(key, format!("a key is a word; {what} has {}", allowed.join(", ")));
                continue;
            };
            let Some(known) = allowed.iter().find(|known| **known == name) else {
                let hint = nearest(name, allowed.iter().copied());
                let hint = hint.map_or(String::new(), |near| format!("; did you mean {near}?"));
                let shown: String = name.chars().take(60).collect();
                self.wrong(key, format!("{what} has no key {shown:?}{hint} (it has {})", allowed.join(", ")));
                continue;
            };
            if fields.get(known).is_some() {
                self.wrong(key, format!("{name} is given twice"));
            } else if !matches!(value.value, Value::Null) {
                fields.entries.push((known, Rc::clone(value)));
            }
        }
        Some(fields)
    }

    fn list(&mut self, node: &Node, what: &str) -> Vec<Rc<Node>> {
        if let Value::List(items) = &node.value {
            return items.clone();
        }
        self.wrong(node, format!("{what} is a list; begin each item with a dash"));
        Vec::new()
    }

    fn text(&mut self, node: &Node, what: &str) -> Option<String> {
        match &node.value {
            Value::Text(text) if text.len() <= TEXT_BYTES_MAX => return Some(text.clone()),
            Value::Text(_) => self.wrong(node, format!("{what} is longer than {TEXT_BYTES_MAX} bytes")),
            Value::Null => return Some(String::new()),
            Value::List(_) | Value::Map(_) => {
                self.wrong(node, format!("{what} is a text; put it in quotes if it has braces or colons"));
            }
        }
        None
    }

    fn optional_text(&mut self, fields: &Fields, key: &str) -> Option<Box<str>> {
        let node = fields.get(key)?;
        self.named(node, key)
    }

    fn word(&mut self, fields: &Fields, key: &str, allowed: &[&'static str]) -> Option<&'static str> {
        let node = fields.get(key)?;
        let text = self.text(node, key)?;
        let word = allowed.iter().find(|word| **word == text).copied();
        if word.is_none() {
            self.wrong(node, format!("{key} is one of {}, not {text:?}", allowed.join(", ")));
        }
        word
    }

    fn duration(&mut self, fields: &Fields, key: &str) -> Option<Duration> {
        let node = fields.get(key)?;
        let text = self.text(node, key)?;
        match parse_duration(&text) {
            Ok(duration) => Some(duration),
            Err(error) => {
                self.wrong(node, format!("{key}: {error}"));
                None
            }
        }
    }

    /// A number of elements; zero, as in Prometheus, is no limit.
    fn limit(&mut self, node: &Node) -> Option<usize> {
        let text = self.text(node, "limit")?;
        match text.parse() {
            Ok(limit) => Some(limit).filter(|limit| *limit > 0),
            Err(_) => {
                self.wrong(node, format!("limit is a whole number, not {text:?}"));
                None
            }
        }
    }

    /// Labels or annotations: names and templates, sorted by name.
    fn texts(
        &mut self,
        fields: &Fields,
        key: &str,
        read: fn(&str) -> Result<Template, TemplateError>,
    ) -> Texts {
        let mut texts: Texts = Vec::new();
        let Some(node) = fields.get(key) else { return texts };
        let Value::Map(pairs) = &node.value else {
            self.wrong(node, format!("{key} is a map from names to texts"));
            return texts;
        };
        for (name_node, value) in pairs {
            let Some(name) = self.text(name_node, "a name") else { continue };
            if !is_name(&name, false) || name == METRIC_NAME {
                self.wrong(
                    name_node,
                    format!("{key}: not a label name: {name:?}; letters, digits and _ make one"),
                );
            }
            if texts.iter().any(|(known, _)| **known == *name) {
                self.wrong(name_node, format!("{key}: {name} is given twice"));
            }
            let Some(text) = self.text(value, &name) else { continue };
            match read(&text) {
                Ok(template) => texts.push((name.into(), template)),
                Err(error) => {
                    let (line, column) = value.place(error.offset);
                    self.mistake(line, column, format!("{name}: {error}"));
                }
            }
        }
        texts.sort_by(|a, b| a.0.cmp(&b.0));
        texts
    }
}

fn literal(text: &str) -> Result<Template, TemplateError> {
    Ok(Template::literal(text))
}

/// Prometheus' names: a letter or `_` first, digits later; metric names may hold colons.
fn is_name(text: &str, colons: bool) -> bool {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
    text.chars().all(valid) && text.starts_with(|c: char| !c.is_ascii_digit())
}
