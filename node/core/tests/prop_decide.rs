//! Property: what the table decides, with all of its indexes, is what a naive scan over the
//! specification's order decides; and the same for updates (`prop/update.rs`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may end at once")]

#[path = "prop/generate.rs"]
mod generate;
#[path = "prop/naive.rs"]
mod naive;
#[path = "prop/update.rs"]
mod update;

use std::cell::Cell;

use meshgate_core::filter::MatchedPath;
use meshgate_core::snapshot::{HeadId, Key};
use meshgate_core::table::{Decision, RequestHead, Table};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use generate::{PORTS, gateway_keys, requests, world};
use naive::Answer;

fn decided(table: &Table, gateway: &Key, port: u16, head: &RequestHead<'_>) -> Answer {
    match table.decide(gateway, port, head) {
        Decision::Reject(status, _) => Answer::Status(status.as_u16()),
        Decision::Rule(matched) => Answer::Rule(
            matched.listener.to_owned(),
            matched.route.clone(),
            matched.rule,
            match matched.path {
                MatchedPath::Prefix(prefix) => Some(prefix.to_owned()),
                MatchedPath::Exact | MatchedPath::Regex(_) => None,
            },
        ),
    }
}

#[test]
fn the_table_decides_as_the_specification_says() {
    let (routed, refused) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(Config { cases: 256, source_file: Some(file!()), ..Config::default() });
    let asked = vec((gateway_keys(), requests()), 40);
    let result = runner.run(&(world(), asked), |(resources, asked)| {
        let (table, held) = Table::build(HeadId::default(), &resources);
        prop_assert!(held.is_empty(), "{:?}", held);
        for (gateway, request) in &asked {
            // As drawn, and over a connection that fits: with the host's own name where TLS is spoken.
            let drawn = request.head();
            let fits = |port| RequestHead { sni: (port == 443).then_some(request.host), ..drawn };
            for (port, head) in PORTS.iter().flat_map(|&port| [(port, drawn), (port, fits(port))]) {
                let expected = naive::decide(&resources, gateway, port, &head);
                let count = if matches!(expected, Answer::Rule(..)) { &routed } else { &refused };
                count.set(count.get() + 1);
                prop_assert_eq!(decided(&table, gateway, port, &head), expected, "{:?} on {}", head, port);
            }
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    // The worlds must be dense enough to mean something.
    assert!(routed.get() * 4 > refused.get(), "{} routed, {} refused", routed.get(), refused.get());
}
