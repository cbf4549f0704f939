//! Which endpoints a peer prefers, by where it is.
//!
//! kube-proxy's rule over the hints of the ready endpoints: when all have node hints and one is for
//! this node, those for this node; else when all have zone hints and one is for this zone, those for
//! this zone; else all. An endpoint without hints has those that the cluster's controller would
//! give it for the Service's `trafficDistribution`: its own node and zone.
//!
//! Unlike kube-proxy, the others stay behind the preferred ones, for when those fail.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::snapshot::{Endpoint, Service, TrafficDistribution};

/// Where a peer is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its node.
    pub node: Option<Arc<str>>,
    /// Its zone; where it is not given, the one that endpoints on its node have.
    pub zone: Option<Arc<str>>,
}

/// What a Service wishes of the choice.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wish {
    distribution: TrafficDistribution,
    /// `internalTrafficPolicy: Local`. It speaks of traffic from within the cluster; what comes in
    /// by a Gateway does not, so that it is a wish here: the own node's endpoints, if there are any.
    local: bool,
}

/// An endpoint as it is listed.
type Listed<'m, 'r> = &'m (SocketAddr, &'r Endpoint);

impl Wish {
    pub(super) fn of(service: &Service) -> Self {
        Wish { distribution: service.distribution, local: service.internal_local }
    }

    /// The endpoints that are preferred at `place`, and the others. All are preferred where none
    /// is before others.
    pub(super) fn split<'m, 'r>(
        self,
        place: &Place,
        endpoints: impl Iterator<Item = Listed<'m, 'r>>,
    ) -> (Vec<Listed<'m, 'r>>, Vec<Listed<'m, 'r>>) {
        let all: Vec<_> = endpoints.collect();
        let here = |endpoint: &Endpoint| endpoint.node.is_some() && endpoint.node.as_deref() == place.node.as_deref();
        let node = |endpoint: &Endpoint| hint(place.node.as_deref(), &self.nodes(endpoint));
        let zone = |endpoint: &Endpoint| hint(place.zone.as_deref(), &self.zones(endpoint));
        let split = |wanted: &dyn Fn(&Endpoint) -> bool| all.iter().copied().partition(|(_, one)| wanted(one));
        if self.local && all.iter().any(|(_, endpoint)| here(endpoint)) {
            return split(&here);
        }
        for hinted in [&node as &dyn Fn(&Endpoint) -> Option<bool>, &zone] {
            let all_have = all.iter().all(|(_, endpoint)| hinted(endpoint).is_some());
            if all_have && all.iter().any(|(_, endpoint)| hinted(endpoint) == Some(true)) {
                return split(&|endpoint| hinted(endpoint) == Some(true));
            }
        }
        (all, Vec::new())
    }

    fn nodes<'e>(&self, endpoint: &'e Endpoint) -> Vec<&'e str> {
        let by_own = self.distribution == TrafficDistribution::PreferSameNode;
        named(&endpoint.for_nodes, endpoint.node.as_deref().filter(|_| by_own))
    }

    fn zones<'e>(&self, endpoint: &'e Endpoint) -> Vec<&'e str> {
        let by_own = self.distribution != TrafficDistribution::Any;
        named(&endpoint.for_zones, endpoint.zone.as_deref().filter(|_| by_own))
    }
}

/// The hints, else the place itself.
fn named<'e>(hints: &'e [String], own: Option<&'e str>) -> Vec<&'e str> {
    if hints.is_empty() { own.into_iter().collect() } else { hints.iter().map(String::as_str).collect() }
}

/// Whether a hint is for `place`; `None` without a hint.
fn hint(place: Option<&str>, hints: &[&str]) -> Option<bool> {
    (!hints.is_empty()).then(|| place.is_some_and(|place| hints.contains(&place)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Node, zone, hinted nodes, hinted zones.
    fn endpoint(node: &str, zone: &str, for_nodes: &[&str], for_zones: &[&str]) -> Endpoint {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let all = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Endpoint {
            address: [10, 0, 0, 1].into(),
            node: some(node),
            zone: some(zone),
            pod: None,
            ready: true,
            serving: true,
            terminating: false,
            for_zones: all(for_zones),
            for_nodes: all(for_nodes),
        }
    }

    /// Places of the preferred ones in the list, seen from node n1 in zone z1.
    fn preferred(wish: Wish, endpoints: &[Endpoint]) -> Vec<u16> {
        let place = Place { node: Some("n1".into()), zone: Some("z1".into()) };
        let listed: Vec<(SocketAddr, &Endpoint)> =
            endpoints.iter().zip(0u16..).map(|(one, n)| (SocketAddr::new(one.address, n), one)).collect();
        let (near, far) = wish.split(&place, listed.iter());
        assert_eq!(near.len() + far.len(), endpoints.len());
        near.iter().map(|(address, _)| address.port()).collect()
    }

    const ANY: Wish = Wish { distribution: TrafficDistribution::Any, local: false };
    const ZONE: Wish = Wish { distribution: TrafficDistribution::PreferSameZone, local: false };
    const NODE: Wish = Wish { distribution: TrafficDistribution::PreferSameNode, local: false };

    #[test]
    fn hints_decide_only_where_all_have_them_and_one_is_for_here() {
        let near = endpoint("n1", "z1", &[], &["z1"]);
        let far = endpoint("n2", "z2", &[], &["z2"]);
        let lent = endpoint("n3", "z2", &[], &["z1", "z2"]);
        let bare = endpoint("n4", "z1", &[], &[]);
        assert_eq!(preferred(ANY, &[near.clone(), far.clone(), lent]), [0, 2]);
        assert_eq!(preferred(ANY, &[near.clone(), far.clone(), bare]), [0, 1, 2]);
        assert_eq!(preferred(ANY, &[far.clone(), far.clone()]), [0, 1]);
        let node = endpoint("n1", "z1", &["n1"], &["z1"]);
        let other = endpoint("n2", "z1", &["n2"], &["z1"]);
        assert_eq!(preferred(ANY, &[node, other.clone()]), [0]);
        let third = endpoint("n3", "z2", &["n3"], &["z2"]);
        assert_eq!(preferred(ANY, &[other, third]), [0], "no node of ours: by zone");
    }

    #[test]
    fn a_distribution_stands_in_for_hints() {
        let all = [endpoint("n2", "z1", &[], &[]), endpoint("n1", "z1", &[], &[]), endpoint("n3", "z2", &[], &[])];
        assert_eq!(preferred(ANY, &all), [0, 1, 2]);
        assert_eq!(preferred(ZONE, &all), [0, 1]);
        assert_eq!(preferred(NODE, &all), [1]);
        assert_eq!(preferred(NODE, &[all[0].clone(), all[2].clone()]), [0]);
        assert_eq!(preferred(ZONE, &[all[0].clone(), endpoint("n1", "", &[], &[])]), [0, 1], "one has no zone");
    }

    #[test]
    fn a_local_policy_prefers_the_own_node() {
        let local = Wish { local: true, ..ZONE };
        let all = [endpoint("n2", "z1", &[], &[]), endpoint("n1", "z1", &[], &[]), endpoint("n3", "z2", &[], &[])];
        assert_eq!(preferred(local, &all), [1]);
        assert_eq!(preferred(local, &[all[0].clone(), all[2].clone()]), [0]);
    }
}
