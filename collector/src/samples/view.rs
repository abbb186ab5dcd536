//! The store as PromQL sees it: all hosts, or one.
//!
//! A view of one host is made for every evaluation of a rule, thousands of times a second. It finds a selector's series
//! once and remembers them in a `SelectorCache` of the caller's, until the host's series change.
//! `Source::select` cannot fail, so a view keeps its first error: ask for it after the evaluation, and trust no result
//! that has one.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use tocsin_promql::{MatchOp, Selector, Source};
use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;

use super::Store;
use super::host::Host;
use super::latest::{Latest, VisitLatest};
use super::received::{Listed, is_received};
use super::select::{SelectError, Selection};
use super::series::{Visit, Wanted, resolve};
use super::stored::matching;
use super::together::Together;

/// The most samples one selection gives unless the caller asks for more: a day at 10 s of 115 series.
pub const SELECT_SAMPLES_MAX: u64 = 1_000_000;
/// Expressions whose selectors are remembered for one host; more than any rule set has, and a bound if numbers are not
/// what they should be.
const CACHED_EXPRESSIONS_MAX: usize = 16_384;
/// Selectors remembered of one expression.
const CACHED_SELECTORS_MAX: usize = 64;

/// The series that selectors resolved to on one host. One for each host, kept by whoever evaluates its rules.
/// By the expression's number, then the selector's: a place is found faster than a hash, thousands of times a second.
#[derive(Debug, Default)]
pub struct SelectorCache(Vec<Vec<Option<Resolved>>>);

#[derive(Debug)]
struct Resolved {
    generation: u64,
    slots: Arc<[u32]>,
}

impl SelectorCache {
    fn slots(&mut self, (expr, selector): (usize, usize), host: &Host, wanted: &Wanted) -> Arc<[u32]> {
        let generation = host.series.generation();
        let known = self.0.get(expr).and_then(|selectors| selectors.get(selector)?.as_ref());
        if let Some(known) = known.filter(|known| known.generation == generation) {
            return Arc::clone(&known.slots);
        }
        let slots: Arc<[u32]> = host.series.find(wanted).into();
        if expr < CACHED_EXPRESSIONS_MAX && selector < CACHED_SELECTORS_MAX {
            let selectors = place(&mut self.0, expr);
            *place(selectors, selector) = Some(Resolved { generation, slots: Arc::clone(&slots) });
        }
        slots
    }
}

/// The entry at `at`, the list made long enough for it.
fn place<T: Default>(list: &mut Vec<T>, at: usize) -> &mut T {
    if list.len() <= at {
        list.reserve_exact(at + 1 - list.len());
        list.resize_with(at + 1, T::default);
    }
    &mut list[at]
}

/// One host's samples. Do not append to the same host from within `visit`.
pub struct HostView<'a> {
    pub(super) store: &'a Store,
    pub(super) agent: Option<AgentId>,
    pub(super) host: Option<Arc<RwLock<Host>>>,
    pub(super) cache: Option<(usize, &'a RefCell<SelectorCache>)>,
    pub(super) samples_max: u64,
    /// Room for the values of a series that does not change, for one selection after another.
    pub(super) scratch: RefCell<Vec<f64>>,
    pub(super) error: RefCell<Option<SelectError>>,
}

impl<'a> HostView<'a> {
    /// Remembers what selectors resolve to. `expr` numbers the expressions, densely: their selectors have the same ids.
    pub fn with_cache(mut self, expr: usize, cache: &'a RefCell<SelectorCache>) -> Self {
        self.cache = Some((expr, cache));
        self
    }

    /// Sets how many samples one selection may give.
    pub fn with_samples_max(mut self, samples_max: u64) -> Self {
        self.samples_max = samples_max;
        self
    }

    /// The labels that go over those of each series now; a selection may have seen older ones.
    pub fn target(&self) -> Labels {
        let host = self.host.as_ref().map(|host| host.read().unwrap_or_else(PoisonError::into_inner));
        host.map(|host| host.series.target().clone()).unwrap_or_default()
    }

    /// The first error of a selection since the last call.
    pub fn take_error(&self) -> Option<SelectError> {
        self.error.borrow_mut().take()
    }

