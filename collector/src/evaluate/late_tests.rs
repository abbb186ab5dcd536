//! Rows that come late, and time without rows: rules for `x > 1` of one host with a tick of 10 s.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tocsin_shared::alert::Condition;
use tocsin_shared::event::EventKind;

use super::tests::Bench;
use super::*;
use crate::journal::ledger;
use crate::state::testing::at;

/// What a timeline came to.
#[derive(Debug, PartialEq)]
struct Came {
    /// Public events of alerts, in the journal's order: `T` triggered, `R` resolved, `L` late.
    events: String,
    /// The alert at the end: `-` none, `p` pending, `F` firing, `R` resolved, `i` inactive.
    condition: char,
    /// In ticks.
    since: Option<i64>,
}

/// One tick of a timeline: its number, and whether the rule is breached.
type Tick = (i64, bool);

/// A letter for each tick: `x` breached, `.` clear, `?` no row at all. What is in brackets comes after all else.
fn ticks(timeline: &str) -> Vec<Tick> {
    let (mut in_time, mut late, mut inside, mut tick) = (Vec::new(), Vec::new(), false, 0);
    for letter in timeline.chars() {
        match letter {
            '[' | ']' => inside = letter == '[',
            '?' => tick += 1,
            letter => {
                if inside { &mut late } else { &mut in_time }.push((tick, letter == 'x'));
                tick += 1;
            }
        }
    }
    in_time.extend(late);
    in_time
}

struct Play {
    bench: Bench,
    events: String,
    /// The ticks of all rows there are, and of those that came.
    rows: BTreeSet<i64>,
    came: BTreeSet<i64>,
}

impl Play {
    fn new(rule: &str, rows: impl IntoIterator<Item = i64>) -> Self {
        let bench = Bench::new(&format!("  rules:\n  - {{alert: A, expr: 'x > 1'{rule}}}\n"));
        Self { bench, events: String::new(), rows: rows.into_iter().collect(), came: BTreeSet::new() }
    }

    fn row(&mut self, (tick, breached): Tick) {
        self.came.insert(tick);
        let before = self.rows.range(..tick).next_back();
        let follows = before.is_none_or(|before| self.came.contains(before));
        let last = self.came.last().copied().unwrap_or(tick);
        let complete = self.rows.range(..last).all(|row| self.came.contains(row));
        let row = self.bench.append(1, 10 * tick, [if breached { 2.0 } else { 0.0 }, 0.0]);
        self.bench.evaluator.row(DurableRow { follows, complete, ..row }).unwrap();
    }

    fn fill(&mut self) {
        while self.bench.evaluator.has_late_rows() {
            self.bench.evaluator.fill(3).unwrap();
        }
    }

    fn play(&mut self, rows: &[Tick]) {
        for tick in rows {
            self.row(*tick);
            self.fill();
        }
    }

    fn came(mut self) -> Came {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        self.bench.ledger.read_blocking(|_| ()).unwrap(); // All that was posted before is decided then.
        let mut reader = runtime.block_on(self.bench.ledger.reader()).unwrap();
        while let Some(entry) = reader.next().unwrap() {
            self.events.extend(match ledger::decode(&entry.payload, entry.seq).unwrap().kind {
                EventKind::AlertTriggered => Some('T'),
                EventKind::AlertResolved => Some('R'),
                EventKind::AlertLate => Some('L'),
                _ => None,
            });
        }
        let alert = self.bench.ledger.read_blocking(|state| state.alerts().next().cloned()).unwrap();
        let condition = alert.as_ref().map_or('-', |alert| match alert.condition {
            Condition::Pending => 'p',
            Condition::Firing => 'F',
            Condition::Resolved => 'R',
            Condition::Inactive => 'i',
        });
        let active = alert.filter(|_| "pF".contains(condition));
        let since = active.map(|alert| (alert.active_since.as_millis() - at(0).as_millis()) / 10_000);
        Came { events: self.events, condition, since }
    }
}

fn came(rule: &str, timeline: &str) -> Came {
    let rows = ticks(timeline);
    let mut play = Play::new(rule, rows.iter().map(|(tick, _)| *tick));
    play.play(&rows);
    play.came()
}

// Cases: R5, C-S2
#[test]
fn late_rows_say_what_is_true_and_page_for_nothing_that_is_over() {
    const FOR: &str = ", for: 30s";
    const KEEP: &str = ", keep_firing_for: 20s";
    for (rule, timeline, events, condition, since, why) in [
        ("", "...[xx]..", "L", 'R', None, "what began and ended among late rows is recorded"),
        ("", "...[x.x]..", "LL", 'R', None, "each time"),
        ("", "...[..]..", "", '-', None, "late rows without a breach say nothing"),
        ("", "...[.x]x", "T", 'F', Some(4), "what fires is said once, and its true start is learnt"),
        ("", "x[.x].", "TRL", 'R', None, "what ended unseen and began again unseen"),
        ("", "x[..]x", "T", 'F', Some(0), "an alert that fires is not ended by rows of the past"),
        (FOR, "...[xxxxx].", "L", 'R', None, "a wait that was met among late rows"),
        (FOR, "...[xx].", "", '-', None, "a wait that was not"),
        (FOR, "..x[xx]x", "T", 'F', Some(2), "fires now, once, with its true start"),
        (FOR, "..x[xxxxx]x", "T", 'F', Some(2), "and the late rows count"),
        (FOR, "..x[x.x]x", "", 'p', Some(5), "a late row that is clear starts the wait again"),
        (FOR, "..[xxx]xx", "T", 'F', Some(2), "the breach began among late rows"),
        (FOR, "..[x]x", "", 'p', Some(2), "and waits on from there"),
        (FOR, "xxxx[..]xx", "T", 'F', Some(0), "it fires, and rows of now say so"),
        (
            FOR,
            "..x[xxx]x.xxxx",
            "TL",
            'F',
            Some(8),
            "met by late rows, over, and again: the past is not paged",
        ),
        (KEEP, "..[xx].", "T", 'F', Some(2), "it is still kept firing"),
        (KEEP, "..[xx]....", "L", 'R', None, "no longer"),
    ] {
        let expected = Came { events: events.into(), condition, since };
        assert_eq!(came(rule, timeline), expected, "{rule} {timeline}: {why}");
    }
}

