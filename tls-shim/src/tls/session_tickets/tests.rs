use super::*;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// Some hour, at its beginning.
fn hour(number: u32) -> SystemTime {
    UNIX_EPOCH + HOUR * (480_000 + number)
}

fn on(key_file: Option<&std::path::Path>) -> TicketSettings {
    TicketSettings { lifetime: HOUR, key_file: key_file.map(Into::into) }
}

fn own() -> SessionTickets {
    SessionTickets::new(&on(None)).unwrap()
}

fn policy(name: &str) -> Policy {
    Policy::new(&ServerName::from_wire(Some(name.as_bytes())), true, &[1; 32], &[2; 32], "tls")
}

fn opens(tickets: &SessionTickets, key: &TicketKey, policy: &Policy, now: SystemTime) -> Option<bool> {
    tickets.opens(policy, &key.name, now).map(|(found, is_old)| {
        assert!(found.cipher == key.cipher && found.mac == key.mac);
        is_old
    })
}

#[test]
fn a_policy_is_another_where_anything_of_it_is() {
    let name = |name: &[u8]| ServerName::from_wire(Some(name));
    let original = Policy::new(&name(b"a.example"), true, &[1; 32], &[2; 32], "tls");
    assert_eq!(original, Policy::new(&name(b"A.example."), true, &[1; 32], &[2; 32], "tls"));
    for other in [
        Policy::new(&name(b"b.example"), true, &[1; 32], &[2; 32], "tls"),
        Policy::new(&ServerName::Undecidable("a.example".into()), true, &[1; 32], &[2; 32], "tls"),
        Policy::new(&name(b"a.example"), false, &[1; 32], &[2; 32], "tls"),
        Policy::new(&name(b"a.example"), true, &[2; 32], &[2; 32], "tls"),
        Policy::new(&name(b"a.example"), true, &[1; 32], &[1; 32], "tls"),
        Policy::new(&name(b"a.example"), true, &[1; 32], &[2; 32], "other"),
        Policy::new(&ServerName::None, true, &[1; 32], &[2; 32], "tls"),
    ] {
        assert_ne!(original, other);
    }
    let empty = Policy::new(&name(b""), true, &[1; 32], &[2; 32], "tls");
    assert_ne!(empty, Policy::new(&ServerName::None, true, &[1; 32], &[2; 32], "tls"));
}

#[test]
fn a_ticket_opens_under_its_policy_only() {
    let tickets = own();
    let key = tickets.seals(&policy("a.example"), hour(0)).unwrap();
    assert_eq!(opens(&tickets, &key, &policy("a.example"), hour(0)), Some(false));
    assert_eq!(opens(&tickets, &key, &policy("b.example"), hour(0)), None);
    let other = tickets.seals(&policy("b.example"), hour(0)).unwrap();
    assert!(key.name != other.name && key.cipher != other.cipher && key.mac != other.mac);
    assert!(key.cipher != key.mac && key.cipher[..NAME_BYTES] != key.name);
}

#[test]
fn keys_rotate_and_those_of_the_span_before_still_open() {
    let tickets = own();
    let policy = policy("a.example");
    let last = |hours| hour(hours) + HOUR - Duration::from_secs(1);
    let first = tickets.seals(&policy, hour(0)).unwrap();
    assert!(tickets.seals(&policy, last(0)).unwrap().name == first.name);
    let second = tickets.seals(&policy, hour(1)).unwrap();
    assert!(first.name != second.name && first.cipher != second.cipher);
    assert_eq!(opens(&tickets, &first, &policy, last(0)), Some(false));
    assert_eq!(opens(&tickets, &first, &policy, last(1)), Some(true));
    assert_eq!(opens(&tickets, &second, &policy, hour(1)), Some(false));
    assert_eq!(opens(&tickets, &first, &policy, hour(2)), None);
    // It is not even known any more.
    tickets.seals(&policy, hour(3)).unwrap();
    assert_eq!(opens(&tickets, &first, &policy, hour(1)), None);
    // Another shim knows none of them.
    assert_eq!(opens(&own(), &first, &policy, hour(0)), None);
}

#[test]
fn shims_share_secrets_by_a_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tickets.key");
    let [old, new] =
        ["AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="];
    let write = |secrets: &[&str]| {
        std::fs::write(&path, secrets.join("\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let policy = policy("a.example");
    write(&[old]);
    let here = SessionTickets::new(&on(Some(&path))).unwrap();
    write(&[old, new]);
    let there = SessionTickets::new(&on(Some(&path))).unwrap();
    let key = here.seals(&policy, hour(0)).unwrap();
    assert_eq!(opens(&there, &key, &policy, hour(0)), Some(false));
    assert_eq!(opens(&there, &key, &policy, hour(1)), Some(true));
    assert_eq!(opens(&there, &key, &policy, hour(2)), None);
    // The clock there is behind.
    let ahead = here.seals(&policy, hour(1)).unwrap();
    assert_eq!(opens(&there, &ahead, &policy, hour(0)), Some(true));

    write(&[new, old]);
    let next = there.next(&on(Some(&path))).unwrap().unwrap();
    assert_eq!(opens(&next, &key, &policy, hour(0)), Some(true));
    assert_eq!(opens(&there, &next.seals(&policy, hour(0)).unwrap(), &policy, hour(0)), Some(true));
    assert_eq!(opens(&here, &next.seals(&policy, hour(0)).unwrap(), &policy, hour(0)), None);

    assert!(next.next(&on(Some(&path))).unwrap().is_none());
    let shorter = TicketSettings { lifetime: HOUR / 2, ..on(Some(&path)) };
    assert!(next.next(&shorter).unwrap().is_some());
    write(&["nonsense"]);
    assert!(next.next(&on(Some(&path))).is_err() && SessionTickets::new(&on(Some(&path))).is_err());
}

#[test]
fn secrets_of_its_own_stay_over_a_reload() {
    let tickets = own();
    let key = tickets.seals(&policy("a.example"), hour(0)).unwrap();
    assert!(tickets.next(&on(None)).unwrap().is_none());
    // Spans are others, and so are the keys.
    let longer = TicketSettings { lifetime: HOUR * 2, key_file: None };
    let next = tickets.next(&longer).unwrap().unwrap();
    assert_eq!(opens(&next, &key, &policy("a.example"), hour(0)), None);
}

#[test]
fn a_session_ends_with_its_time_or_its_certificate() {
    let tickets = own();
    let second = Duration::from_secs(1);
    let proven = hour(0);
    let remaining = |leaf, now| tickets.remaining(proven, leaf, now);
    assert_eq!(remaining(None, proven), Some(HOUR));
    assert_eq!(remaining(None, proven + HOUR - second), Some(second));
    assert_eq!(remaining(None, proven + HOUR), None);
    assert_eq!(remaining(Some(proven + HOUR * 9), proven + HOUR), None);
    assert_eq!(remaining(Some(proven + second * 9), proven + second), Some(second * 8));
    assert_eq!(remaining(Some(proven + second * 9), proven + second * 9), None);
    assert_eq!(remaining(Some(proven - second), proven), None);
    // Clocks may differ by a little.
    assert_eq!(remaining(None, proven - CLOCK_SKEW), Some(HOUR));
    assert_eq!(remaining(None, proven - CLOCK_SKEW - second), None);
}