    /// Visits each series of the host that matches and has samples in (from, to]. `selector` is the cache's key.
    pub fn select_matching(
        &self,
        selector: usize,
        wanted: &Wanted,
        (from, to): (Timestamp, Timestamp),
        visit: &mut Visit<'_>,
    ) -> Result<(), SelectError> {
        let Some(host) = &self.host else { return Ok(()) };
        let host = host.read().unwrap_or_else(PoisonError::into_inner);
        let slots = self.slots(selector, &host, wanted);
        let span = (from.as_millis(), to.as_millis());
        let mut visit = |labels: &_, times: &[i64], values: &[f64]| visit(labels, times, values);
        let mut selection = Selection::new(span, self.samples_max, &mut visit);
        match self.store.blocks.overlapping(span).as_slice() {
            [] => {
                selection.scratch = self.scratch.take();
                let done = selection.memory(&host, &slots);
                self.scratch.replace(selection.scratch);
                done
            }
            blocks => selection.stored((self.agent, &host), &slots, wanted, blocks),
        }
    }

    /// Visits each series of the host that matches and has samples in (from, to], with the newest of them.
    pub fn latest_matching(
        &self,
        selector: usize,
        wanted: &Wanted,
        (from, to): (Timestamp, Timestamp),
        visit: &mut VisitLatest<'_>,
    ) -> Result<(), SelectError> {
        let Some(host) = &self.host else { return Ok(()) };
        let host = host.read().unwrap_or_else(PoisonError::into_inner);
        let slots = self.slots(selector, &host, wanted);
        let span = (from.as_millis(), to.as_millis());
        let mut visit = |labels: &_, time, value| visit(labels, time, value);
        let mut latest = Latest::new(span, self.samples_max, &mut visit);
        match self.store.blocks.overlapping(span).as_slice() {
            [] => latest.memory(&host, &slots),
            blocks => latest.stored((self.agent, &host), &slots, wanted, blocks),
        }
    }

    fn slots(&self, selector: usize, host: &Host, wanted: &Wanted) -> Arc<[u32]> {
        match self.cache {
            Some((expr, cache)) => cache.borrow_mut().slots((expr, selector), host, wanted),
            None => host.series.find(wanted).into(),
        }
    }
}

/// All hosts' samples. Do not append from within `visit`.
pub struct View<'a> {
    pub(super) store: &'a Store,
    pub(super) of_received: bool,
    pub(super) samples_max: u64,
    pub(super) error: RefCell<Option<SelectError>>,
}

/// Series that were visited, where two sources may have the same one.
struct Once(Option<HashSet<Labels>>);

impl Once {
    fn is_first(&mut self, labels: &Labels) -> bool {
        self.0.as_mut().is_none_or(|seen| seen.insert(labels.clone()))
    }
}

