//! A thread's view of one table: the table and the counters of its rules, resolved once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use meshgate_core::snapshot::Key;
use meshgate_core::table::{Matched, Table};

use super::lock;
use super::metrics::{ProxyMetrics, RuleMetrics};

/// A table and what this thread caches for it; dropped whole when the table is swapped.
pub struct View {
    /// The table.
    pub table: Arc<Table>,
    /// By address of the rule's action, which stays in place as long as the table lives; a rule
    /// has counters for each gateway that it is attached to.
    rules: Mutex<HashMap<usize, Vec<OfGateway>>>,
    /// Counters of requests that no rule matched.
    unrouted: Mutex<Vec<OfGateway>>,
}

/// A rule's counters for one gateway.
type OfGateway = (Key, Arc<RuleMetrics>);

impl View {
    /// A view without cached counters.
    pub fn new(table: Arc<Table>) -> Self {
        View { table, rules: Mutex::default(), unrouted: Mutex::default() }
    }

    /// The counters of a rule.
    pub fn rule(&self, metrics: &ProxyMetrics, gateway: &Key, matched: &Matched<'_>) -> Arc<RuleMetrics> {
        let address = std::ptr::from_ref(matched.action) as usize;
        let mut rules = lock(&self.rules);
        cached(rules.entry(address).or_default(), gateway, || metrics.rule(gateway, matched))
    }

    /// The counters of a Gateway's requests that no rule matched.
    pub fn unrouted(&self, gateway: &Key) -> Arc<RuleMetrics> {
        cached(&mut lock(&self.unrouted), gateway, || RuleMetrics::unrouted(gateway))
    }
}

fn cached(known: &mut Vec<OfGateway>, gateway: &Key, make: impl FnOnce() -> RuleMetrics) -> Arc<RuleMetrics> {
    if let Some((_, counters)) = known.iter().find(|(known, _)| known == gateway) {
        return Arc::clone(counters);
    }
    let counters = Arc::new(make());
    known.push((gateway.clone(), Arc::clone(&counters)));
    counters
}
