use serde_json::json;

use super::*;

fn answer(text: &str) -> Value {
    Value::Bytes(text.into())
}

/// Echoes what it is given, twice, and ends.
async fn echo(exchange: Exchange) -> Verdict {
    for _ in 0..2 {
        let answer = exchange.call(call("kong.log.notice", vec![])).await;
        let text = answer.as_text().unwrap_or_default().to_owned();
        exchange.call(call("kong.log.err", vec![json!(text)])).await;
    }
    Verdict::Proceed
}

fn call(method: &'static str, args: Vec<Json>) -> PdkCall {
    PdkCall { method, args }
}

fn calls(method: &'static str, args: Vec<Json>) -> Option<Progress> {
    Some(Progress::Calls(call(method, args)))
}

#[tokio::test]
async fn interleaved_events_get_their_own_answers() {
    let events = Events::new(Run::random());
    let mut ids = Vec::new();
    for _ in 0..10 {
        let (id, progress) = events.begin(echo).await;
        assert_eq!(Some(progress), calls("kong.log.notice", vec![]));
        ids.push(id);
    }
    // All differ, and are exact as Lua's floats.
    assert!(ids.iter().all(|id| (1 << 32..1 << 53).contains(id)));
    for _ in 0..2 {
        for id in ids.iter().rev() {
            let progress = events.resume(*id, answer(&id.to_string())).await;
            assert_eq!(progress, calls("kong.log.err", vec![json!(id.to_string())]));
        }
        for id in &ids {
            assert!(events.resume(*id, Value::Nil).await.is_some());
        }
    }
    assert_eq!(events.count(), 0, "what has ended is gone");
    assert_eq!(events.resume(ids[0], Value::Nil).await, None);
}

#[tokio::test]
async fn a_panic_ends_its_event_as_a_fault_and_no_other() {
    let events = Events::new(Run::random());
    let (healthy, _) = events.begin(echo).await;
    let (id, _) = events
        .begin(|exchange| async move {
            exchange.call(call("kong.log.notice", vec![])).await;
            panic!("on purpose");
        })
        .await;
    assert_eq!(events.resume(id, Value::Nil).await, Some(Progress::Ended(FAULT)));
    assert_eq!(events.count(), 1);
    assert!(events.resume(healthy, Value::Nil).await.is_some());
}

#[tokio::test]
async fn what_kong_never_comes_back_for_is_dropped() {
    let events = Events::new(Run::random());
    let (id, _) = events.begin(echo).await;
    events.expire(Instant::now() + ABANDONED / 2);
    assert_eq!(events.count(), 1);
    events.expire(Instant::now() + ABANDONED);
    assert_eq!(events.count(), 0);
    assert_eq!(events.resume(id, Value::Nil).await, None);
}

#[tokio::test]
async fn an_event_may_wait_for_other_things_than_kong() {
    let events = Events::new(Run::random());
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let begun = events.begin(|exchange| async move {
        let text: &str = receiver.await.unwrap();
        exchange.call(call("kong.log.notice", vec![json!(text)])).await;
        Verdict::Proceed
    });
    let (begun, ()) = tokio::join!(begun, async { sender.send("now").unwrap() });
    assert_eq!(Some(begun.1), calls("kong.log.notice", vec![json!("now")]));
}

#[tokio::test]
async fn an_event_takes_over_the_memory_of_one_that_has_ended_and_nothing_else_of_it() {
    let spares = Spares::default();
    let event = |asks: bool| {
        Event::<&str, &str>::new(&spares, |exchange: Exchange<&str, &str>| async move {
            if asks && exchange.call("a call").await == "an answer" { Verdict::Proceed } else { FAULT }
        })
    };
    let mut first = event(true);
    assert_eq!(first.advance().await, Progress::Calls("a call"));
    first.answer("an answer");
    assert_eq!(first.advance().await, Progress::Ended(Verdict::Proceed));
    spares.keep(first);
    assert_eq!(spares.all().len(), 1);
    let mut second = event(false);
    assert!(spares.all().is_empty());
    assert_eq!(second.advance().await, Progress::Ended(FAULT));
    // It holds no more than it may.
    for event in (0..=SPARES).map(|_| event(false)).collect::<Vec<_>>() {
        spares.keep(event);
    }
    assert_eq!(spares.all().len(), SPARES);
}