impl View<'_> {
    fn hosts(&self) -> (Listed, Once) {
        let (mut hosts, shared) = self.store.hosts_to_read();
        if self.of_received {
            hosts.retain(|(agent, _)| agent.is_some_and(is_received));
        }
        (hosts, Once(shared.then(HashSet::new)))
    }

    /// Leaves out what agents sent and what rules recorded.
    pub fn of_received(mut self) -> Self {
        self.of_received = true;
        self
    }

    /// Sets how many samples one selection may give.
    pub fn with_samples_max(mut self, samples_max: u64) -> Self {
        self.samples_max = samples_max;
        self
    }

    /// The first error of a selection since the last call.
    pub fn take_error(&self) -> Option<SelectError> {
        self.error.borrow_mut().take()
    }

    /// Visits each series of any host that matches and has samples in (from, to].
    pub fn select_matching(
        &self,
        wanted: &Wanted,
        (from, to): (Timestamp, Timestamp),
        visit: &mut Visit<'_>,
    ) -> Result<(), SelectError> {
        let span = (from.as_millis(), to.as_millis());
        let (hosts, mut once) = self.hosts();
        let mut visit = |labels: &Labels, times: &[i64], values: &[f64]| {
            if once.is_first(labels) {
                visit(labels, times, values);
            }
        };
        let mut selection = Selection::new(span, self.samples_max, &mut visit);
        let mut together = Together::default();
        for (agent, host) in hosts {
            let host = host.read().unwrap_or_else(PoisonError::into_inner);
            if host.series.excluded(wanted) {
                continue;
            }
            let slots = host.series.find(wanted);
            match self.store.blocks.overlapping(span) {
                none if none.is_empty() => selection.memory(&host, &slots)?,
                blocks => together.add(&mut selection, (agent, &host), &slots, wanted, blocks)?,
            }
        }
        together.read(&mut selection)
    }

    /// Visits each series of any host that matches and has samples in (from, to], with the newest of them.
    pub fn latest_matching(
        &self,
        wanted: &Wanted,
        (from, to): (Timestamp, Timestamp),
        visit: &mut VisitLatest<'_>,
    ) -> Result<(), SelectError> {
        let span = (from.as_millis(), to.as_millis());
        let (hosts, mut once) = self.hosts();
        let mut visit = |labels: &Labels, time, value| {
            if once.is_first(labels) {
                visit(labels, time, value);
            }
        };
        let mut latest = Latest::new(span, self.samples_max, &mut visit);
        for (agent, host) in hosts {
            let host = host.read().unwrap_or_else(PoisonError::into_inner);
            if host.series.excluded(wanted) {
                continue;
            }
            let slots = host.series.find(wanted);
            match self.store.blocks.overlapping(span).as_slice() {
                [] => latest.memory(&host, &slots)?,
                blocks => latest.stored((agent, &host), &slots, wanted, blocks)?,
            }
        }
        Ok(())
    }

    /// The label sets of the series that match and have samples in (from, to], sorted. No sample is read: of a packed
    /// chunk that reaches into the span, every series counts.
    pub fn series(&self, wanted: &Wanted, (from, to): (Timestamp, Timestamp)) -> Vec<Labels> {
        let (span, mut found) = ((from.as_millis(), to.as_millis()), BTreeSet::new());
        for (agent, host) in self.store.hosts() {
            let host = host.read().unwrap_or_else(PoisonError::into_inner);
            if host.series.excluded(wanted) {
                continue;
            }
            let slots = host.series.find(wanted).into_iter().filter(|slot| host.reaches(*slot, span));
            found.extend(slots.map(|slot| host.series.labels(slot).clone()));
            for block in self.store.blocks.overlapping(span) {
                let stored = matching(&block, agent, span, wanted).into_iter().map(|id| {
                    let (labels, complete) = &block.index.series[id as usize];
                    resolve(labels, *complete, host.series.target())
                });
                found.extend(stored.filter(|labels| (wanted.matches)(labels)));
            }
        }
        found.into_iter().collect()
    }
}

impl Source for HostView<'_> {
    fn select(&self, selector: &Selector, from: Timestamp, to: Timestamp, visit: &mut Visit<'_>) {
        let (equals, matches) = (equalities(selector), |labels: &Labels| selector.matches(labels));
        let wanted = Wanted { equals: &equals, matches: &matches };
        keep_first(&self.error, self.select_matching(selector.id, &wanted, (from, to), visit));
    }

    fn latest(&self, selector: &Selector, from: Timestamp, to: Timestamp, visit: &mut VisitLatest<'_>) {
        let (equals, matches) = (equalities(selector), |labels: &Labels| selector.matches(labels));
        let wanted = Wanted { equals: &equals, matches: &matches };
        keep_first(&self.error, self.latest_matching(selector.id, &wanted, (from, to), visit));
    }
}

impl Source for View<'_> {
    fn select(&self, selector: &Selector, from: Timestamp, to: Timestamp, visit: &mut Visit<'_>) {
        let (equals, matches) = (equalities(selector), |labels: &Labels| selector.matches(labels));
        let wanted = Wanted { equals: &equals, matches: &matches };
        keep_first(&self.error, self.select_matching(&wanted, (from, to), visit));
    }

    fn latest(&self, selector: &Selector, from: Timestamp, to: Timestamp, visit: &mut VisitLatest<'_>) {
        let (equals, matches) = (equalities(selector), |labels: &Labels| selector.matches(labels));
        let wanted = Wanted { equals: &equals, matches: &matches };
        keep_first(&self.error, self.latest_matching(&wanted, (from, to), visit));
    }
}

/// The labels and values that whatever a selector selects must have.
pub(crate) fn equalities(selector: &Selector) -> Vec<(&str, &str)> {
    let equal =
        selector.matchers.iter().filter(|matcher| matcher.op == MatchOp::Equal && !matcher.value.is_empty());
    equal.map(|matcher| (&*matcher.name, &*matcher.value)).collect()
}

fn keep_first(error: &RefCell<Option<SelectError>>, done: Result<(), SelectError>) {
    if let Err(new) = done {
        error.borrow_mut().get_or_insert(new);
    }
}
