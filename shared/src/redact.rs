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
const NAME: &str = r"[\w.-]*(?:password|passwd|passphrase|passcode|pwd|secret|token|credential|api[_-]?key|access[_-]?key|private[_-]?key|encryption[_-]?key|auth[_-]?key)(?:s|[_-][\w.-]*|[0-9]+)?";
/// A value: quoted within one line (also when the closing quote was cut off), or up to the next white space. One that is
/// redacted already is taken alone, so that what follows it stays.
const VALUE: &str = r#"(?:\[redacted\]|"(?:[^"\\\n]|\\[^\n]?)*"?|'[^'\n]*'?|\S+)"#;
/// A value as an argument of its own: not another option.
const ARGUMENT: &str = r#"(?:\[redacted\]|"(?:[^"\\\n]|\\[^\n]?)*"?|'[^'\n]*'?|[^\s-]\S*|-[^\s-]\S*)"#;

/// A rule: what to look for, and what to put in its place (`$1` is what may stay).
type Rule = (Regex, &'static str);

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    [
        // A key whose END was cut off reaches to the end of the text; one whose BEGIN was, to its first line of base64.
        (r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)".to_owned(), REDACTED),
        (r"(?-u)(?:[A-Za-z0-9+/=]+\r?\n)*[A-Za-z0-9+/=]*-----END [A-Z0-9 ]*PRIVATE KEY-----".to_owned(), REDACTED),
        (r#"(?i)(\bauthorization["']?[ \t]*[:=][ \t]*["']?(?:(?:basic|bearer|digest|negotiate|token)[ \t]+)?)[^\s"',]+"#.to_owned(), "${1}[redacted]"),
        (r"(?i-u)(\bbearer[ \t]+)[A-Za-z0-9._~+/=-]{8,}".to_owned(), "${1}[redacted]"),
        (r"(?i)(\b[a-z][a-z0-9+.-]*://)[^\s/?#]*@".to_owned(), "${1}[redacted]@"),
        (format!(r#"(?i)({NAME}["']?[ \t]*[:=][ \t]*){VALUE}"#), "${1}[redacted]"),
        (format!(r#"(?i)((?:\A|[\s'"])--?{NAME}[ \t]+){ARGUMENT}"#), "${1}[redacted]"),
        (r"(?-u)\b(?:AKIA|ASIA)[A-Z0-9]{16}\b".to_owned(), REDACTED),
        (r"(?-u)\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}|xox[abeprs]-[A-Za-z0-9-]{10,})".to_owned(), REDACTED),
        (r"(?-u)\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*".to_owned(), REDACTED),
    ]
    .into_iter()
    .map(|(pattern, put)| (Regex::new(&pattern).expect("a constant pattern, compiled by every test"), put))
    .collect()
});

/// Compiles the rules now instead of at the first use: a few milliseconds that a caller may have to spare earlier.
pub fn prepare() {
    LazyLock::force(&RULES);
}

/// The text with every recognised secret replaced by `[redacted]`; borrowed when there is none.
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut clean = Cow::Borrowed(text);
    for (pattern, put) in RULES.iter() {
        if let Cow::Owned(next) = pattern.replace_all(&clean, *put) {
            clean = Cow::Owned(next);
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

        #[test]
        fn values_of_secret_names_never_survive(
            name in "(DB_)?(password|token|api_key|SECRET)", sep in "(=|: ?)", value in "[A-Za-z0-9/+&]{12,40}",
        ) {
            let text = format!("x {name}{sep}{value} y");
            prop_assert!(!redact(&text).contains(&value), "{}", redact(&text));
        }
    }
}
