//! What makes two alerts the same alert.

use ring::digest::{Context, SHA256};
use tocsin_shared::alert::AlertSource;
use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;

/// The `dedup_key`: hex of a SHA-256 over the source, its id, the agent (empty for none) and the sorted labels, each
/// text after its length, so that no two lists of texts give the same bytes.
pub fn dedup_key(source: AlertSource, source_id: &str, agent: Option<AgentId>, labels: &Labels) -> String {
    let mut hash = Context::new(&SHA256);
    let mut feed = |text: &str| {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    feed(source.as_str());
    feed(source_id);
    feed(&agent.map_or_else(String::new, |agent| agent.to_string()));
    for (name, value) in labels.iter() {
        feed(name);
        feed(value);
    }
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digest = hash.finish();
    let nibbles = digest.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles.map(|nibble| char::from(DIGITS[usize::from(nibble)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing;

    // Cases: R12
    #[test]
    fn everything_that_differs_gives_another_key() {
        let labels = |pairs: &[(&str, &str)]| Labels::new(pairs.iter().copied());
        let key = |source, id, agent, pairs: &[(&str, &str)]| dedup_key(source, id, agent, &labels(pairs));
        let one = Some(testing::agent(1));
        let mut keys = vec![
            key(AlertSource::Rule, "r", one, &[("a", "bc")]),
            key(AlertSource::Rule, "r", one, &[("ab", "c")]),
            key(AlertSource::Rule, "r", one, &[]),
            key(AlertSource::Rule, "r", None, &[]),
            key(AlertSource::Rule, "r", Some(testing::agent(2)), &[]),
            key(AlertSource::Rule, "rr", None, &[]),
            key(AlertSource::Job, "r", None, &[]),
        ];
        assert!(keys.iter().all(|key| key.len() == 64));
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }

    // Cases: C18
    #[test]
    fn the_key_is_the_same_in_every_version() {
        // Changing it would page for every firing alert once more.
        let labels = Labels::new([("mountpoint", "/")]);
        let key = dedup_key(AlertSource::Rule, "node/DiskFull", None, &labels);
        assert_eq!(key, "4b85fe7b37e7548479aebd678ca47820b9611990f05665a889d2b34d8cf3fadc");
    }
}
