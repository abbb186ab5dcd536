//! From the parser's tree to the plan: types checked, names looked up, what is not supported refused.

use std::time::{Duration, UNIX_EPOCH};

use promql_parser::label as parsed_label;
use promql_parser::parser::{
    AggregateExpr, AtModifier, BinModifier, BinaryExpr, Expr as Parsed, LabelModifier, MatrixSelector,
    Offset, SubqueryExpr, VectorMatchCardinality, VectorSelector,
};
use tocsin_shared::labels::METRIC_NAME;

use super::{
    Aggregate, AggregateFunction, At, Binary, Fetch, Kind, Many, Node, Operator, Shift, Window, WindowInput,
    call,
};
use crate::expr::ParseError;
use crate::labelling::Filter;
use crate::places::Places;
use crate::selector::{MatchOp, Matcher, Selector};
use crate::text::DEPTH_MAX;

/// The resolution of a subquery that names none: Prometheus' default evaluation interval.
const SUBQUERY_STEP: Duration = Duration::from_secs(60);

/// Plans a parsed expression.
pub(crate) fn build(text: &str, parsed: &Parsed) -> Result<(Node, Vec<Selector>), ParseError> {
    let mut builder = Builder { places: Places::of(text, parsed), ..Builder::default() };
    let root = match strip(parsed) {
        matrix @ (Parsed::MatrixSelector(_) | Parsed::Subquery(_)) => {
            Node::Window(Box::new(builder.window(matrix)?))
        }
        other => builder.node(other)?,
    };
    Ok((root, builder.selectors))
}

/// The first experimental function of an expression.
pub(crate) fn experimental(parsed: &Parsed) -> Option<&'static str> {
    match parsed {
        Parsed::Call(call) => {
            let own = call::EXPERIMENTAL.into_iter().find(|name| *name == call.func.name);
            own.or_else(|| call.args.args.iter().find_map(|argument| experimental(argument)))
        }
        Parsed::Aggregate(aggregate) => {
            aggregate.param.iter().chain([&aggregate.expr]).find_map(|inner| experimental(inner))
        }
        Parsed::Binary(binary) => experimental(&binary.lhs).or_else(|| experimental(&binary.rhs)),
        Parsed::Unary(unary) => experimental(&unary.expr),
        Parsed::Paren(paren) => experimental(&paren.expr),
        Parsed::Subquery(subquery) => experimental(&subquery.expr),
        _ => None,
    }
}

/// The expression inside any parentheses.
pub(super) fn strip(mut parsed: &Parsed) -> &Parsed {
    while let Parsed::Paren(paren) = parsed {
        parsed = &paren.expr;
    }
    parsed
}

#[derive(Default)]
pub(super) struct Builder {
    selectors: Vec<Selector>,
    depth: usize,
    pub(super) places: Places,
}

impl Builder {
    pub(super) fn node(&mut self, parsed: &Parsed) -> Result<Node, ParseError> {
        self.depth += 1;
        // `text` bounds brackets and operators each; this bounds what they come to together.
        if DEPTH_MAX < self.depth {
            return Err(ParseError::TooDeep);
        }
        let node = match strip(parsed) {
            Parsed::NumberLiteral(number) => Ok(Node::Number(number.val)),
            Parsed::StringLiteral(text) => Ok(Node::Text(text.val.as_str().into())),
            Parsed::VectorSelector(selector) => self.fetch(selector).map(Node::Select),
            Parsed::Call(parsed) => call::build(self, parsed),
            Parsed::Unary(unary) => self.negate(&unary.expr),
            Parsed::Binary(binary) => self.binary(binary),
            Parsed::Aggregate(aggregate) => self.aggregate(aggregate),
            Parsed::MatrixSelector(_) | Parsed::Subquery(_) => Err(ParseError::Type {
                place: format!("the place of {parsed}"),
                expected: Kind::Vector.name(),
                found: Kind::Matrix.name(),
            }),
            Parsed::Paren(_) | Parsed::Extension(_) => {
                Err(ParseError::Unsupported(format!("{parsed} is not supported")))
            }
        };
        self.depth -= 1;
        node
    }

    /// A node of the one kind its place takes.
    pub(super) fn typed(&mut self, parsed: &Parsed, expected: Kind, place: &str) -> Result<Node, ParseError> {
        let node = self.node(parsed)?;
        if node.kind() == expected {
            return Ok(node);
        }
        let found = node.kind().name();
        Err(ParseError::Type { place: place.to_owned(), expected: expected.name(), found })
    }

    pub(super) fn fetch(&mut self, selector: &VectorSelector) -> Result<Fetch, ParseError> {
        let shift = shift(&selector.at, &selector.offset)?;
        Ok(Fetch { selector: self.selector(selector)?, shift })
    }

