//! This knows which of Kong's settings go well with mtls-auth, and which versions of Kong do (`docs/kong-versions.md`).

use client_cert::MAX_HEADER_BYTES;

use crate::Finding;

const VERSION: &str = "Kong's version";
const HEADER_BUFFERS: &str = "header buffers";
const TRUSTED_IPS: &str = "trusted_ips";
const PROXY_LISTEN: &str = "proxy_listen";

/// What nginx has where nobody says anything.
const NGINX_DEFAULT: &str = "4 8k";

/// The bytes of a client's own header that the shim lets through unless set.
const OWN_HEADER_BYTES: usize = 64 * 1024;

/// Major and minor number.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether Kong of this version answers 500 where the plugin server is dead and it speaks ProtoBuf:1.
pub fn fails_closed(version: &str) -> bool {
    release(version).is_some_and(|release| release >= (3, 8))
}

/// What is to be said of a version.
pub fn version(version: &str) -> Finding {
    const SEE: &str = "see docs/kong-versions.md";
    match release(version) {
        Some((3, 9)) => Finding::ok(VERSION, version),
        Some((3, 4 | 7 | 8)) => {
            let finding = format!("{version}: its source was read for mtls-auth, but it was not run");
            Finding::warn(VERSION, finding, format!("{SEE} for what differs from 3.9"))
        }
        Some((3, 5 | 6)) => {
            let finding = format!(
                "{version} cannot be relied on to take over changed CAs, or a restarted plugin server"
            );
            Finding::fail(VERSION, finding, format!("use another version: {SEE}"))
        }
        _ => Finding::warn(VERSION, format!("{version}: nobody has looked at it for mtls-auth"), SEE),
    }
}

/// What is to be said of nginx's `large_client_header_buffers` for Kong's proxy listener, such as `8 64k`. Each line of a
/// header has to fit into one of them, and all lines into all of them.
pub fn header_buffers(set: Option<&str>) -> Finding {
    let shown = set.unwrap_or(NGINX_DEFAULT);
    let default = if set.is_none() { " (nginx's default)" } else { "" };
    let remedy = "write nginx_proxy_large_client_header_buffers = 8 64k into kong.conf";
    match buffers(shown) {
        None => {
            let finding = format!("{shown:?} is no number and size");
            Finding::unseen(HEADER_BUFFERS, finding, remedy)
        }
        Some((_, size)) if size < MAX_HEADER_BYTES => Finding::warn(
            HEADER_BUFFERS,
            format!(
                "{shown}{default}: Kong answers 400 where a client's certificates take more than {size} bytes as a \
                 header, and they may take {MAX_HEADER_BYTES}"
            ),
            remedy,
        ),
        Some((count, size)) if count.saturating_mul(size) < MAX_HEADER_BYTES + OWN_HEADER_BYTES => {
            Finding::warn(
                HEADER_BUFFERS,
                format!("{shown}: too few for a client's certificates beside its own header"),
                remedy,
            )
        }
        Some(_) => Finding::ok(HEADER_BUFFERS, shown),
    }
}

/// Number and size in bytes, as nginx reads them.
fn buffers(text: &str) -> Option<(usize, usize)> {
    let mut words = text.trim().trim_end_matches(';').split_whitespace();
    let (count, size) = (words.next()?.parse().ok()?, words.next()?);
    if words.next().is_some() {
        return None;
    }
    let (digits, unit) = match size.chars().last()? {
        'k' | 'K' => (&size[..size.len() - 1], 1024),
        'm' | 'M' => (&size[..size.len() - 1], 1024 * 1024),
        _ => (size, 1),
    };
    Some((count, digits.parse::<usize>().ok()?.checked_mul(unit)?))
}

/// What is to be said of the addresses from which Kong believes `X-Forwarded-*`.
pub fn trusted_ips(networks: &[String]) -> Finding {
    let everybody = networks.iter().find(|network| network.trim().ends_with("/0"));
    match (networks.is_empty(), everybody) {
        (true, _) => Finding::warn(
            TRUSTED_IPS,
            "empty: Kong takes the shim for every client, and certificate_source: header takes nobody's header",
            "name the shim's address, such as trusted_ips = 127.0.0.1/32,::1/128",
        ),
        (false, Some(network)) => Finding::warn(
            TRUSTED_IPS,
            format!("{network} is everybody: each client may say who it is and what it came by"),
            "name the shim's address alone",
        ),
        (false, None) => Finding::ok(TRUSTED_IPS, networks.join(", ")),
    }
}

