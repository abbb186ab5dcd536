//! ⇄ A process of this host, told apart from a later one with the same id by the moment it began.

use std::fs;

/// A process as /proc shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Process {
    pub id: u32,
    /// When it began, in the kernel's ticks since boot.
    pub since: u64,
    pub parent: u32,
}

impl Process {
    /// The process with this id, if one is visible.
    pub(crate) fn find(id: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok().filter(|_| id > 0)?;
        let (parent, since) = parse(&stat)?;
        Some(Self { id, since, parent })
    }

    /// Whether it goes on. One that has ended and waits for its parent is over.
    pub(crate) fn is_there(&self) -> bool {
        Self::find(self.id).is_some_and(|found| found.since == self.since)
    }
}

/// Parent and beginning from a line of /proc/PID/stat; none of a zombie. The name in brackets may hold anything.
fn parse(stat: &str) -> Option<(u32, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let since = fields.nth(17)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some((parent, since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc() {
        let rest = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 4711 18";
        for (line, found) in [
            (format!("7 (sleep) S 42 {rest}"), Some((42, 4711))),
            (format!("7 (a) Z 1) S 42 {rest}"), Some((42, 4711))),
            (format!("7 (sleep) Z 42 {rest}"), None),
            ("7 (sleep) S 42 1 2".into(), None),
            (String::new(), None),
        ] {
            assert_eq!(parse(&line), found, "{line}");
        }
        let own = Process::find(std::process::id()).unwrap();
        assert!(own.is_there() && own.parent > 0);
        assert!(!Process { since: own.since + 1, ..own }.is_there(), "the same id, another process");
        assert_eq!(Process::find(0), None);
    }
}
