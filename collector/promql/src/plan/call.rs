//! Function calls: which functions there are, what they take, and why some are refused.

use promql_parser::parser::{Call, Expr as Parsed};
use tocsin_shared::labels::{Labels, METRIC_NAME};

use super::build::{Builder, strip};
use super::{Clock, EachFunction, Join, Kind, Node, Replace, WindowFunction};
use crate::expr::ParseError;
use crate::functions::{calendar, math};
use crate::places::Place;
use crate::selector::{MatchOp, Selector, anchored};

pub(super) fn build(builder: &mut Builder, call: &Call) -> Result<Node, ParseError> {
    let name = call.func.name;
    let arguments: Vec<&Parsed> = call.args.args.iter().map(|argument| strip(argument)).collect();
    if let Some(function) = window_function(name) {
        let place = builder.places.argument(call, 0);
        return over_window(builder, (name, place), function, &arguments);
    }
    if let Some(function) = calendar::function(name) {
        let input = match arguments.first() {
            None => Node::Vector(Box::new(Node::Clock(Clock::Now))),
            Some(argument) => builder.typed(argument, Kind::Vector, name)?,
        };
        return Ok(each(EachFunction::Plain(function), input, Vec::new()));
    }
    if let Some(function) = math::function(name) {
        let input = builder.typed(argument(&arguments, 0, name)?, Kind::Vector, name)?;
        return Ok(each(EachFunction::Plain(function), input, Vec::new()));
    }
    let places = [0, 1, 2].map(|at| builder.places.argument(call, at));
    special(builder, name, &arguments, places)
}

fn special(
    builder: &mut Builder,
    name: &'static str,
    arguments: &[&Parsed],
    places: [Option<Place>; 3],
) -> Result<Node, ParseError> {
    let mut typed = |at: usize, kind| builder.typed(argument(arguments, at, name)?, kind, name);
    let mut boxed = |at: usize, kind| typed(at, kind).map(Box::new);
    Ok(match name {
        "time" => Node::Clock(Clock::Now),
        "start" => Node::Clock(Clock::Start),
        "end" => Node::Clock(Clock::End),
        "step" => Node::Clock(Clock::Step),
        "range" => Node::Clock(Clock::Range),
        "pi" => Node::Number(std::f64::consts::PI),
        "min_of" | "max_of" => Node::Extreme {
            largest: name == "max_of",
            left: boxed(0, Kind::Scalar)?,
            right: boxed(1, Kind::Scalar)?,
        },
        "scalar" => Node::Scalar(boxed(0, Kind::Vector)?),
        "vector" => Node::Vector(boxed(0, Kind::Scalar)?),
        "sort" => Node::Sort { input: boxed(0, Kind::Vector)?, descending: false },
        "sort_desc" => Node::Sort { input: boxed(0, Kind::Vector)?, descending: true },
        "histogram_quantile" => {
            let (quantile, input) = (boxed(0, Kind::Scalar)?, boxed(1, Kind::Vector)?);
            Node::HistogramQuantile { quantile, input, places: [places[0], places[1]] }
        }
        "histogram_fraction" => {
            let bounds = Box::new([typed(0, Kind::Scalar)?, typed(1, Kind::Scalar)?]);
            let input = Box::new(typed(2, Kind::Vector)?);
            Node::HistogramFraction { bounds, input, place: places[2] }
        }
        "clamp" => {
            let parameters = vec![typed(1, Kind::Scalar)?, typed(2, Kind::Scalar)?];
            each(EachFunction::Clamp, typed(0, Kind::Vector)?, parameters)
        }
        "clamp_min" | "clamp_max" => {
            let function = if name == "clamp_min" { EachFunction::ClampMin } else { EachFunction::ClampMax };
            let parameters = vec![typed(1, Kind::Scalar)?];
            each(function, typed(0, Kind::Vector)?, parameters)
        }
        "round" => {
            let nearest = if arguments.len() < 2 { Node::Number(1.0) } else { typed(1, Kind::Scalar)? };
            each(EachFunction::Round, typed(0, Kind::Vector)?, vec![nearest])
        }
        "timestamp" => match argument(arguments, 0, name)? {
            Parsed::VectorSelector(selector) => Node::SampleTime(builder.fetch(selector)?),
            _ => each(EachFunction::StepTime, typed(0, Kind::Vector)?, Vec::new()),
        },
        "absent" => {
            let parsed = argument(arguments, 0, name)?;
            let inner = boxed(0, Kind::Vector)?;
            let labels = absent_labels(builder, parsed)?;
            Node::Absent { inner, labels }
        }
        "absent_over_time" => {
            let parsed = argument(arguments, 0, name)?;
            let window = Box::new(builder.window(parsed)?);
            let labels = absent_labels(builder, parsed)?;
            Node::AbsentOverTime { window, labels }
        }
        "label_replace" => replace(builder, arguments)?,
        "label_join" => join(builder, arguments)?,
        _ => return Err(refusal(name)),
    })
}

/// What Prometheus has behind `--enable-feature=promql-experimental-functions` and this engine knows.
pub(super) const EXPERIMENTAL: [&str; 13] = [
    "double_exponential_smoothing",
    "end",
    "first_over_time",
    "mad_over_time",
    "max_of",
    "min_of",
    "range",
    "start",
    "step",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "ts_of_max_over_time",
    "ts_of_min_over_time",
];

