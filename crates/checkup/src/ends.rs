//! This knows which certificates end so soon that somebody has to do something.

use std::time::{Duration, SystemTime};

use crate::Finding;

/// A certificate that ends within this time wants renewing.
const SOON: Duration = Duration::from_secs(30 * DAY);

const DAY: u64 = 24 * 60 * 60;

/// A line for each certificate that ends soon or has ended, each by what people call it and its end; where none does, one
/// line for all of them.
pub fn ends(
    what: &'static str,
    certificates: impl IntoIterator<Item = (String, SystemTime)>,
    now: SystemTime,
    remedy: &str,
) -> Vec<Finding> {
    let mut all: Vec<_> = certificates.into_iter().collect();
    all.sort_unstable_by(|(name, ends), (other, other_ends)| (ends, name).cmp(&(other_ends, other)));
    let judged = all.iter().filter_map(|(name, ends)| {
        let date = httpdate::fmt_http_date(*ends);
        match ends.duration_since(now) {
            Err(_) => Some(Finding::fail(what, format!("{name} has ended: {date}"), remedy)),
            Ok(left) if left < SOON => {
                let days = left.as_secs() / DAY;
                Some(Finding::warn(what, format!("{name} ends in {days} days: {date}"), remedy))
            }
            Ok(_) => None,
        }
    });
    let judged: Vec<_> = judged.collect();
    match all.first() {
        Some((name, ends)) if judged.is_empty() => {
            let date = httpdate::fmt_http_date(*ends);
            vec![Finding::ok(what, format!("{} of them, the first to end is {name}: {date}", all.len()))]
        }
        _ => judged,
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn what_ends_soon_is_named_the_first_one_first() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let days = |days: u64| now + Duration::from_secs(days * DAY);
        let told = |all: &[(&str, SystemTime)]| {
            let all = all.iter().map(|(name, ends)| ((*name).to_owned(), *ends));
            ends("CAs", all, now, "renew it").iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(told(&[]).is_empty());
        assert_eq!(
            told(&[("b", days(400)), ("a", days(30))]),
            ["OK    CAs: 2 of them, the first to end is a: Sun, 14 Feb 2027 08:00:00 GMT"]
        );
        assert_eq!(
            told(&[
                ("later", days(400)),
                ("soon", days(30) - Duration::from_secs(1)),
                ("past", now - Duration::from_secs(1))
            ]),
            [
                "FAIL  CAs: past has ended: Fri, 15 Jan 2027 07:59:59 GMT; renew it",
                "WARN  CAs: soon ends in 29 days: Sun, 14 Feb 2027 07:59:59 GMT; renew it",
            ]
        );
        // It counts until its last second is over (RFC 5280, section 4.1.2.5).
        assert_eq!(told(&[("now", now)])[0].split(' ').next(), Some("WARN"));
    }
}
