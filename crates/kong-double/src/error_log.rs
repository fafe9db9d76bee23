//! This knows the double's error log: lines as Kong's error log has them, kept in memory.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

/// A log level of nginx, most severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "nginx's own names")]
pub enum Level {
    Emerg,
    Alert,
    Crit,
    Error,
    Warn,
    Notice,
    Info,
    Debug,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Emerg => "emerg",
            Self::Alert => "alert",
            Self::Crit => "crit",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// The level that the PDK method `kong.log.<name>` writes at.
    pub(crate) fn of_pdk(name: &str) -> Option<Self> {
        Some(match name {
            "emerg" => Self::Emerg,
            "alert" => Self::Alert,
            "crit" => Self::Crit,
            "err" => Self::Error,
            "warn" => Self::Warn,
            "notice" => Self::Notice,
            "info" => Self::Info,
            "debug" => Self::Debug,
            _ => return None,
        })
    }
}

#[derive(Clone)]
pub(crate) struct ErrorLog {
    lines: Arc<Mutex<Vec<String>>>,
    /// Tells waiters that a line came.
    written: watch::Sender<()>,
    connection: Arc<AtomicU64>,
}

impl ErrorLog {
    pub(crate) fn new() -> Self {
        Self { lines: Arc::default(), written: watch::Sender::new(()), connection: Arc::default() }
    }

    /// The number that the next client connection has in the log (`*17`).
    pub(crate) fn next_connection(&self) -> u64 {
        self.connection.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Adds a line; `text` may hold any bytes.
    pub(crate) fn write(&self, level: Level, connection: Option<u64>, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        let connection = connection.map(|n| format!("*{n} ")).unwrap_or_default();
        let line = format!("[{}] 0#0: {connection}{text}", level.as_str());
        tracing::debug!(target: "kong_double", "{line}");
        self.lines.lock().expect("no panic while held").push(line);
        self.written.send_replace(());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no panic while held").clone()
    }

    /// The first line, from the start of the log, that satisfies the predicate; waits for it at most so long.
    pub(crate) async fn wait_for(
        &self,
        within: Duration,
        predicate: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let mut written = self.written.subscribe();
        let find = async {
            loop {
                written.borrow_and_update();
                if let Some(line) = self.lines().into_iter().find(|line| predicate(line)) {
                    return line;
                }
                written.changed().await.expect("the sender is self's");
            }
        };
        tokio::time::timeout(within, find).await.ok()
    }
}
