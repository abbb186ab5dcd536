//! Secrets in command lines and job output, taken out before either leaves its process.
//!
//! Recognised: values of names that mean a secret (`password`, `token`, `API_KEY`, …) after `=`, `:` or as the next
//! argument; `Authorization` and bearer credentials; AWS key ids; GitHub, Slack and JSON web tokens; private keys in PEM;
//! user information in URLs. In doubt it redacts: a value reaches to the next space unless it is quoted.
//! Promises: time linear in the text; applying it twice changes nothing more. It is a net, not a guarantee: a
//! secret that looks like any other word (`mysql -phunter2`) passes.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

/// What stands where a secret stood.
pub const REDACTED: &str = "[redacted]";

/// Names that mean a secret, with what often surrounds them: `DB_PASSWORD`, `aws_secret_access_key`, `x-api-key`.
const NAME: &str = r"[A-Za-z0-9_.-]*(?i-u:password|passwd|passphrase|passcode|pwd|secret|token|credential|api[_-]?key|access[_-]?key|private[_-]?key|encryption[_-]?key|auth[_-]?key)(?:[sS]|[_-][A-Za-z0-9_.-]*|[0-9]+)?";
/// A value: quoted within one line (also when the closing quote was cut off), or up to the next white space. One that is
/// redacted already is taken alone, so that what follows it stays.
const VALUE: &str = r#"(?:\[redacted\]|"(?:[^"\\\n]|\\[^\n]?)*"?|'[^'\n]*'?|\S+)"#;
/// A value as an argument of its own: not another option.
const ARGUMENT: &str = r#"(?:\[redacted\]|"(?:[^"\\\n]|\\[^\n]?)*"?|'[^'\n]*'?|[^\s-]\S*|-[^\s-]\S*)"#;

/// A rule. Its pattern costs milliseconds to compile, which a short-lived process cannot spare, so it is compiled only when
/// one of its hints occurs: every text that it matches contains one, in letters of either case.
struct Rule {
    hints: &'static [&'static str],
    pattern: LazyLock<Regex>,
    /// What is put in its place; `${1}` is what may stay.
    put: &'static str,
}

/// Parts of every name that `NAME` matches.
const NAME_HINTS: &[&str] =
    &["passw", "passphrase", "passcode", "pwd", "secret", "token", "credential", "key"];
const KEEP_FIRST: &str = "${1}[redacted]";

fn compile(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant pattern, compiled by a test")
}

