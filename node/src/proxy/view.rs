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
    /// By gateway and address of the rule's action, which stays in place as long as the table lives.
    rules: Mutex<HashMap<(Key, usize), Arc<RuleMetrics>>>,
}

impl View {
    /// A view without cached counters.
    pub fn new(table: Arc<Table>) -> Self {
        View { table, rules: Mutex::new(HashMap::new()) }
    }

    /// The counters of a rule.
    pub fn rule(&self, metrics: &ProxyMetrics, gateway: &Key, matched: &Matched<'_>) -> Arc<RuleMetrics> {
        let address = std::ptr::from_ref(matched.action) as usize;
        let mut rules = lock(&self.rules);
        // Two look-ups on a miss only: the key is cloned (two reference counts) either way.
        let entry = rules.entry((gateway.clone(), address));
        Arc::clone(entry.or_insert_with(|| Arc::new(metrics.rule(gateway, matched.route, matched.rule))))
    }
}
