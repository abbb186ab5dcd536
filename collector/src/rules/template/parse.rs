//! From stretches and tokens to the tree that is expanded.
//!
//! Decides what is well-formed: every block closed, every variable set before it is used, every function known
//! and given as many arguments as it takes, every constant regular expression compilable.

use std::vec::IntoIter;

use super::TemplateError;
use super::function::{Function, compile};
use super::lex::{Kind, Piece, Token};
use super::value::{DATA_FIELDS, no_such_field};

/// Blocks and parentheses inside each other; rule files use two or three.
const DEPTH_MAX: usize = 32;

/// The variables every template starts with.
pub(super) const VARIABLES: [&str; 4] = ["", "labels", "externalLabels", "value"];

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Text(Box<str>),
    /// Writes a value, or only sets a variable.
    Action(Pipeline),
    If(Pipeline, Vec<Node>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    Range(Loop),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Loop {
    pub(super) key: Option<Box<str>>,
    pub(super) value: Option<Box<str>>,
    pub(super) over: Pipeline,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// Commands, each handing its value to the next as the last argument.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pipeline {
    pub(super) target: Option<Target>,
    pub(super) commands: Vec<Command>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    pub(super) name: Box<str>,
    /// Whether `:=` makes a new variable, or `=` changes an older one.
    pub(super) declared: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Command {
    Operand(Operand),
    Call(Function, Vec<Operand>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    Dot,
    Nothing,
    Bool(bool),
    Whole(i64),
    Fraction(f64),
    Text(Box<str>),
    Variable(Box<str>),
    Field(Box<Operand>, Box<str>),
    Pipeline(Box<Pipeline>),
}

/// The tree of a template of `len` bytes.
pub(super) fn nodes(pieces: Vec<Piece>, len: usize) -> Result<Vec<Node>, TemplateError> {
    let scope = VARIABLES.iter().map(|name| (*name).into()).collect();
    let mut parser = Parser { pieces: pieces.into_iter(), scope, dot_is_data: true, depth: 0, len };
    let (nodes, stop) = parser.block()?;
    match stop {
        Stop::Whole => Ok(nodes),
        Stop::End(offset) => Err(TemplateError::new(offset, "{{ end }} without an if, range or with")),
        Stop::Else(offset, _) => Err(TemplateError::new(offset, "{{ else }} without an if, range or with")),
    }
}

struct Parser {
    pieces: IntoIter<Piece>,
    scope: Vec<Box<str>>,
    /// Whether `.` is the rule's data here; `range` and `with` make it something else.
    dot_is_data: bool,
    depth: usize,
    len: usize,
}

/// What ended a block.
enum Stop {
    Whole,
    End(usize),
    Else(usize, Vec<Token>),
}

#[derive(Clone, Copy, PartialEq)]
enum Block {
    If,
    With,
    Range,
}

impl Block {
    fn named(word: &str) -> Option<Self> {
        match word {
            "if" => Some(Self::If),
            "with" => Some(Self::With),
            "range" => Some(Self::Range),
            _ => None,
        }
    }
}

impl Parser {
    fn block(&mut self) -> Result<(Vec<Node>, Stop), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (offset, tokens) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text.into()));
                    continue;
                }
                Piece::Action { offset, tokens } => (offset, tokens),
            };
            let word = match tokens.first().map(|token| &token.kind) {
                Some(Kind::Word(word)) => word.as_str(),
                _ => "",
            };
            match (word, Block::named(word)) {
                ("end", _) if tokens.len() == 1 => return Ok((nodes, Stop::End(offset))),
                ("end", _) => return Err(TemplateError::new(tokens[1].offset, "end stands alone")),
                ("else", _) => return Ok((nodes, Stop::Else(offset, tokens))),
                (_, Some(block)) => nodes.push(self.control(block, offset, tokens, 1)?),
                _ => nodes.push(Node::Action(self.action(offset, &tokens)?)),
            }
        }
        Ok((nodes, Stop::Whole))
    }

    /// An action that writes a value or sets a variable, which then lives to the end of the block around it.
    fn action(&mut self, offset: usize, tokens: &[Token]) -> Result<Pipeline, TemplateError> {
        let mut words = self.words(offset, tokens, 0);
        let pipeline = words.whole()?;
        if let Some(Target { name, declared: true }) = &pipeline.target {
            self.scope.push(name.clone());
        }
        Ok(pipeline)
    }

    /// A block from its opening words, of which `skip` are already understood, to its `end`.
    fn control(
        &mut self,
        block: Block,
        offset: usize,
        tokens: Vec<Token>,
        skip: usize,
    ) -> Result<Node, TemplateError> {
        if self.depth == DEPTH_MAX {
            return Err(TemplateError::new(offset, format!("blocks go deeper than {DEPTH_MAX}")));
        }
        let (mark, dot_was_data) = (self.scope.len(), self.dot_is_data);
        self.depth += 1;
        let mut words = self.words(offset, &tokens, skip);
        let (key, value) = if block == Block::Range { words.loop_variables()? } else { (None, None) };
        let header = words.whole()?;
        let target = header.target.iter().filter(|target| target.declared).map(|target| target.name.clone());
        self.scope.extend(target);
        let outside = self.scope.len(); // What the part after `else` still sees.
        self.scope.extend(key.clone().into_iter().chain(value.clone()));
        self.dot_is_data &= block == Block::If;
        let (body, stop) = self.block()?;
        self.dot_is_data = dot_was_data;
        self.scope.truncate(outside);
        let otherwise = self.otherwise(block, offset, stop)?;
        self.scope.truncate(mark);
        self.depth -= 1;
        Ok(match block {
            Block::If => Node::If(header, body, otherwise),
            Block::With => Node::With(header, body, otherwise),
            Block::Range => Node::Range(Loop { key, value, over: header, body, otherwise }),
        })
    }

    /// What stands between `else` and `end`.
    fn otherwise(&mut self, block: Block, opened: usize, stop: Stop) -> Result<Vec<Node>, TemplateError> {
        let unclosed = || TemplateError::new(opened, "this block is not closed; end it with {{ end }}");
        let (offset, tokens) = match stop {
            Stop::Whole => return Err(unclosed()),
            Stop::End(_) => return Ok(Vec::new()),
            Stop::Else(offset, tokens) => (offset, tokens),
        };
        match tokens.get(1).map(|token| &token.kind) {
            None => match self.block()? {
                (nodes, Stop::End(_)) => Ok(nodes),
                (_, Stop::Else(offset, _)) => Err(TemplateError::new(offset, "a second {{ else }}")),
                (_, Stop::Whole) => Err(unclosed()),
            },
            Some(Kind::Word(word)) if Block::named(word) == Some(block) && block != Block::Range => {
                Ok(vec![self.control(block, offset, tokens, 2)?])
            }
            Some(_) => {
                Err(TemplateError::new(tokens[1].offset, "after else only the same block's word can stand"))
            }
        }
    }

    fn words<'t>(&'t self, offset: usize, tokens: &'t [Token], skip: usize) -> Words<'t> {
        let end = tokens.last().map_or(offset, |token| token.offset).min(self.len);
        Words { tokens: &tokens[skip..], at: 0, end, parser: self, depth: self.depth }
    }
}

