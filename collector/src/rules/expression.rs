//! The PromQL of a rule: checked when its file is read, kept as text.
//!
//! `check` is the one place where rules meet the query language.
//! A rule is *host-local* when every vector in it keeps the label `instance`: then one host's row is enough to
//! evaluate it, whatever other hosts do.

use promql_parser::label::Labels as Names;
use promql_parser::parser::value::ValueType;
use promql_parser::parser::{BinaryExpr, Call, Expr, LabelModifier, parse};

/// The label that tells hosts apart.
const HOST_LABEL: &str = "instance";

/// The longest expression: the longest in public rule collections has under 2 KiB. It also bounds how deep one nests.
pub(super) const EXPRESSION_BYTES_MAX: usize = 16 * 1024;

/// A valid PromQL expression that gives a vector or a scalar.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    text: Box<str>,
    host_local: bool,
}

impl Expression {
    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether every vector in it keeps `instance`, so that hosts do not touch each other.
    pub fn is_host_local(&self) -> bool {
        self.host_local
    }
}

/// Reads an expression, or says in one line why it is none.
pub(super) fn check(text: &str) -> Result<Expression, String> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(format!("the expression is longer than {EXPRESSION_BYTES_MAX} bytes"));
    }
    let expr = parse(text)?;
    match expr.value_type() {
        ValueType::Vector | ValueType::Scalar => {}
        ValueType::Matrix => {
            return Err("a rule needs an instant vector, not a range; drop the [...]".to_owned());
        }
        ValueType::String => return Err("a rule needs an instant vector, not a string".to_owned()),
    }
    Ok(Expression { text: text.into(), host_local: reach(&expr) == Reach::Host })
}

/// How far an expression's result reaches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// A number that no host has a part in.
    Number,
    /// Every element belongs to one host and says so.
    Host,
    /// Elements that several hosts went into, or that name none.
    Fleet,
}

fn reach(expr: &Expr) -> Reach {
    match expr {
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Reach::Number,
        Expr::VectorSelector(_) | Expr::MatrixSelector(_) => Reach::Host,
        Expr::Paren(inner) => reach(&inner.expr),
        Expr::Unary(inner) => reach(&inner.expr),
        Expr::Subquery(inner) => reach(&inner.expr),
        Expr::Aggregate(aggregate) => {
            let inside =
                reach(&aggregate.expr).max(aggregate.param.as_ref().map_or(Reach::Number, |e| reach(e)));
            if keeps_host(aggregate.modifier.as_ref(), false) { inside } else { Reach::Fleet }
        }
        Expr::Binary(binary) => binary_reach(binary),
        Expr::Call(call) => call_reach(call),
        Expr::Extension(_) => Reach::Fleet,
    }
}

/// Whether a grouping or matching keeps hosts apart; `bare` is the answer where none is written.
fn keeps_host(modifier: Option<&LabelModifier>, bare: bool) -> bool {
    let named = |names: &Names| names.labels.iter().any(|name| name == HOST_LABEL);
    match modifier {
        None => bare,
        Some(LabelModifier::Include(names)) => named(names),
        Some(LabelModifier::Exclude(names)) => !named(names),
    }
}

fn binary_reach(binary: &BinaryExpr) -> Reach {
    let (left, right) = (reach(&binary.lhs), reach(&binary.rhs));
    if left == Reach::Number || right == Reach::Number {
        return left.max(right);
    }
    let modifier = binary.modifier.as_ref();
    if keeps_host(modifier.and_then(|m| m.matching.as_ref()), true) { left.max(right) } else { Reach::Fleet }
}

fn call_reach(call: &Call) -> Reach {
    let inside = call.args.args.iter().map(|arg| reach(arg)).max();
    match call.func.name {
        "time" | "pi" => Reach::Number,
        "absent" | "absent_over_time" | "scalar" | "vector" => Reach::Fleet,
        "label_replace" | "label_join" => match call.args.args.get(1).map(|name| &**name) {
            Some(Expr::StringLiteral(name)) if name.val != HOST_LABEL => inside.unwrap_or(Reach::Fleet),
            _ => Reach::Fleet,
        },
        // `day_of_week()` and its like without an argument give an element without labels.
        _ => inside.unwrap_or(Reach::Fleet),
    }
}
