//! This knows how to tell systemd of a service's life: the datagrams of `sd_notify(3)`.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// The service manager that waits to be told.
#[derive(Debug)]
pub struct Notify {
    socket: UnixDatagram,
    watchdog: Option<Duration>,
}

impl Notify {
    /// The service manager that started this process, by its environment. None where none did, as with Kong's own plugin
    /// servers, and where it cannot be reached: a service does its work all the same.
    pub fn from_env() -> Option<Self> {
        let var = |name| std::env::var(name).ok();
        let address = var("NOTIFY_SOCKET")?;
        match connect(&address) {
            Ok(socket) => {
                let watchdog = watchdog(var("WATCHDOG_USEC"), var("WATCHDOG_PID"), std::process::id());
                Some(Self { socket, watchdog })
            }
            Err(error) => {
                tracing::warn!(%error, address, "the service manager cannot be told anything");
                None
            }
        }
    }

    /// After how long without [`Self::alive`] the service manager takes the service for hung, where it does.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The service serves.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The service runs on.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// The service is about to end.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// It may be lost where the service manager is not reading: nobody here waits for it.
    fn send(&self, state: &str) {
        if let Err(error) = self.socket.send(state.as_bytes()) {
            tracing::debug!(%error, state, "the service manager was not told");
        }
    }
}

fn connect(address: &str) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match address.strip_prefix('@') {
        None => socket.connect(address)?,
        Some(name) => connect_abstract(&socket, name)?,
    }
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn connect_abstract(socket: &UnixDatagram, name: &str) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    socket.connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)
}

#[cfg(not(target_os = "linux"))]
fn connect_abstract(_: &UnixDatagram, _: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// `sd_watchdog_enabled(3)`: the time is for the process that is named, and for any where none is.
fn watchdog(usec: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    let usec: u64 = usec?.parse().ok()?;
    let is_meant = pid.is_none_or(|pid| pid.parse() == Ok(own));
    (is_meant && usec > 0).then(|| Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_for_who_is_named() {
        let text = |text: &str| Some(text.to_owned());
        for (usec, pid, expected) in [
            (text("30000000"), None, Some(Duration::from_secs(30))),
            (text("30000000"), text("7"), Some(Duration::from_secs(30))),
            (text("30000000"), text("8"), None),
            (text("30000000"), text("x"), None),
            (text("0"), None, None),
            (text("x"), None, None),
            (None, text("7"), None),
        ] {
            assert_eq!(watchdog(usec.clone(), pid.clone(), 7), expected, "{usec:?} {pid:?}");
        }
    }

    #[test]
    fn the_service_manager_is_told_at_a_path_or_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let at_path = UnixDatagram::bind(&path).unwrap();
        check(&at_path, path.to_str().unwrap());
        #[cfg(target_os = "linux")]
        {
            use std::os::linux::net::SocketAddrExt;
            let name = format!("telemetry-{}", path.display());
            let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
            check(&UnixDatagram::bind_addr(&address).unwrap(), &format!("@{name}"));
        }
    }

    fn check(manager: &UnixDatagram, address: &str) {
        let notify = Notify { socket: connect(address).unwrap(), watchdog: None };
        let told = || {
            let mut datagram = [0; 64];
            let length = manager.recv(&mut datagram).unwrap();
            String::from_utf8(datagram[..length].to_vec()).unwrap()
        };
        notify.ready();
        notify.alive();
        notify.stopping();
        assert_eq!([told(), told(), told()], ["READY=1", "WATCHDOG=1", "STOPPING=1"]);
    }
}
