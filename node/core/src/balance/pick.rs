//! The choice of an endpoint.
//!
//! Preferred endpoints (topology) come before others, good ones before ejected ones; none is given
//! more requests than it may have. When all are ejected, ejection counts for nothing: an endpoint
//! that failed is better than none.

use std::net::{IpAddr, SocketAddr};

use super::scale;
use super::state::Standing;
use crate::snapshot::SessionAffinity;
use crate::table::{Endpoint, ServicePort};

/// What a pick depends on.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Nanoseconds on the caller's monotonic clock.
    pub now: u64,
    /// Uniform over all values.
    pub entropy: u64,
    /// Endpoints that refused already.
    pub exclude: &'a [SocketAddr],
    /// The client, for session affinity.
    pub client: IpAddr,
    /// Requests in flight that an endpoint may have.
    pub limit: u32,
    /// The request may be the one that tries whether an ejected endpoint is back. Whoever takes
    /// that must say how it went.
    pub may_try: bool,
}

/// What a pick brought.
#[derive(Clone, Copy, Debug)]
pub enum Picked<'p> {
    /// This one.
    Endpoint(&'p Endpoint),
    /// There are some, but they have as many requests as they may have.
    Full,
    /// None that was not excluded.
    Nothing,
}

/// Picks an endpoint that is not excluded: by power of two choices or, with session affinity, by
/// the client's address.
///
/// Affinity keeps no state: of the usable endpoints the one with the highest hash of client and
/// endpoint wins (rendezvous), on every peer and for ever. So a client is moved only when its
/// endpoint goes, fails or is full, and when it comes back; `timeoutSeconds` has nothing to end.
pub fn pick<'p>(port: &'p ServicePort, asked: &Asked<'_>) -> Picked<'p> {
    let (preferred, others) = port.endpoints.split_at(port.preferred.min(port.endpoints.len()));
    if let Some(endpoint) = quick(port, preferred, asked) {
        return Picked::Endpoint(endpoint);
    }
    for endpoints in [preferred, others] {
        let sound = |standing| matches!(standing, Standing::Good | Standing::HalfOpen);
        match best(port, endpoints, asked, sound) {
            Some(endpoint) if asked.standing(endpoint) != Standing::HalfOpen => {
                return Picked::Endpoint(endpoint);
            }
            Some(endpoint) if endpoint.state.claim(asked.now) => return Picked::Endpoint(endpoint),
            // Another request has just taken the trial.
            Some(_) => match best(port, endpoints, asked, |standing| standing == Standing::Good) {
                Some(endpoint) => return Picked::Endpoint(endpoint),
                None => continue,
            },
            None => {}
        }
    }
    let full = |endpoint: &Endpoint| asked.standing(endpoint) == Standing::Full;
    match best(port, &port.endpoints, asked, |standing| standing != Standing::Full) {
        Some(endpoint) => Picked::Endpoint(endpoint),
        None if port.endpoints.iter().any(|endpoint| full(endpoint) && !asked.excludes(endpoint)) => Picked::Full,
        None => Picked::Nothing,
    }
}

/// A request failed at an endpoint's fault: a connection refused or broken, a timeout, a 502, 503 or
/// 504. Returns whether the endpoint was ejected for it.
///
/// At most half of a port's endpoints are ejected, rounded down. Threads that eject at the same time
/// may exceed that by one each; [`pick`] serves even when all are.
pub fn failed(port: &ServicePort, endpoint: &Endpoint, now: u64) -> bool {
    endpoint.state.fails(now, || {
        let ejected = port.endpoints.iter().filter(|endpoint| endpoint.state.is_ejected()).count();
        ejected < port.endpoints.len() / 2
    })
}

impl Asked<'_> {
    /// An endpoint's standing for this request.
    fn standing(&self, endpoint: &Endpoint) -> Standing {
        match endpoint.state.standing(self.now, self.limit) {
            Standing::HalfOpen if !self.may_try => Standing::Out,
            standing => standing,
        }
    }

    fn excludes(&self, endpoint: &Endpoint) -> bool {
        self.exclude.contains(&endpoint.address)
    }
}

