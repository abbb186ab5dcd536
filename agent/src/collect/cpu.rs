//! Time spent per processor and mode, from the `cpuN` lines of `/proc/stat`.
//!
//! Guest time is a metric of its own and already inside `user` and `nice`. The kernel's idle and iowait counters can
//! step back a little; a counter that steps back would read as a restart, so each keeps its highest value. A
//! larger step back of the idle time is a processor that was off, and then all of its counters start anew.

use std::collections::BTreeMap;

use super::fields::{Malformed, numbers};
use super::section::Section;

/// The kernel's clock ticks per second in `/proc`, fixed at 100 by its interface to programs.
pub(crate) const USER_HZ: f64 = 100.0;
/// A step back of the idle time, in seconds, that is a processor coming back and not the kernel's imprecision.
const IDLE_STEP_BACK: f64 = 3.0;

/// The modes in the order of the line.
const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];
const IDLE: usize = 3;
const GUEST: usize = 8;

/// Seconds per mode: the eight modes, then guest and guest-nice.
pub(crate) type Seconds = [f64; 10];

/// One processor's line.
#[derive(Debug, PartialEq)]
pub(crate) struct Processor<'a> {
    /// Its number, as text.
    pub(crate) cpu: &'a str,
    pub(crate) seconds: Seconds,
}

/// Reads one `cpuN …` line; `None` for the sum over all processors. Old kernels have fewer columns.
pub(crate) fn parse(line: &str) -> Result<Option<Processor<'_>>, Malformed> {
    let malformed = || Malformed::new("/proc/stat", line);
    let mut fields = line.split_ascii_whitespace();
    let cpu = fields.next().and_then(|name| name.strip_prefix("cpu")).ok_or_else(malformed)?;
    if cpu.is_empty() {
        return Ok(None);
    }
    let [user, nice, system, idle] = numbers(&mut fields).ok_or_else(malformed)?;
    let mut seconds = [user, nice, system, idle, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    for place in &mut seconds[4..] {
        match fields.next() {
            Some(field) => *place = super::fields::number(field).ok_or_else(malformed)?,
            None => break,
        }
    }
    Ok(Some(Processor { cpu, seconds: seconds.map(|ticks| ticks / USER_HZ) }))
}

/// The highest values seen, by processor.
#[derive(Debug, Default)]
pub(crate) struct Settled(BTreeMap<u32, Seconds>);

impl Settled {
    /// The values to say for a processor: never below those said before, unless it was off.
    pub(crate) fn settle(&mut self, processor: &Processor<'_>) -> Seconds {
        let Ok(number) = processor.cpu.parse() else { return processor.seconds };
        let last = self.0.entry(number).or_insert(processor.seconds);
        if last[IDLE] - processor.seconds[IDLE] >= IDLE_STEP_BACK {
            *last = processor.seconds;
        }
        for (last, new) in last.iter_mut().zip(processor.seconds) {
            *last = last.max(new);
        }
        *last
    }
}

/// Says the series of one processor.
pub(crate) fn say(cpu: &str, seconds: &Seconds, out: &mut Section) {
    for (mode, value) in MODES.into_iter().zip(seconds) {
        out.put("node_cpu_seconds_total", &[("cpu", cpu), ("mode", mode)], *value);
    }
    for (mode, value) in ["user", "nice"].into_iter().zip(&seconds[GUEST..]) {
        out.put("node_cpu_guest_seconds_total", &[("cpu", cpu), ("mode", mode)], *value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_old_and_new_kernels_are_read() {
        let new = parse("cpu1 6816 1 2230 126555 268 2 23 28 5 6").unwrap().unwrap();
        assert_eq!(new.cpu, "1");
        assert_eq!(new.seconds, [68.16, 0.01, 22.3, 1265.55, 2.68, 0.02, 0.23, 0.28, 0.05, 0.06]);
        let old = parse("cpu0 100 0 0 200").unwrap().unwrap();
        assert_eq!(old.seconds, [1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(parse("cpu  1 2 3 4 5 6 7 8 9 10"), Ok(None));
        for line in ["cpu0 1 2", "cpu0 a b c d", "cpu0 1 2 3 4 x", "intr 1"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    // Cases: R6 (partly)
    #[test]
    fn counters_do_not_step_back_unless_the_processor_was_off() {
        let mut settled = Settled::default();
        for (idle, iowait, want, why) in [
            (100.0, 9.0, (100.0, 9.0), "the first reading"),
            (101.0, 8.5, (101.0, 9.0), "iowait stepped back"),
            (100.5, 9.5, (101.0, 9.5), "idle stepped back a little"),
            (2.0, 0.0, (2.0, 0.0), "the processor was off"),
        ] {
            let mut seconds = [0.0; 10];
            (seconds[IDLE], seconds[IDLE + 1]) = (idle, iowait);
            let is = settled.settle(&Processor { cpu: "0", seconds });
            assert_eq!((is[IDLE], is[IDLE + 1]), want, "{why}");
        }
    }
}