/// The variables of a range: for the name and for the value.
type LoopNames = (Option<Box<str>>, Option<Box<str>>);

/// The tokens of one action, being read.
struct Words<'t> {
    tokens: &'t [Token],
    at: usize,
    end: usize,
    parser: &'t Parser,
    depth: usize,
}

impl<'t> Words<'t> {
    fn peek(&self) -> Option<&'t Kind> {
        self.tokens.get(self.at).map(|token| &token.kind)
    }

    fn second(&self, ahead: usize) -> Option<&'t Kind> {
        self.tokens.get(self.at + ahead).map(|token| &token.kind)
    }

    fn offset(&self) -> usize {
        self.tokens.get(self.at).map_or(self.end, |token| token.offset)
    }

    fn error(&self, message: impl Into<String>) -> TemplateError {
        TemplateError::new(self.offset(), message)
    }

    /// `$value :=` or `$key, $value :=` of a range.
    fn loop_variables(&mut self) -> Result<LoopNames, TemplateError> {
        let names = match (self.peek(), self.second(1), self.second(2), self.second(3)) {
            (
                Some(Kind::Variable(key)),
                Some(Kind::Comma),
                Some(Kind::Variable(value)),
                Some(Kind::Declare),
            ) => {
                self.at += 4;
                (Some(key.as_str().into()), Some(value.as_str().into()))
            }
            (Some(Kind::Variable(value)), Some(Kind::Declare), ..) => {
                self.at += 2;
                (None, Some(value.as_str().into()))
            }
            (_, Some(Kind::Comma), ..) => {
                return Err(self.error("write it like range $name, $value := $labels"));
            }
            _ => (None, None),
        };
        Ok(names)
    }

    /// A pipeline that takes every token there is.
    fn whole(&mut self) -> Result<Pipeline, TemplateError> {
        let target = match (self.peek(), self.second(1)) {
            (Some(Kind::Variable(name)), Some(Kind::Declare | Kind::Assign)) => {
                let declared = self.second(1) == Some(&Kind::Declare);
                if !declared {
                    self.known(name)?;
                }
                self.at += 2;
                Some(Target { name: name.as_str().into(), declared })
            }
            _ => None,
        };
        let commands = self.commands()?;
        if self.at < self.tokens.len() {
            return Err(self.error("nothing is expected here"));
        }
        Ok(Pipeline { target, commands })
    }

    fn commands(&mut self) -> Result<Vec<Command>, TemplateError> {
        let mut commands = vec![self.command(false)?];
        while self.peek() == Some(&Kind::Pipe) {
            self.at += 1;
            commands.push(self.command(true)?);
        }
        Ok(commands)
    }

    /// One command; `piped` says whether a value comes in from the left.
    fn command(&mut self, piped: bool) -> Result<Command, TemplateError> {
        let start = self.offset();
        let Some(Kind::Word(name)) = self.peek().filter(|kind| !is_constant(kind)) else {
            let operand = self.operand()?;
            if piped {
                return Err(TemplateError::new(start, "after | a function is expected"));
            }
            if !matches!(self.peek(), None | Some(Kind::Pipe | Kind::Close)) {
                return Err(self.error("only a function takes arguments"));
            }
            return Ok(Command::Operand(operand));
        };
        let function = Function::named(name).map_err(|message| TemplateError::new(start, message))?;
        self.at += 1;
        let mut args = Vec::new();
        while !matches!(self.peek(), None | Some(Kind::Pipe | Kind::Close)) {
            args.push(self.operand()?);
        }
        let at_start = |message| TemplateError::new(start, message);
        function.check_count(args.len() + usize::from(piped)).map_err(at_start)?;
        if let (true, Some(Operand::Text(pattern))) = (function.is_regex(), args.first()) {
            compile(pattern).map_err(at_start)?;
        }
        Ok(Command::Call(function, args))
    }

    fn operand(&mut self) -> Result<Operand, TemplateError> {
        let mut operand = match self.peek() {
            None => return Err(self.error("a value is missing")),
            Some(Kind::Dot) => Operand::Dot,
            Some(Kind::Whole(number)) => Operand::Whole(*number),
            Some(Kind::Fraction(number)) => Operand::Fraction(*number),
            Some(Kind::Text(text)) => Operand::Text(text.as_str().into()),
            Some(Kind::Variable(name)) => {
                self.known(name)?;
                Operand::Variable(name.as_str().into())
            }
            Some(Kind::Field(name)) => {
                self.known_field(&Operand::Dot, name)?;
                Operand::Field(Box::new(Operand::Dot), name.as_str().into())
            }
            Some(Kind::Open) => self.parenthesis()?,
            Some(Kind::Word(word)) => match word.as_str() {
                "true" | "false" => Operand::Bool(word == "true"),
                "nil" => Operand::Nothing,
                name => {
                    Function::named(name).map_err(|message| self.error(message))?;
                    return Err(self.error(format!("put the call in parentheses: ({name} ...)")));
                }
            },
            Some(_) => return Err(self.error("a value is expected here")),
        };
        self.at += 1;
        while let Some(Token { glued: true, kind: Kind::Field(name), .. }) = self.tokens.get(self.at) {
            self.known_field(&operand, name)?;
            operand = Operand::Field(Box::new(operand), name.as_str().into());
            self.at += 1;
        }
        Ok(operand)
    }

    /// The inside of parentheses; stays on the closing one.
    fn parenthesis(&mut self) -> Result<Operand, TemplateError> {
        let opened = self.offset();
        if self.depth == DEPTH_MAX {
            return Err(self.error(format!("parentheses go deeper than {DEPTH_MAX}")));
        }
        self.at += 1;
        self.depth += 1;
        let commands = self.commands()?;
        self.depth -= 1;
        match self.peek() {
            Some(Kind::Close) => Ok(Operand::Pipeline(Box::new(Pipeline { target: None, commands }))),
            _ => Err(TemplateError::new(opened, "this ( has no partner")),
        }
    }

    fn known(&self, name: &str) -> Result<(), TemplateError> {
        if self.parser.scope.iter().any(|known| **known == *name) {
            return Ok(());
        }
        Err(self.error(match name {
            "externalURL" => "$externalURL is not supported: rules know no console address".to_owned(),
            _ => format!("${name} is not set; there are $labels, $value and $externalLabels"),
        }))
    }

    /// Refuses fields that the rule's data does not have, where it is plain that the data is meant.
    fn known_field(&self, of: &Operand, name: &str) -> Result<(), TemplateError> {
        let of_data = match of {
            Operand::Dot => self.parser.dot_is_data,
            Operand::Variable(name) => name.is_empty(),
            _ => false,
        };
        let unknown = of_data && !DATA_FIELDS.contains(&name);
        if unknown { Err(self.error(no_such_field(name))) } else { Ok(()) }
    }
}

fn is_constant(kind: &Kind) -> bool {
    matches!(kind, Kind::Word(word) if matches!(word.as_str(), "true" | "false" | "nil"))
}
