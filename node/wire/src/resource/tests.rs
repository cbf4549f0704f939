//! Resources survive the way through bytes; other bytes give an error, never a panic.

use meshgate_core::snapshot::{Kind, Resource, Route, Rule};
use meshgate_proto::snapshot as pb;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::examples;

const KINDS: [Kind; 8] = [
    Kind::Gateway,
    Kind::HttpRoute,
    Kind::Ingress,
    Kind::Service,
    Kind::Certificate,
    Kind::Endpoints,
    Kind::TrustBundle,
    Kind::Other(99),
];

#[test]
fn round_trip() {
    for (key, resource) in examples::resources() {
        let value = encode(&resource);
        assert_eq!(decode(key.kind, &value).unwrap(), resource, "{key}");
        assert_eq!(encode(&resource), value, "{key} is deterministic");
    }
}

#[test]
fn unknown_fields_are_ignored() {
    for (key, resource) in examples::resources() {
        // Field 1000, length-delimited, of two bytes.
        let value = [&encode(&resource)[..], &[0xc2, 0x3e, 0x02, 0x01, 0x02]].concat();
        assert_eq!(decode(key.kind, &value.into()).unwrap(), resource, "{key}");
    }
}

#[test]
fn unknown_kinds_are_kept_unread() {
    assert_eq!(decode(Kind::Other(99), &vec![0xff; 10].into()).unwrap(), Resource::Unknown);
    assert!(encode(&Resource::Unknown).is_empty());
}

fn only_rule(value: Vec<u8>) -> Rule {
    let Resource::Route(route) = decode(Kind::HttpRoute, &value.into()).unwrap() else { panic!("a route") };
    route.rules.into_iter().next().unwrap()
}

#[test]
fn an_unknown_filter_breaks_its_rule() {
    let unknown = || pb::Filter { filter: None };
    let rule = pb::Rule { filters: vec![unknown()], ..Default::default() };
    assert!(only_rule(pb::Route { rules: vec![rule], ..Default::default() }.encode_to_vec()).broken);
    let backend = pb::Backend { filters: vec![unknown()], weight: 1, ..Default::default() };
    let rule = pb::Rule { backends: vec![backend], ..Default::default() };
    assert!(only_rule(pb::Route { rules: vec![rule], ..Default::default() }.encode_to_vec()).broken);
    let rule = pb::Rule::default();
    assert!(!only_rule(pb::Route { rules: vec![rule], ..Default::default() }.encode_to_vec()).broken);
}

#[test]
fn needs_reach_the_table_or_hold_the_resource_back() {
    let route = Route { generation: 1, created: None, attachments: vec![], rules: vec![], needs: vec![77] };
    let value = encode(&Resource::Route(route.clone()));
    assert_eq!(decode(Kind::Ingress, &value).unwrap(), Resource::Route(route));
    let value = pb::Service { needs: vec![77], ..Default::default() }.encode_to_vec();
    assert_eq!(decode(Kind::Service, &value.into()), Err(DecodeError::Needs(vec![77])));
}

#[test]
fn too_large_is_refused() {
    let value = vec![0; crate::MAX_VALUE_BYTES + 1];
    assert_eq!(decode(Kind::Service, &value.into()), Err(DecodeError::TooLarge(crate::MAX_VALUE_BYTES + 1)));
}

proptest! {
    #[test]
    fn any_bytes_are_total(value in prop::collection::vec(any::<u8>(), 0..200)) {
        for kind in KINDS {
            let _ = decode(kind, &value.clone().into());
        }
    }

    #[test]
    fn damaged_values_are_total(at in any::<prop::sample::Index>(), bit in 0..8_u8, cut in any::<prop::sample::Index>()) {
        for (key, resource) in examples::resources() {
            let mut value = encode(&resource).to_vec();
            if value.is_empty() { continue; }
            let at = at.index(value.len());
            value[at] ^= 1 << bit;
            value.truncate(cut.index(value.len() + 1));
            let _ = decode(key.kind, &value.into());
        }
    }
}
