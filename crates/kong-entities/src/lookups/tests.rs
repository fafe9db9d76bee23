use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::time::advance;

use super::*;

type Found = Result<Option<Arc<String>>, &'static str>;

/// A source that counts how often it is asked.
#[derive(Clone, Default)]
struct Source {
    asked: Arc<AtomicUsize>,
}

impl Source {
    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn says(&self, found: Found) -> impl Future<Output = Found> + Send + use<> {
        let asked = Arc::clone(&self.asked);
        async move {
            asked.fetch_add(1, Ordering::SeqCst);
            found
        }
    }

    /// Answers once it is told to.
    fn says_upon(&self, notify: &Arc<Notify>, found: Found) -> impl Future<Output = Found> + Send + use<> {
        let (says, notify) = (self.says(found), Arc::clone(notify));
        async move {
            let found = says.await;
            notify.notified().await;
            found
        }
    }
}

fn lookups() -> Arc<Lookups<&'static str, Option<Arc<String>>, &'static str>> {
    Arc::new(Lookups::new(100))
}

fn some(text: &str) -> Found {
    Ok(Some(Arc::new(text.into())))
}

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_secs(5);

/// Lets every task run until it waits.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_for_whom_it_is_young_enough() {
    let (lookups, source) = (lookups(), Source::default());
    for found in [some("a"), Ok(None)] {
        let before = source.asked();
        let key = if found == Ok(None) { "nobody" } else { "somebody" };
        let ask = |max_age| lookups.get_or_look_up(key, max_age, || "broken", source.says(found.clone()));
        assert_eq!(ask(LONG).await, found);
        assert_eq!(ask(SHORT).await, found);
        advance(SHORT - Duration::from_millis(1)).await;
        assert_eq!(ask(SHORT).await, found);
        assert_eq!(source.asked(), before + 1);
        advance(Duration::from_millis(1)).await;
        assert_eq!(ask(LONG).await, found);
        assert_eq!(source.asked(), before + 1, "young enough for a longer limit");
        assert_eq!(ask(SHORT).await, found);
        assert_eq!(source.asked(), before + 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_down_is_no_leave_to_use_an_old_answer() {
    let (lookups, source) = (lookups(), Source::default());
    let ask = |max_age, found| lookups.get_or_look_up("key", max_age, || "broken", source.says(found));
    assert_eq!(ask(LONG, some("a")).await, some("a"));
    advance(SHORT).await;
    assert_eq!(ask(SHORT, Err("down")).await, Err("down"));
    assert_eq!(ask(LONG, Err("down")).await, some("a"), "it is young enough still");
    advance(LONG).await;
    assert_eq!(ask(LONG, Err("down")).await, Err("down"));
    assert_eq!(source.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_remembered_for_a_moment() {
    let (lookups, source) = (lookups(), Source::default());
    let ask = |found| lookups.get_or_look_up("key", LONG, || "broken", source.says(found));
    assert_eq!(ask(Err("down")).await, Err("down"));
    advance(FAILURE_PAUSE - Duration::from_millis(1)).await;
    assert_eq!(ask(some("a")).await, Err("down"));
    assert_eq!(source.asked(), 1);
    advance(Duration::from_millis(1)).await;
    assert_eq!(ask(some("a")).await, some("a"));
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_took_long_is_remembered_from_its_end() {
    let (lookups, source) = (lookups(), Source::default());
    let slow = async {
        tokio::time::sleep(FAILURE_PAUSE * 3).await;
        Err("timed out")
    };
    assert_eq!(lookups.get_or_look_up("key", LONG, || "broken", slow).await, Err("timed out"));
    assert_eq!(
        lookups.get_or_look_up("key", LONG, || "broken", source.says(Ok(None))).await,
        Err("timed out")
    );
    assert_eq!(source.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_as_old_as_its_question() {
    let lookups = lookups();
    let slow = async {
        tokio::time::sleep(SHORT).await;
        some("a")
    };
    assert_eq!(lookups.get_or_look_up("key", SHORT, || "broken", slow).await, some("a"));
    assert_eq!(lookups.get(&"key", SHORT), None);
    assert_eq!(lookups.get(&"key", LONG), Some(some("a")));
}

#[tokio::test(start_paused = true)]
async fn many_that_wait_make_one_look_up() {
    let (lookups, source, notify) = (lookups(), Source::default(), Arc::new(Notify::new()));
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let (lookups, look_up) = (Arc::clone(&lookups), source.says_upon(&notify, some("a")));
            // With no limit at all, too: what is asked right now is as new as can be.
            tokio::spawn(
                async move { lookups.get_or_look_up("key", Duration::ZERO, || "broken", look_up).await },
            )
        })
        .collect();
    settle().await;
    let other = lookups.get_or_look_up("other", LONG, || "broken", source.says(some("b"))).await;
    assert_eq!(other, some("b"), "another key does not wait");
    notify.notify_one();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), some("a"));
    }
    assert_eq!(source.asked(), 2);
    assert!(lookups.shared.running().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_does_not_end_it_for_others() {
    let (lookups, source, notify) = (lookups(), Source::default(), Arc::new(Notify::new()));
    let spawn = |found| {
        let (lookups, look_up) = (Arc::clone(&lookups), source.says_upon(&notify, found));
        tokio::spawn(async move { lookups.get_or_look_up("key", LONG, || "broken", look_up).await })
    };
    let first = spawn(some("a"));
    settle().await;
    let second = spawn(some("b"));
    settle().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    notify.notify_one();
    assert_eq!(second.await.unwrap(), some("a"));
    assert_eq!(source.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_equal_answer_is_the_same_one() {
    let (lookups, source) = (lookups(), Source::default());
    let ask = |found| lookups.get_or_look_up("key", SHORT, || "broken", source.says(found));
    let first = ask(some("a")).await.unwrap().unwrap();
    advance(SHORT).await;
    let again = ask(some("a")).await.unwrap().unwrap();
    assert_eq!(source.asked(), 2);
    assert!(Arc::ptr_eq(&again, &first));
    assert!(Arc::ptr_eq(&ask(Err("unused")).await.unwrap().unwrap(), &first));
    advance(SHORT).await;
    assert_eq!(ask(some("b")).await, some("b"), "another one is not");
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_panics_leaves_the_key_free() {
    let (lookups, source) = (lookups(), Source::default());
    let panics = async { panic!("as it should") };
    assert_eq!(lookups.get_or_look_up("key", LONG, || "broken", panics).await, Err("broken"));
    assert_eq!(lookups.get_or_look_up("key", LONG, || "broken", source.says(some("a"))).await, some("a"));
}

#[tokio::test]
async fn what_is_remembered_is_bounded() {
    let lookups: Lookups<usize, usize, ()> = Lookups::new(100);
    for key in 0..10_000 {
        assert_eq!(lookups.get_or_look_up(key, LONG, || (), async move { Ok(key) }).await, Ok(key));
    }
    lookups.shared.remembered.run_pending_tasks();
    assert!(lookups.shared.remembered.entry_count() <= 100);
    assert!(lookups.shared.running().is_empty());
}
