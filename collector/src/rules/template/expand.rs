//! Walking the tree of a template with a rule's labels and value at hand.
//!
//! Pure. Promise: ends after a bounded amount of work and of text, whatever the template says: every node, call
//! and byte handled costs from one budget.

use std::borrow::Cow;

use tocsin_shared::labels::Labels;

use super::function::{Function, Regexes};
use super::parse::{Command, Loop, Node, Operand, Pipeline, VARIABLES};
use super::value::Value;
use super::{ExpandError, OUTPUT_BYTES_MAX};

/// Steps one expansion may take: some milliseconds. An annotation with a loop over 40 labels takes about 300.
const WORK_MAX: usize = 1_000_000;

/// What compiling a regular expression costs of it: 50 different ones are the most.
const REGEX_WORK: usize = 20_000;

/// Bytes handled per step.
const BYTES_PER_STEP: usize = 16;

/// What a template can speak of.
#[derive(Debug)]
pub(super) struct Data<'a> {
    pub(super) labels: &'a Labels,
    pub(super) value: f64,
    pub(super) external: &'a Labels,
}

/// The text of a tree.
pub(super) fn expand(nodes: &[Node], data: &Data) -> Result<String, ExpandError> {
    let values = [
        Value::Data(data),
        Value::Labels(data.labels),
        Value::Labels(data.external),
        Value::Fraction(data.value),
    ];
    let variables = VARIABLES.into_iter().zip(values).collect();
    let mut run = Run { out: String::new(), variables, regexes: Regexes::default(), work: 0 };
    run.nodes(nodes, &Value::Data(data))?;
    Ok(run.out)
}

struct Run<'a> {
    out: String,
    variables: Vec<(&'a str, Value<'a>)>,
    regexes: Regexes,
    work: usize,
}

impl<'a> Run<'a> {
    fn spend(&mut self, work: usize) -> Result<(), ExpandError> {
        self.work = self.work.saturating_add(work);
        if self.work > WORK_MAX { Err(ExpandError::TooMuchWork) } else { Ok(()) }
    }

    fn write(&mut self, text: &str) -> Result<(), ExpandError> {
        if self.out.len() + text.len() > OUTPUT_BYTES_MAX {
            return Err(ExpandError::TooLong);
        }
        self.out.push_str(text);
        Ok(())
    }

    fn nodes(&mut self, nodes: &'a [Node], dot: &Value<'a>) -> Result<(), ExpandError> {
        let mark = self.variables.len();
        for node in nodes {
            self.spend(1)?;
            match node {
                Node::Text(text) => self.write(text)?,
                Node::Action(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.target.is_none() {
                        self.write(&value.shown()?)?;
                    }
                }
                Node::If(condition, then, otherwise) => {
                    self.branch(condition, dot, |_| None, then, otherwise)?
                }
                Node::With(value, then, otherwise) => self.branch(value, dot, Some, then, otherwise)?,
                Node::Range(each) => self.range(each, dot)?,
            }
        }
        self.variables.truncate(mark);
        Ok(())
    }

    /// One of two bodies; `inside` says what `.` becomes in the first one, if it changes.
    fn branch(
        &mut self,
        header: &'a Pipeline,
        dot: &Value<'a>,
        inside: fn(Value<'a>) -> Option<Value<'a>>,
        then: &'a [Node],
        otherwise: &'a [Node],
    ) -> Result<(), ExpandError> {
        let mark = self.variables.len();
        let value = self.pipeline(header, dot)?;
        if value.is_true() {
            let new = inside(value);
            self.nodes(then, new.as_ref().unwrap_or(dot))?;
        } else {
            self.nodes(otherwise, dot)?;
        }
        self.variables.truncate(mark);
        Ok(())
    }

    fn range(&mut self, each: &'a Loop, dot: &Value<'a>) -> Result<(), ExpandError> {
        let labels = match self.pipeline(&each.over, dot)? {
            Value::Labels(labels) => labels,
            other => {
                return Err(ExpandError::Value(format!(
                    "range goes over labels, not over a {}",
                    other.kind()
                )));
            }
        };
        if labels.is_empty() {
            return self.nodes(&each.otherwise, dot);
        }
        let mark = self.variables.len();
        for (name, value) in labels.iter() {
            let value = Value::Text(Cow::Borrowed(value));
            if let Some(key) = &each.key {
                self.variables.push((key, Value::Text(Cow::Borrowed(name))));
            }
            if let Some(variable) = &each.value {
                self.variables.push((variable, value.clone()));
            }
            self.nodes(&each.body, &value)?;
            self.variables.truncate(mark);
        }
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &'a Pipeline, dot: &Value<'a>) -> Result<Value<'a>, ExpandError> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, value, dot)?);
        }
        let value = value.unwrap_or(Value::Nothing);
        match &pipeline.target {
            Some(target) if target.declared => self.variables.push((&target.name, value.clone())),
            Some(target) => {
                let slot = self.variables.iter_mut().rfind(|(name, _)| *name == &*target.name);
                slot.expect("the parser saw the variable being set").1 = value.clone();
            }
            None => {}
        }
        Ok(value)
    }

    fn command(
        &mut self,
        command: &'a Command,
        piped: Option<Value<'a>>,
        dot: &Value<'a>,
    ) -> Result<Value<'a>, ExpandError> {
        let (function, operands) = match command {
            Command::Operand(operand) => return self.operand(operand, dot),
            Command::Call(function, operands) => (*function, operands),
        };
        let mut args = Vec::with_capacity(operands.len() + 1);
        for operand in operands {
            let value = self.operand(operand, dot)?;
            // `and` stops at the first false value and `or` at the first true one, and that is their result.
            let decided = match function {
                Function::And => !value.is_true(),
                Function::Or => value.is_true(),
                _ => false,
            };
            if decided {
                return Ok(value);
            }
            args.push(value);
        }
        args.extend(piped);
        self.charge(function, &args)?;
        function.call(&args, &mut self.regexes)
    }

    /// Takes the price of a call from the budget before it is made.
    fn charge(&mut self, function: Function, args: &[Value<'a>]) -> Result<(), ExpandError> {
        let bytes: usize =
            args.iter().map(|arg| if let Value::Text(text) = arg { text.len() } else { 8 }).sum();
        self.spend(1 + bytes / BYTES_PER_STEP)?;
        match args.first() {
            Some(Value::Text(pattern)) if function.is_regex() && self.regexes.is_new(pattern) => {
                self.spend(REGEX_WORK)
            }
            _ => Ok(()),
        }
    }

    fn operand(&mut self, operand: &'a Operand, dot: &Value<'a>) -> Result<Value<'a>, ExpandError> {
        self.spend(1)?;
        let value = match operand {
            Operand::Dot => dot.clone(),
            Operand::Nothing => Value::Nothing,
            Operand::Bool(truth) => Value::Bool(*truth),
            Operand::Whole(number) => Value::Whole(*number),
            Operand::Fraction(number) => Value::Fraction(*number),
            Operand::Text(text) => Value::Text(Cow::Borrowed(text)),
            Operand::Variable(name) => {
                let slot = self.variables.iter().rfind(|(known, _)| *known == &**name);
                slot.expect("the parser saw the variable being set").1.clone()
            }
            Operand::Field(of, name) => self.operand(of, dot)?.field(name)?,
            Operand::Pipeline(pipeline) => self.pipeline(pipeline, dot)?,
        };
        if let Value::Text(Cow::Owned(text)) = &value {
            self.spend(text.len() / BYTES_PER_STEP)?; // Owned text was copied.
        }
        Ok(value)
    }
}
