//! Where in its text a query's calls and their arguments stand: the parser's tree does not say.
//!
//! The text is read for no more than that: names before brackets, and what is between brackets and commas. Calls in
//! the order of the text are the calls of the tree walked in the same order. Promise: where the two do not agree in
//! number and names, nothing is placed rather than placed wrongly.

use std::collections::HashMap;

use promql_parser::parser::Expr as Parsed;

use crate::numbers::quoted;
use crate::script::string;

/// A byte of the query's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(pub(crate) usize);

/// `line:column`, both from 1, the column in bytes, as Prometheus gives it.
pub(crate) fn position(text: &str, Place(at): Place) -> String {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    format!("{line}:{column}")
}

/// The arguments of every call and aggregation of one parsed query.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// By the address of the node in the parser's tree.
    calls: HashMap<usize, Vec<Place>>,
    /// The strings that are not UTF-8, as they are written and as they are read.
    broken: Vec<(String, String)>,
}

impl Places {
    pub(crate) fn of(text: &str, parsed: &Parsed) -> Self {
        let sites = sites(text);
        let mut nodes = Vec::new();
        walk(parsed, &mut nodes);
        let agree = sites.len() == nodes.len()
            && sites.iter().zip(&nodes).all(|(site, (_, name))| site.name.eq_ignore_ascii_case(name));
        let calls = match agree {
            true => nodes.into_iter().zip(sites).map(|((at, _), site)| (at, site.arguments)).collect(),
            false => HashMap::new(),
        };
        Self { calls, broken: broken(text) }
    }

    /// A string as it is written in the query: one that is not UTF-8 cannot be shown as it was read.
    pub(crate) fn written(&self, string: &str) -> String {
        let found = self.broken.iter().find(|(_, read)| read == string);
        found.map_or_else(|| quoted(string), |(written, _)| written.clone())
    }

    /// Where an argument of this call or aggregation begins.
    pub(crate) fn argument<T>(&self, call: &T, at: usize) -> Option<Place> {
        self.calls.get(&address(call))?.get(at).copied()
    }
}

fn broken(text: &str) -> Vec<(String, String)> {
    if !text.contains('\\') {
        return Vec::new();
    }
    let literals = tokens(text).into_iter().filter_map(|(start, _)| {
        let (read, rest) = string(&text[start..])?;
        let written = &text[start..text.len() - rest.len()];
        Some((format!("\"{}\"", &written[1..written.len() - 1]), read))
    });
    literals.filter(|(_, read)| read.contains(char::REPLACEMENT_CHARACTER)).collect()
}

fn address<T>(node: &T) -> usize {
    std::ptr::from_ref(node).addr()
}

/// Calls in the order of the text.
fn walk(parsed: &Parsed, nodes: &mut Vec<(usize, String)>) {
    match parsed {
        Parsed::Call(call) => {
            nodes.push((address(call), call.func.name.to_owned()));
            call.args.args.iter().for_each(|argument| walk(argument, nodes));
        }
        Parsed::Aggregate(aggregate) => {
            nodes.push((address(aggregate), aggregate.op.to_string()));
            aggregate.param.iter().for_each(|parameter| walk(parameter, nodes));
            walk(&aggregate.expr, nodes);
        }
        Parsed::Binary(binary) => {
            walk(&binary.lhs, nodes);
            walk(&binary.rhs, nodes);
        }
        Parsed::Unary(unary) => walk(&unary.expr, nodes),
        Parsed::Paren(paren) => walk(&paren.expr, nodes),
        Parsed::Subquery(subquery) => walk(&subquery.expr, nodes),
        Parsed::NumberLiteral(_)
        | Parsed::StringLiteral(_)
        | Parsed::VectorSelector(_)
        | Parsed::MatrixSelector(_)
        | Parsed::Extension(_) => {}
    }
}

/// Whether an `@` has a negative time.
pub(crate) fn looks_before_the_epoch(text: &str) -> bool {
    let tokens = tokens(text);
    tokens.windows(2).any(|pair| pair[0].1 == Token::At && text[pair[1].0..].starts_with('-'))
}

