//! The agents' spools, from what agents say of themselves in their rows.

use tocsin_promql::{Expr, Limits, Value, instant};

use crate::clock::now;
use crate::samples::Store;

/// Hosts that are named; a fleet whose disks are all full has another trouble.
const NAMED_MAX: usize = 20;

/// What is looked at, and what it means. The newest row of a host counts.
const SIGNS: [(&str, &str); 3] = [
    ("tocsin_agent_spool_degraded > 0", "its spool's disk fails, rows are kept in memory only"),
    ("tocsin_agent_spool_volatile > 0", "its disk is full, rows are kept in memory only"),
    ("increase(tocsin_agent_spool_evicted_total[1h]) > 0", "records were given up for room in the last hour"),
];

/// A line for each host whose spool is in trouble.
pub(super) fn trouble(samples: &Store) -> Vec<String> {
    let mut lines = Vec::new();
    for (expression, meaning) in SIGNS {
        let expression = Expr::parse(expression).expect("the expressions above are tested");
        let Ok(Value::Vector(found)) = instant(&expression, &samples.view(), now(), &Limits::default())
        else {
            continue;
        };
        let instances = found.iter().filter_map(|sample| sample.labels.get("instance"));
        lines.extend(instances.map(|instance| format!("{instance}: {meaning}")));
    }
    lines.sort();
    lines.dedup();
    if lines.len() > NAMED_MAX {
        let more = lines.split_off(NAMED_MAX).len();
        lines.push(format!("and {more} more spools in trouble"));
    }
    lines
}
