//! This knows how to make every PDK call there is, and what is made of Kong's answers.

use std::fmt::Debug;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use kong_entities::Consumer;

use crate::access::Verdict;
use crate::event::{Event, Progress};
use crate::pdk::{Credential, Headers, LogLevel, Pdk, PdkFault};

/// What an event made of Kong's answers, and what it then wrote.
#[derive(Debug, PartialEq)]
pub(super) struct Understood {
    pub(super) headers: Result<Headers, PdkFault>,
    pub(super) is_authenticated: bool,
    pub(super) client_ip: Option<String>,
    pub(super) is_trusted: bool,
    pub(super) chain: Option<Vec<u8>>,
    pub(super) consumer: Result<Option<Consumer>, PdkFault>,
    /// The arguments of `set_request_headers`.
    pub(super) set: Vec<(String, Option<String>)>,
    /// A text in the arguments of all other calls that write.
    pub(super) text: String,
}

/// Asks Kong for all that can be asked for, and writes what it was told into all that can be written.
pub(super) async fn ask(pdk: &mut impl Pdk) -> Understood {
    let headers = pdk.request_headers().await;
    let is_authenticated = pdk.is_authenticated().await;
    let client_ip = pdk.client_ip().await;
    let is_trusted = pdk.is_trusted_ip(client_ip.as_deref().unwrap_or("")).await;
    let chain = pdk.client_certificate_chain().await;
    let consumer = pdk.load_consumer("name").await;

    let text = String::from_utf8_lossy(chain.as_deref().unwrap_or_default()).into_owned();
    let lossy = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let set: Vec<_> = headers
        .iter()
        .flatten()
        .map(|(name, values)| (lossy(name), values.first().map(lossy)))
        .chain([(text.clone(), None)])
        .collect();
    pdk.set_request_headers(set.clone()).await;
    let written =
        Consumer { id: text.clone(), username: client_ip.clone(), custom_id: Some("custom".to_owned()) };
    let credential = Credential { id: text.clone() };
    pdk.authenticate(Some(&written), Some(&credential)).await;
    pdk.authenticate(Some(&written), None).await;
    pdk.authenticate(None, Some(&credential)).await;
    pdk.set_authenticated_group(&text).await;
    pdk.log(LogLevel::Notice, text.clone()).await;
    pdk.log(LogLevel::Err, text.clone()).await;
    Understood { headers, is_authenticated, client_ip, is_trusted, chain, consumer, set, text }
}

/// Runs an event to its end with the same answer to each of its calls, which it gives.
pub(super) fn run<C: Debug + PartialEq, A: Clone>(mut event: Event<C, A>, answer: &A) -> Vec<C> {
    let mut calls = Vec::new();
    loop {
        match pin!(event.advance()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Progress::Calls(call)) => calls.push(call),
            Poll::Ready(Progress::Ended(verdict)) => {
                // Anything else is a panic inside.
                assert_eq!(verdict, Verdict::Proceed);
                return calls;
            }
            Poll::Pending => panic!("it waits for something else than Kong"),
        }
        event.answer(answer.clone());
    }
}
