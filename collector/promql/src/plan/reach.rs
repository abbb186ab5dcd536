//! What can be said of a plan without samples: does it stay within one host, how far back does it look.

use std::time::Duration;

use super::{AggregateFunction, Binary, Fetch, Node, Window, WindowInput};
use crate::LOOK_BACK;
use crate::labelling::Filter;

const INSTANCE: &str = "instance";

/// Whether a node's result for one host depends on that host's samples alone and names the host.
pub(crate) fn is_host_local(node: &Node) -> bool {
    match node {
        Node::Select(_) | Node::SampleTime(_) => true,
        Node::Window(window) => window_is_local(window),
        Node::OverWindow { window, parameters, .. } => {
            window_is_local(window) && parameters.iter().all(is_constant)
        }
        Node::Each { input, parameters, .. } => is_host_local(input) && parameters.iter().all(is_constant),
        Node::Replace(replace) => &*replace.target != INSTANCE && is_host_local(&replace.input),
        Node::Join(join) => &*join.target != INSTANCE && is_host_local(&join.input),
        Node::Sort { input, .. } | Node::Negate(input) => is_host_local(input),
        Node::HistogramQuantile { quantile, input, .. } => is_constant(quantile) && is_host_local(input),
        Node::HistogramFraction { bounds, input, .. } => {
            bounds.iter().all(is_constant) && is_host_local(input)
        }
        Node::Binary(binary) => binary_is_local(binary),
        Node::Aggregate(aggregate) => {
            let renames =
                matches!(&aggregate.function, AggregateFunction::CountValues(label) if &**label == INSTANCE);
            aggregate.grouping.keeps(INSTANCE)
                && !renames
                && aggregate.parameter.as_ref().is_none_or(is_constant)
                && is_host_local(&aggregate.input)
        }
        // A missing series is missing on every other host too, and scalars and `vector()` name no host.
        Node::Absent { .. } | Node::AbsentOverTime { .. } | Node::Vector(_) => false,
        Node::Number(_) | Node::Text(_) | Node::Clock(_) | Node::Extreme { .. } | Node::Scalar(_) => false,
    }
}

fn window_is_local(window: &Window) -> bool {
    match &window.input {
        WindowInput::Selector(_) => true,
        WindowInput::Subquery { inner, .. } => is_host_local(inner),
    }
}

fn binary_is_local(binary: &Binary) -> bool {
    let Binary { left, right, matching, .. } = binary;
    match (is_constant(left), is_constant(right)) {
        (true, true) => false,
        (true, false) => is_host_local(right),
        (false, true) => is_host_local(left),
        (false, false) => keeps_instance(matching) && is_host_local(left) && is_host_local(right),
    }
}

fn keeps_instance(matching: &Filter) -> bool {
    matching.keeps(INSTANCE)
}

/// A scalar that depends on no sample.
fn is_constant(node: &Node) -> bool {
    match node {
        Node::Number(_) | Node::Clock(_) => true,
        Node::Extreme { left, right, .. } => is_constant(left) && is_constant(right),
        Node::Negate(inner) => is_constant(inner),
        Node::Binary(binary) => is_constant(&binary.left) && is_constant(&binary.right),
        _ => false,
    }
}

/// How long before the instant of evaluation the oldest sample read may be.
pub(crate) fn longest_range(node: &Node) -> Duration {
    Duration::from_millis(u64::try_from(reach(node)).unwrap_or(0))
}

/// Milliseconds; negative when only samples of the future are read.
fn reach(node: &Node) -> i64 {
    let longest = |nodes: &[&Node]| nodes.iter().map(|node| reach(node)).max().unwrap_or(0);
    match node {
        Node::Number(_) | Node::Text(_) | Node::Clock(_) => 0,
        Node::Select(fetch) | Node::SampleTime(fetch) => fetch_reach(fetch),
        Node::Window(window) | Node::AbsentOverTime { window, .. } => window_reach(window),
        Node::OverWindow { window, parameters, .. } => {
            parameters.iter().map(reach).fold(window_reach(window), i64::max)
        }
        Node::Each { input, parameters, .. } => parameters.iter().map(reach).fold(reach(input), i64::max),
        Node::Absent { inner, .. } | Node::Scalar(inner) | Node::Vector(inner) | Node::Negate(inner) => {
            reach(inner)
        }
        Node::Sort { input, .. } => reach(input),
        Node::Extreme { left, right, .. } => longest(&[left, right]),
        Node::HistogramQuantile { quantile, input, .. } => longest(&[quantile, input]),
        Node::HistogramFraction { bounds, input, .. } => longest(&[&bounds[0], &bounds[1], input]),
        Node::Replace(replace) => reach(&replace.input),
        Node::Join(join) => reach(&join.input),
        Node::Binary(binary) => longest(&[&binary.left, &binary.right]),
        Node::Aggregate(aggregate) => {
            aggregate.parameter.as_ref().map_or(0, reach).max(reach(&aggregate.input))
        }
    }
}

fn fetch_reach(fetch: &Fetch) -> i64 {
    (LOOK_BACK.as_millis() as i64).saturating_add(fetch.shift.offset)
}

fn window_reach(window: &Window) -> i64 {
    let own = window.range.saturating_add(window.shift.offset);
    match &window.input {
        WindowInput::Selector(_) => own,
        WindowInput::Subquery { inner, .. } => own.saturating_add(reach(inner)),
    }
}