/// What is to be said of Kong's proxy listeners, each an address and its flags.
pub fn proxy_listen(listeners: &[String]) -> Finding {
    let open = listeners.iter().find(|listener| {
        let mut words = listener.split_whitespace();
        let address = words.next().unwrap_or_default();
        let is_everywhere =
            ["0.0.0.0:", "[::]:", "[0:0:0:0:0:0:0:0]:", "[0000:0000:0000:0000:0000:0000:0000:0000]:", "*:"]
                .iter()
                .any(|any| address.starts_with(any));
        is_everywhere && !words.any(|flag| flag == "ssl")
    });
    match open {
        Some(open) => Finding::warn(
            PROXY_LISTEN,
            format!("{open:?} is a plain port on every address: who reaches it comes past the shim"),
            "bind it to where only the shim can reach it, such as proxy_listen = 127.0.0.1:8000",
        ),
        None => Finding::ok(PROXY_LISTEN, listeners.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict::{self, Fail, Ok, Warn};

    #[test]
    fn each_version_of_the_table_is_judged_as_it_stands_there() {
        for (number, verdict, closed) in [
            ("3.4.2", Warn, false),
            ("3.5.0", Fail, false),
            ("3.6.1", Fail, false),
            ("3.7.1", Warn, false),
            ("3.8.0", Warn, true),
            ("3.9.1", Ok, true),
            ("3.9.3", Ok, true),
            ("3.10.0.2", Warn, true),
            ("4.0.0", Warn, true),
            ("2.8.5", Warn, false),
            ("", Warn, false),
            ("x.y", Warn, false),
        ] {
            assert_eq!((version(number).verdict, fails_closed(number)), (verdict, closed), "{number}");
        }
        let table = include_str!("../../../docs/kong-versions.md");
        let head = table.lines().find(|line| line.starts_with("| |")).unwrap();
        let listed: Vec<_> = head.split('|').map(str::trim).filter(|cell| cell.starts_with("3.")).collect();
        assert_eq!(
            listed,
            ["3.4", "3.5", "3.6", "3.7", "3.8", "3.9 (to 3.9.3)"],
            "another one is judged here, too"
        );
        assert!(table.contains("**Leave out 3.5 and 3.6.**") && table.contains("**Run for real: 3.9.1.**"));
    }

    #[test]
    fn header_buffers_hold_all_that_the_shim_may_hand_on() {
        for (set, verdict) in [
            (None, Warn),
            (Some("8 64k"), Ok),
            (Some(" 2  65536;"), Ok),
            (Some("2 1M"), Ok),
            (Some("4 63k"), Warn),
            (Some("8 24k"), Warn),
            (Some("1 64k"), Warn),
            (Some("64k"), Warn),
            (Some("8 64k 1"), Warn),
            (Some("8 x"), Warn),
            (Some("99999999999999999999 64k"), Warn),
            (Some("8 99999999999999999999m"), Warn),
            (Some(""), Warn),
        ] {
            let found = header_buffers(set);
            assert_eq!(found.verdict, verdict, "{set:?}: {found}");
            let says = found.remedy.is_some_and(|remedy| remedy.contains("_buffers = 8 64k"));
            assert_eq!(says, verdict == Warn);
        }
        assert!(header_buffers(None).finding.contains("4 8k (nginx's default)"));
    }

    fn judged(judge: fn(&[String]) -> Finding, all: &[&str]) -> Verdict {
        judge(&all.iter().map(|&one| one.to_owned()).collect::<Vec<_>>()).verdict
    }

    #[test]
    fn whom_kong_believes_and_who_reaches_it_is_looked_at() {
        for (networks, verdict) in [
            (&[][..], Warn),
            (&["127.0.0.1/32", "::1/128"], Ok),
            (&["127.0.0.1", "0.0.0.0/0"], Warn),
            (&["::/0"], Warn),
            (&["10.0.0.0/8"], Ok),
        ] {
            assert_eq!(judged(trusted_ips, networks), verdict, "{networks:?}");
        }
        for (listeners, verdict) in [
            (&["127.0.0.1:8000"][..], Ok),
            (&["off"], Ok),
            (&["10.1.2.3:8000 reuseport", "0.0.0.0:8443 http2 ssl"], Ok),
            (&["127.0.0.1:8000", "0.0.0.0:9080 http2"], Warn),
            (&["[::]:8000 reuseport backlog=16384"], Warn),
            (&["unix:/tmp/kong.sock"], Ok),
        ] {
            assert_eq!(judged(proxy_listen, listeners), verdict, "{listeners:?}");
        }
    }
}
