//! This knows listening sockets that are older than this process: systemd has made them (sd_listen_fds(3)), or the shim
//! that this one takes over from had them.
//!
//! Connections that wait to be accepted wait in the socket, so they are lost only with the last process that has it. Two
//! sockets with SO_REUSEPORT would each have a queue of its own, and that of the older one would be lost.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use nix::sys::socket::{getsockopt, sockopt};

/// The sockets that nobody has claimed yet.
#[derive(Default)]
pub(crate) struct Inherited {
    sockets: Vec<(SocketAddr, TcpListener)>,
    /// What else `LISTEN_FDS` counts, by its position, and why it cannot be used.
    unusable: Vec<(usize, io::Error)>,
}

impl Inherited {
    /// Takes what `LISTEN_FDS` counts, unless `LISTEN_PID` names another process. Without `LISTEN_PID` they are for
    /// whoever sees them: a process cannot know the id of one that it is about to start.
    ///
    /// It removes both from the environment, so it must be called before there are other threads, and says nothing: the log
    /// has one.
    pub(crate) fn take() -> Self {
        let mut descriptors = ListenFd::from_env();
        let mut taken = Self::default();
        for position in 0..descriptors.len() {
            let listener = descriptors
                .take_tcp_listener(position)
                .and_then(|listener| listener.map(|listener| Ok((usable(&listener)?, listener))).transpose());
            match listener {
                Ok(listener) => taken.sockets.extend(listener),
                Err(error) => taken.unusable.push((position, error)),
            }
        }
        taken
    }

    /// Finds for each address the socket that is bound to it.
    pub(crate) fn claim(&mut self, wanted: &[SocketAddr]) -> Vec<Option<TcpListener>> {
        let bound: Vec<_> = self.sockets.iter().map(|(address, _)| *address).collect();
        let mut left: Vec<_> = std::mem::take(&mut self.sockets).into_iter().map(Some).collect();
        let claimed = fitting(wanted, &bound)
            .into_iter()
            .map(|found| found.and_then(|position| left[position].take()).map(|(_, listener)| listener))
            .collect();
        self.sockets = left.into_iter().flatten().collect();
        claimed
    }

    /// Closes those that nobody has claimed: nobody would accept what comes to them. Says what else was not used.
    pub(crate) fn close(self) {
        for (position, error) in self.unusable {
            tracing::warn!(position, %error, "LISTEN_FDS: a descriptor cannot be used");
        }
        for (address, listener) in self.sockets {
            // Before it is said.
            drop(listener);
            tracing::warn!(%address, "LISTEN_FDS: closed a socket whose address does not stand in listen");
        }
    }
}

/// Where a socket is bound.
///
/// # Errors
/// It does not listen, or takes IPv4 too where its address is of IPv6: these clients belong to another address.
fn usable(listener: &TcpListener) -> io::Result<SocketAddr> {
    let address = listener.local_addr()?;
    if !getsockopt(listener, sockopt::AcceptConn)? {
        return Err(io::Error::other(format!("{address} is not listened on")));
    }
    if address.is_ipv6() && !getsockopt(listener, sockopt::Ipv6V6Only)? {
        return Err(io::Error::other(format!("{address} takes IPv4 too (BindIPv6Only=ipv6-only)")));
    }
    listener.set_nonblocking(true)?;
    Ok(address)
}

/// For each address that is wanted, which of the bound ones it is; none is taken twice. Port 0 is any port that no other
/// wants.
fn fitting(wanted: &[SocketAddr], bound: &[SocketAddr]) -> Vec<Option<usize>> {
    let mut free: Vec<bool> = bound.iter().map(|_| true).collect();
    let mut claim = |fits: &dyn Fn(&SocketAddr) -> bool| {
        let found = (0..bound.len()).find(|&position| free[position] && fits(&bound[position]))?;
        free[found] = false;
        Some(found)
    };
    let same: Vec<_> = wanted.iter().map(|address| claim(&|other| other == address)).collect();
    wanted
        .iter()
        .zip(same)
        .map(|(address, same)| match (same, address.port()) {
            (None, 0) => claim(&|other| other.ip() == address.ip()),
            _ => same,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_claimed_by_the_address_it_is_bound_to() {
        let parse =
            |addresses: &[&str]| addresses.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        for (wanted, bound, expected) in [
            (&["127.0.0.1:1"][..], &["127.0.0.1:1"][..], &[Some(0)][..]),
            (&["127.0.0.1:1", "[::1]:1"], &["[::1]:1", "127.0.0.1:1"], &[Some(1), Some(0)]),
            (&["127.0.0.1:1"], &["127.0.0.1:2", "127.0.0.2:1", "0.0.0.0:1"], &[None]),
            (&["127.0.0.1:1", "127.0.0.1:1"], &["127.0.0.1:1"], &[Some(0), None]),
            (&["127.0.0.1:0", "127.0.0.1:1"], &["127.0.0.1:1", "127.0.0.1:2"], &[Some(1), Some(0)]),
            (&["127.0.0.1:0"], &["[::1]:1", "0.0.0.0:1"], &[None]),
            (&["127.0.0.1:1"], &[], &[None]),
        ] {
            assert_eq!(fitting(&parse(wanted), &parse(bound)), expected, "{wanted:?} of {bound:?}");
        }
    }
}
