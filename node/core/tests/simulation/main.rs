//! A seeded simulation of a whole mesh in virtual time: the machines of `core::replica`, 3 to 100 of
//! them, over a network, disks and clocks that fail. Invariants are checked at every step:
//!
//! - no peer steps back in (epoch, rev), in a process, or over a restart of it;
//! - nothing is applied below the fence, or before its epoch is on disk (or the alarm is up);
//! - nothing is applied but exactly what a leader signed; no epoch is opened, no head signed twice;
//! - nobody takes a source for false that tells the truth;
//! - no peer sends more than [`meshgate_core::replica::MAX_SNAPSHOTS`] full snapshots at once;
//! - once everything works again all agree with the users' objects within [`CONVERGES`], an edit after
//!   that is everywhere within [`EDIT_CONVERGES`], disks match, alarms are off.
//!
//! `MESHGATE_SIM_SEED=7` replays one seed (with `MESHGATE_SIM_TRACE=1` it prints every event);
//! `MESHGATE_SIM_SEEDS=100000` runs so many (`MESHGATE_SIM_FROM` is the first, `MESHGATE_SIM_SECONDS`
//! a bound in time).

#![allow(clippy::unwrap_used, clippy::panic, reason = "an integration test")]

mod faults;
mod lead;
mod model;
mod peer;
mod sync;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::Rng;
use peer::Peer;
use world::{Event, Rates, World};

/// Seeds of a usual run.
const SEEDS: u64 = 300;
/// From the heal until all agree, in microseconds; with a liar among them, the second.
const CONVERGES: [u64; 2] = [15_000_000, 75_000_000];
/// From an edit in a healthy mesh until all have it.
const EDIT_CONVERGES: [u64; 2] = [1_500_000, 15_000_000];

/// Seeds with a member that steadily says that it is far ahead, and has nothing.
const SILENT_SEEDS: u64 = 12;
/// With it, from an edit after a long rest until all have it: the leader is left for so long at most.
const SILENT_EDIT_CONVERGES: u64 = 7_500_000;

fn world(seed: u64) -> World {
    let mut rng = Rng(seed);
    let count = match rng.below(100) {
        0..70 => rng.between(3, 6),
        70..94 => rng.between(7, 14),
        94..99 => rng.between(15, 40),
        _ => rng.between(41, 100),
    };
    let reconcilers = rng.between(2, 3.min(count - 1));
    let liar = rng.chance(350).then(|| rng.below(count));
    let mixed = rng.chance(500);
    let peers = (0..count)
        .map(|node| {
            let old = mixed && rng.chance(500);
            let (origin, pace) = (rng.below(1 << 40), rng.between(970, 1030));
            let mut peer = Peer::new(node < reconcilers, old, origin, pace);
            peer.liar = liar == Some(node);
            // Somebody else has to be able to lead.
            peer.reconciler |= liar.is_some_and(|liar| liar < reconcilers) && node == reconcilers;
            peer
        })
        .collect();
    let rates = Rates {
        loss: [0, 10, 50, 200][usize::try_from(rng.below(4)).unwrap()],
        duplicate: rng.below(200),
        delay_ms: [1, 5, 50][usize::try_from(rng.below(3)).unwrap()],
        edit_ms: rng.between(100, 1500),
        fault_ms: rng.between(200, 1500),
    };
    World::new(seed, peers, rates, rng)
}

/// What a seed came to.
#[derive(Clone, Copy, Debug, Default)]
struct Report {
    seed: u64,
    peers: usize,
    liar: bool,
    applies: u64,
    /// From the heal until all agreed, microseconds.
    converged: u64,
    edit_converged: u64,
}

fn simulate(seed: u64) -> Report {
    play(world(seed), 6_000_000, None)
}

/// `rest`: from agreement to the edit after it, which is everywhere `within`.
fn play(mut world: World, rest: u64, within: Option<u64>) -> Report {
    for node in 0..world.peers.len() {
        if world.peers[node].liar {
            world.at(0, Event::Tick { node, life: 0 });
        } else {
            let after = world.rng.below(500_000);
            world.at(after, Event::Start(node));
        }
    }
    let heal_at = world.rng.between(4_000_000, 12_000_000);
    world.at(0, Event::Edit);
    world.at(1_000_000, Event::Fault);
    world.at(heal_at, Event::Heal);
    while !world.healed {
        assert!(world.run(u64::MAX), "there is always something to do");
    }
    let liar = world.peers.iter().any(|peer| peer.liar);
    let converged = until_all_agree(&mut world, CONVERGES[usize::from(liar)]);
    // What faults left on disks is mended by then, too.
    run_for(&mut world, rest);
    world.edit();
    let edit_converged = until_all_agree(&mut world, within.unwrap_or(EDIT_CONVERGES[usize::from(liar)]));
    run_for(&mut world, 100_000);
    world.end_is_consistent();
    Report { seed: world.seed, peers: world.peers.len(), liar, applies: world.applies, converged, edit_converged }
}