    /// The selector planned last.
    pub(super) fn last_selector(&self) -> Option<&Selector> {
        self.selectors.last()
    }

    fn selector(&mut self, parsed: &VectorSelector) -> Result<usize, ParseError> {
        if !parsed.matchers.or_matchers.is_empty() {
            let what = "`or` between label matchers is not supported, use `or` between selectors";
            return Err(ParseError::Unsupported(what.to_owned()));
        }
        let mut matchers = Vec::with_capacity(parsed.matchers.matchers.len() + 1);
        if let Some(name) = &parsed.name {
            matchers.push(Matcher::new(METRIC_NAME, MatchOp::Equal, name)?);
        }
        for matcher in &parsed.matchers.matchers {
            let op = match matcher.op {
                parsed_label::MatchOp::Equal => MatchOp::Equal,
                parsed_label::MatchOp::NotEqual => MatchOp::NotEqual,
                parsed_label::MatchOp::Re(_) => MatchOp::Regex,
                parsed_label::MatchOp::NotRe(_) => MatchOp::NotRegex,
            };
            matchers.push(Matcher::new(&matcher.name, op, &matcher.value)?);
        }
        if matchers.iter().all(|matcher| matcher.matches_value("")) {
            let what =
                format!("the selector {{{}}} would take every series; name one label", parsed.matchers);
            return Err(ParseError::Argument(what));
        }
        let id = self.selectors.len();
        self.selectors.push(Selector { id, matchers });
        Ok(id)
    }

    pub(super) fn window(&mut self, parsed: &Parsed) -> Result<Window, ParseError> {
        match strip(parsed) {
            Parsed::MatrixSelector(MatrixSelector { vs, range }) => {
                let shift = shift(&vs.at, &vs.offset)?;
                Ok(Window { input: WindowInput::Selector(self.selector(vs)?), range: millis(*range)?, shift })
            }
            Parsed::Subquery(SubqueryExpr { expr, offset, at, range, step }) => {
                let inner = Box::new(self.typed(expr, Kind::Vector, "a subquery")?);
                let step = millis(step.unwrap_or(SUBQUERY_STEP))?;
                let shift = shift(at, offset)?;
                Ok(Window { input: WindowInput::Subquery { inner, step }, range: millis(*range)?, shift })
            }
            other => Err(ParseError::Type {
                place: format!("the place of {other}"),
                expected: Kind::Matrix.name(),
                found: self.node(other)?.kind().name(),
            }),
        }
    }

    fn negate(&mut self, parsed: &Parsed) -> Result<Node, ParseError> {
        match self.node(parsed)? {
            Node::Number(value) => Ok(Node::Number(-value)),
            node if matches!(node.kind(), Kind::Scalar | Kind::Vector) => Ok(Node::Negate(Box::new(node))),
            node => Err(ParseError::Type {
                place: "unary minus".to_owned(),
                expected: Kind::Vector.name(),
                found: node.kind().name(),
            }),
        }
    }

    fn binary(&mut self, parsed: &BinaryExpr) -> Result<Node, ParseError> {
        let name = parsed.op.to_string();
        let operator = operator(&name)?;
        let default = BinModifier::default();
        let BinModifier { card, matching, return_bool, fill_values } =
            parsed.modifier.as_ref().unwrap_or(&default);
        if fill_values.lhs.is_some() || fill_values.rhs.is_some() {
            return Err(ParseError::Experimental("the fill modifier".to_owned()));
        }
        let (left, right) = (self.node(&parsed.lhs)?, self.node(&parsed.rhs)?);
        for node in [&left, &right] {
            if !matches!(node.kind(), Kind::Scalar | Kind::Vector) {
                let (expected, found) = (Kind::Vector.name(), node.kind().name());
                return Err(ParseError::Type { place: format!("operator {name}"), expected, found });
            }
        }
        let scalars = [&left, &right].into_iter().filter(|node| node.kind() == Kind::Scalar).count();
        if scalars == 2 && operator.is_comparison() && !return_bool {
            return Err(ParseError::Argument(format!("{name} between scalars needs `bool`")));
        }
        if 0 < scalars && operator.is_set() {
            return Err(ParseError::Argument(format!("{name} works between instant vectors only")));
        }
        let (many, include) = match card {
            VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany => {
                (Many::Neither, Vec::new())
            }
            VectorMatchCardinality::ManyToOne(labels) => (Many::Left, names(&labels.labels)),
            VectorMatchCardinality::OneToMany(labels) => (Many::Right, names(&labels.labels)),
        };
        let matching = filter(matching.as_ref(), || Filter::AllBut([].into()));
        if let (Node::Number(a), Node::Number(b)) = (&left, &right) {
            return Ok(Node::Number(crate::binary::scalar(operator, *a, *b)));
        }
        let to_bool = *return_bool;
        Ok(Node::Binary(Box::new(Binary { operator, left, right, to_bool, matching, many, include })))
    }

