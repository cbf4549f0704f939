//! What is measured: scenarios, their cells (a peer in a shape), and which cells are compared.

use clap::ValueEnum;

use crate::peers::Kind;

/// Hosts of the two sizes of scenario `routes`.
const FEW_HOSTS: u32 = 10;
const MANY_HOSTS: u32 = 10_000;

/// A scenario, as named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// HTTP/1.1 keep-alive, answers of 128 bytes.
    #[value(name = "h1-128")]
    H1Small,
    /// HTTP/1.1 keep-alive, answers of 10 KiB.
    #[value(name = "h1-10k")]
    H1Large,
    /// TLS 1.3 keep-alive, answers of 128 bytes.
    Tls,
    /// A TLS 1.3 handshake and one request.
    Hs,
    /// HTTP/2 over TLS, 8 connections with 32 streams each.
    H2,
    /// 10,000 hosts against 10.
    Routes,
    /// Two threads against one.
    Threads,
    /// One acceptor against a socket a worker.
    Accept,
}

impl Name {
    /// All of them, in the order of measuring.
    pub const ALL: [Name; 8] =
        [Name::H1Small, Name::H1Large, Name::Tls, Name::Hs, Name::H2, Name::Routes, Name::Threads, Name::Accept];

    /// As on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Name::H1Small => "h1-128",
            Name::H1Large => "h1-10k",
            Name::Tls => "tls",
            Name::Hs => "hs",
            Name::H2 => "h2",
            Name::Routes => "routes",
            Name::Threads => "threads",
            Name::Accept => "accept",
        }
    }
}

/// Who asks, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Our own clients, each asking again on its connection once it has its answer.
    KeepAlive,
    /// Our own clients, with a connection and a handshake for each request.
    Handshakes,
    /// `h2load`.
    H2Load,
}

/// What a peer is set up for, and what is asked of it.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Requests.
    pub asks: Asks,
    /// Speaks TLS.
    pub tls: bool,
    /// Bytes of an answer's body.
    pub body: usize,
    /// Threads; with more than one it may use the core of the load too.
    pub threads: usize,
    /// Hosts with two prefixes each; 0 is one route for everything.
    pub hosts: u32,
}

/// A peer in a shape.
#[derive(Clone, Debug)]
pub struct Cell {
    /// In the table's first column.
    pub label: String,
    /// Who is measured.
    pub peer: Kind,
    /// How.
    pub shape: Shape,
}

/// Two cells, compared by CPU time a request within each round.
#[derive(Clone, Copy, Debug)]
pub struct Compared {
    /// Who is judged.
    pub cell: usize,
    /// By whom.
    pub base: usize,
    /// The smallest of the ratios may not exceed it.
    pub bar: Option<f64>,
}

/// A scenario with the peers that are there.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: Name,
    /// What is measured in each round.
    pub cells: Vec<Cell>,
    /// What is compared.
    pub compared: Vec<Compared>,
    /// What the numbers can't say.
    pub note: &'static str,
}

