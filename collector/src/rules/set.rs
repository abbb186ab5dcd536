//! The rules of many files together.

use std::sync::Arc;

use super::rule::{Rule, RuleFile, RuleGroup, RuleId};

/// All rules in force. No two have the same id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleSet {
    files: Vec<RuleFile>,
}

/// Two files were given under one name, so that their rules could not be told apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule file {0} was given twice; name each file once")]
pub struct DuplicateFile(pub Arc<str>);

impl RuleSet {
    /// The rules of these files, in the order of the files' names.
    pub fn new(mut files: Vec<RuleFile>) -> Result<Self, DuplicateFile> {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        match files.windows(2).find(|pair| pair[0].name == pair[1].name) {
            Some(pair) => Err(DuplicateFile(pair[0].name.clone())),
            None => Ok(Self { files }),
        }
    }

    /// Every group of every file.
    pub fn groups(&self) -> impl Iterator<Item = &RuleGroup> {
        self.files.iter().flat_map(|file| &file.groups)
    }

    /// Every rule with its group.
    pub fn rules(&self) -> impl Iterator<Item = (&RuleGroup, &Rule)> {
        self.groups().flat_map(|group| group.rules.iter().map(move |rule| (group, rule)))
    }

    /// The rule of this id, with its group.
    pub fn get(&self, id: &RuleId) -> Option<(&RuleGroup, &Rule)> {
        self.rules().find(|(_, rule)| rule.id == *id)
    }
}
