//! How many records each user of the host may hand in: a token bucket per uid.
//!
//! Pure: told `now`. One user's flood does not touch another's bucket, and the table of buckets is bounded.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Users remembered at once; a full bucket is the same as none and is forgotten first. Far more than run jobs on one
/// host, and bounded because one user with a uid range can appear as many.
const UIDS_MAX: usize = 1024;
const MINUTE: Duration = Duration::from_secs(60);

/// Token buckets by uid; each holds one minute's allowance.
#[derive(Debug)]
pub(crate) struct Quota {
    per_minute: u32,
    buckets: HashMap<u32, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

impl Quota {
    /// `per_minute` records for each uid, all of which may come at once.
    pub(crate) fn new(per_minute: u32) -> Self {
        Self { per_minute, buckets: HashMap::new() }
    }

    /// Whether this uid may hand in a record now; takes the token if so.
    pub(crate) fn admit(&mut self, uid: u32, now: Instant) -> bool {
        let full = f64::from(self.per_minute);
        if !self.buckets.contains_key(&uid) && !self.make_room(now) {
            return false;
        }
        let bucket = self.buckets.entry(uid).or_insert(Bucket { tokens: full, filled_at: now });
        bucket.tokens = bucket.tokens_at(now, full);
        bucket.filled_at = bucket.filled_at.max(now);
        let admitted = bucket.tokens >= 1.0;
        if admitted {
            bucket.tokens -= 1.0;
        }
        admitted
    }

    /// Forgets full buckets when the table is full; false when that helps nothing.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.buckets.len() >= UIDS_MAX {
            let full = f64::from(self.per_minute);
            self.buckets.retain(|_, bucket| bucket.tokens_at(now, full) < full);
        }
        self.buckets.len() < UIDS_MAX
    }
}

impl Bucket {
    fn tokens_at(&self, now: Instant, full: f64) -> f64 {
        let share = now.saturating_duration_since(self.filled_at).as_secs_f64() / MINUTE.as_secs_f64();
        (self.tokens + share * full).min(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Cases: S16
    #[test] // One row: seconds since the start, uid, whether a quota of 3 per minute admits it.
    fn each_user_has_a_bucket() {
        let (mut quota, start) = (Quota::new(3), Instant::now());
        for (row, (second, uid, admitted)) in [
            (0, 1000, true),
            (0, 1000, true),
            (0, 1000, true),
            (0, 1000, false),
            (0, 1001, true),
            (19, 1000, false),
            (20, 1000, true),
            (20, 1000, false),
            (19, 1000, false), // Time that runs backwards fills nothing.
            (600, 1000, true),
            (600, 1000, true),
            (600, 1000, true),
            (600, 1000, false),
        ]
        .into_iter()
        .enumerate()
        {
            let now = start + Duration::from_secs(second);
            assert_eq!(quota.admit(uid, now), admitted, "row {row}");
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut quota, start) = (Quota::new(2), Instant::now());
        let many = u32::try_from(UIDS_MAX).unwrap();
        assert!((0..many).all(|uid| quota.admit(uid, start)));
        assert!(!quota.admit(many, start), "no bucket is full again yet");
        assert!(quota.admit(5, start), "a known user is not affected");
        assert!(quota.admit(many, start + MINUTE), "full buckets made room");
        assert!(quota.buckets.len() <= UIDS_MAX);
    }
}
