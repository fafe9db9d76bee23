use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use super::{consistent, private_keys};
use crate::admin::Answer;
use crate::ids::is_id;
use crate::{AdminClient, AdminSettings, Entities, SourceError, SourceFault, snapshot};

const ID: &str = "11111111-1111-4111-8111-111111111111";
const USERNAME: &str = "alice";
const CUSTOM_ID: &str = "a-1";

/// Between two answers.
const BETWEEN: &str = "\n---\n";

/// An answer of the input: the collection that it is about and its status on the first line, and maybe a media type; the
/// body behind that.
#[derive(Clone, Copy)]
struct Given<'a> {
    collection: &'a str,
    status: u16,
    media_type: &'a str,
    body: &'a str,
}

/// What was asked and answered, in this order: none where there was no answer.
type Said = Vec<(String, Option<(u16, String)>)>;

thread_local! {
    /// Its clock runs when nothing else does, so that nobody waits.
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
}

/// Takes a text for answers of an Admin API, each for the next request about its collection; the last one again. What is
/// believed is about what was asked for; "there is none" was said by Kong; a configuration is whole; and an error quotes
/// no private key.
///
/// # Panics
/// Where what must hold does not.
pub fn admin_answers(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let answers = given(text);
    let ask = Ask { text, answers: &answers };

    let (found, said) = ask.of(async |client| client.consumer_by_id(ID).await);
    about(found.as_ref(), &said, |consumer| consumer.id.eq_ignore_ascii_case(ID));
    let (found, said) = ask.of(async |client| client.consumer_by_username(USERNAME).await);
    about(found.as_ref(), &said, |consumer| {
        is_id(&consumer.id) && consumer.username.as_deref() == Some(USERNAME)
    });
    let (found, said) = ask.of(async |client| client.ca_certificate(ID).await);
    about(found.as_ref(), &said, |_| {
        let is_it = |said: Value| said["id"].as_str().is_some_and(|id| id.eq_ignore_ascii_case(ID));
        said_last(&said).is_none_or(is_it)
    });
    let (found, said) = ask.of(async |client| client.consumer_by_custom_id(CUSTOM_ID).await);
    match found {
        Some(Some(consumer)) => {
            assert!(is_id(&consumer.id) && consumer.custom_id.as_deref() == Some(CUSTOM_ID));
        }
        Some(None) => {
            let none = |said: Value| said["data"].as_array().is_some_and(Vec::is_empty);
            assert!(said_last(&said).is_none_or(none));
        }
        None => {}
    }
    let (found, said) = ask.of(async |client| client.consumers_by_id_like_username().await);
    if let Some(found) = found {
        assert!(found.iter().all(|(name, found)| is_id(name) && found.username.as_ref() == Some(name)));
        let all = entities(&said, "consumers").unwrap_or_default();
        let wanted = all.iter().filter(|one| one["username"].as_str().is_some_and(is_id));
        assert!(wanted.clone().all(|one| found.contains_key(one["username"].as_str().unwrap_or_default())));
    }
    _ = ask.of(async |client| client.node().await);
    _ = ask.of(async |client| client.check().await);
    let (read, said) = ask.of(async |client| snapshot(client).await);
    if let Some(read) = read {
        consistent(&read);
        _ = whole(&read, &said);
    }
}

/// The configuration that these answers give, if they give one.
#[cfg(test)]
pub(super) fn configuration(text: &str) -> Option<Entities> {
    Ask { text, answers: &given(text) }.of(async |client| snapshot(client).await).0
}

fn given(text: &str) -> Vec<Given<'_>> {
    text.split(BETWEEN).filter_map(Given::read).collect()
}

struct Ask<'a> {
    text: &'a str,
    answers: &'a [Given<'a>],
}

impl Ask<'_> {
    /// What the client makes of the answers, and what was said.
    fn of<T>(&self, asked: impl AsyncFnOnce(&AdminClient) -> Result<T, SourceError>) -> (Option<T>, Said) {
        let said = Arc::new(Mutex::new(Said::new()));
        let answers: Vec<_> =
            self.answers.iter().map(|given| (given.collection.to_owned(), given.owned())).collect();
        let script = {
            let said = Arc::clone(&said);
            move |target: &str| {
                let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                let collection = collection(target);
                let before = said.iter().filter(|(target, _)| self::collection(target) == collection).count();
                let mut of_it = answers.iter().filter(|(of, _)| of == collection).map(|(_, answer)| answer);
                let count = of_it.clone().count();
                let answer = of_it.nth(before.min(count.saturating_sub(1)));
                let noted = answer.map(|answer| (answer.0, answer.2.clone()));
                said.push((target.to_owned(), noted));
                let (status, media_type, body) =
                    answer.ok_or_else(|| SourceFault::Unreachable("gone".into()))?;
                Ok(Answer {
                    status: StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY),
                    content_type: HeaderValue::from_str(media_type).ok(),
                    date: None,
                    server: None,
                    body: Bytes::from(body.clone()),
                })
            }
        };
        let settings = AdminSettings::new("http://127.0.0.1:8001");
        let client = AdminClient::scripted(settings, Box::new(script)).unwrap();
        let result = RUNTIME.with(|runtime| runtime.block_on(asked(&client)));
        let said = std::mem::take(&mut *said.lock().unwrap_or_else(PoisonError::into_inner));
        if let Err(error) = &result {
            self.quotes_no_private_key(&error.to_string());
        }
        (result.ok(), said)
    }

    fn quotes_no_private_key(&self, problem: &str) {
        for answer in self.answers {
            let Ok(body) = serde_json::from_str::<Value>(answer.body) else { continue };
            let shown = private_keys(super::list(&body, "data"), self.text).find(|key| problem.contains(key));
            assert_eq!(shown, None, "{problem}");
        }
    }
}

