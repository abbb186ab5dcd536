//! Samples that other programs push: each source's series under hosts of their own, one for each job and instance.
//!
//! Samples of one scrape share a time, and a host keeps one time column; a host here is what one source calls by one
//! `job` and one `instance`, so that no source can write into an agent's host or another source's. Their series keep
//! all of their labels. The same series of two sources is read from one of them, always the same while both have
//! samples in the span. Not here: what a source may write (`receive`), durability (`journal::rows`).

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;
use uuid::Uuid;

use super::Store;
use super::host::Host;

/// Names received hosts; chosen once at random.
const NAMESPACE: Uuid = Uuid::from_u128(0x7bb2_6c1f_55d0_4a0c_9c3a_0d4e_61f2_8a37);
/// The version of a uuid that is made of a name. Agents' ids are random ones, of version 4.
const NAMED: usize = 5;

/// Whether a host is of received samples.
pub fn is_received(host: AgentId) -> bool {
    host.0.get_version_num() == NAMED
}

/// What one source calls by one job and instance. Its key is made of the three names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub source: Arc<str>,
    pub key: AgentId,
    /// `job` and `instance`, as far as they are there.
    pub target: Labels,
}

impl Origin {
    /// The origin of these names; each name's length tells where it ends.
    pub fn new(source: &str, job: &str, instance: &str) -> Self {
        let name = format!("{}:{source}{}:{job}{}:{instance}", source.len(), job.len(), instance.len());
        let key = AgentId(Uuid::new_v5(&NAMESPACE, name.as_bytes()));
        Self { source: source.into(), key, target: Labels::new([("job", job), ("instance", instance)]) }
    }

    /// The origin of a series of a source.
    pub fn of(source: &str, labels: &Labels) -> Self {
        let label = |name| labels.get(name).unwrap_or_default();
        Self::new(source, label("job"), label("instance"))
    }
}

/// Where a series stands in its host, as long as that has not renumbered its series. For one writer at a time.
#[derive(Debug, Default)]
pub struct Place {
    numbering: AtomicU64,
    slot: AtomicU32,
}

impl Place {
    pub(super) fn slot(&self, numbering: u64) -> Option<u32> {
        (self.numbering.load(Ordering::Relaxed) == numbering).then(|| self.slot.load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, numbering: u64, slot: u32) {
        self.slot.store(slot, Ordering::Relaxed);
        self.numbering.store(numbering, Ordering::Relaxed);
    }
}

/// A value of a received series, for a time that it shares with others.
#[derive(Clone, Copy, Debug)]
pub struct Cell<'a> {
    /// All of the series' labels.
    pub labels: &'a Labels,
    pub place: &'a Place,
    pub value: f64,
}

impl Store {
    /// Adds values of one instant to a received host; gives how many cells had another value already, which stays.
    ///
    /// How many series a source has is bounded before (`receive`).
    pub fn append_received(&self, origin: &Origin, at: Timestamp, cells: &[Cell<'_>]) -> u64 {
        let host = match self.host(Some(origin.key)) {
            Some(host) => host,
            None => self.new_origin(origin),
        };
        let mut host = host.write().unwrap_or_else(PoisonError::into_inner);
        self.arrivals.fetch_add(1, Ordering::Relaxed); // The host's lock orders it after what came.
        host.append_received(at, cells)
    }

    fn new_origin(&self, origin: &Origin) -> Arc<RwLock<Host>> {
        let host = self.host_or_new(Some(origin.key));
        host.write().unwrap_or_else(PoisonError::into_inner).series.set_target(origin.target.clone());
        self.note_origin(&origin.target, origin.key);
        host
    }

    /// Notes that a source has this job and instance. From the second source on, the same series may be there twice.
    pub(super) fn note_origin(&self, target: &Labels, key: AgentId) {
        let mut origins = self.origins.first.lock().unwrap_or_else(PoisonError::into_inner);
        if *origins.entry(target.clone()).or_insert(key) != key {
            self.origins.shared.store(true, Ordering::Release);
        }
    }

    /// Notes that everything of a source up to `at` can be read, as far as it has come.
    pub fn note_source(&self, source: &str, at: Timestamp) {
        let mut newest = self.origins.newest.lock().unwrap_or_else(PoisonError::into_inner);
        match newest.get_mut(source) {
            Some(known) => *known = at.max(*known),
            None => drop(newest.insert(source.into(), at)),
        }
    }

    /// How far each source has come since the start, or what the journal had of it.
    pub fn sources(&self) -> Vec<(Arc<str>, Timestamp)> {
        let newest = self.origins.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.iter().map(|(source, at)| (Arc::clone(source), *at)).collect()
    }

    /// Forgets how far sources have come that write no more: nobody waits for them.
    pub fn forget_sources(&self, gone: impl Fn(&str) -> bool) {
        let mut newest = self.origins.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.retain(|source, _| !gone(source));
    }

    /// The newest sample of a received host.
    pub fn newest_received(&self, origin: &Origin) -> Option<Timestamp> {
        let host = self.host(Some(origin.key))?;
        host.read().unwrap_or_else(PoisonError::into_inner).last_row
    }

    /// All hosts for a selection, and whether a series may be in two of them: then the first in this order has it.
    pub(super) fn hosts_to_read(&self) -> (Listed, bool) {
        let mut hosts = self.hosts();
        let shared = self.origins.shared.load(Ordering::Acquire);
        if shared {
            hosts.sort_unstable_by_key(|(agent, _)| *agent);
        }
        (hosts, shared)
    }
}

/// Hosts in some order.
pub(super) type Listed = Vec<(Option<AgentId>, Arc<RwLock<Host>>)>;

/// Which jobs and instances sources write.
#[derive(Debug, Default)]
pub(super) struct Origins {
    /// The first source's host of each.
    first: Mutex<HashMap<Labels, AgentId>>,
    /// Whether some have more than one source.
    shared: AtomicBool,
    /// The newest time of each source.
    newest: Mutex<BTreeMap<Arc<str>, Timestamp>>,
}

#[cfg(test)]
mod tests {
    use tocsin_promql::{Expr, Limits, Value, instant};

