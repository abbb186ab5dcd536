//! What is asked of the samples: `tocsin query`, `tocsin top`, `tocsin promqltest`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::{EnvName, positive_duration};
use crate::top::By;

/// `tocsin query`.
#[derive(Clone, Debug, Args)]
#[command(group(clap::ArgGroup::new("range").args(["start", "plot"]).multiple(true)))]
pub struct Query {
    /// The expression
    #[arg(value_name = "PROMQL")]
    pub expression: String,
    /// Evaluate at this time instead of now: RFC 3339, Unix seconds, or an age such as 10m
    #[arg(long, value_name = "TIME", conflicts_with_all = ["start", "end", "step"])]
    pub at: Option<String>,
    /// Evaluate over a range that begins here
    #[arg(long, value_name = "TIME")]
    pub start: Option<String>,
    /// Where the range ends [default: now]
    #[arg(long, value_name = "TIME", requires = "range")]
    pub end: Option<String>,
    /// The distance of the range's points [default: a round one, with a point for each column of the screen]
    #[arg(long, value_name = "DURATION", requires = "range", value_parser = positive_duration)]
    pub step: Option<Duration>,
    /// Draw a plot of the range [default range: the last hour]
    #[arg(long, conflicts_with = "at")]
    pub plot: bool,
    /// Show at most this many series, 0 for all [default: 100 on a terminal]
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// `tocsin top`.
#[derive(Clone, Debug, Args)]
pub struct Top {
    /// Print one screen as text and end
    #[arg(long)]
    pub once: bool,
    /// Only hosts of this environment
    #[arg(long)]
    pub env: Option<EnvName>,
    /// Only hosts that have this in their name, environment, state or labels
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// What comes first
    #[arg(long, default_value = "problems")]
    pub sort: By,
}

/// `tocsin promqltest`.
#[derive(Clone, Debug, Args)]
pub struct PromqlTest {
    /// Judge the experimental functions that the engine knows, too
    #[arg(long)]
    pub experimental: bool,
    /// The files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}
