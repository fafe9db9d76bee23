//! This knows how to fetch what a URL in a certificate leads to, and where such a URL must not lead.
//!
//! A fetch fails closed: whatever is not one whole answer with status 200 from the server that the URL names is a [`Trouble`].

mod address;
mod breaker;
mod exchange;
mod servers;
mod url;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use openssl::ssl::SslConnector;
use tokio::time::{Instant, timeout_at};

use self::breaker::Verdict;
use self::exchange::{Reply, Way};
use self::servers::{Place, Servers};
use self::url::Target;
use crate::Trouble;

/// So many redirects are followed.
const MAX_REDIRECTS: usize = 3;

/// How one plugin instance fetches (`mtls-auth.md`: `http_timeout`, `http_proxy_*`, `https_proxy_*`, `ssl_verify`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// For one fetch as a whole: waiting for others, the name's addresses, connections, redirects, the last byte.
    pub timeout: Duration,
    /// Host and port of the forward proxy for `http` URLs. It is told the whole URL (RFC 9112, section 3.2.2).
    pub http_proxy: Option<(String, u16)>,
    /// The same for `https` URLs. It is told host and port (CONNECT), and TLS goes through it.
    pub https_proxy: Option<(String, u16)>,
    /// Whether the server's own certificate must verify.
    pub ssl_verify: bool,
}

impl Settings {
    fn proxy(&self, tls: bool) -> Option<&(String, u16)> {
        if tls { self.https_proxy.as_ref() } else { self.http_proxy.as_ref() }
    }
}

/// What holds for all.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether URLs may lead to loopback, link-local, private and other addresses that are not the internet's, and redirects
    /// to other servers.
    ///
    /// Without it, a name is refused where any of its addresses is one of those. Behind a proxy, which looks names up by
    /// itself, only addresses that stand in the URL, names without a dot and those below `localhost`, `localdomain`, `local`,
    /// `internal` and `home.arpa` are refused; where else the proxy must not lead, its own rules have to say.
    pub allow_private: bool,
    /// PEM file of the only CAs that servers' own certificates may come from; without it those of the system.
    pub ca_file: Option<PathBuf>,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// Whom to ask.
    pub url: &'a str,
    /// The body of a POST and its media type; without it, a GET.
    pub post: Option<(Bytes, &'static str)>,
    /// The most bytes that the answer may have.
    pub max_bytes: usize,
}

/// What is told of each fetch that was begun, at its end: how long it took, and why it came to nothing.
type Observer = dyn Fn(Duration, Option<&Trouble>) + Send + Sync;

/// Fetches.
pub struct Fetcher {
    options: Options,
    connector: SslConnector,
    servers: Servers,
    observer: Option<Box<Observer>>,
}

impl Fetcher {
    /// Prepares; nothing is asked yet.
    ///
    /// # Errors
    /// The file of CAs cannot be used.
    pub fn new(options: Options) -> Result<Self, String> {
        let cas = options.ca_file.as_ref().map(|path| {
            outgoing::read_cas(path).map_err(|problem| format!("CA file {}: {problem}", path.display()))
        });
        let connector = outgoing::connector(cas.transpose()?).map_err(|error| format!("TLS: {error}"))?;
        Ok(Self { options, connector, servers: Servers::new(), observer: None })
    }

    /// Has somebody told how long each fetch took, and what came of it: the reading of its answer counts in the latter only.
    /// What was never begun, for its server is left alone or too many others ask, is not among them.
    pub fn observed(mut self, observer: impl Fn(Duration, Option<&Trouble>) + Send + Sync + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// How many servers are left alone because they have failed, or are being tried for the first time after that. The same
    /// server under other settings is another one.
    pub fn left_alone(&self) -> usize {
        self.servers.left_alone()
    }

    /// Asks, and has all of the answer read.
    ///
    /// Whether the server works is decided by `read` as well: an answer that cannot be read, or is signed by somebody else,
    /// counts as a failure, after three of which in a row the server is left alone for a while. Three troubles do not:
    /// [`Trouble::UrlRefused`], [`Trouble::NotCovered`], and the status by which a server says that it takes no POST. `read`
    /// may take its time; the time limit has been kept when it begins.
    ///
    /// When the future is dropped, the fetch ends, and counts as nothing.
    ///
    /// # Errors
    /// Why there is no answer, or what `read` says.
    pub async fn fetch<T, F>(
        &self,
        query: Query<'_>,
        settings: &Settings,
        read: impl FnOnce(Bytes) -> F,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        let target = Target::parse(query.url)?;
        let deadline = Instant::now() + settings.timeout;
        let late = |_| Err(Trouble::TimedOut(settings.timeout));
        let entered = timeout_at(deadline, self.servers.enter(&target.server, settings));
        let (attempt, place) = entered.await.unwrap_or_else(late)?;
        let begun = Instant::now();
        let asked = timeout_at(deadline, self.follow(target, &query, settings, place));
        let asked = asked.await.unwrap_or_else(|_| Err(Trouble::TimedOut(settings.timeout)));
        let took = begun.elapsed();
        let answer = match asked {
            Ok(bytes) => read(bytes).await,
            Err(trouble) => Err(trouble),
        };
        let trouble = answer.as_ref().err();
        // Where others were before it for most of the time, that it was late says nothing of the server.
        let had_its_time = 2 * took >= settings.timeout;
        attempt.went(verdict(trouble, query.post.is_some(), had_its_time));
        if let Some(observer) = &self.observer {
            observer(took, trouble);
        }
        answer
    }

    /// Asks, and goes where redirects lead, as far as they may.
    async fn follow(
        &self,
        mut target: Target,
        query: &Query<'_>,
        settings: &Settings,
        place: Place,
    ) -> Result<Bytes, Trouble> {
        let place = Arc::new(place);
        let way = Way { options: &self.options, settings, connector: &self.connector };
        for _ in 0..=MAX_REDIRECTS {
            let (status, location) = match way.ask(&target, query, &place).await? {
                Reply::Body(bytes) => return Ok(bytes),
                Reply::Elsewhere { status, location } => (status, location),
            };
            // All others make a GET of a POST, in which the question would be lost (RFC 9110, section 15.4).
            let keeps_post =
                matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
            let leads_on =
                matches!(status, StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER);
            if !keeps_post && (query.post.is_some() || !leads_on) {
                return Err(Trouble::HttpStatus(status.as_u16()));
            }
            target = target.redirected(&location, self.options.allow_private)?;
        }
        Err(Trouble::Unreachable(format!("it redirects more than {MAX_REDIRECTS} times")))
    }
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What a fetch says of the server.
fn verdict(trouble: Option<&Trouble>, is_post: bool, had_its_time: bool) -> Verdict {
    match trouble {
        None => Verdict::Works,
        // Where it would lead, or what the certificate wants of it, is no fault of the server's.
        Some(Trouble::UrlRefused(_) | Trouble::NotCovered(_)) => Verdict::Undecided,
        // It takes no POST, and will be asked by a GET: that one shows whether it works.
        Some(Trouble::HttpStatus(404 | 405 | 411 | 501)) if is_post => Verdict::Undecided,
        Some(Trouble::TimedOut(_)) if !had_its_time => Verdict::Undecided,
        Some(_) => Verdict::Fails,
    }
}
