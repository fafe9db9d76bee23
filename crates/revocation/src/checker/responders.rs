//! This knows what OCSP responders say, and remembers it.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use moka::ops::compute::Op;
use tokio::time::Instant;

use super::flights::{Flight, Flights};
use super::life::{self, Life};
use super::outside::Outside;
use super::{MAX_PLACES, Pace, Terms};
use crate::fetch::{Query, Settings};
use crate::ocsp::{MAX_RESPONSE, Question, REQUEST_TYPE};
use crate::{Answer, Link, Said, Source, Status, Trouble};

/// What a remembered answer takes beside its key and its place, in bytes.
const OVERHEAD: usize = 384;

/// Responders, and what they have said.
#[derive(Debug)]
pub(super) struct Responders {
    outside: Arc<Outside>,
    held: moka::sync::Cache<Key, Arc<Held>>,
    /// What one instance sets makes no other's fail: two with different settings fly apart, and share what they bring.
    flights: Flights<(Key, Arc<Settings>), Vec<Said>>,
}

/// A certificate, as responders know it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    issuer: [u8; 32],
    serial: Box<[u8]>,
}

impl Key {
    fn of(link: &Link) -> Self {
        Self { issuer: link.issuer.digest, serial: link.serial.as_slice().into() }
    }
}

/// An answer that was verified.
#[derive(Debug)]
struct Held {
    answer: Answer,
    place: Arc<str>,
    fetched: SystemTime,
    pace: Pace,
}

impl Held {
    fn said(&self) -> Said {
        Said { source: Source::Ocsp, place: Arc::clone(&self.place), result: Ok(self.answer) }
    }

    fn life(&self, terms: &Terms, now: SystemTime) -> Life {
        life::of_answer(&self.answer, self.fetched, terms.ttl, now)
    }
}

impl Responders {
    pub(super) fn new(outside: Arc<Outside>, memory: u64) -> Self {
        let weigh = |key: &Key, held: &Arc<Held>| {
            u32::try_from(OVERHEAD + key.serial.len() + held.place.len()).unwrap_or(u32::MAX)
        };
        let held = moka::sync::Cache::builder()
            .max_capacity(memory)
            .weigher(weigh)
            // What is new is always taken: one that is not would be asked for with each request.
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .build();
        Self { outside, held, flights: Flights::default() }
    }

    /// How many answers are remembered.
    pub(super) fn count(&self) -> u64 {
        self.held.entry_count()
    }

    /// What is remembered of a certificate, if it still counts.
    pub(super) fn remembered(&self, link: &Link, terms: &Terms) -> Option<Said> {
        let held = self.held.get(&Key::of(link))?;
        (held.life(terms, self.outside.now()) != Life::Over).then(|| held.said())
    }

    /// What is said of a certificate: what is remembered, or what the responders that it names say until the deadline. At
    /// least one of them says something, or why not.
    pub(super) async fn ask(
        self: &Arc<Self>,
        link: &Arc<Link>,
        terms: &Terms,
        deadline: Instant,
    ) -> Vec<Said> {
        let key = Key::of(link);
        if let Some(held) = self.held.get(&key) {
            let life = held.life(terms, self.outside.now());
            if life != Life::Over {
                if life == Life::Ageing && held.pace.may_try() {
                    // Nobody waits for it.
                    drop(self.begin(key, link, terms));
                }
                return vec![held.said()];
            }
        }
        match self.begin(key, link, terms).land(deadline).await {
            Ok(said) => said,
            Err(lost) => {
                let place = link.ocsp_urls.first().map_or("", String::as_str).into();
                vec![Said { source: Source::Ocsp, place, result: Err(lost.trouble()) }]
            }
        }
    }

    fn begin(self: &Arc<Self>, key: Key, link: &Arc<Link>, terms: &Terms) -> Flight<Vec<Said>> {
        self.flights.join((key.clone(), Arc::clone(&terms.settings)), || {
            let (responders, link, terms) = (Arc::clone(self), Arc::clone(link), terms.clone());
            async move { responders.fly(key, &link, &terms).await }
        })
    }

    /// Asks one responder after the other, until one knows the certificate.
    async fn fly(&self, key: Key, link: &Link, terms: &Terms) -> Vec<Said> {
        let mut all = Vec::new();
        for url in link.ocsp_urls.iter().take(MAX_PLACES) {
            let result = self.ask_one(url, link, &terms.settings).await;
            let mut said = Said { source: Source::Ocsp, place: url.as_str().into(), result };
            match &said.result {
                Ok(answer) => said = self.keep(&key, *answer, &said.place, terms),
                Err(trouble) => {
                    tracing::debug!(url, code = trouble.code(), %trouble, "an OCSP responder does not answer");
                }
            }
            let is_known = said.result.as_ref().is_ok_and(|answer| answer.status != Status::Unknown);
            all.push(said);
            if is_known {
                break;
            }
        }
        all
    }

