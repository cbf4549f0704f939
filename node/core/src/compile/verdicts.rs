//! What is known of every object: its conditions, and what is wrong with it. Tells apart what is news.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Finding, ObjectStatus};
use crate::intent::ObjectRef;

/// By object. Objects of which there is nothing to say are not in it.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    findings: BTreeMap<ObjectRef, Vec<Finding>>,
    statuses: BTreeMap<ObjectRef, Arc<ObjectStatus>>,
    /// What changed since the last [`Verdicts::news`].
    news: News,
}

/// What changed, by object: everything found now, and the conditions now.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) findings: BTreeMap<ObjectRef, Vec<Finding>>,
    pub(crate) statuses: BTreeMap<ObjectRef, Option<Arc<ObjectStatus>>>,
}

impl Verdicts {
    /// All that is found about an object now, in any order.
    pub(crate) fn find(&mut self, object: &ObjectRef, mut findings: Vec<Finding>) {
        findings.sort();
        findings.dedup();
        if self.findings.get(object).map(Vec::as_slice).unwrap_or_default() == findings {
            return;
        }
        if findings.is_empty() {
            self.findings.remove(object);
        } else {
            self.findings.insert(object.clone(), findings.clone());
        }
        self.news.findings.insert(object.clone(), findings);
    }

    /// The conditions of an object now.
    pub(crate) fn set_status(&mut self, object: &ObjectRef, status: Option<ObjectStatus>) {
        if self.statuses.get(object).map(|known| &**known) == status.as_ref() {
            return;
        }
        let status = status.map(Arc::new);
        match &status {
            Some(status) => self.statuses.insert(object.clone(), Arc::clone(status)),
            None => self.statuses.remove(object),
        };
        self.news.statuses.insert(object.clone(), status);
    }

    /// The objects of which something is known.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &ObjectRef> {
        self.findings.keys().chain(self.statuses.keys())
    }

    /// What changed since the last call.
    pub(crate) fn news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }
}
