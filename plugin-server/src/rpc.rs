//! This knows how each of Kong's calls is answered: here in MsgPack:1, in [`protobuf`] the other.

pub(crate) mod protobuf;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use serde_json::json;

use crate::access::{self, Decision, Verdict};
use crate::certificate_phase;
use crate::event::{Events, Exchange, Progress};
use crate::guard::GuardWatch;
use crate::instance::{Instance, Instances, Shared};
use crate::pdk::{LogLevel, Pdk};
use crate::reason::Reason;
use crate::schema::{PLUGIN_NAME, Phase};
use crate::siblings::Siblings;
use crate::wire::msgpack::{Call, REFUSE, ReplyBody};
use crate::wire::pdk::MsgPackPdk;
use crate::wire::protocol::Protocol;

/// Everything that outlives a connection.
pub(crate) struct Server {
    pub(crate) instances: Instances,
    pub(crate) events: Events,
    /// Looks for what keeps requests from passing while no server answers.
    pub(crate) guard: GuardWatch,
    shared: Arc<Shared>,
    /// Who else serves the same Kong.
    pub(crate) siblings: Siblings,
    /// How many calls are being answered.
    pub(crate) calls: AtomicUsize,
    /// How many connections are open.
    pub(crate) connections: AtomicUsize,
}

impl Server {
    pub(crate) fn new(shared: Shared, siblings: Siblings) -> Self {
        let shared = Arc::new(shared);
        Self {
            instances: Instances::new(Arc::clone(&shared), siblings.run()),
            events: Events::new(siblings.run()),
            guard: GuardWatch::default(),
            shared,
            siblings,
            calls: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        }
    }

    /// Answers one call. An event never gets a string error or an empty result, which Kong would take for leave to pass
    /// (`kong-plugin-protocol.md`, "MsgPack:1 is fail-open").
    pub(crate) async fn answer(&self, call: Call) -> ReplyBody {
        match call {
            Call::HandleEvent { instance, phase } => self.handle_event(instance, &phase).await,
            Call::Step { event, data } => match self.events.resume(event, data).await {
                Some(progress) => progress_reply(event, progress),
                // Kong goes on as it is told, so the request ends here, whoever began it.
                None => {
                    tracing::warn!(event, "a step for an event that does not wait");
                    progress_reply(event, Progress::Ended(self.fault().verdict()))
                }
            },
            Call::StartInstance { plugin, config } => self.start_instance(&plugin, &config).await,
            Call::CloseInstance { instance } => {
                let closed = self.instances.close(instance);
                tracing::debug!(instance, closed, "instance closed");
                known_or_not(instance, closed)
            }
            Call::InstanceStatus { instance } => known_or_not(instance, self.instances.is_known(instance)),
            Call::GetStatus => ReplyBody::Status {
                pid: std::process::id(),
                proof_key: self.instances.proof_key().fingerprint(),
            },
            Call::Unknown { method } => {
                tracing::warn!(method, "a call of an unknown method");
                ReplyBody::Error(format!("there is no method {method:?}"))
            }
        }
    }

    /// How many events and other calls have not ended: those that wait for Kong's next step on any connection, and those
    /// that have a connection, on which they are answered or, in ProtoBuf:1, wait.
    pub(crate) fn unfinished(&self) -> usize {
        self.events.count() + self.calls.load(Ordering::Acquire)
    }

    /// Waits until another server answers in this one's place, and then begins nothing more in MsgPack:1. In ProtoBuf:1 Kong
    /// begins an event anew that it has lost a server over.
    pub(crate) async fn hand_over(&self) {
        self.siblings.hand_over(|| self.instances.withdraw()).await;
    }

    /// Drops what Kong will not come back for.
    pub(crate) fn expire(&self, now: Instant) {
        self.instances.expire(now);
        self.events.expire(now);
    }

    async fn handle_event(&self, id: Option<u64>, phase: &str) -> ReplyBody {
        let Some(phase) = Phase::find(phase.as_bytes(), Protocol::MsgPack) else {
            tracing::error!(phase, "an event of a phase that the plugin does not have");
            self.fault();
            return ReplyBody::Fault("the plugin has no such phase");
        };
        let Some(id) = id else {
            tracing::error!("an event without an instance");
            self.fault();
            return ReplyBody::Fault("no instance was named");
        };
        let Some(instance) = self.instances.get(id) else { return ReplyBody::NoInstance { instance: id } };
        let (event, progress) = match phase {
            Phase::Access => {
                let finding = self.guard.take_finding();
                let decide = |exchange: Exchange| async move {
                    let mut pdk = MsgPackPdk(exchange.clone());
                    if let Some(finding) = finding {
                        pdk.log(LogLevel::Warn, finding).await;
                    }
                    access(&exchange, &mut pdk, &instance).await
                };
                self.events.begin(decide).await
            }
            Phase::Certificate => {
                let ask = |exchange| async move {
                    certificate_phase::ask(&mut MsgPackPdk(exchange), &instance).await;
                    Verdict::Proceed
                };
                self.events.begin(ask).await
            }
        };
        progress_reply(event, progress)
    }

    /// Counts a request that fails before anybody could decide about it.
    fn fault(&self) -> Decision {
        let decision = Decision::Refused(Reason::Internal);
        self.instances.metrics().decided(decision);
        decision
    }

    async fn start_instance(&self, plugin: &str, config: &str) -> ReplyBody {
        self.guard.begin(&self.shared);
        let started = match plugin {
            PLUGIN_NAME => self.instances.start(config).await,
            _ => Err(format!("this server has no plugin {plugin:?}, only {PLUGIN_NAME}")),
        };
        match started {
            Ok(instance) => {
                tracing::debug!(instance, "instance started");
                ReplyBody::Instance { instance }
            }
            Err(problem) => {
                tracing::error!(problem, "an instance cannot be started");
                ReplyBody::Error(format!("{PLUGIN_NAME}: {problem}"))
            }
        }
    }
}

/// Runs the access phase, and counts how it ends and what it cost.
async fn access<C, A>(exchange: &Exchange<C, A>, pdk: &mut impl Pdk, instance: &Instance) -> Verdict {
    let request = instance.metrics().request();
    let decision = access::access(pdk, instance, SystemTime::now()).await;
    request.ended(decision, exchange.spent());
    decision.verdict()
}

fn known_or_not(instance: u64, is_known: bool) -> ReplyBody {
    if is_known { ReplyBody::Instance { instance } } else { ReplyBody::NoInstance { instance } }
}

/// A refusal is a PDK call after which Kong sends no more steps for the event, so nothing is kept of it.
fn progress_reply(event: u64, progress: Progress) -> ReplyBody {
    match progress {
        Progress::Calls(call) => ReplyBody::Call { event, method: call.method, args: call.args },
        Progress::Ended(Verdict::Proceed) => ReplyBody::Return { event },
        Progress::Ended(Verdict::Refuse { status, message }) => {
            ReplyBody::Call { event, method: REFUSE, args: vec![json!(status), json!(message)] }
        }
    }
}