fn run_for(world: &mut World, time: u64) {
    let end = world.now + time;
    while world.run(end) {}
    world.now = end;
}

fn until_all_agree(world: &mut World, within: u64) -> u64 {
    let begun = world.now;
    while !world.agree() {
        if world.now - begun > within {
            let held: Vec<String> = world.peers.iter().map(|peer| peer.held().to_string()).collect();
            world.broken(&format!("no agreement within {} ms: {}", within / 1000, held.join(" ")));
        }
        run_for(world, 20_000);
    }
    world.now - begun
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

#[test]
fn the_mesh_keeps_its_promises_under_faults() {
    if let Some(seed) = number("MESHGATE_SIM_SEED") {
        println!("{:?}", simulate(seed));
        return;
    }
    let from = number("MESHGATE_SIM_FROM").unwrap_or(0);
    let seeds = number("MESHGATE_SIM_SEEDS").unwrap_or(SEEDS);
    let bound = Duration::from_secs(number("MESHGATE_SIM_SECONDS").unwrap_or(24 * 3600));
    let begun = Instant::now();
    let next = AtomicU64::new(from);
    let reports = Mutex::new(Vec::new());
    let failures = Mutex::new(Vec::new());
    let work = || {
        while begun.elapsed() < bound {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + seeds {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| simulate(seed))) {
                Ok(report) => reports.lock().unwrap_or_else(PoisonError::into_inner).push(report),
                Err(why) => {
                    let why = why.downcast_ref::<String>().cloned().unwrap_or_default();
                    failures.lock().unwrap_or_else(PoisonError::into_inner).push((seed, why));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let (reports, mut failures) = (reports.into_inner().unwrap(), failures.into_inner().unwrap());
    summarize(&reports, begun.elapsed());
    failures.sort();
    let Some((_, first)) = failures.first() else { return };
    let seeds: Vec<String> = failures
        .iter()
        .take(20)
        .map(|(seed, why)| format!("{seed}: {}", why.lines().next().unwrap_or_default()))
        .collect();
    panic!(
        "{} of {} seeds broke an invariant:\n{}\n\n{first}",
        failures.len(),
        reports.len() + failures.len(),
        seeds.join("\n")
    );
}

#[test]
fn a_member_that_only_says_that_it_is_ahead_keeps_nobody_from_the_leader() {
    for seed in 0..SILENT_SEEDS {
        let mut world = world(seed);
        let node = world.peers.iter().position(|peer| peer.liar).unwrap_or(world.peers.len() - 1);
        (world.peers[node].liar, world.peers[node].silent) = (true, true);
        let report = play(world, 60_000_000, Some(SILENT_EDIT_CONVERGES));
        println!("{report:?}");
    }
}

fn summarize(reports: &[Report], took: Duration) {
    let applies: u64 = reports.iter().map(|report| report.applies).sum();
    let peers: usize = reports.iter().map(|report| report.peers).sum();
    println!("{} seeds held, {peers} peers, {applies} applies, in {took:.1?}", reports.len());
    for liar in [false, true] {
        for (what, of) in
            [("heal", (|report| report.converged) as fn(&Report) -> u64), ("edit", |report| report.edit_converged)]
        {
            let of = reports.iter().filter(|report| report.liar == liar).map(|report| (of(report), report.seed));
            let mut times: Vec<(u64, u64)> = of.collect();
            times.sort_unstable();
            let at = |part: usize| times.get(times.len().saturating_sub(1) * part / 1000).map_or(0, |one| one.0 / 1000);
            let worst = times.last().map_or(0, |one| one.1);
            println!(
                "liar: {liar}, {what} to agreement: p50 {} p99 {} p99.9 {} max {} ms (seed {worst})",
                at(500),
                at(990),
                at(999),
                at(1000)
            );
        }
    }
}