struct Site {
    name: String,
    arguments: Vec<Place>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token<'t> {
    Word(&'t str),
    Open,
    Close,
    Comma,
    At,
    Other,
}

enum Bracket {
    /// Arguments of a site; `true` when the next token begins one.
    Call(usize, bool),
    /// Labels after `by` and its like, or a bracket that only groups.
    Other,
}

/// Words before brackets that hold labels or a fill value.
const LISTS: [&str; 9] =
    ["by", "without", "on", "ignoring", "group_left", "group_right", "fill", "fill_left", "fill_right"];
/// Words before brackets that hold an operand.
const OPERATORS: [&str; 6] = ["and", "or", "unless", "atan2", "bool", "offset"];

fn is_one_of(words: &[&str], word: &str) -> bool {
    words.iter().any(|known| known.eq_ignore_ascii_case(word))
}

fn sites(text: &str) -> Vec<Site> {
    let tokens = tokens(text);
    let mut sites: Vec<Site> = Vec::new();
    let mut open: Vec<Bracket> = Vec::new();
    // The site whose arguments come: after its name, or after the labels that follow its name.
    let mut next: Option<usize> = None;
    for (at, (start, token)) in tokens.iter().enumerate() {
        if let (Some(Bracket::Call(site, begins)), false) = (open.last_mut(), *token == Token::Close)
            && std::mem::take(begins)
        {
            sites[*site].arguments.push(Place(*start));
        }
        let after = tokens.get(at + 1).map(|(_, token)| *token);
        let before = at.checked_sub(1).map(|before| tokens[before].1);
        match *token {
            Token::Word(word) => {
                let labels_follow = matches!(after, Some(Token::Word(word)) if is_one_of(&LISTS[..2], word));
                let calls = after == Some(Token::Open)
                    && !is_one_of(&LISTS, word)
                    && !is_one_of(&OPERATORS, word)
                    && before != Some(Token::At);
                let was_closed = before == Some(Token::Close);
                if calls || labels_follow && !was_closed && !is_one_of(&OPERATORS, word) {
                    next = Some(sites.len());
                    sites.push(Site { name: word.to_owned(), arguments: Vec::new() });
                }
            }
            Token::Open => {
                let of_labels = matches!(before, Some(Token::Word(word)) if is_one_of(&LISTS, word));
                open.push(match (of_labels, next) {
                    (false, Some(site)) => {
                        next = None;
                        Bracket::Call(site, true)
                    }
                    _ => Bracket::Other,
                });
            }
            Token::Close => _ = open.pop(),
            Token::Comma => {
                if let Some(Bracket::Call(_, begins)) = open.last_mut() {
                    *begins = true;
                }
            }
            Token::At | Token::Other => {}
        }
    }
    sites
}

/// The tokens outside strings, comments and braces, each with where it begins. A string or a pair of braces is one.
fn tokens(text: &str) -> Vec<(usize, Token<'_>)> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let token = match bytes[at] {
            b if b.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'#' => {
                at += bytes[at..].iter().take_while(|b| **b != b'\n').count();
                continue;
            }
            quote @ (b'"' | b'\'' | b'`') => {
                at = after_string(bytes, at, quote);
                Token::Other
            }
            b'{' => {
                at = after_braces(bytes, at);
                Token::Other
            }
            b'(' => Token::Open,
            b')' => Token::Close,
            b',' => Token::Comma,
            b'@' => Token::At,
            b if b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'.') => {
                let is_word = |b: &&u8| b.is_ascii_alphanumeric() || matches!(**b, b'_' | b':' | b'.');
                at += bytes[at..].iter().take_while(is_word).count();
                if b.is_ascii_digit() || b == b'.' { Token::Other } else { Token::Word(&text[start..at]) }
            }
            _ => Token::Other,
        };
        at = at.max(start + 1);
        tokens.push((start, token));
    }
    tokens
}

fn after_string(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' && quote != b'`' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn after_braces(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'}' {
        at = match bytes[at] {
            quote @ (b'"' | b'\'' | b'`') => after_string(bytes, at, quote),
            _ => at + 1,
        };
    }
    (at + 1).min(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of the calls with their arguments' first places.
    fn found(text: &str) -> String {
        let site = |site: Site| {
            let arguments: Vec<String> = site.arguments.iter().map(|place| place.0.to_string()).collect();
            format!("{}({})", site.name, arguments.join(","))
        };
        sites(text).into_iter().map(site).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn calls_are_found_with_their_arguments_wherever_they_stand() {
        for (text, expected) in [
            ("rate(x[5m])", "rate(5)"),
            ("sum(rate(x[5m]))", "sum(4) rate(9)"),
            ("sum by (a, b) (rate( x[5m]))", "sum(15) rate(21)"),
            ("sum(x) by (a) / on (a) group_left (b) max(y)", "sum(4) max(42)"),
            ("quantile(0.5, x) + quantile without () (1, y)", "quantile(9,14) quantile(40,43)"),
            (
                "histogram_quantile(0.9, sum by (le) (rate(h{a=\"),(\"}[5m])))",
                "histogram_quantile(19,24) sum(37) rate(42)",
            ),
            ("time()", "time()"),
            ("x @ start() + foo(y @ end())", "foo(18)"),
            ("a and (b) or (c) unless (d)", ""),
            ("# rate(x)\n(abs({a=\"b\"}))", "abs(15)"),
            ("label_replace(x, \"a(\", '(', \"b\", `\\`)", "label_replace(14,17,23,28,33)"),
            ("sum / sum(sum)", "sum(10)"),
            ("rate(sum[5m])[1h:1m] offset 5m", "rate(5)"),
            ("a * bool (b)", ""),
            ("clamp(-x, 1e-5, (+3))", "clamp(6,10,16)"),
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
    }

    #[test]
    fn places_are_told_of_the_tree_or_not_at_all() {
        let text = "sum by (a) (clamp(x, 0, 1)) + topk(2, rate(y[1m]))";
        let parsed = promql_parser::parser::parse(text).unwrap();
        let places = Places::of(text, &parsed);
        let Parsed::Binary(binary) = &parsed else { panic!("a sum of two") };
        let Parsed::Aggregate(topk) = &*binary.rhs else { panic!("an aggregation") };
        let column = |at| places.argument(topk, at).map(|place| position(text, place));
        assert_eq!([column(0), column(1), column(2)], [Some("1:36".into()), Some("1:39".into()), None]);
        assert_eq!(Places::of("other(x)", &parsed).argument(topk, 0), None);
        assert_eq!(position("a\nbü c", Place(6)), "2:5");
    }
}
