//! YAML as a tree that remembers where each value stands in its file.
//!
//! Promise: an alias costs a pointer, and a file whose aliases would unfold beyond `UNFOLDED_BYTES_MAX` is refused,
//! so that walking the tree is bounded too. Merge keys (`<<`) are merged; a null is a value of its own.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Lists and maps inside each other; a rule file needs six.
const DEPTH_MAX: usize = 64;

/// What a file may weigh with all aliases written out: sixteen times the largest file.
const UNFOLDED_BYTES_MAX: usize = 16 << 20;

/// Keys of one map; more than any alert has labels, few enough to compare each with each.
const KEYS_MAX: usize = 1_000;

/// What a value weighs besides its text.
const NODE_BYTES: usize = 16;

/// A value and its place; lines and columns count from 1, columns in characters.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) value: Value,
    origin: Origin,
    weight: usize,
}

#[derive(Debug)]
pub(super) enum Value {
    Null,
    Text(String),
    List(Vec<Rc<Node>>),
    Map(Vec<(Rc<Node>, Rc<Node>)>),
}

/// How a text was written, as far as it tells where its characters stand.
#[derive(Debug)]
enum Origin {
    /// On one line as it is, after so many quotes.
    Line {
        quotes: usize,
    },
    /// As a `|` block.
    Block,
    Elsewhere,
}

/// Why a text is no YAML.
#[derive(Debug)]
pub(super) struct InvalidYaml {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) message: String,
}

impl Node {
    /// Line and column of a byte of this text, as exactly as the way it was written allows.
    pub(super) fn place(&self, offset: usize) -> (usize, usize) {
        let Value::Text(text) = &self.value else { return (self.line, self.column) };
        let before = text.get(..offset).unwrap_or(text);
        match self.origin {
            Origin::Line { quotes } => (self.line, self.column + quotes + before.chars().count()),
            Origin::Block => {
                // The parser's mark is at the first line that is not empty.
                let empty = text.len() - text.trim_start_matches('\n').len();
                let last = before.rsplit('\n').next().unwrap_or("");
                let line = (self.line + before.matches('\n').count()).saturating_sub(empty);
                (line, self.column + last.chars().count())
            }
            Origin::Elsewhere => (self.line, self.column),
        }
    }
}

/// The one document of a file; None for a file without one.
pub(super) fn read(text: &str) -> Result<Option<Rc<Node>>, InvalidYaml> {
    let mut parser = Parser::new_from_str(text);
    let mut tree = Tree::default();
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| InvalidYaml {
            line: error.marker().line(),
            column: error.marker().col() + 1,
            message: format!("not YAML: {}", error.info()),
        })?;
        tree.take(event, span)?;
    }
    Ok(tree.root)
}

#[derive(Default)]
struct Tree {
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    documents: usize,
}

/// A list or map that is still being filled; in a map, keys and values take turns.
struct Open {
    span: Span,
    anchor: usize,
    is_map: bool,
    items: Vec<Rc<Node>>,
}

impl Tree {
    fn take(&mut self, event: Event, span: Span) -> Result<(), InvalidYaml> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(invalid(span, "a second document; a rule file is one"));
                }
            }
            Event::Scalar(text, style, anchor, _) => {
                let node = scalar(&text, style, span);
                self.add(node, anchor, span)?;
            }
            Event::SequenceStart(anchor, _) => self.open(anchor, false, span)?,
            Event::MappingStart(anchor, _) => self.open(anchor, true, span)?,
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.open.pop().expect("the parser closes what it opened");
                let (anchor, span) = (open.anchor, open.span);
                let node = close(open)?;
                self.add(node, anchor, span)?;
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or_else(|| invalid(span, "an alias inside the value it stands for"))?;
                self.put(node, span)?;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn open(&mut self, anchor: usize, is_map: bool, span: Span) -> Result<(), InvalidYaml> {
        if self.open.len() == DEPTH_MAX {
            return Err(invalid(span, format!("values go deeper than {DEPTH_MAX}")));
        }
        self.open.push(Open { span, anchor, is_map, items: Vec::new() });
        Ok(())
    }

    fn add(&mut self, node: Node, anchor: usize, span: Span) -> Result<(), InvalidYaml> {
        let node = Rc::new(node);
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.put(node, span)
    }

    fn put(&mut self, node: Rc<Node>, span: Span) -> Result<(), InvalidYaml> {
        if node.weight > UNFOLDED_BYTES_MAX {
            return Err(invalid(span, format!("aliases unfold to more than {UNFOLDED_BYTES_MAX} bytes")));
        }
        match self.open.last_mut() {
            Some(open) => open.items.push(node),
            None => self.root = Some(node),
        }
        Ok(())
    }
}