    async fn ask_one(&self, url: &str, link: &Link, settings: &Settings) -> Result<Answer, Trouble> {
        let mut nonce = [0; 32];
        // Without one, an answer would count that somebody has recorded: better none than that without need.
        getrandom::fill(&mut nonce).map_err(|error| Trouble::Unreachable(error.to_string()))?;
        let question = Question::about(link, Some(nonce));
        let post = Some((Bytes::copy_from_slice(question.der()), REQUEST_TYPE));
        let answer = self.read(Query { url, post, max_bytes: MAX_RESPONSE }, &question, link, settings).await;
        match answer {
            Err(trouble) if wants_get(&trouble) => {
                // Such a responder answers with what it has made beforehand, which has no nonce (RFC 5019).
                let question = Question::about(link, None);
                let url = question.url(url);
                let query = Query { url: &url, post: None, max_bytes: MAX_RESPONSE };
                self.read(query, &question, link, settings).await
            }
            answer => answer,
        }
    }

    async fn read(
        &self,
        query: Query<'_>,
        question: &Question,
        link: &Link,
        settings: &Settings,
    ) -> Result<Answer, Trouble> {
        let read = async |response: Bytes| question.read(&response, link, self.outside.now());
        self.outside.fetch(query, settings, read).await
    }

    /// Remembers an answer, and gives the one that counts. An answer from before a revocation that is known, and still
    /// counts, does not undo it: somebody may have recorded it and show it again.
    fn keep(&self, key: &Key, answer: Answer, place: &Arc<str>, terms: &Terms) -> Said {
        let now = self.outside.now();
        let new = Arc::new(Held { answer, place: Arc::clone(place), fetched: now, pace: Pace::default() });
        let mut counts = new.said();
        self.held.entry_by_ref(key).and_compute_with(|old| {
            let old = old.map(moka::Entry::into_value).filter(|old| {
                matches!(old.answer.status, Status::Revoked { .. })
                    && old.answer.this_update > answer.this_update
                    && old.life(terms, now) != Life::Over
            });
            match old {
                Some(old) => {
                    counts = old.said();
                    Op::Nop
                }
                None => Op::Put(Arc::clone(&new)),
            }
        });
        counts
    }
}

/// Whether a responder may answer a GET: it takes no POST, or not what we have sent with it.
fn wants_get(trouble: &Trouble) -> bool {
    match trouble {
        Trouble::HttpStatus(status) => matches!(status, 404 | 405 | 411 | 501),
        Trouble::NotSuccessful(says) => *says == "malformedRequest",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn an_older_answer_does_not_undo_a_revocation_that_counts() {
        let now = SystemTime::now();
        let outside = Outside::made_up(super::super::tests::Answers::default(), move || now);
        let responders = Responders::new(Arc::new(outside), 1 << 20);
        let settings = Settings { timeout: HOUR, http_proxy: None, https_proxy: None, ssl_verify: true };
        let terms = Terms { settings: Arc::new(settings), ttl: HOUR };
        let key = Key { issuer: [7; 32], serial: [1].into() };
        let keep = |status, this_update, next_update| {
            let answer = Answer { status, this_update, next_update: Some(next_update) };
            let said = responders.keep(&key, answer, &"http://ocsp".into(), &terms);
            let held = responders.held.get(&key).unwrap().said();
            assert_eq!(said, held);
            said.code()
        };
        let revoked = Status::Revoked { since: None };
        let second = Duration::from_secs(1);
        assert_eq!(keep(Status::Good, now - 2 * second, now + HOUR), "good");
        assert_eq!(keep(revoked, now - second, now + HOUR), "revoked");
        assert_eq!(keep(Status::Good, now - 2 * second, now + HOUR), "revoked", "a recorded one");
        assert_eq!(keep(Status::Unknown, now - 2 * second, now + HOUR), "revoked");
        // As after certificateHold.
        assert_eq!(keep(Status::Good, now - second, now + HOUR), "good");
        assert_eq!(keep(revoked, now, now), "revoked");
        assert_eq!(keep(Status::Good, now - second, now + HOUR), "good", "its time is over");
    }
}
