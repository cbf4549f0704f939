//! The store of listening sockets: filled before start by whoever kept them, else empty.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait in the kernel for `accept`.
const BACKLOG: i32 = 1024;

/// Listening sockets by address. Cheap to clone; all clones are one store.
#[derive(Clone, Debug, Default)]
pub struct SocketStore(Arc<Mutex<HashMap<SocketAddr, TcpListener>>>);

impl SocketStore {
    /// Puts a socket that listens already into the store.
    ///
    /// # Errors
    /// The socket has no local address.
    pub fn put(&self, listener: TcpListener) -> io::Result<()> {
        let address = listener.local_addr()?;
        self.lock().insert(address, listener);
        Ok(())
    }

    /// The stored socket of an address, or a new one. Non-blocking either way.
    ///
    /// # Errors
    /// The address can't be bound.
    pub fn take_or_bind(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let stored = self.lock().remove(&address);
        let listener = match stored {
            Some(listener) => listener,
            None => bind(address)?,
        };
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, TcpListener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Binds without `SO_REUSEPORT`: two owners of one address must not go unseen.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_socket_is_used_before_a_new_one_is_bound() {
        let store = SocketStore::default();
        let kept = store.take_or_bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = kept.local_addr().unwrap();
        assert!(store.take_or_bind(address).is_err(), "the address is taken");
        store.put(kept).unwrap();
        assert_eq!(store.take_or_bind(address).unwrap().local_addr().unwrap(), address);
    }
}
