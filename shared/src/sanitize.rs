//! Text from elsewhere, made harmless for a terminal.
//!
//! Job output, labels and host names may hold escape sequences, characters that reorder or hide text, or none at
//! all. Each becomes a visible `\u{1b}`; newline and tab stay. Promise: what comes out cannot move the cursor,
//! change colours, or show other characters than it holds.
//! Not here: HTML, Markdown and the other sinks, which each have their own rules.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character controls, reorders or hides text rather than being text. Newline and tab are not counted.
pub fn is_unprintable(c: char) -> bool {
    matches!(c,
        '\0'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}'..='\u{9f}' // C0 but tab and newline, DEL, C1
        | '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}' | '\u{ffa0}' // drawn as nothing
        | '\u{61c}' | '\u{180b}'..='\u{180f}' // Arabic and Mongolian marks
        | '\u{200b}'..='\u{200f}' // zero width, left-to-right and right-to-left marks
        | '\u{2028}'..='\u{202e}' // line and paragraph separators, embeddings, overrides
        | '\u{2060}'..='\u{206f}' // word joiner, invisible operators, isolates, deprecated controls
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' // byte order mark, annotations
        | '\u{1d173}'..='\u{1d17a}' // musical format controls
        | '\u{e0000}'..='\u{e0fff}') // tags and the supplement of variation selectors
}

/// The text with every unprintable character spelled out; borrowed when there is none.
pub fn for_terminal(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find(is_unprintable) else { return Cow::Borrowed(text) };
    let mut clean = String::with_capacity(text.len() + 16);
    clean.push_str(&text[..first]);
    for c in text[first..].chars() {
        if is_unprintable(c) {
            write!(clean, "{}", c.escape_unicode()).expect("writing to a String cannot fail");
        } else {
            clean.push(c);
        }
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Cases: P5, R18
    #[test]
    fn hostile_texts_become_visible() {
        for (raw, shown) in [
            ("plain text\n\tindented", "plain text\n\tindented"),
            ("Grüße, 日本, emoji 🔔", "Grüße, 日本, emoji 🔔"),
            ("\u{1b}[2J\u{1b}]0;owned\u{7}", "\\u{1b}[2J\\u{1b}]0;owned\\u{7}"),
            ("over\rwritten", "over\\u{d}written"),
            ("del\u{7f} csi\u{9b}31m nul\0", "del\\u{7f} csi\\u{9b}31m nul\\u{0}"),
            ("user\u{202e}txt.exe\u{2066}", "user\\u{202e}txt.exe\\u{2066}"),
            ("pay\u{200b}pal \u{feff}", "pay\\u{200b}pal \\u{feff}"),
            ("tag\u{e0041}", "tag\\u{e0041}"),
        ] {
            assert_eq!(for_terminal(raw), shown, "{raw:?}");
        }
        assert!(matches!(for_terminal("plain"), Cow::Borrowed(_)));
    }

    proptest! {
        /// The characters are listed here a second time on purpose: the rule is not tested by itself.
        // Cases: P5, R18
        #[test]
        fn nothing_dangerous_comes_out(text in any::<String>(), extra in "[\\x00-\\x{9f}\\x{2000}-\\x{2070}\\x{e0000}-\\x{e0100}]{0,20}") {
            let shown = for_terminal(&format!("{text}{extra}")).into_owned();
            for c in shown.chars() {
                let code = u32::from(c);
                prop_assert!(!c.is_control() || c == '\n' || c == '\t', "{code:x}");
                prop_assert!(!(0x202a..=0x202e).contains(&code) && !(0x2066..=0x2069).contains(&code), "{code:x}");
                prop_assert!(!(0x200b..=0x200f).contains(&code) && !(0xe0000..=0xe007f).contains(&code), "{code:x}");
            }
            prop_assert_eq!(for_terminal(&shown).into_owned(), shown.clone(), "doing it twice changes nothing");
        }
    }
}