    use super::super::Window;
    use super::*;
    use crate::state::testing::at;

    fn add(store: &Store, source: &str, labels: &Labels, seconds: i64, value: f64) -> u64 {
        let (origin, place) = (Origin::of(source, labels), Place::default());
        store.append_received(&origin, at(seconds), &[Cell { labels, place: &place, value }])
    }

    fn read(store: &Store, expr: &str, seconds: i64) -> Vec<String> {
        let found = instant(&Expr::parse(expr).unwrap(), &store.view(), at(seconds), &Limits::default());
        let mut lines = match found.unwrap() {
            Value::Vector(elements) => elements.iter().map(|e| format!("{} {}", e.labels, e.value)).collect(),
            Value::Matrix(series) => series
                .iter()
                .map(|s| format!("{} {:?}", s.labels, s.points.iter().map(|p| p.value).collect::<Vec<_>>()))
                .collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        lines.sort();
        lines
    }

    #[test]
    fn names_do_not_run_into_each_other() {
        let keys = [("a", "b", "c"), ("a", "", "bc"), ("ab", "", "c"), ("a", "bc", ""), ("", "ab", "c")]
            .map(|(source, job, instance)| Origin::new(source, job, instance).key);
        assert!((1..keys.len()).all(|at| !keys[..at].contains(&keys[at])), "{keys:?}");
        assert!(keys.iter().all(|key| is_received(*key)) && !is_received(AgentId(Uuid::new_v4())));
    }

    #[test]
    fn values_are_read_whole_and_the_first_of_a_time_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap().0;
        let up = Labels::series("up", &[("job", "api"), ("instance", "a:1"), ("env", "test")]);
        assert_eq!(
            [(0, 1.0), (10, 0.0), (0, 1.0), (0, 7.0)].map(|(s, v)| add(&store, "p", &up, s, v)),
            [0, 0, 0, 1]
        );
        assert_eq!(read(&store, "up[1m]", 20), [r#"up{env="test", instance="a:1", job="api"} [1.0, 0.0]"#]);
        assert_eq!(store.last_rows(), [], "no agent");
        assert_eq!(store.newest_received(&Origin::of("p", &up)), Some(at(10)));
        store.seal(Window::of(at(0))).unwrap().unwrap();
        assert_eq!(add(&store, "p", &up, 5, 3.0), 0, "later than its window's block");
        let again =
            ["[1.0, 3.0, 0.0]"].map(|v| format!(r#"up{{env="test", instance="a:1", job="api"}} {v}"#));
        assert_eq!(read(&store, "up[1m]", 20), again);
        drop(store);
        let store = Store::open(dir.path()).unwrap().0;
        assert_eq!(store.newest_received(&Origin::of("p", &up)), Some(at(10)), "from the block");
        assert_eq!(store.last_rows(), []);
    }

    #[test]
    fn a_series_of_two_sources_is_read_once_and_always_from_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap().0;
        let up = Labels::series("up", &[("job", "api"), ("instance", "a:1")]);
        let of_one = Labels::series("one", &[("job", "api"), ("instance", "a:1")]);
        for (source, value) in [("p", 1.0), ("q", 2.0)] {
            for seconds in [0, 10] {
                add(&store, source, &up, seconds, value);
            }
        }
        add(&store, "q", &of_one, 10, 5.0);
        let first = if Origin::of("p", &up).key < Origin::of("q", &up).key { "1" } else { "2" };
        let selected = format!(r#"up{{instance="a:1", job="api"}} {first}"#);
        assert_eq!(read(&store, "up", 20), [selected]);
        assert_eq!(
            read(&store, "up[1m]", 20),
            [format!(r#"up{{instance="a:1", job="api"}} [{first}.0, {first}.0]"#)]
        );
        assert_eq!(read(&store, "one", 20), [r#"one{instance="a:1", job="api"} 5"#]);
        assert_eq!(read(&store, "count(up)", 20), ["{} 1"]);
    }

    #[test]
    fn slots_are_found_again_after_they_were_renumbered() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap().0;
        let series = |n: usize| Labels::series("m", &[("job", "j"), ("n", &n.to_string())]);
        let all = (0..40).map(|n| (series(n), Place::default())).collect::<Vec<_>>();
        let origin = Origin::of("p", &all[0].0);
        let append = |seconds: i64, wanted: &dyn Fn(usize) -> bool| {
            let cells = all.iter().enumerate().filter(|(n, _)| wanted(*n));
            let cells = cells.map(|(n, (labels, place))| Cell { labels, place, value: n as f64 });
            store.append_received(&origin, at(seconds), &cells.collect::<Vec<_>>())
        };
        append(0, &|_| true);
        let window = Window::of(at(0));
        let later = window.to.since(at(0)).as_secs() as i64 + 10;
        append(later, &|n| n % 4 == 3);
        store.seal(window).unwrap().unwrap();
        append(later + 10, &|n| n % 2 == 1);
        assert_eq!(store.stats().series, 20, "the series that ended have no slot");
        let want: Vec<f64> = (0..40).filter(|n| n % 2 == 1).map(f64::from).collect();
        let mut got = read(&store, "m", later + 20)
            .iter()
            .map(|l| l.rsplit(' ').next().unwrap().parse().unwrap())
            .collect::<Vec<f64>>();
        got.sort_by(f64::total_cmp);
        assert_eq!(got, want);
    }
}