static RULES: [Rule; 10] = [
    // A key whose END was cut off reaches to the end of the text; one whose BEGIN was, to its first line of base64.
    Rule {
        hints: &["private key-----"],
        pattern: LazyLock::new(|| {
            compile(r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)")
        }),
        put: REDACTED,
    },
    Rule {
        hints: &["private key-----"],
        pattern: LazyLock::new(|| {
            compile(r"(?-u)(?:[A-Za-z0-9+/=]+\r?\n)*[A-Za-z0-9+/=]*-----END [A-Z0-9 ]*PRIVATE KEY-----")
        }),
        put: REDACTED,
    },
    Rule {
        hints: &["authorization"],
        pattern: LazyLock::new(|| {
            compile(
                r#"(?i)(authorization["']?[ \t]*[:=][ \t]*["']?(?:(?:basic|bearer|digest|negotiate|token)[ \t]+)?)[^\s"',]+"#,
            )
        }),
        put: KEEP_FIRST,
    },
    Rule {
        hints: &["bearer"],
        pattern: LazyLock::new(|| compile(r"(?i-u)(\bbearer[ \t]+)[A-Za-z0-9._~+/=-]{8,}")),
        put: KEEP_FIRST,
    },
    Rule {
        hints: &["://"],
        pattern: LazyLock::new(|| compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#]*@")),
        put: "${1}[redacted]@",
    },
    Rule {
        hints: NAME_HINTS,
        pattern: LazyLock::new(|| compile(&format!(r#"({NAME}["']?[ \t]*[:=][ \t]*){VALUE}"#))),
        put: KEEP_FIRST,
    },
    Rule {
        hints: NAME_HINTS,
        pattern: LazyLock::new(|| compile(&format!(r#"((?:\A|[\s'"])--?{NAME}[ \t]+){ARGUMENT}"#))),
        put: KEEP_FIRST,
    },
    Rule {
        hints: &["akia", "asia"],
        pattern: LazyLock::new(|| compile(r"(?-u)\b(?:AKIA|ASIA)[A-Z0-9]{16}\b")),
        put: REDACTED,
    },
    Rule {
        hints: &["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "xox"],
        pattern: LazyLock::new(|| {
            compile(
                r"(?-u)\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}|xox[abeprs]-[A-Za-z0-9-]{10,})",
            )
        }),
        put: REDACTED,
    },
    Rule {
        hints: &["eyj"],
        pattern: LazyLock::new(|| compile(r"(?-u)\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*")),
        put: REDACTED,
    },
];

/// The text with every recognised secret replaced by `[redacted]`; borrowed when there is none.
pub fn redact(text: &str) -> Cow<'_, str> {
    // Rules only take letters away or put in "redacted", so the hints of the text hold for what the rules before left.
    let lower = text.to_ascii_lowercase();
    let mut clean = Cow::Borrowed(text);
    for rule in RULES.iter().filter(|rule| rule.hints.iter().any(|hint| lower.contains(hint))) {
        if let Cow::Owned(next) = rule.pattern.replace_all(&clean, rule.put) {
            clean = Cow::Owned(next);
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Cases: C-X5
    #[test]
    fn secrets_go_and_the_rest_stays() {
        for (raw, clean) in [
            ("backup --verbose /data", "backup --verbose /data"),
            ("mysqldump --password=hunter2 db", "mysqldump --password=[redacted] db"),
            ("mysqldump --password hunter2 db", "mysqldump --password [redacted] db"),
            ("login --password '-x y' now", "login --password [redacted] now"),
            ("run --no-password --force", "run --no-password --force"),
            ("password: hunter2\nnext line", "password: [redacted]\nnext line"),
            ("Password:\nnext line", "Password:\nnext line"),
            ("PASSWORD=hunter2 PGPASSWORD='a b' run", "PASSWORD=[redacted] PGPASSWORD=[redacted] run"),
            ("DB_PASSWORD_2=x", "DB_PASSWORD_2=[redacted]"),
            (r#"{"password":"hun\"ter2","user":"bob"}"#, r#"{"password":[redacted],"user":"bob"}"#),
            ("secret_token = \"abc", "secret_token = [redacted]"),
            ("aws_secret_access_key=wJalrXUtnFEMI/K7MDENG", "aws_secret_access_key=[redacted]"),
            ("x-api-key: 0123", "x-api-key: [redacted]"),
            ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic [redacted]"),
            ("curl -H 'Authorization: Bearer abcdef.123456'", "curl -H 'Authorization: Bearer [redacted]'"),
            ("got bearer abcdefghijkl", "got bearer [redacted]"),
            ("id AKIAIOSFODNN7EXAMPLE.", "id [redacted]."),
            ("ghp_0123456789abcdef0123456789abcdef0123", "[redacted]"),
            ("jwt eyJhbGciOiJI.eyJzdWIiOiIx.abc", "jwt [redacted]"),
            ("postgres://app:p@ss@db:5432/x", "postgres://[redacted]@db:5432/x"),
            ("https://example.org/a@b", "https://example.org/a@b"),
            (
                "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----\nb",
                "a\n[redacted]\nb",
            ),
            ("a\n-----BEGIN PRIVATE KEY-----\nMIIE", "a\n[redacted]"),
            ("MIIEabc\nabc=\n-----END PRIVATE KEY-----\nb", "[redacted]\nb"),
            ("tokenizer=fast secretary: bob", "tokenizer=fast secretary: bob"),
        ] {
            assert_eq!(redact(raw), clean, "{raw}");
            assert_eq!(redact(clean), clean, "twice: {raw}");
        }
    }

    #[test]
    fn a_canary_in_any_place_is_gone() {
        for shape in [
            "--password=CANARY",
            "--token CANARY",
            "export API_KEY=CANARY",
            "https://u:CANARY@h/",
            "Bearer CANARY12",
            "passphrase:CANARY",
            "'--db-password=CANARY&more'",
        ] {
            let text = format!("start {shape} end");
            assert!(!redact(&text).contains("CANARY"), "{shape}");
        }
    }

    proptest! {
        #[test]
        fn twice_is_once(text in "(?s)[ -~\n]{0,60}(password|token)?[=: ]{0,2}[ -~\"']{0,30}(://a:b@)?[ -~]{0,10}") {
            let once = redact(&text).into_owned();
            prop_assert_eq!(redact(&once).into_owned(), once.clone());
        }

        // Cases: C-X5
        #[test]
        fn values_of_secret_names_never_survive(
            name in "(DB_)?(password|token|api_key|SECRET)", sep in "(=|: ?)", value in "[A-Za-z0-9/+&]{12,40}",
        ) {
            let text = format!("x {name}{sep}{value} y");
            prop_assert!(!redact(&text).contains(&value), "{}", redact(&text));
        }
    }
}
