mod crls;
mod files;
mod responders;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::SystemTime;

use bytes::Bytes;
use tempfile::TempDir;
use testbed::crl::{full_name, points, tlv};
use testbed::ocsp::{Authority, State};
use testbed::pki::{Ca, Leaf, Subject, naming};

use super::*;
use crate::Issuer;
use crate::fetch::{Query, Settings};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// What a server does with a question.
type Behaviour = Arc<dyn Fn(&Query<'_>) -> (Duration, Result<Vec<u8>, Trouble>) + Send + Sync>;

/// Servers, and what they were asked.
#[derive(Clone, Default)]
pub(super) struct Answers(Arc<Mutex<Servers>>);

#[derive(Default)]
struct Servers {
    /// By the begin of their URLs.
    by_url: HashMap<String, Behaviour>,
    asked: Vec<String>,
}

impl Answers {
    fn set(
        &self,
        url: &str,
        behaviour: impl Fn(&Query<'_>) -> (Duration, Result<Vec<u8>, Trouble>) + Send + Sync + 'static,
    ) {
        self.0.lock().unwrap().by_url.insert(url.to_owned(), Arc::new(behaviour));
    }

    fn fail(&self, url: &str) {
        self.set(url, |_| (Duration::ZERO, Err(Trouble::HttpStatus(503))));
    }

    fn hang(&self, url: &str) {
        self.set(url, |_| (HOUR, Err(Trouble::Unreachable(String::new()))));
    }

    fn give(&self, url: &str, bytes: Vec<u8>) {
        self.set(url, move |_| (Duration::ZERO, Ok(bytes.clone())));
    }

    /// What was asked since the last look: the method, and the URL as it was set.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }

    pub(super) async fn answer(&self, query: &Query<'_>, settings: &Settings) -> Result<Bytes, Trouble> {
        let behaviour = {
            let mut servers = self.0.lock().unwrap();
            let known = servers.by_url.iter().find(|(url, _)| query.url.starts_with(*url));
            let (url, behaviour) =
                known.map(|(url, behaviour)| (url.clone(), Arc::clone(behaviour))).unwrap();
            let method = if query.post.is_some() { "POST" } else { "GET" };
            servers.asked.push(format!("{method} {url}"));
            behaviour
        };
        let (delay, answer) = behaviour(query);
        match tokio::time::timeout(settings.timeout, tokio::time::sleep(delay)).await {
            Ok(()) => answer.map(Bytes::from),
            Err(_) => Err(Trouble::TimedOut(settings.timeout)),
        }
    }
}

/// A CA, what is known of its certificates, and a checker whose clock goes with tokio's.
struct Lab {
    ca: Ca,
    authority: Arc<Mutex<Authority>>,
    servers: Answers,
    checker: Checker,
    terms: Terms,
    begun: Instant,
    dir: TempDir,
    keep: Vec<TempDir>,
}

const OCSP: &str = "http://ocsp.example/";
const CRL: &str = "http://crl.example/ca.crl";
const DELTA: &str = "http://crl.example/delta.crl";

impl Lab {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::root("CA");
        std::fs::create_dir(dir.path().join("ocsp")).unwrap();
        let authority = Arc::new(Mutex::new(Authority::new(&dir.path().join("ocsp"), &ca)));
        let servers = Answers::default();
        let mut options = Options::default();
        change(&mut options);
        let (base, begun) = (SystemTime::now(), Instant::now());
        let outside = Outside::made_up(servers.clone(), move || base + begun.elapsed());
        let checker = Checker::with(outside, options).unwrap();
        let terms = terms(30 * SECOND, HOUR);
        Self { ca, authority, servers, checker, terms, begun, dir, keep: Vec::new() }
    }

    /// The time, as the checker sees it.
    fn now(&self) -> SystemTime {
        self.checker.0.outside.now()
    }

    /// The name of the CA, in DER.
    fn ca_name(&self) -> Vec<u8> {
        Issuer::from_der(&self.ca.der()).unwrap().name
    }

    /// A certificate that names these, and is good as far as the responder knows.
    fn leaf(&self, ocsp: &[&str], crls: &[&str]) -> (Leaf, Arc<Link>) {
        let leaf = self.ca.issue(naming(Subject::client("alice"), ocsp, crls));
        self.authority.lock().unwrap().set(&leaf, State::Valid);
        let link = link(&self.ca, &leaf.der);
        (leaf, link)
    }

    fn set(&self, leaf: &Leaf, state: State) {
        self.authority.lock().unwrap().set(leaf, state);
    }

    /// Has a responder answer by `openssl ocsp`, after a while. Its answers are those of the moment when the test began.
    fn respond(&self, url: &str, delay: Duration, arguments: &'static [&'static str]) {
        let authority = Arc::clone(&self.authority);
        self.servers.set(url, move |query| {
            let (request, _) = query.post.clone().unwrap();
            (delay, Ok(authority.lock().unwrap().answer(&request, arguments)))
        });
    }

    async fn check(&self, link: &Arc<Link>) -> Finding {
        self.check_within(link, &self.terms, 4 * SECOND).await
    }

    async fn check_within(&self, link: &Arc<Link>, terms: &Terms, patience: Duration) -> Finding {
        self.checker.check(&[link], terms, Instant::now() + patience).await.remove(0)
    }

    /// What each source says, by its code.
    async fn codes(&self, link: &Arc<Link>) -> Vec<&'static str> {
        codes(&self.check(link).await)
    }

    /// Waits until nothing is left to do but to wait for a time.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn codes(finding: &Finding) -> Vec<&'static str> {
    finding.said.iter().map(Said::code).collect()
}

