//! This knows whom to ask about a certificate, in which order, and for how long to wait for it.
//!
//! OCSP comes before CRLs, for it is newer; a CRL is asked for where no responder has an answer. CRLs in files are looked at
//! first, as is what is remembered: whatever says "revoked" counts, at once and whatever others would say.

mod counters;
mod crls;
mod flights;
mod life;
mod local;
mod outside;
mod responders;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use telemetry::Histogram;
use tokio::time::Instant;

use self::counters::Counters;
use self::crls::{Crls, Held};
use self::flights::Lost;
use self::local::LocalCrls;
use self::outside::Outside;
use self::responders::Responders;
use crate::crl::{self, Crl};
use crate::{DistributionPoint, Finding, Link, Said, Source, Standing, Trouble, fetch};

pub use self::local::paths as crl_files;

/// So many responders, and so many distribution points, of one certificate are asked.
const MAX_PLACES: usize = 4;

/// Something that may be newer is asked for in the background no more often than this, while it cannot be had.
const RETRY: Duration = Duration::from_secs(5);

/// How long a delta CRL is waited for: the complete one counts without it.
const DELTA_PATIENCE: Duration = Duration::from_secs(1);

/// How often it is looked for CRLs whose time is running out.
const SWEEP: Duration = Duration::from_secs(10);

/// What holds for all instances.
#[derive(Clone, Debug)]
pub struct Options {
    /// How what URLs lead to is fetched.
    pub fetch: fetch::Options,
    /// A file of CRLs, in PEM or DER, or a folder of such files.
    pub crl_path: Option<PathBuf>,
    /// For how long after its nextUpdate a CRL still counts while no newer one can be had.
    pub max_stale: Duration,
    /// How many bytes CRLs and answers may take together: a quarter each for CRLs in files and for answers, the rest for
    /// CRLs that were fetched.
    pub memory: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fetch: fetch::Options::default(),
            crl_path: None,
            max_stale: Duration::from_secs(3600),
            memory: 256 << 20,
        }
    }
}

/// How one plugin instance asks (`mtls-auth.md`).
#[derive(Clone, Debug)]
pub struct Terms {
    /// How it fetches.
    pub settings: Arc<fetch::Settings>,
    /// `cert_cache_ttl`: for how long at most an answer counts that says that a certificate has not been revoked.
    pub ttl: Duration,
}

/// What is remembered, and how it came about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How often a source (the first) gave a result (the second).
    pub checks: Vec<(&'static str, &'static str, u64)>,
    /// OCSP answers that are remembered.
    pub answers: u64,
    /// CRLs that are remembered.
    pub crls: u64,
    /// Their entries.
    pub crl_entries: u64,
    /// The bytes that they take.
    pub crl_bytes: u64,
    /// CRLs from files.
    pub local_crls: u64,
    /// Servers that are left alone, since they have failed.
    pub left_alone: u64,
}

/// Asks whether certificates have been revoked. Clones remember together.
#[derive(Clone, Debug)]
pub struct Checker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    outside: Arc<Outside>,
    responders: Arc<Responders>,
    crls: Arc<Crls>,
    local: Option<LocalCrls>,
    max_stale: Duration,
    counters: Counters,
}

impl Checker {
    /// Prepares; nothing is asked yet. Inside a tokio runtime, which keeps CRLs that are in use fresh.
    ///
    /// # Errors
    /// A file that the options name cannot be used.
    pub fn new(options: Options) -> Result<Self, String> {
        let outside = Outside::new(options.fetch.clone())?;
        Self::with(outside, options)
    }

    fn with(outside: Outside, options: Options) -> Result<Self, String> {
        let outside = Arc::new(outside);
        let quarter = options.memory / 4;
        let crls = Arc::new(Crls::new(Arc::clone(&outside), 2 * quarter, options.max_stale));
        tokio::spawn(sweep(Arc::downgrade(&crls)));
        Ok(Self(Arc::new(Inner {
            responders: Arc::new(Responders::new(Arc::clone(&outside), quarter)),
            crls,
            local: options.crl_path.map(|path| LocalCrls::read(path, quarter)).transpose()?,
            outside,
            max_stale: options.max_stale,
            counters: Counters::default(),
        })))
    }

    /// What can be found out about these certificates until the deadline; one finding for each, in their order.
    pub async fn check(&self, links: &[&Arc<Link>], terms: &Terms, deadline: Instant) -> Vec<Finding> {
        // At once, so that none uses up the time of the others.
        let findings = all(links.iter().map(|link| self.0.examine(link, terms, deadline))).await;
        for said in findings.iter().flat_map(|finding| &finding.said) {
            self.0.counters.count(said);
        }
        findings
    }

