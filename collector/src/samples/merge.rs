//! One series' samples out of several parts: sorted by time, one a time, the first written first.

use super::codec::is_absent;

/// Collects parts in the order in which they were written.
#[derive(Debug, Default)]
pub(crate) struct Merge {
    pub(crate) times: Vec<i64>,
    pub(crate) values: Vec<f64>,
    /// Whether some part began before the one before it had ended.
    disordered: bool,
}

impl Merge {
    pub(crate) fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
        self.disordered = false;
    }

    /// Adds the cells of a part that hold a value and lie in (from, to]; the part's times ascend.
    pub(crate) fn push(&mut self, times: &[i64], values: &[f64], (from, to): (i64, i64)) {
        let (low, high) = rows_between(times, (from, to));
        self.push_rows(&times[low..high], &values[low..high]);
    }

    /// Adds the cells of a part that hold a value; its times ascend.
    pub(crate) fn push_rows(&mut self, times: &[i64], values: &[f64]) {
        let before = self.times.len();
        if !values.iter().any(|value| is_absent(*value)) {
            self.times.extend_from_slice(times);
            self.values.extend_from_slice(values);
        } else {
            let cells = times.iter().zip(values).filter(|(_, value)| !is_absent(**value));
            self.times.extend(cells.clone().map(|(time, _)| *time));
            self.values.extend(cells.map(|(_, value)| *value));
        }
        self.look_at_order(before);
    }

    /// Adds a part that is `value` in every row.
    pub(crate) fn push_constant(&mut self, times: &[i64], value: f64) {
        let before = self.times.len();
        self.times.extend_from_slice(times);
        self.values.resize(self.times.len(), value);
        self.look_at_order(before);
    }

    /// Adds another series' parts: they were written after these.
    pub(crate) fn append(&mut self, later: &Self) {
        let before = self.times.len();
        self.times.extend_from_slice(&later.times);
        self.values.extend_from_slice(&later.values);
        self.disordered |= later.disordered;
        self.look_at_order(before);
    }

    fn look_at_order(&mut self, before: usize) {
        let overlaps =
            before > 0 && self.times.get(before).is_some_and(|time| *time <= self.times[before - 1]);
        self.disordered |= overlaps;
    }

    /// Sorts, and drops what was written again.
    pub(crate) fn settle(&mut self) {
        if !self.disordered {
            return;
        }
        let mut cells = self.times.drain(..).zip(self.values.drain(..)).collect::<Vec<_>>();
        cells.sort_by_key(|(time, _)| *time); // Stable: of equal times the first written stays first.
        cells.dedup_by_key(|(time, _)| *time);
        (self.times, self.values) = cells.into_iter().unzip();
        self.disordered = false;
    }
}

/// The rows of ascending `times` within (from, to].
pub(crate) fn rows_between(times: &[i64], (from, to): (i64, i64)) -> (usize, usize) {
    let low = times.partition_point(|time| *time <= from);
    (low, times.partition_point(|time| *time <= to).max(low))
}

#[cfg(test)]
mod tests {
    use super::super::codec::ABSENT;
    use super::*;

    #[test]
    fn parts_are_merged_and_the_first_written_stays() {
        type Part = (&'static [i64], &'static [f64]);
        for (name, parts, expected) in [
            (
                "in order",
                vec![(&[1i64, 2][..], &[1.0, 2.0][..]), (&[3], &[3.0])],
                vec![(1, 1.0), (2, 2.0), (3, 3.0)],
            ),
            (
                "late part",
                vec![(&[3, 4], &[3.0, 4.0]), (&[1, 2], &[1.0, 2.0])],
                vec![(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)],
            ),
            (
                "written twice",
                vec![(&[1, 2], &[1.0, 2.0]), (&[2, 3], &[9.0, 3.0])],
                vec![(1, 1.0), (2, 2.0), (3, 3.0)],
            ),
            ("filled in", vec![(&[1, 2], &[1.0, ABSENT]), (&[2], &[2.0])], vec![(1, 1.0), (2, 2.0)]),
            ("outside", vec![(&[0, 1, 5, 6], &[0.0, 1.0, 5.0, 6.0])], vec![(1, 1.0), (5, 5.0)]),
        ] as [(&str, Vec<Part>, Vec<(i64, f64)>); 5]
        {
            let mut merge = Merge::default();
            parts.iter().for_each(|(times, values)| merge.push(times, values, (0, 5)));
            merge.settle();
            let merged = merge.times.iter().copied().zip(merge.values.iter().copied()).collect::<Vec<_>>();
            assert_eq!(merged, expected, "{name}");
        }
    }
}
