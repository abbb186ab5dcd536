//! What the distribution calls itself, from `os-release`.

use std::collections::BTreeMap;

use tocsin_shared::time::Timestamp;

use super::file::read_once;
use super::refresh::Refresh;
use super::section::Section;
use super::source::{CollectError, Roots, Source, absent_or};

/// The words of `os-release` that are labels, in lower case, with the file's key.
const OS_WORDS: [(&str, &str); 12] = [
    ("build_id", "BUILD_ID"),
    ("id", "ID"),
    ("id_like", "ID_LIKE"),
    ("image_id", "IMAGE_ID"),
    ("image_version", "IMAGE_VERSION"),
    ("name", "NAME"),
    ("pretty_name", "PRETTY_NAME"),
    ("variant", "VARIANT"),
    ("variant_id", "VARIANT_ID"),
    ("version", "VERSION"),
    ("version_codename", "VERSION_CODENAME"),
    ("version_id", "VERSION_ID"),
];

/// Reads `os-release`: keys and values without their quotes.
pub(crate) fn parse(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.trim().split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.trim_matches(['"', '\'']).to_owned())).collect()
}

/// The version's leading `12.3` as a number.
fn os_version(text: &str) -> Option<f64> {
    let mut parts = text.split('.');
    let (major, minor) = (parts.next()?, parts.next().unwrap_or("0"));
    format!("{major}.{minor}").parse().ok()
}

/// The `os` collector.
pub(crate) struct Os {
    roots: Roots,
    words: BTreeMap<String, String>,
    refresh: Refresh,
}

impl Os {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self { roots: roots.clone(), words: BTreeMap::new(), refresh: Refresh::default() }
    }
}

impl Source for Os {
    fn read(&mut self, now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        if self.refresh.due(now) {
            let read = |path| read_once(&self.roots.host(path));
            let text = read("etc/os-release").or_else(|_| read("usr/lib/os-release"));
            self.words = match text {
                Ok(text) => parse(&text),
                Err(error) => {
                    self.refresh.forget();
                    return Err(absent_or(error, "os-release file"));
                }
            };
        }
        let word = |key| self.words.get(key).map_or("", String::as_str);
        let labels = OS_WORDS.map(|(label, key)| (label, word(key)));
        out.put("node_os_info", &labels, 1.0);
        if let Some(version) = os_version(word("VERSION_ID")) {
            let labels = [("id", word("ID")), ("id_like", word("ID_LIKE")), ("name", word("NAME"))];
            out.put("node_os_version", &labels, version);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_read() {
        let words = parse("NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n# x\n\n");
        assert_eq!((words["NAME"].as_str(), words["ID"].as_str()), ("Debian GNU/Linux", "debian"));
        for (text, version) in
            [("12", Some(12.0)), ("22.04", Some(22.04)), ("3.19.1", Some(3.19)), ("x", None)]
        {
            assert_eq!(os_version(text), version, "{text}");
        }
    }
}