fn refusal(name: &str) -> ParseError {
    match name {
        "histogram_quantiles" => ParseError::Experimental(format!("the function {name}()")),
        name if name.starts_with("histogram_") => ParseError::NativeHistograms(name.to_owned()),
        name => ParseError::Experimental(format!("the function {name}()")),
    }
}

fn each(function: EachFunction, input: Node, parameters: Vec<Node>) -> Node {
    Node::Each { function, input: Box::new(input), parameters }
}

fn argument<'a>(arguments: &[&'a Parsed], at: usize, name: &str) -> Result<&'a Parsed, ParseError> {
    let missing = || ParseError::Argument(format!("{name}() wants more arguments than {}", arguments.len()));
    arguments.get(at).copied().ok_or_else(missing)
}

fn window_function(name: &str) -> Option<WindowFunction> {
    use WindowFunction::*;
    let table = [
        ("rate", Rate),
        ("increase", Increase),
        ("delta", Delta),
        ("irate", Irate),
        ("idelta", Idelta),
        ("deriv", Deriv),
        ("predict_linear", PredictLinear),
        ("changes", Changes),
        ("resets", Resets),
        ("avg_over_time", Avg),
        ("sum_over_time", Sum),
        ("min_over_time", Min),
        ("max_over_time", Max),
        ("count_over_time", Count),
        ("first_over_time", First),
        ("last_over_time", Last),
        ("present_over_time", Present),
        ("quantile_over_time", Quantile),
        ("stddev_over_time", Stddev),
        ("stdvar_over_time", Stdvar),
        ("mad_over_time", Mad),
        ("ts_of_first_over_time", TimeOfFirst),
        ("ts_of_last_over_time", TimeOfLast),
        ("ts_of_min_over_time", TimeOfMin),
        ("ts_of_max_over_time", TimeOfMax),
        ("double_exponential_smoothing", Smooth),
    ];
    table.into_iter().find(|(n, _)| *n == name).map(|(_, function)| function)
}

/// The window is the one range-vector argument; the others are scalars.
fn over_window(
    builder: &mut Builder,
    (name, place): (&str, Option<Place>),
    function: WindowFunction,
    arguments: &[&Parsed],
) -> Result<Node, ParseError> {
    let window_at = usize::from(function == WindowFunction::Quantile);
    let window = Box::new(builder.window(argument(arguments, window_at, name)?)?);
    let scalars = arguments.iter().enumerate().filter(|(at, _)| *at != window_at);
    let parameters = scalars
        .map(|(_, parsed)| builder.typed(parsed, Kind::Scalar, name))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Node::OverWindow { function, window, parameters, place })
}

/// What is known of a series that is not there: the labels its selector demands, each if demanded once only.
fn absent_labels(builder: &Builder, parsed: &Parsed) -> Result<Labels, ParseError> {
    match parsed {
        Parsed::VectorSelector(_) | Parsed::MatrixSelector(_) => {}
        _ => return Ok(Labels::empty()),
    }
    let Some(Selector { matchers, .. }) = builder.last_selector() else { return Ok(Labels::empty()) };
    let mut known: Vec<(&str, &str)> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for matcher in matchers.iter().filter(|matcher| &*matcher.name != METRIC_NAME) {
        if matcher.op == MatchOp::Equal && !seen.contains(&&*matcher.name) {
            known.push((&matcher.name, &matcher.value));
            seen.push(&matcher.name);
        } else {
            known.retain(|(name, _)| *name != &*matcher.name);
        }
    }
    Ok(Labels::new(known))
}

fn text<'a>(arguments: &[&'a Parsed], at: usize, name: &str) -> Result<&'a str, ParseError> {
    match argument(arguments, at, name)? {
        Parsed::StringLiteral(text) => Ok(&text.val),
        _ => Err(ParseError::Argument(format!("argument {} of {name}() must be a string in quotes", at + 1))),
    }
}

/// A label name: any text that is not empty, as Prometheus 3 allows.
pub(super) fn label_name(builder: &Builder, name: &str) -> Result<Box<str>, ParseError> {
    if name.is_empty() || name.contains(char::REPLACEMENT_CHARACTER) {
        let written = builder.places.written(name);
        return Err(ParseError::Argument(format!("invalid label name {written}")));
    }
    Ok(name.into())
}

fn replace(builder: &mut Builder, arguments: &[&Parsed]) -> Result<Node, ParseError> {
    let name = "label_replace";
    let input = builder.typed(argument(arguments, 0, name)?, Kind::Vector, name)?;
    let target = label_name(builder, text(arguments, 1, name)?)?;
    let replacement = text(arguments, 2, name)?.into();
    let source = text(arguments, 3, name)?.into();
    let pattern = anchored(text(arguments, 4, name)?)?;
    Ok(Node::Replace(Box::new(Replace { input, target, replacement, source, pattern })))
}

fn join(builder: &mut Builder, arguments: &[&Parsed]) -> Result<Node, ParseError> {
    let name = "label_join";
    let input = builder.typed(argument(arguments, 0, name)?, Kind::Vector, name)?;
    let target = label_name(builder, text(arguments, 1, name)?)?;
    let separator = text(arguments, 2, name)?.into();
    let sources = (3..arguments.len()).map(|at| text(arguments, at, name).map(Box::from));
    let sources = sources.collect::<Result<Vec<_>, _>>()?;
    Ok(Node::Join(Box::new(Join { input, target, separator, sources })))
}