/// The usual case, in constant time: two endpoints drawn blindly. `None` where neither will do.
fn quick<'p>(port: &ServicePort, endpoints: &'p [Endpoint], asked: &Asked<'_>) -> Option<&'p Endpoint> {
    if !asked.exclude.is_empty() || port.affinity != SessionAffinity::None {
        return None;
    }
    let good = |endpoint: &&Endpoint| match asked.standing(endpoint) {
        Standing::Good => true,
        Standing::HalfOpen => endpoint.state.claim(asked.now),
        Standing::Out | Standing::Full => false,
    };
    if endpoints.len() < 2 {
        return endpoints.first().filter(good);
    }
    let (first, second) = two(endpoints.len(), asked.entropy);
    // A trial is claimed only for the one that then gets it.
    let (one, two) = (endpoints.get(first)?, endpoints.get(second)?);
    if one.state.is_ejected() || two.state.is_ejected() {
        return Some(one).filter(good).or_else(|| Some(two).filter(good));
    }
    match (good(&one), good(&two)) {
        // Equal endpoints are chosen between by position, which the entropy has mixed.
        (true, true) => Some(if one.state.beats(&two.state, asked.now) { one } else { two }),
        (true, false) => Some(one),
        (false, true) => Some(two),
        (false, false) => None,
    }
}

/// The better one of two drawn from those whose standing will do, or the one that affinity names.
fn best<'p>(
    port: &ServicePort,
    endpoints: &'p [Endpoint],
    asked: &Asked<'_>,
    will_do: impl Fn(Standing) -> bool,
) -> Option<&'p Endpoint> {
    let mut candidates =
        endpoints.iter().filter(|endpoint| !asked.excludes(endpoint) && will_do(asked.standing(endpoint)));
    if port.affinity != SessionAffinity::None {
        return candidates.max_by_key(|endpoint| score(asked.client, endpoint.address));
    }
    let count = candidates.clone().count();
    if count < 2 {
        return candidates.next();
    }
    let (first, second) = two(count, asked.entropy);
    let (low, high) = (first.min(second), first.max(second));
    let one = candidates.nth(low)?;
    let Some(two) = candidates.nth(high - low - 1) else { return Some(one) };
    // Equal candidates are chosen between by position, which the entropy has mixed.
    let (one, two) = if first < second { (one, two) } else { (two, one) };
    Some(if one.state.beats(&two.state, asked.now) { one } else { two })
}

/// Two different places of `count`, which is at least two.
fn two(count: usize, entropy: u64) -> (usize, usize) {
    let first = scale(entropy << 32, count as u64);
    let mut second = scale(entropy, count as u64 - 1);
    if second >= first {
        second += 1;
    }
    (first as usize, second as usize)
}

/// How much a client wants an endpoint.
fn score(client: IpAddr, endpoint: SocketAddr) -> u64 {
    let bits = |address: IpAddr| match address.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let folded = |bits: u128| mix(mix(bits as u64) ^ (bits >> 64) as u64);
    mix(folded(bits(client)) ^ folded(bits(endpoint.ip()).wrapping_add(1)).rotate_left(21) ^ u64::from(endpoint.port()))
}