impl<'a> Given<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (first, body) = text.split_once('\n').unwrap_or((text, ""));
        let mut words = first.splitn(3, ' ');
        let (collection, status) = (words.next()?, words.next()?.parse().ok()?);
        Some(Self { collection, status, media_type: words.next().unwrap_or("application/json"), body })
    }

    fn owned(&self) -> (u16, String, String) {
        (self.status, self.media_type.to_owned(), self.body.to_owned())
    }
}

/// What a target is about: `plugins` of `/plugins?size=1000`.
fn collection(target: &str) -> &str {
    let path = target.strip_prefix('/').unwrap_or(target);
    path.split(['/', '?']).next().unwrap_or_default()
}

/// An entity that is found is the one that was asked for; that there is none was said in Kong's words.
fn about<T>(found: Option<&Option<Arc<T>>>, said: &Said, is_it: impl Fn(&T) -> bool) {
    match found {
        Some(Some(found)) => assert!(is_it(found), "it is another one"),
        Some(None) => {
            let (_, answer) = said.last().expect("a question");
            assert!(answer.as_ref().is_some_and(|(status, _)| *status == 404));
            assert!(said_last(said).is_none_or(|said| said["message"].is_string()));
        }
        None => {}
    }
}

/// The body of the last answer. None: see [`json`].
fn said_last(said: &Said) -> Option<Value> {
    let (_, answer) = said.last().expect("a question");
    let (_, body) = answer.as_ref().expect("an answer");
    json(body)
}

/// A body. None where what nobody reads of it is more than this reader takes: a number without bounds, half a character.
fn json(body: &str) -> Option<Value> {
    serde_json::from_str(body).ok()
}

/// All entities of a collection, as they were said last: from its first page on. None: see [`json`].
fn entities(said: &Said, of: &str) -> Option<Vec<Value>> {
    let pages: Vec<_> = said.iter().filter(|(target, _)| collection(target) == of).collect();
    let first = pages.iter().rposition(|(target, _)| !target.contains("&offset=")).expect("a first page");
    let mut entities = Vec::new();
    let mut offset = None;
    for (target, answer) in &pages[first..] {
        let asked = target.split_once("&offset=").map(|(_, offset)| offset);
        assert_eq!(asked.is_some(), offset.is_some(), "{target}");
        let (status, body) = answer.as_ref().expect("an answer");
        assert_eq!(*status, 200);
        let page = json(body)?;
        entities.extend_from_slice(page["data"].as_array().expect("a list"));
        offset = page["offset"].as_str().map(str::to_owned);
        assert!(offset.is_some() || page["next"].is_null());
    }
    assert_eq!(offset, None, "there is another page");
    Some(entities)
}

/// What was read holds all that was said. None: see [`json`].
fn whole(read: &Entities, said: &Said) -> Option<()> {
    assert_eq!(read.ca_certificates.len(), entities(said, "ca_certificates")?.len());
    assert_eq!(read.certificates.len(), entities(said, "certificates")?.len());
    assert_eq!(read.snis.len(), entities(said, "snis")?.len());
    assert_eq!(read.services.len(), entities(said, "services")?.len());
    let routes = entities(said, "routes")?;
    assert_eq!(read.routes.len(), routes.len());
    for route in &read.routes {
        let is_it = |one: &&Value| one["id"].as_str() == route.id.as_deref();
        let one = routes.iter().find(is_it).expect("a route of Kong's");
        assert_eq!(route.snis.len(), super::list(one, "snis").len());
        assert_eq!(route.expression.as_deref(), one["expression"].as_str());
    }
    let plugins = entities(said, "plugins")?;
    assert_eq!(read.plugins.len(), plugins.len());
    for (plugin, one) in read.plugins.iter().filter_map(|plugin| {
        let mut of_it = plugins.iter().filter(|one| one["id"].as_str() == plugin.id.as_deref());
        // Nobody keeps Kong from listing one twice.
        let one = of_it.next().expect("a plugin of Kong's");
        of_it.next().is_none().then_some((plugin, one))
    }) {
        assert_eq!(plugin.name, one["name"].as_str().unwrap_or_default());
        assert_eq!(plugin.enabled, one["enabled"] != Value::Bool(false));
        let route = plugin.scope.route.map(|route| read.routes[route].id.clone());
        assert_eq!(route.flatten().as_deref(), referred(&one["route"]));
        let service = plugin.scope.service.map(|service| read.services[service].id.clone());
        assert_eq!(service.flatten().as_deref(), referred(&one["service"]));
        assert!(plugin.name == "mtls-auth" || plugin.config.is_null());
    }
    Some(())
}

/// What a reference names.
fn referred(reference: &Value) -> Option<&str> {
    let names = || ["id", "name", "username"].into_iter().find_map(|name| reference[name].as_str());
    reference.as_str().or_else(names)
}
