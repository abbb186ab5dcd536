//! Which syntax of a text the parser does not know is Prometheus' own, behind a feature flag.
//!
//! Looked at only when a text does not parse: a guess would otherwise hide a case that can be judged.

/// What it is called, of the first found.
pub(super) fn syntax(text: &str) -> Option<&'static str> {
    let code = code(text);
    let words = |text: &str| -> Vec<String> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        text.split(|c| !is_word(c)).filter(|word| !word.is_empty()).map(str::to_ascii_lowercase).collect()
    };
    let all = words(&code);
    let has = |names: &[&str]| all.iter().any(|word| names.contains(&word.as_str()));
    if has(&["anchored", "smoothed"]) {
        return Some("the modifiers anchored and smoothed");
    }
    if has(&["fill", "fill_left", "fill_right"]) {
        return Some("the fill modifier");
    }
    if has(&["info", "limitk", "limit_ratio", "sort_by_label", "sort_by_label_desc", "histogram_quantiles"]) {
        return Some("a function of the next release");
    }
    if computes_a_span(&code) {
        return Some("arithmetic with durations");
    }
    None
}

/// The text without what stands in strings, braces and comments.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let (mut quote, mut escaped, mut braces, mut comment) = (None, false, false, false);
    for c in text.chars() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(q), '\\') if q != '`' => escaped = true,
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '\n') => comment = false,
            (None, _) if comment => {}
            (None, '#') => comment = true,
            (None, '"' | '\'' | '`') => quote = Some(c),
            (None, '{') => braces = true,
            (None, '}') => braces = false,
            (None, c) if !braces => code.push(c),
            (None, _) => {}
        }
    }
    code
}

/// A sum, a bracket or a function where a duration stands: in square brackets or after `offset`.
fn computes_a_span(code: &str) -> bool {
    let computes = |span: &str| span.contains(['+', '-', '*', '/', '^', '%', '(']);
    let in_brackets = code.split('[').skip(1).any(|rest| computes(rest.split(']').next().unwrap_or("")));
    let after_offset = code.split("offset").skip(1).any(|rest| {
        let rest = rest.trim_start().trim_start_matches(['-', '+']).trim_start();
        let span: &str = rest.split([',', ')', '[']).next().unwrap_or("");
        rest.starts_with(['(', '-', '+'])
            || span.contains('(')
            || rest.starts_with("step")
            || computes(span.trim())
    });
    in_brackets || after_offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_prometheus_hides_behind_flags_is_experimental() {
        for (text, expected) in [
            ("rate(x[5m+1m])", true),
            ("x[step()]", true),
            ("x offset (1m)", true),
            ("x offset -(1m)", true),
            ("rate(x[5m] anchored)", true),
            ("x + fill(0) y", true),
            ("rate(x[5m)", false),
            ("x offset 5", false),
            ("{a=\"[1m+1m]\"} and", false),
            ("sum(x", false),
        ] {
            assert_eq!(syntax(text).is_some(), expected, "{text}");
        }
    }
}
