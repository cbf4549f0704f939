//! A mesh of three nodes with two routes, in which all is well.

use std::sync::{Arc, Mutex};

use meshgate_proto::admin::*;

use super::Fake;

pub const ROOT: &str = "9f3a5b0000000000000000000000000000000000000000000000000000000fc1";

pub fn head() -> Option<HeadId> {
    Some(HeadId { epoch: 2, rev: 18233 })
}

pub fn fake() -> Fake {
    Fake {
        routes: Arc::new(Mutex::new(routes())),
        peers: peers(),
        verify: verify(),
        leader: GetLeaderResponse { node: "node-c".into(), epoch: 2, since_ms: 1_760_000_000_000, rev: 18233 },
        waits: Arc::new(Mutex::new(vec![live()])),
        findings: ListFindingsResponse::default(),
        status: status(),
        ..Fake::default()
    }
}

pub fn routes() -> ListRoutesResponse {
    let cart = Route {
        host: "shop.example".into(),
        path: "/cart/*".into(),
        matches: "GET".into(),
        kind: "HTTPRoute".into(),
        namespace: "shop".into(),
        name: "cart".into(),
        rule: 2,
        rule_name: "canary".into(),
        backends: "cart:8080 90% cart-v2:8080 10%".into(),
        policies: "retry".into(),
        generation: 7,
        gateway_namespace: "infra".into(),
        gateway_name: "edge".into(),
        listener: "https".into(),
        port: 443,
        protocol: "HTTPS".into(),
        addresses: vec!["127.1.0.2:10443".into()],
    };
    let all = Route {
        host: String::new(),
        path: "/*".into(),
        matches: String::new(),
        kind: "Ingress".into(),
        name: "all".into(),
        rule: 0,
        rule_name: String::new(),
        backends: "shop:80".into(),
        policies: String::new(),
        generation: 1,
        listener: "http".into(),
        port: 80,
        protocol: "HTTP".into(),
        addresses: vec!["127.1.0.2:10080".into(), "127.1.0.3:10080".into()],
        ..cart.clone()
    };
    ListRoutesResponse { head: head(), routes: vec![cart, all], live: 3, expected: 3 }
}

pub fn peers() -> ListPeersResponse {
    let own = Peer {
        node: "node-a".into(),
        instance: "00c0ffee00c0ffee".into(),
        ready: true,
        state: "serving".into(),
        version: "0.1.0".into(),
        head: head(),
        root: ROOT.into(),
        lag: 0,
        leader: false,
        roles: vec!["gateway".into(), "reconciler".into()],
        tunnel: None,
        certificate_not_after: 4_102_444_800,
        address: "127.1.0.1".into(),
        self_: true,
    };
    let quic =
        Tunnel { transport: "quic".into(), rtt_ms: 0.42, loss_percent: 0.0, mtu: 8952, connections: 1, gso: true };
    let tcp = Tunnel { transport: "tcp".into(), loss_percent: 1.5, mtu: 0, gso: false, connections: 2, ..quic.clone() };
    let b = Peer { node: "node-b".into(), tunnel: Some(quic), leader: true, self_: false, ..own.clone() };
    let c = Peer {
        node: "node-c".into(),
        ready: false,
        state: "draining".into(),
        lag: 3,
        head: Some(HeadId { epoch: 2, rev: 18230 }),
        tunnel: Some(tcp),
        certificate_not_after: 1,
        self_: false,
        ..own.clone()
    };
    let d = Peer {
        node: "node-d".into(),
        ready: false,
        state: "unreachable".into(),
        head: None,
        root: String::new(),
        tunnel: Some(Tunnel { transport: "none".into(), ..Tunnel::default() }),
        certificate_not_after: 0,
        self_: false,
        ..own.clone()
    };
    ListPeersResponse { peers: vec![own, b, c, d] }
}

pub fn digest(node: &str, verdict: &str) -> PeerDigest {
    PeerDigest { node: node.into(), head: head(), root: ROOT.into(), verdict: verdict.into(), held: Vec::new() }
}

pub fn verify() -> VerifyResponse {
    VerifyResponse {
        head: head(),
        root: ROOT.into(),
        signature_ok: true,
        signed_by: "node-c".into(),
        problem: String::new(),
        resources: 42,
        peers: vec![digest("node-b", "same"), digest("node-c", "same")],
    }
}

pub fn live() -> WaitResponse {
    WaitResponse {
        result: "live".into(),
        head: head(),
        generation: 7,
        live: 3,
        expected: 3,
        took_ms: 21.3,
        slowest_node: "node-c".into(),
        slowest_ms: 19.2,
        missing: Vec::new(),
        reasons: Vec::new(),
    }
}

pub fn findings() -> ListFindingsResponse {
    let shadowed = Finding {
        code: "MG0102".into(),
        severity: "warning".into(),
        kind: "HTTPRoute".into(),
        namespace: "shop".into(),
        name: "all".into(),
        field: "spec.rules[0]".into(),
        message: "shadowed by shop/cart rule 2".into(),
        origin: "routes.yaml:31".into(),
    };
    let missing = Finding {
        code: "MG0201".into(),
        severity: "error".into(),
        kind: "GatewayClass".into(),
        namespace: String::new(),
        name: "meshgate".into(),
        field: String::new(),
        message: "no such controller".into(),
        origin: String::new(),
    };
    ListFindingsResponse { findings: vec![shadowed, missing] }
}

pub fn status() -> GetStatusResponse {
    let bound = Bound {
        gateway: "infra/edge".into(),
        port: 443,
        address: "127.1.0.2:10443".into(),
        error: String::new(),
        protocol: "HTTPS".into(),
    };
    let busy = Bound { port: 80, error: "address in use".into(), protocol: "HTTP".into(), ..bound.clone() };
    GetStatusResponse {
        node: "node-a".into(),
        version: "0.1.0".into(),
        ready: true,
        not_ready_reason: String::new(),
        head: head(),
        root: ROOT.into(),
        leader: "node-c".into(),
        requests_total: 1000,
        requests_local: 600,
        requests_tunnel: 398,
        requests_failed: 2,
        routes: 2,
        peers_alive: 3,
        findings: 1,
        bound: vec![bound, busy],
        uptime_ms: 200_000,
        is_leader: false,
    }
}
