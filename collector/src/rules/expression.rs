//! The PromQL of a rule: checked when its file is read.
//!
//! `check` is the one place where rules meet the query language: `tocsin_promql` decides what can be evaluated and
//! what is host-local; that a rule gives a vector or a scalar, never a range or a string, is decided here.

use promql_parser::parser::value::ValueType;
use tocsin_promql::Expr;

/// An expression that can be evaluated and gives a vector or a scalar. Equal when its text is.
#[derive(Clone, Debug)]
pub struct Expression(Expr);

impl Expression {
    /// The planned expression, ready to be evaluated.
    pub fn expr(&self) -> &Expr {
        &self.0
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        self.0.text()
    }

    /// Whether every vector in it keeps `instance`, so that hosts do not touch each other.
    pub fn is_host_local(&self) -> bool {
        self.0.is_host_local()
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

/// Reads an expression, or says in one line why it is none.
pub(super) fn check(text: &str) -> Result<Expression, String> {
    let expr = Expr::parse(text).map_err(|error| error.to_string())?;
    match promql_parser::parser::parse(text)?.value_type() {
        ValueType::Vector | ValueType::Scalar => Ok(Expression(expr)),
        ValueType::Matrix => Err("a rule needs an instant vector, not a range; drop the [...]".to_owned()),
        ValueType::String => Err("a rule needs an instant vector, not a string".to_owned()),
    }
}
