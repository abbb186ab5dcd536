//! `label_replace` and `label_join`: the same values under other labels.

use tocsin_shared::labels::Labels;

use crate::eval::{Block, EvalError};
use crate::plan::{Join, Replace};

pub(crate) fn replace(replace: &Replace, mut block: Block) -> Result<Block, EvalError> {
    for labels in &mut block.labels {
        let Some(found) = replace.pattern.captures(labels.get(&replace.source).unwrap_or("")) else { continue };
        let mut value = String::new();
        found.expand(&replace.replacement, &mut value);
        *labels = labels.with([(&*replace.target, value.as_str())]);
    }
    block.merge_same()
}

pub(crate) fn join(join: &Join, mut block: Block) -> Result<Block, EvalError> {
    for labels in &mut block.labels {
        let parts: Vec<&str> = join.sources.iter().map(|name| labels.get(name).unwrap_or("")).collect();
        let value = parts.join(&join.separator);
        *labels = Labels::with(labels, [(&*join.target, value.as_str())]);
    }
    block.merge_same()
}