    /// Reads the CRLs in files again. Of a file that cannot be used, what was read of it before stays. It blocks.
    ///
    /// # Errors
    /// Which files cannot be used, and why.
    pub fn read_local_crls(&self) -> Result<(), String> {
        self.0.local.as_ref().map_or(Ok(()), LocalCrls::read_again)
    }

    /// How long fetches took.
    pub fn fetch_times(&self) -> &Histogram {
        &self.0.outside.times
    }

    /// What is remembered, and how it came about.
    pub fn counts(&self) -> Counts {
        let size = self.0.crls.size();
        Counts {
            checks: self.0.counters.all(),
            answers: self.0.responders.count(),
            crls: size.crls,
            crl_entries: size.entries,
            crl_bytes: size.bytes,
            local_crls: self.0.local.as_ref().map_or(0, LocalCrls::count) as u64,
            left_alone: self.0.outside.left_alone() as u64,
        }
    }
}

/// Keeps CRLs fresh for as long as somebody has the checker.
async fn sweep(crls: Weak<Crls>) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        ticks.tick().await;
        match crls.upgrade() {
            Some(crls) => crls.sweep(),
            None => return,
        }
    }
}

/// A complete CRL that may say something of a certificate, and what goes with it.
struct Candidate<'a> {
    source: Source,
    place: Arc<str>,
    point: Option<&'a DistributionPoint>,
    complete: Arc<Crl>,
    deltas: Vec<Arc<Crl>>,
}

impl Inner {
    async fn examine(&self, link: &Arc<Link>, terms: &Terms, deadline: Instant) -> Finding {
        let (mut candidates, local) = self.look_into_files(link).await;
        let known = local.iter().cloned().chain(self.remembered(link, terms));
        if let Some(revoked) = known.into_iter().find(is_revoked) {
            return Finding { said: vec![revoked] };
        }
        let mut finding = Finding::default();
        if !link.ocsp_urls.is_empty() {
            finding.said = self.responders.ask(link, terms, deadline).await;
        }
        if is_settled(&finding) {
            return finding;
        }
        finding.said.extend(local);
        for point in link.distribution_points.iter().take(MAX_PLACES) {
            if is_settled(&finding) {
                return finding;
            }
            match self.at_point(point, link, terms, deadline).await {
                Ok(candidate) => {
                    finding.said.push(self.read(link, std::slice::from_ref(&candidate)));
                    candidates.push(candidate);
                }
                Err(said) => finding.said.extend(said),
            }
        }
        // Each about some reasons of revocation only, they may be about all of them together.
        if !is_settled(&finding) && candidates.len() > 1 {
            let together = self.read(link, &candidates);
            finding.said.extend(Some(together).filter(|said| said.result.is_ok()));
        }
        finding
    }