impl Scenario {
    /// A scenario with these peers.
    ///
    /// # Errors
    /// Why it can't be measured.
    pub fn new(name: Name, peers: &[Kind]) -> Result<Scenario, &'static str> {
        let plain = Shape { asks: Asks::KeepAlive, tls: false, body: 128, threads: 1, hosts: 0 };
        let tls = Shape { tls: true, ..plain };
        let against = |shape, judge, bar| Ok(Scenario::against(name, shape, peers, judge, bar));
        match name {
            Name::H1Small => against(plain, Kind::Nginx, Some(1.25)),
            Name::H1Large => against(Shape { body: 10 * 1024, ..plain }, Kind::Nginx, Some(1.25)),
            Name::Tls => against(tls, Kind::Nginx, Some(1.1)),
            Name::Hs => {
                let mut scenario =
                    Scenario::against(name, Shape { asks: Asks::Handshakes, ..tls }, peers, Kind::Nginx, None);
                scenario.note = "the clients' handshakes limit the rate; CPU time then holds some idle wake-ups";
                Ok(scenario)
            }
            Name::H2 if !crate::h2load::is_there() => Err("no h2load: apt-get install nghttp2-client (as root)"),
            Name::H2 => against(Shape { asks: Asks::H2Load, ..tls }, Kind::Haproxy, Some(1.4)),
            Name::Routes => Ok(Scenario::routes(plain, peers)),
            Name::Threads => Ok(Scenario::threads(plain)),
            // One thread owns all listening sockets (node/src/edge/listen.rs). Once the node offers
            // one a worker, this is `Scenario::pairs` of the two, with `Asks::Handshakes`.
            Name::Accept => Err("the node has one acceptor only and offers no SO_REUSEPORT to compare it with"),
        }
    }

    /// All peers in one shape, each compared with one of them.
    fn against(name: Name, shape: Shape, peers: &[Kind], judge: Kind, bar: Option<f64>) -> Scenario {
        let cell = |peer: &Kind| Cell { label: peer.as_str().to_owned(), peer: *peer, shape };
        let cells: Vec<Cell> = peers.iter().map(cell).collect();
        let base = peers.iter().position(|peer| *peer == judge);
        let compared = base.map_or(Vec::new(), |base| {
            let others = (0..cells.len()).filter(|index| *index != base);
            others.map(|cell| Compared { cell, base, bar: bar.filter(|_| peers[cell] == Kind::Meshgate) }).collect()
        });
        Scenario { name, cells, compared, note: "" }
    }

    fn routes(shape: Shape, peers: &[Kind]) -> Scenario {
        let (mut cells, mut compared) = (Vec::new(), Vec::new());
        for peer in peers.iter().filter(|peer| peer.has_routes()) {
            for hosts in [FEW_HOSTS, MANY_HOSTS] {
                let label = format!("{} {hosts}", peer.as_str());
                cells.push(Cell { label, peer: *peer, shape: Shape { hosts, ..shape } });
            }
            let bar = (*peer == Kind::Meshgate).then_some(1.05);
            compared.push(Compared { cell: cells.len() - 1, base: cells.len() - 2, bar });
        }
        Scenario { name: Name::Routes, cells, compared, note: "" }
    }

    fn threads(shape: Shape) -> Scenario {
        let cell = |threads| Cell {
            label: format!("meshgate x{threads}"),
            peer: Kind::Meshgate,
            shape: Shape { threads, ..shape },
        };
        let note = "with two threads on two cores the second one shares its core with the load and the backend, \
                    so req/s is what all three together reach; CPU a request is to be compared";
        let compared = vec![Compared { cell: 1, base: 0, bar: None }];
        Scenario { name: Name::Threads, cells: vec![cell(1), cell(2)], compared, note }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meshgate_is_judged_by_who_is_there() {
        let all = [Kind::Meshgate, Kind::Nginx, Kind::Haproxy, Kind::Control];
        let bars = |name, peers: &[Kind]| -> Vec<(String, String, f64)> {
            let scenario = Scenario::new(name, peers).unwrap();
            let label = |index: usize| scenario.cells[index].label.clone();
            let barred = scenario.compared.iter().filter_map(|one| Some((label(one.cell), label(one.base), one.bar?)));
            barred.collect()
        };
        assert_eq!(bars(Name::H1Small, &all), [("meshgate".to_owned(), "nginx".to_owned(), 1.25)]);
        assert_eq!(bars(Name::Tls, &all[..1]), []);
        assert_eq!(bars(Name::Routes, &all), [("meshgate 10000".to_owned(), "meshgate 10".to_owned(), 1.05)]);
        assert_eq!(Scenario::new(Name::H1Small, &all).unwrap().compared.len(), 3);
        assert!(Scenario::new(Name::Accept, &all).is_err());
    }
}