// Cases: R5, C-S2
#[test]
fn time_without_rows_neither_counts_nor_starts_the_wait_again() {
    for (timeline, condition, since, why) in [
        ("xxx", 'p', Some(0), "not yet"),
        ("xxxx", 'F', Some(0), "thirty seconds of rows"),
        ("xx?x", 'F', Some(0), "one missed tick is bridged"),
        ("...xx????xx", 'p', Some(8), "the time without rows does not count"),
        ("...xx????xxxx", 'F', Some(8), "and the rest does"),
        ("...xx[xxxx]x", 'F', Some(3), "unless the rows come"),
        ("...xx????.", 'i', None, "a clear row is evidence"),
    ] {
        let Came { condition: found, since: began, .. } = came(", for: 30s", timeline);
        let condition = if condition == 'i' { '-' } else { condition };
        assert_eq!((found, began), (condition, since), "{timeline}: {why}");
    }
}

// Cases: C-S1
#[test]
fn the_first_row_after_an_outage_ends_no_rate() {
    let mut play = Play::new("", 0..=13);
    play.bench = Bench::new("  rules:\n  - {alert: A, expr: 'rate(x[30s]) > 0.02'}\n");
    for (seconds, x, firing) in [
        (0, 0.0, false),
        (10, 1.0, true),
        (20, 2.0, true),
        (30, 3.0, true),
        (100, 9.0, true),
        (110, 9.0, false),
    ] {
        play.bench.row(1, seconds, [100.0 + x, 0.0]);
        let fires = play.bench.alerts().iter().any(|(_, condition)| *condition == Condition::Firing);
        assert_eq!(fires, firing, "at {seconds}");
    }
    assert_eq!(play.came().events, "TR");
}

#[test]
fn a_hole_outlives_a_restart_and_what_it_says_is_said_once() {
    let rows = ticks("...[xxxxx]..");
    let mut play = Play::new(", for: 30s", 0..=10);
    play.play(&rows[..7]);
    assert!(play.bench.ledger.read_blocking(|state| state.holes().next().is_some()).unwrap());
    play.bench.restart();
    play.play(&rows[7..]);
    assert!(play.bench.ledger.read_blocking(|state| state.holes().next().is_none()).unwrap());
    play.bench.restart();
    play.play(&[(10, false)]);
    assert_eq!(play.came(), Came { events: "L".into(), condition: 'R', since: None });
}

#[test]
fn a_hole_that_opens_again_is_filled_from_its_first_row() {
    let mut play = Play::new("", 0..=6);
    for row in [(0, false), (3, false), (1, true), (2, false), (6, false)] {
        play.row(row); // Before it could be filled, the link broke again.
    }
    assert!(!play.bench.evaluator.has_late_rows());
    play.play(&[(4, false), (5, true)]);
    assert_eq!(play.came().events, "LL");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// In any order, the alert ends as if all rows had come in time; and nothing is said more often than it was so.
    // Cases: R5, C-S2
    #[test]
    fn late_rows_end_where_rows_in_time_end(
        breached in prop::collection::vec(any::<bool>(), 4..24),
        from in 1usize..20,
        count in 1usize..10,
        keep in any::<bool>(),
    ) {
        let rule = if keep { ", for: 20s, keep_firing_for: 20s" } else { ", for: 20s" };
        let all: Vec<Tick> = (0..).zip(breached).collect();
        let from = from.min(all.len() - 2);
        let to = (from + count).min(all.len() - 1);
        let ticks = || all.iter().map(|(tick, _)| *tick);
        let (mut oracle, mut play) = (Play::new(rule, ticks()), Play::new(rule, ticks()));
        oracle.play(&all);
        play.play(&[&all[..from], &all[to..], &all[from..to]].concat());
        let (oracle, came) = (oracle.came(), play.came());
        let fired = |came: &Came| came.events.matches(['T', 'L']).count();
        // A wait that went on over the hole was met by rows in time; only then was it not known what the late ones say.
        let waited = usize::from(all[from - 1].1);
        prop_assert!(fired(&came) <= fired(&oracle) + waited, "{oracle:?} {came:?}");
        if "pF".contains(oracle.condition) {
            // One that fires is not taken back: the rows of now say that it is so.
            prop_assert!(came.condition == oracle.condition || came.condition == 'F', "{oracle:?} {came:?}");
            prop_assert!(came.since <= oracle.since, "{oracle:?} {came:?}");
        }
        if oracle.condition == 'F' {
            prop_assert_eq!(came.condition, 'F');
        }
    }
}