fn terms(timeout: Duration, ttl: Duration) -> Terms {
    let settings = Settings { timeout, http_proxy: None, https_proxy: None, ssl_verify: true };
    Terms { settings: Arc::new(settings), ttl }
}

fn link(ca: &Ca, der: &[u8]) -> Arc<Link> {
    Arc::new(Link::from_der(der, Arc::new(Issuer::from_der(&ca.der()).unwrap())).unwrap())
}

#[tokio::test(start_paused = true)]
async fn certificates_of_a_chain_share_one_deadline() {
    let lab = Lab::new();
    lab.servers.hang(OCSP);
    lab.servers.hang(CRL);
    let (_, one) = lab.leaf(&[OCSP], &[CRL]);
    let (_, other) = lab.leaf(&[], &[CRL]);
    let (_, none) = lab.leaf(&[], &[]);
    let links = [&one, &other, &none];
    let findings = lab.checker.check(&links, &lab.terms, Instant::now() + 4 * SECOND).await;
    assert!(lab.begun.elapsed() < 4 * SECOND + SECOND / 10, "{:?}", lab.begun.elapsed());
    let codes: Vec<_> = findings.iter().map(codes).collect();
    assert_eq!(codes, [vec!["timed_out", "timed_out"], vec!["timed_out"], vec![]]);
    assert_eq!(findings[2].standing(), Standing::NoSource);
}

#[tokio::test(start_paused = true)]
async fn what_sources_say_is_counted() {
    let lab = Lab::new();
    lab.servers.fail(OCSP);
    lab.servers.give(CRL, crls::empty(&lab).sign(&lab.ca));
    let (_, link) = lab.leaf(&[OCSP], &[CRL]);
    for _ in 0..2 {
        assert_eq!(lab.codes(&link).await, ["http_status", "good"]);
    }
    let counts = lab.checker.counts();
    let counted: Vec<_> = counts.checks.into_iter().filter(|(_, _, count)| *count > 0).collect();
    assert_eq!(counted, [("ocsp", "http_status", 2), ("crl", "good", 2)]);
    assert_eq!((counts.crls, counts.crl_entries), (1, 0));
    assert!(counts.crl_bytes > 0);
}
