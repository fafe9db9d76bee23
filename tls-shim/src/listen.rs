//! This knows listeners: how they are bound or inherited, and how connections are accepted until the shim ends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{self, Shim};
use crate::inherited::Inherited;
use crate::limits;
use crate::places::Place;
use crate::settings::Listen;

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}")]
pub(crate) struct BindError {
    address: SocketAddr,
    error: io::Error,
}

/// Listens on all addresses: on those that were inherited with the sockets that are there, on the others anew.
///
/// # Errors
/// The first address that cannot be listened on, with what the system said.
pub(crate) fn on(listen: &Listen, mut inherited: Inherited) -> Result<Vec<Arc<TcpListener>>, BindError> {
    let claimed = inherited.claim(&listen.0);
    // What is left holds addresses that may be bound now.
    inherited.close();
    let listeners = listen.0.iter().zip(claimed).map(|(&address, claimed)| match claimed {
        Some(listener) => TcpListener::from_std(listener).map_err(|error| BindError { address, error }),
        None => bind(address),
    });
    listeners.map(|listener| listener.map(Arc::new)).collect()
}

/// Binds an address. `[::]` takes IPv6 only, so that it can stand beside `0.0.0.0` as it does for nginx.
///
/// # Errors
/// What the system said, with the address.
fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let listener = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => {
                let socket = TcpSocket::new_v6()?;
                setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
                socket
            }
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(limits::BACKLOG)
    };
    listener().map_err(|error| BindError { address, error })
}

/// Accepts connections until `drain` says that the shim ends, each with the shim as it is then; each is served by a task of
/// its own, so that what breaks one harms no other. As many at a time as there are [`Places`](crate::places::Places): then
/// nobody is accepted until one ends.
pub(crate) async fn accept(
    listener: Arc<TcpListener>,
    shim: Arc<ArcSwap<Shim>>,
    connections: TaskTracker,
    drain: CancellationToken,
) {
    let places = Arc::clone(&shim.load().places);
    loop {
        let accepted = tokio::select! {
            () = drain.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let served = match accepted {
            Ok((stream, peer)) => {
                let place = tokio::select! {
                    () = drain.cancelled() => return,
                    place = places.take() => place,
                };
                serve(&listener, stream, peer, shim.load_full(), drain.clone(), place)
            }
            Err(error) => Err(error),
        };
        match served {
            // The task is this and nothing around it, which would be a second copy.
            Ok(served) => drop(connections.spawn(served)),
            Err(error) if is_of_the_connection(&error) => {
                tracing::debug!(%error, "a connection ended before it was accepted");
            }
            // For want of file descriptors or memory: the next try would fail as well, and at once.
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted");
                sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
}

fn serve(
    listener: &TcpListener,
    stream: TcpStream,
    peer: SocketAddr,
    shim: Arc<Shim>,
    drain: CancellationToken,
    place: Place,
) -> io::Result<impl Future<Output = ()> + use<>> {
    stream.set_nodelay(true)?;
    Ok(connection::serve(stream, peer, listener.local_addr()?.port(), shim, drain, place))
}

/// Whether the client is gone, rather than the system in trouble.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput, NetworkUnreachable, NotConnected,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | InvalidInput
            | NetworkUnreachable
            | NotConnected
    )
}