/// Spreads a number's bits over all of it: neighbours become strangers.
pub(super) fn mix(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::testing::{MS, S, port, spread};
    use super::super::{EJECTION, FAILURES};
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn asked(now: u64, entropy: u64, exclude: &[SocketAddr]) -> Asked<'_> {
        Asked { now, entropy, exclude, client: CLIENT, limit: 100, may_try: true }
    }

    fn one<'p>(port: &'p ServicePort, asked: &Asked<'_>) -> Option<&'p Endpoint> {
        match pick(port, asked) {
            Picked::Endpoint(endpoint) => Some(endpoint),
            Picked::Full | Picked::Nothing => None,
        }
    }

    fn picks(port: &ServicePort, now: u64, exclude: &[SocketAddr]) -> HashMap<SocketAddr, u32> {
        let mut picked = HashMap::new();
        for endpoint in spread(6_000).filter_map(|entropy| one(port, &asked(now, entropy, exclude))) {
            *picked.entry(endpoint.address).or_default() += 1;
        }
        picked
    }

    fn eject(port: &ServicePort, index: usize, now: u64) -> bool {
        (0..FAILURES).any(|_| failed(port, &port.endpoints[index], now))
    }

    fn sticky(count: u8) -> ServicePort {
        ServicePort { affinity: SessionAffinity::ClientIp { timeout: Duration::from_secs(1) }, ..port(count) }
    }

    fn clients() -> impl Iterator<Item = IpAddr> {
        (0..=255u8).flat_map(|a| [IpAddr::from([10, 1, 0, a]), IpAddr::from([198, 51, 100, a])])
    }

    /// Who gets which client.
    fn shares(port: &ServicePort, now: u64) -> HashMap<IpAddr, SocketAddr> {
        let endpoint = |client| one(port, &Asked { client, ..asked(now, 7, &[]) }).map(|endpoint| endpoint.address);
        clients().filter_map(|client| Some((client, endpoint(client)?))).collect()
    }

    #[test]
    fn idle_endpoints_share_evenly() {
        let picked = picks(&port(3), 0, &[]);
        assert_eq!(picked.len(), 3);
        assert!(picked.values().all(|count| (1_800..2_200).contains(count)), "{picked:?}");
    }

    #[test]
    fn the_slower_and_the_busier_lose_to_everyone() {
        let slow = port(3);
        slow.endpoints.iter().for_each(|endpoint| endpoint.state.observe(S, 10 * MS));
        slow.endpoints[1].state.observe(S, 100 * MS);
        assert_eq!(picks(&slow, S, &[]).get(&slow.endpoints[1].address), None);
        let busy = port(3);
        busy.endpoints[2].state.in_flight.store(5, Relaxed);
        assert_eq!(picks(&busy, S, &[]).get(&busy.endpoints[2].address), None);
    }

    #[test]
    fn a_slow_endpoint_is_tried_again_after_a_while() {
        let port = port(2);
        port.endpoints[0].state.observe(S, 2 * MS);
        port.endpoints[1].state.observe(S, 500 * MS);
        let later = 61 * S;
        port.endpoints[0].state.observe(later, 2 * MS);
        assert!(picks(&port, later, &[]).contains_key(&port.endpoints[1].address));
    }

    #[test]
    fn excluded_endpoints_are_skipped() {
        let port = port(3);
        let addresses: Vec<SocketAddr> = port.endpoints.iter().map(|endpoint| endpoint.address).collect();
        assert_eq!(picks(&port, 0, &addresses[..1]).len(), 2);
        assert_eq!(picks(&port, 0, &addresses[..2]).keys().collect::<Vec<_>>(), [&addresses[2]]);
        assert!(matches!(pick(&port, &asked(0, 1, &addresses)), Picked::Nothing));
    }

    #[test]
    fn ejected_endpoints_get_nothing_until_one_trial() {
        let port = port(4);
        assert!(eject(&port, 0, S));
        assert_eq!(picks(&port, 2 * S, &[]).len(), 3);
        let later = S + EJECTION + S;
        assert_eq!(picks(&port, later, &[]).get(&port.endpoints[0].address), Some(&1));
        port.endpoints[0].state.succeeded(later, later);
        assert!(picks(&port, later, &[]).get(&port.endpoints[0].address).is_some_and(|count| *count > 1_000));
    }

    #[test]
    fn who_may_not_try_takes_no_trial() {
        let port = port(4);
        assert!(eject(&port, 0, S));
        let later = S + EJECTION + S;
        for entropy in spread(1_000) {
            let picked = one(&port, &Asked { may_try: false, ..asked(later, entropy, &[]) }).unwrap();
            assert_ne!(picked.address, port.endpoints[0].address);
        }
        let alone: Vec<SocketAddr> = port.endpoints[1..].iter().map(|endpoint| endpoint.address).collect();
        assert!(one(&port, &Asked { may_try: false, ..asked(later, 1, &alone) }).is_some(), "better than none");
        assert_eq!(picks(&port, later, &[]).get(&port.endpoints[0].address), Some(&1), "the trial is still there");
    }

    #[test]
    fn half_of_the_endpoints_stay() {
        for count in 1..9u8 {
            let port = port(count);
            let ejected = (0..usize::from(count)).filter(|index| eject(&port, *index, S)).count();
            assert_eq!(ejected, usize::from(count) / 2);
            assert_eq!(picks(&port, 2 * S, &[]).len(), usize::from(count) - ejected);
        }
    }

    #[test]
    fn where_all_that_is_left_is_ejected_it_is_used() {
        let port = port(2);
        assert!(eject(&port, 0, S));
        let other = [port.endpoints[1].address];
        assert_eq!(picks(&port, 2 * S, &other).len(), 1);
    }

    #[test]
    fn a_full_endpoint_is_passed_over_and_all_full_is_said() {
        let port = port(2);
        port.endpoints[0].state.in_flight.store(100, Relaxed);
        assert_eq!(picks(&port, S, &[]).len(), 1);
        port.endpoints[1].state.in_flight.store(100, Relaxed);
        assert!(matches!(pick(&port, &asked(S, 1, &[])), Picked::Full));
    }

    #[test]
    fn preferred_endpoints_come_first_while_they_will_do() {
        let port = ServicePort { preferred: 2, ..port(6) };
        assert_eq!(picks(&port, S, &[]).len(), 2);
        let near: Vec<SocketAddr> = port.endpoints[..2].iter().map(|endpoint| endpoint.address).collect();
        assert_eq!(picks(&port, S, &near[..1]).len(), 1);
        assert_eq!(picks(&port, S, &near).len(), 4);
        assert!(eject(&port, 0, S) && eject(&port, 1, S));
        assert_eq!(picks(&port, 2 * S, &[]).len(), 4);
    }

    #[test]
    fn clients_stay_and_only_those_of_what_goes_move() {
        let all = sticky(8);
        let before = shares(&all, S);
        let counts = before.values().fold(HashMap::new(), |mut counts: HashMap<SocketAddr, u32>, address| {
            *counts.entry(*address).or_default() += 1;
            counts
        });
        assert!(counts.len() == 8 && counts.values().all(|count| (30..110).contains(count)), "{counts:?}");
        let gone = all.endpoints[3].address;
        let mut fewer = sticky(8);
        fewer.endpoints.remove(3);
        fewer.preferred = 7;
        for (client, address) in shares(&fewer, S) {
            assert!(before[&client] == address || before[&client] == gone);
        }
        assert!(eject(&all, 3, S));
        assert_eq!(
            shares(&all, 2 * S),
            shares(&fewer, S),
            "the ejected one's clients go where they would go without it"
        );
        all.endpoints[3].state.succeeded(3 * S, 3 * S);
        assert_eq!(shares(&all, 4 * S), before, "and come back");
    }

    #[test]
    fn a_client_is_known_by_either_form_of_its_address() {
        let port = sticky(8);
        for client in clients() {
            let IpAddr::V4(v4) = client else { continue };
            let mapped = Asked { client: IpAddr::V6(v4.to_ipv6_mapped()), ..asked(S, 1, &[]) };
            let plain = Asked { client, ..mapped };
            assert_eq!(one(&port, &mapped).unwrap().address, one(&port, &plain).unwrap().address);
        }
    }

    proptest! {
        #[test]
        fn what_is_picked_is_allowed_and_something_is_if_anything_is(
            count in 0u8..6, preferred in 0usize..7, excluded: u8, ejected: u8, full: u8, affinity: bool,
            entropy: u64, now in 2 * S..100 * S,
        ) {
            let mut port = if affinity { sticky(count) } else { port(count) };
            port.preferred = preferred.min(port.endpoints.len());
            let mut exclude = Vec::new();
            for (n, endpoint) in port.endpoints.iter().enumerate() {
                if excluded >> n & 1 == 1 {
                    exclude.push(endpoint.address);
                }
                if ejected >> n & 1 == 1 {
                    (0..FAILURES).for_each(|_| _ = endpoint.state.fails(S, || true));
                }
                if full >> n & 1 == 1 {
                    endpoint.state.in_flight.store(100, Relaxed);
                }
            }
            let left = |endpoint: &&Endpoint| !exclude.contains(&endpoint.address);
            let has_room = |endpoint: &&Endpoint| endpoint.state.in_flight.load(Relaxed) < 100;
            let sound = |endpoint: &&Endpoint| !endpoint.state.is_ejected();
            let usable = || port.endpoints.iter().filter(left).filter(has_room);
            let some_sound = usable().any(|endpoint| sound(&endpoint));
            match pick(&port, &asked(now, entropy, &exclude)) {
                Picked::Endpoint(endpoint) => {
                    prop_assert!(left(&endpoint) && has_room(&endpoint));
                    prop_assert!(sound(&endpoint) || !some_sound || now >= S + EJECTION);
                }
                Picked::Full => prop_assert!(usable().next().is_none() && port.endpoints.iter().any(|e| left(&e))),
                Picked::Nothing => prop_assert!(!port.endpoints.iter().any(|endpoint| left(&endpoint))),
            }
        }
    }
}