fn scalar(text: &str, style: ScalarStyle, span: Span) -> Node {
    let is_null = style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL");
    let quotes = usize::from(matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted));
    let as_written = span.end.index().saturating_sub(span.start.index()) == text.chars().count() + 2 * quotes;
    let origin = match style {
        ScalarStyle::Literal => Origin::Block,
        ScalarStyle::Folded => Origin::Elsewhere,
        _ if as_written && span.start.line() == span.end.line() => Origin::Line { quotes },
        _ => Origin::Elsewhere,
    };
    let value = if is_null { Value::Null } else { Value::Text(text.to_owned()) };
    node(span, value, origin, text.len())
}

fn node(span: Span, value: Value, origin: Origin, inside: usize) -> Node {
    let (line, column) = (span.start.line(), span.start.col() + 1);
    Node { line, column, value, origin, weight: inside.saturating_add(NODE_BYTES) }
}

fn invalid(span: Span, message: impl Into<String>) -> InvalidYaml {
    InvalidYaml { line: span.start.line(), column: span.start.col() + 1, message: message.into() }
}

fn close(open: Open) -> Result<Node, InvalidYaml> {
    let Open { span, is_map, items, .. } = open;
    let mut inside = items.iter().fold(0usize, |sum, item| sum.saturating_add(item.weight));
    let value = if is_map {
        let (mut pairs, mut merged) = (Vec::new(), Vec::new());
        let mut items = items.into_iter();
        if items.len() / 2 > KEYS_MAX {
            return Err(invalid(span, format!("a map of more than {KEYS_MAX} keys")));
        }
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            match &key.value {
                Value::Text(text) if text == "<<" => merged.push(value),
                _ => pairs.push((key, value)),
            }
        }
        for source in merged {
            inside = inside.saturating_add(merge(&mut pairs, &source)?);
            if pairs.len() > KEYS_MAX {
                return Err(invalid(span, format!("a map of more than {KEYS_MAX} keys")));
            }
        }
        Value::Map(pairs)
    } else {
        Value::List(items)
    };
    Ok(node(span, value, Origin::Elsewhere, inside))
}

/// Adds what a `<<` brings and the map does not have; the weight of it.
fn merge(pairs: &mut Vec<(Rc<Node>, Rc<Node>)>, source: &Rc<Node>) -> Result<usize, InvalidYaml> {
    let sources = match &source.value {
        Value::Map(_) => std::slice::from_ref(source),
        Value::List(sources) => sources,
        _ => return Err(not_mergeable(source)),
    };
    let mut added = 0usize;
    for source in sources {
        let Value::Map(more) = &source.value else { return Err(not_mergeable(source)) };
        for (key, value) in more {
            let known = |(other, _): &(Rc<Node>, Rc<Node>)| match (&other.value, &key.value) {
                (Value::Text(a), Value::Text(b)) => a == b,
                _ => false,
            };
            if !pairs.iter().any(known) {
                added = added.saturating_add(value.weight);
                pairs.push((Rc::clone(key), Rc::clone(value)));
            }
        }
    }
    Ok(added)
}

fn not_mergeable(source: &Node) -> InvalidYaml {
    let message = "<< takes a map or a list of maps".to_owned();
    InvalidYaml { line: source.line, column: source.column, message }
}