    fn aggregate(&mut self, parsed: &AggregateExpr) -> Result<Node, ParseError> {
        let name = parsed.op.to_string();
        let mut scalar = || {
            let parameter = parsed.param.as_deref();
            let parameter =
                parameter.ok_or_else(|| ParseError::Argument(format!("{name} wants a parameter")))?;
            self.typed(parameter, Kind::Scalar, &format!("the parameter of {name}")).map(Some)
        };
        let (function, parameter) = match name.as_str() {
            "sum" => (AggregateFunction::Sum, None),
            "avg" => (AggregateFunction::Avg, None),
            "min" => (AggregateFunction::Min, None),
            "max" => (AggregateFunction::Max, None),
            "count" => (AggregateFunction::Count, None),
            "group" => (AggregateFunction::Group, None),
            "stddev" => (AggregateFunction::Stddev, None),
            "stdvar" => (AggregateFunction::Stdvar, None),
            "topk" => (AggregateFunction::Topk, scalar()?),
            "bottomk" => (AggregateFunction::Bottomk, scalar()?),
            "quantile" => (AggregateFunction::Quantile, scalar()?),
            "count_values" => match parsed.param.as_deref().map(strip) {
                Some(Parsed::StringLiteral(text)) => {
                    (AggregateFunction::CountValues(call::label_name(self, &text.val)?), None)
                }
                _ => {
                    return Err(ParseError::Argument("count_values wants a label name in quotes".to_owned()));
                }
            },
            _ => {
                return Err(ParseError::Experimental(format!("the aggregation {name}")));
            }
        };
        let input = self.typed(&parsed.expr, Kind::Vector, &name)?;
        let grouping = filter(parsed.modifier.as_ref(), || Filter::Only([].into()));
        let parameter_place = self.places.argument(parsed, 0);
        Ok(Node::Aggregate(Box::new(Aggregate { function, input, parameter, parameter_place, grouping })))
    }
}

fn operator(name: &str) -> Result<Operator, ParseError> {
    use Operator::*;
    let table = [
        ("+", Add),
        ("-", Subtract),
        ("*", Multiply),
        ("/", Divide),
        ("%", Modulo),
        ("^", Power),
        ("atan2", Atan2),
        ("==", Equal),
        ("!=", NotEqual),
        ("<", Less),
        ("<=", LessOrEqual),
        (">", Greater),
        (">=", GreaterOrEqual),
        ("and", And),
        ("or", Or),
        ("unless", Unless),
    ];
    let found = table.into_iter().find(|(symbol, _)| *symbol == name);
    found
        .map(|(_, op)| op)
        .ok_or_else(|| ParseError::Unsupported(format!("the operator {name} is not supported")))
}

fn names(labels: &[String]) -> Vec<Box<str>> {
    labels.iter().map(|label| label.as_str().into()).collect()
}

fn filter(modifier: Option<&LabelModifier>, default: impl FnOnce() -> Filter) -> Filter {
    match modifier {
        None => default(),
        Some(LabelModifier::Include(labels)) => Filter::Only(names(&labels.labels).into()),
        Some(LabelModifier::Exclude(labels)) => Filter::AllBut(names(&labels.labels).into()),
    }
}

fn shift(at: &Option<AtModifier>, offset: &Option<Offset>) -> Result<Shift, ParseError> {
    let offset = match offset {
        None => 0,
        Some(Offset::Pos(span)) => millis(*span)?,
        Some(Offset::Neg(span)) => -millis(*span)?,
    };
    let at = match at {
        None => None,
        Some(AtModifier::Start) => Some(At::Start),
        Some(AtModifier::End) => Some(At::End),
        Some(AtModifier::At(time)) => Some(At::Fixed(match time.duration_since(UNIX_EPOCH) {
            Ok(after) => millis(after)?,
            Err(before) => -millis(before.duration())?,
        })),
    };
    Ok(Shift { at, offset })
}

/// Spans are kept under some 290,000 years each, so that sums of a few of them stay far from overflow.
fn millis(span: Duration) -> Result<i64, ParseError> {
    let too_long = || ParseError::Argument(format!("the time span {span:?} is too long"));
    i64::try_from(span.as_millis()).ok().filter(|ms| *ms < i64::MAX / 1024).ok_or_else(too_long)
}
