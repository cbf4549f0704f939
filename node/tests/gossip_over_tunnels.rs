//! Gossip over tunnels, with sockets: the two halves that `app` joins.
#![allow(clippy::unwrap_used)]

mod tunnel_nodes;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use meshgate_core::snapshot::HeadId;
use meshgate_node::cluster::{Cluster, ClusterConfig, Facts, INTERVAL, Roles};
use meshgate_node::drain;
use meshgate_node::identity::{InstanceId, NodeIdentity, NodeName};
use tunnel_nodes::{Mesh, eventually};

fn facts(identity: &NodeIdentity, tunnel: SocketAddr) -> Facts {
    Facts {
        node: identity.node().clone(),
        instance: identity.instance(),
        tunnel,
        sync: tunnel,
        admin: String::new(),
        roles: Roles::default(),
        head: HeadId::default(),
        roots: String::new(),
        leader: None,
        ready: true,
        draining: false,
        version: "0.1.0".into(),
        cert_not_after: 0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_find_each_other_from_one_address() {
    let names = ["a", "b", "c", "d", "e"];
    let mut mesh = Mesh::of(&names).await;
    let seed = mesh.node("a").listen;
    let mut parts: Vec<(Cluster, _)> = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    for name in names {
        let listen = mesh.node(name).listen;
        let channel = mesh.gossip(name);
        let identity = NodeIdentity::issue(mesh.run(), name.into(), InstanceId::random()).unwrap();
        let said = facts(&identity, listen);
        let config = ClusterConfig { identity, gossip_addr: listen, seeds: vec![seed], interval: INTERVAL };
        let (cluster, runner) = Cluster::start(config, channel.outgoing, channel.incoming, said);
        let (control, drain) = drain::channel();
        tasks.spawn(runner.run(drain));
        parts.push((cluster, control));
    }
    let started = Instant::now();
    let members = |index: usize| parts[index].0.members().borrow().clone();
    eventually("all see all", || (0..5).all(|index| members(index).alive().count() == 5)).await;
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());

    let changed = Instant::now();
    parts[4].0.publish(|facts| facts.head = HeadId { epoch: 1, rev: 9 });
    let node = NodeName::from("e");
    let seen = || (0..5).all(|index| members(index).node(&node).is_some_and(|member| member.facts.head.rev == 9));
    eventually("all see the change", seen).await;
    println!("change seen by all after {:?}", changed.elapsed());

    mesh.kill("c");
    let killed = Instant::now();
    let dead = |index: usize| members(index).node(&"c".into()).is_some_and(|member| !member.alive);
    eventually("all see the death", || [0, 1, 3, 4].into_iter().all(dead)).await;
    println!("death seen by all after {:?}", killed.elapsed());
}
