//! Which process of an agent may come in, and how two hosts with one identity are told from one that came back.
//!
//! Pure. An agent draws a name for each of its processes. A process that another one came after (a restart, a reboot) is
//! dead and never comes back: if it does, both live, so there are two hosts. One last Hello of a dead process may still
//! have been on its way, so the first return is only refused; the second, a second or more later, settles it. A broken
//! link brings the same process back as often as it likes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Earlier processes that are remembered: two copies need two, restarts in between a few more.
const EARLIER_MAX: usize = 4;
/// Words on their way arrive together; an agent waits a second between two attempts.
const RETURNS_APART: Duration = Duration::from_secs(1);

/// Who says Hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub process: String,
    pub boot_id: String,
    /// The hash of the machine id.
    pub machine: String,
    pub address: String,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { process, boot_id, machine, address } = self;
        write!(f, "{address} (boot {boot_id}, machine {machine}, process {process})")
    }
}

/// What becomes of a Hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Enters,
    /// Another process came after this one: perhaps words that were still on their way.
    Superseded,
    /// Two live at once; names both.
    Cloned {
        seen: String,
    },
}

/// The processes of one agent, since the collector's start.
#[derive(Debug, Default)]
pub(super) struct Processes {
    current: Option<Seen>,
    /// Oldest first; when each first came back.
    earlier: VecDeque<(Seen, Option<Instant>)>,
}

impl Processes {
    pub(super) fn enter(&mut self, seen: Seen, now: Instant) -> Entry {
        if let Some(current) = self.current.as_mut().filter(|current| current.process == seen.process) {
            *current = seen; // Its address may be another one.
            return Entry::Enters;
        }
        let earlier = self.earlier.iter_mut().find(|(earlier, _)| earlier.process == seen.process);
        let Some((_, returned)) = earlier else {
            self.earlier.extend(self.current.replace(seen).map(|current| (current, None)));
            if self.earlier.len() > EARLIER_MAX {
                self.earlier.pop_front();
            }
            return Entry::Enters;
        };
        match returned {
            Some(first) if now.saturating_duration_since(*first) >= RETURNS_APART => {
                let current = self.current.as_ref().map(ToString::to_string).unwrap_or_default();
                Entry::Cloned { seen: format!("seen: {current} and {seen}") }
            }
            Some(_) => Entry::Superseded,
            None => {
                *returned = Some(now);
                Entry::Superseded
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Cases: I1
    #[test]
    fn only_a_process_that_comes_back_after_another_is_a_clone() {
        // Hellos by process, one a second; `'` is one that comes at once. Out: e enters, s superseded, C cloned.
        for (hellos, expected, why) in [
            ("aaaa", "eeee", "a flapping link"),
            ("abcdefg", "eeeeeee", "restarts and reboots, one after the other"),
            ("aabbcc", "eeeeee", "each of them with broken links"),
            ("abab", "eese", "one word of a dead process was still on its way"),
            ("aba'a'a", "eesss", "words that were on their way arrive together"),
            ("abaa", "eesC", "it lives"),
            ("ababa", "eeseC", "both live"),
            ("abcdaca", "eeeessC", "also with restarts between"),
            ("abcdbb", "eeeesC", "whichever of them"),
        ] {
            let (mut processes, mut now, mut got) = (Processes::default(), Instant::now(), String::new());
            for hello in hellos.chars() {
                if hello == '\'' {
                    now -= Duration::from_secs(1);
                    continue;
                }
                now += Duration::from_secs(1);
                let seen = Seen {
                    process: hello.into(),
                    boot_id: format!("boot-{hello}"),
                    machine: "m".into(),
                    address: format!("10.0.0.{}:1", u32::from(hello)),
                };
                let entry = processes.enter(seen, now);
                if let Entry::Cloned { seen } = &entry {
                    assert!(seen.contains(&format!("boot-{hello}")), "{why}: {seen}");
                    assert_eq!(seen.matches("10.0.0.").count(), 2, "{why}: {seen}");
                }
                got.push(match entry {
                    Entry::Enters => 'e',
                    Entry::Superseded => 's',
                    Entry::Cloned { .. } => 'C',
                });
            }
            assert_eq!(got, expected, "{why}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut processes = Processes::default();
        for n in 0..1_000 {
            let process = n.to_string();
            let seen =
                Seen { process, boot_id: String::new(), machine: String::new(), address: String::new() };
            processes.enter(seen, Instant::now());
        }
        assert_eq!(processes.earlier.len(), EARLIER_MAX);
    }
}
