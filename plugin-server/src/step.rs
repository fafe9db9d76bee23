//! This knows the steps of a decision, for whoever wants to follow it: `mtls-auth explain`, and the log at level `debug`.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};

/// By which steps are told from all else that is logged. No module has this name: a filter takes what begins with it.
const TARGET: &str = "mtls_auth::decision";

/// Tells of one step: what it is about, and what came of it. Costs nothing where nobody listens.
macro_rules! step {
    ($about:literal, $($came_of_it:tt)+) => {
        tracing::debug!(target: "mtls_auth::decision", about = $about, $($came_of_it)+)
    };
}
pub(crate) use step;

/// One step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    /// What it is about, in a word.
    pub(crate) about: String,
    /// What came of it.
    pub(crate) says: String,
}

/// Listens while `run` runs on this thread, and gives the steps that it took.
pub(crate) fn listen<T>(run: impl FnOnce() -> T) -> (T, Vec<Step>) {
    let steps = Steps::default();
    let only_steps = Targets::new().with_target(TARGET, LevelFilter::DEBUG);
    let subscriber = tracing_subscriber::registry().with(only_steps).with(steps.clone());
    let result = tracing::subscriber::with_default(subscriber, run);
    let steps = std::mem::take(&mut *steps.0.lock().unwrap_or_else(PoisonError::into_inner));
    (result, steps)
}

/// Writes steps down.
#[derive(Clone, Default)]
struct Steps(Arc<Mutex<Vec<Step>>>);

impl<S: Subscriber> Layer<S> for Steps {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut step = Step::default();
        event.record(&mut step);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(step);
    }
}

impl Visit for Step {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "about" => self.about = text,
            _ => self.says = text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_written_down_in_order_and_nothing_else_is() {
        let ((), steps) = listen(|| {
            step!("one", "it is {}", 1);
            tracing::error!("something else");
            step!("two", "and {name:?}", name = "a");
        });
        let expected = [("one", "it is 1"), ("two", "and \"a\"")];
        let expected = expected.map(|(about, says)| Step { about: about.into(), says: says.into() });
        assert_eq!(steps, expected);
    }
}
