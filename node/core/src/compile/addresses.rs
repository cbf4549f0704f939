//! Which Gateway has which address.

use std::collections::BTreeSet;

use super::Allocations;
use crate::snapshot::Key;

/// The highest g of 127.n.g.1.
const LAST: u8 = 254;

/// Gives every wanted Gateway a number: its earlier one, else the lowest free one in the order
/// of the keys, those of IngressClasses (without namespace) last. Gateways that are not wanted any more free theirs; who finds none gets none.
pub(crate) fn allocate<'a>(wanted: impl Iterator<Item = &'a Key> + Clone, earlier: &Allocations) -> Allocations {
    let mut taken = BTreeSet::new();
    let mut next = Allocations::new();
    for key in wanted.clone() {
        if let Some(&number) = earlier.get(key)
            && (1..=LAST).contains(&number)
            && taken.insert(number)
        {
            next.insert(key.clone(), number);
        }
    }
    let mut free = (1..=LAST).filter(|number| !taken.contains(number));
    let mut without: Vec<&Key> = wanted.filter(|key| !next.contains_key(*key)).collect();
    without.sort_by_key(|key| (key.namespace.is_empty(), *key));
    for (key, number) in without.into_iter().zip(&mut free) {
        next.insert(key.clone(), number);
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Kind;

    fn key(name: &str) -> Key {
        Key::new(Kind::Gateway, "ns", name)
    }

    #[test]
    fn earlier_numbers_stay_and_gaps_are_filled() {
        let wanted = BTreeSet::from([key("a"), key("b"), key("c"), key("d")]);
        let earlier = Allocations::from([(key("b"), 1), (key("c"), 3), (key("gone"), 2), (key("d"), 255)]);
        let next = allocate(wanted.iter(), &earlier);
        assert_eq!(next, Allocations::from([(key("a"), 2), (key("b"), 1), (key("c"), 3), (key("d"), 4)]));
    }

    #[test]
    fn gateways_of_ingress_classes_come_last() {
        let class = Key::new(Kind::Gateway, "", "a");
        let wanted = BTreeSet::from([class.clone(), key("b")]);
        let next = allocate(wanted.iter(), &Allocations::new());
        assert_eq!(next, Allocations::from([(key("b"), 1), (class, 2)]));
    }

    #[test]
    fn two_claims_on_one_number_leave_it_to_the_first() {
        let wanted = BTreeSet::from([key("a"), key("b")]);
        let next = allocate(wanted.iter(), &Allocations::from([(key("a"), 7), (key("b"), 7)]));
        assert_eq!(next, Allocations::from([(key("a"), 7), (key("b"), 1)]));
    }

    #[test]
    fn running_out_leaves_the_last_without() {
        let wanted: BTreeSet<Key> = (0..255).map(|n| key(&format!("{n:03}"))).collect();
        let next = allocate(wanted.iter(), &Allocations::new());
        assert_eq!((next.len(), next.get(&key("253")), next.get(&key("254"))), (254, Some(&254), None));
    }
}
