//! Binds what the table wants, closes what it does not want any more, and reports what is live.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use meshgate_core::snapshot::{GatewayAddress, HeadId};
use meshgate_core::table::{Bind, Listening, Table};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::accept::{Bound, Dispatcher};
use super::worker::Shared;
use super::{BindError, BoundListener, LiveReport, SocketStore};
use crate::drain::Phase;
use crate::h1::Closing;

/// First port that anyone may bind.
const UNPRIVILEGED: u16 = 1024;

/// How often what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Owns the listening sockets.
pub struct Listeners {
    shared: Shared,
    sockets: SocketStore,
    dispatcher: Arc<Dispatcher>,
    open: BTreeMap<Place, Open>,
    report: watch::Sender<LiveReport>,
    /// What was wanted when nothing was missing last.
    served: Option<Arc<Listening>>,
}

/// A socket that is wanted: what for, and its logical address.
type Place = (Bind, SocketAddr);

/// A socket that listens.
struct Open {
    bound: Arc<Bound>,
    accepting: JoinHandle<io::Result<()>>,
}

impl Listeners {
    /// No sockets yet.
    pub fn new(
        shared: Shared,
        sockets: SocketStore,
        dispatcher: Dispatcher,
        report: watch::Sender<LiveReport>,
    ) -> Self {
        Listeners { shared, sockets, dispatcher: Arc::new(dispatcher), open: BTreeMap::new(), report, served: None }
    }

    /// Follows the table until the drain, then closes everything. When it returns, no more
    /// connections come.
    pub async fn run(mut self, mut changed: watch::Receiver<HeadId>) {
        let (drain, abandoned) = (self.shared.drain.clone(), self.shared.abandoned.clone());
        loop {
            changed.mark_unchanged();
            let complete = self.follow().await;
            tokio::select! {
                () = drain.reached(Phase::Draining) => break,
                () = abandoned.cancelled() => break,
                () = next(&mut changed) => {}
                () = tokio::time::sleep(AGAIN), if !complete => {}
            }
        }
        self.close(|_| true).await;
    }

    /// Brings the sockets to the table of now. False if something is missing.
    async fn follow(&mut self) -> bool {
        let table = self.shared.proxy.table.load_full();
        if self.served.as_ref().is_some_and(|served| Arc::ptr_eq(served, table.listening())) {
            self.report.send_if_modified(|now| std::mem::replace(&mut now.head, table.head()) != table.head());
            return true;
        }
        let missing_keys = self.shared.certificates.refresh(&table);
        let mut errors = Vec::new();
        let wanted = self.wanted(&table, &mut errors);
        self.close(|place| !wanted.contains(place)).await;
        for place in wanted {
            if !self.open.contains_key(&place)
                && let Err(error) = self.bind(&place)
            {
                errors.push(bind_error(&place, &error));
            }
        }
        let complete = errors.is_empty() && missing_keys.is_empty();
        self.served = complete.then(|| Arc::clone(table.listening()));
        let report = LiveReport { head: table.head(), bound: self.bound(), errors, missing_keys };
        self.report.send_if_modified(|now| {
            let new = *now != report;
            if new {
                *now = report;
            }
            new
        });
        complete
    }

    fn wanted(&self, table: &Table, errors: &mut Vec<BindError>) -> Vec<Place> {
        let mut wanted = Vec::new();
        for bind in table.binds() {
            let addresses = self.addresses(table, &bind);
            if addresses.is_empty() {
                let (gateway, port) = (bind.gateway.clone(), bind.port);
                let message = "the Gateway has no address on this node".to_owned();
                errors.push(BindError { gateway, port, address: None, message });
            }
            let port = bind.port;
            wanted.extend(addresses.into_iter().map(|ip| (bind.clone(), SocketAddr::new(ip, port))));
        }
        wanted
    }

    fn addresses(&self, table: &Table, bind: &Bind) -> Vec<IpAddr> {
        match (table.gateway_address(&bind.gateway), self.shared.config.node_number) {
            (Some(GatewayAddress::Loopback(gateway)), Some(node)) => {
                vec![IpAddr::V4(Ipv4Addr::new(127, node, *gateway, 1))]
            }
            (Some(GatewayAddress::Fixed(addresses)), _) => addresses.clone(),
            (Some(GatewayAddress::Loopback(_)), None) | (None, _) => Vec::new(),
        }
    }

    fn bind(&mut self, place: &Place) -> io::Result<()> {
        let (bind, address) = place;
        let listener = self.socket(*address)?;
        let bound = Arc::new(Bound {
            gateway: bind.gateway.clone(),
            port: bind.port,
            protocol: bind.protocol,
            address: listener.local_addr()?,
            closing: Closing::default(),
        });
        tracing::info!(gateway = %bound.gateway, port = bound.port, address = %bound.address, "listening");
        // Owned by this map: `close` waits for its end.
        let accepting = tokio::spawn(Arc::clone(&self.dispatcher).accept(listener, Arc::clone(&bound)));
        self.open.insert(place.clone(), Open { bound, accepting });
        Ok(())
    }

    /// The socket of an address; of another port where a low one is not for us.
    fn socket(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let offset = self.shared.config.port_offset_below_1024;
        match self.sockets.take_or_bind(address) {
            Err(error)
                if error.kind() == ErrorKind::PermissionDenied && address.port() < UNPRIVILEGED && offset > 0 =>
            {
                self.sockets.take_or_bind(SocketAddr::new(address.ip(), address.port().saturating_add(offset)))
            }
            result => result,
        }
    }

    /// Closes the sockets that `gone` names. Their connections finish what runs.
    async fn close(&mut self, gone: impl Fn(&Place) -> bool) {
        for (_, open) in self.open.extract_if(.., |place, _| gone(place)).collect::<Vec<_>>() {
            open.bound.closing.close();
            let address = open.bound.address;
            match open.accepting.await {
                Ok(Ok(())) => tracing::info!(%address, "not listening any more"),
                Ok(Err(error)) => tracing::warn!(%address, %error, "accepting had failed"),
                Err(error) => tracing::error!(%address, %error, "accepting had panicked"),
            }
        }
    }

    fn bound(&self) -> Vec<BoundListener> {
        let bound = |open: &Open| BoundListener {
            gateway: open.bound.gateway.clone(),
            port: open.bound.port,
            protocol: open.bound.protocol,
            address: open.bound.address,
        };
        self.open.values().map(bound).collect()
    }
}

/// The next change; never, once nobody makes any more.
async fn next(changed: &mut watch::Receiver<HeadId>) {
    if changed.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn bind_error(place: &Place, error: &io::Error) -> BindError {
    let (bind, address) = place;
    let hint = match error.kind() {
        ErrorKind::AddrInUse => "something else listens there",
        ErrorKind::AddrNotAvailable => "this node has no such address",
        ErrorKind::PermissionDenied if address.port() < UNPRIVILEGED => {
            "ports below 1024 need the capability NET_BIND_SERVICE"
        }
        _ => "see the error",
    };
    let message = format!("can't listen on {address}: {error}; {hint}");
    BindError { gateway: bind.gateway.clone(), port: bind.port, address: Some(*address), message }
}