    /// What is remembered of a certificate without asking anybody.
    fn remembered<'a>(&'a self, link: &'a Link, terms: &'a Terms) -> impl Iterator<Item = Said> + 'a {
        let crl = |url: &str| Some(Arc::clone(&self.crls.remembered(url, &link.issuer, terms)?.crl));
        let said = move |point: &DistributionPoint, url: &str| {
            let complete = crl(url)?;
            // Without its delta CRLs it may say "revoked" of what is no longer on hold.
            let deltas = link.freshest_points.iter().chain(complete.freshest_points()).flat_map(places);
            let deltas = deltas.map(crl).collect::<Option<Vec<_>>>()?;
            let (source, place) = (Source::Crl, url.into());
            Some(self.read(link, &[Candidate { source, place, point: Some(point), complete, deltas }]))
        };
        let points = link.distribution_points.iter().filter(|point| !point.is_indirect).take(MAX_PLACES);
        let crls = points.flat_map(move |point| places(point).filter_map(move |url| said(point, url)));
        self.responders.remembered(link, terms).into_iter().chain(crls)
    }

    /// CRLs of its issuer's name in files, and what each of them says.
    async fn look_into_files(&self, link: &Arc<Link>) -> (Vec<Candidate<'static>>, Vec<Said>) {
        let mut said = Vec::new();
        let (mut complete, mut deltas) = (Vec::new(), Vec::new());
        for local in self.local.iter().flat_map(|local| local.of(&link.issuer)) {
            match local.of(&link.issuer).await {
                Ok(crl) if crl.is_delta() => deltas.push(crl),
                Ok(crl) => complete.push((Arc::clone(&local.place), crl)),
                Err(trouble) => said.push(Said {
                    source: Source::LocalCrl,
                    place: Arc::clone(&local.place),
                    result: Err(trouble),
                }),
            }
        }
        let candidate = |(place, complete)| Candidate {
            source: Source::LocalCrl,
            place,
            point: None,
            complete,
            deltas: deltas.clone(),
        };
        let candidates: Vec<Candidate<'static>> = complete.into_iter().map(candidate).collect();
        said.extend(candidates.iter().map(|candidate| self.read(link, std::slice::from_ref(candidate))));
        (candidates, said)
    }

    /// The CRL of a distribution point, from the first of its places that has one.
    ///
    /// # Errors
    /// What is wrong with each of them.
    async fn at_point<'a>(
        &self,
        point: &'a DistributionPoint,
        link: &Link,
        terms: &Terms,
        deadline: Instant,
    ) -> Result<Candidate<'a>, Vec<Said>> {
        let trouble =
            |place: &str, trouble| Said { source: Source::Crl, place: place.into(), result: Err(trouble) };
        if point.is_indirect {
            let place = point.uris().next().unwrap_or_default();
            return Err(vec![trouble(place, Trouble::NotCovered("its CRL is another issuer's"))]);
        }
        let mut troubles = Vec::new();
        for url in places(point) {
            match self.crls.find(url, &link.issuer, terms, deadline).await {
                Ok(held) => {
                    let deltas = self.deltas(link, &held, terms, deadline).await;
                    let complete = Arc::clone(&held.crl);
                    let (source, place) = (Source::Crl, url.into());
                    return Ok(Candidate { source, place, point: Some(point), complete, deltas });
                }
                Err(error) => troubles.push(trouble(url, error)),
            }
        }
        if troubles.is_empty() {
            troubles.push(trouble("", Trouble::NotCovered("the place of its CRL is no URL")));
        }
        Err(troubles)
    }

    /// The delta CRLs that go with a complete one, as far as they can be had soon.
    async fn deltas(&self, link: &Link, held: &Held, terms: &Terms, deadline: Instant) -> Vec<Arc<Crl>> {
        let patience = deadline.min(Instant::now() + DELTA_PATIENCE);
        let points = link.freshest_points.iter().chain(held.crl.freshest_points());
        let mut deltas = Vec::new();
        for url in points.flat_map(places).take(MAX_PLACES) {
            match self.crls.find(url, &link.issuer, terms, patience).await {
                Ok(delta) => deltas.push(Arc::clone(&delta.crl)),
                Err(trouble) => {
                    let said = Said { source: Source::Crl, place: url.into(), result: Err(trouble) };
                    self.counters.count(&said);
                }
            }
        }
        deltas
    }

    fn read(&self, link: &Link, candidates: &[Candidate<'_>]) -> Said {
        let deltas: Vec<Vec<&Crl>> =
            candidates.iter().map(|candidate| candidate.deltas.iter().map(Arc::as_ref).collect()).collect();
        let sources: Vec<crl::Source<'_>> = candidates
            .iter()
            .zip(&deltas)
            .map(|(candidate, deltas)| crl::Source {
                point: candidate.point,
                complete: &candidate.complete,
                deltas,
            })
            .collect();
        let verdict = crl::status(link, &sources, self.outside.now(), self.max_stale);
        for trouble in verdict.deltas_left_out {
            tracing::debug!(code = trouble.code(), %trouble, "a delta CRL does not count");
        }
        let source = candidates.first().map_or(Source::Crl, |candidate| candidate.source);
        let places: Vec<&str> = candidates.iter().map(|candidate| &*candidate.place).collect();
        Said { source, place: places.join(" and ").into(), result: verdict.answer }
    }
}

/// The URLs of a point that can be asked; where there is none, whatever URLs it has, so that it is told why not.
fn places(point: &DistributionPoint) -> impl Iterator<Item = &str> {
    let is_http = |url: &&str| {
        let scheme = url.split(':').next().unwrap_or_default();
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
    };
    let any = point.uris().any(|url| is_http(&url));
    point.uris().filter(move |url| !any || is_http(url)).take(MAX_PLACES)
}

fn is_revoked(said: &Said) -> bool {
    said.result.as_ref().is_ok_and(|answer| matches!(answer.status, crate::Status::Revoked { .. }))
}

fn is_settled(finding: &Finding) -> bool {
    matches!(finding.standing(), Standing::Good | Standing::Revoked(..))
}

impl Lost {
    /// What whoever has waited is told.
    fn trouble(self) -> Trouble {
        match self {
            Self::Late(after) => Trouble::TimedOut(after),
            Self::Crashed => Trouble::Malformed("reading it ended in a fault of ours".to_owned()),
        }
    }
}

/// When something was last asked for beforehand.
#[derive(Debug, Default)]
struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// Whether to ask now.
    fn may_try(&self) -> bool {
        let now = Instant::now();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| now.saturating_duration_since(last) < RETRY) {
            return false;
        }
        *last = Some(now);
        true
    }
}

/// What futures give that run at once.
async fn all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut is_pending = false;
        for (future, done) in running.iter_mut().filter(|(_, done)| done.is_none()) {
            match Pin::as_mut(future).poll(context) {
                Poll::Ready(value) => *done = Some(value),
                Poll::Pending => is_pending = true,
            }
        }
        if is_pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    running.into_iter().filter_map(|(_, done)| done).collect()
}
