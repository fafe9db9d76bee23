//! This knows how each of Kong's calls in ProtoBuf:1 is answered.

use std::sync::Arc;

use super::Server;
use crate::access::refuse_without_instance;
use crate::event::Event;
use crate::reason::{Reason, Refusal};
use crate::schema::{PLUGIN_NAME, PRIORITY, Phase, VERSION, schema};
use crate::wire::protobuf::WireError;
use crate::wire::protobuf::messages::{
    Command, HandleEvent, InstanceId, InstanceStatus, PluginInfo, PluginNames, Returned,
};
use crate::wire::protobuf::pdk::{Answer, Call, ProtoBufPdk};
use crate::wire::protocol::Protocol;

/// What a call leads to.
pub(crate) enum Outcome {
    /// A reply, with nothing in it where what was asked for does not exist: Kong reads nothing from those.
    Reply(Option<Returned>),
    /// An event, which is to run on the connection.
    Event(ProtoBufEvent),
}

/// An event that Kong wants handled.
pub(crate) enum ProtoBufEvent {
    Runs(Event<Call, Answer>),
    /// Of an instance that there is not: Kong must be brought to start it.
    NoInstance(i32),
}

impl Server {
    /// Answers one call, or has an event ready to run.
    ///
    /// # Errors
    /// Where Kong takes no reply but a closed connection for a failure. Never for an event.
    pub(crate) async fn answer_protobuf(self: &Arc<Self>, command: Command) -> Result<Outcome, WireError> {
        let returned = match command {
            Command::HandleEvent(event) => return Ok(Outcome::Event(self.begin_event(event))),
            Command::StartInstance(start) if start.name != PLUGIN_NAME.as_bytes() => {
                return Err(WireError::NoSuchPlugin(String::from_utf8_lossy(&start.name).into_owned()));
            }
            Command::StartInstance(start) => {
                let (instance, started) =
                    self.instances.start_or_keep(&String::from_utf8_lossy(&start.config)).await;
                match started {
                    Ok(()) => tracing::debug!(instance, "instance started"),
                    Err(problem) => {
                        tracing::error!(instance, problem, "an instance cannot be started");
                    }
                }
                Some(status(instance))
            }
            Command::CloseInstance(InstanceId { instance_id }) => {
                let closed = key(instance_id).is_some_and(|id| self.instances.close(id));
                tracing::debug!(instance = instance_id, closed, "instance closed");
                closed.then(|| status(instance_id))
            }
            Command::GetInstanceStatus(InstanceId { instance_id }) => {
                key(instance_id).is_some_and(|id| self.instances.is_known(id)).then(|| status(instance_id))
            }
            Command::GetPluginNames(_) => {
                Some(Returned::PluginNames(PluginNames { names: vec![PLUGIN_NAME.into()] }))
            }
            Command::GetPluginInfo(plugin) => (plugin.name == PLUGIN_NAME.as_bytes()).then(|| {
                Returned::PluginInfo(PluginInfo {
                    name: PLUGIN_NAME.into(),
                    phases: Phase::names(Protocol::ProtoBuf),
                    version: VERSION.into(),
                    priority: PRIORITY,
                    schema: schema().to_string(),
                })
            }),
        };
        Ok(Outcome::Reply(returned))
    }

    fn begin_event(self: &Arc<Self>, HandleEvent { instance_id, event_name }: HandleEvent) -> ProtoBufEvent {
        let Some(id) = key(instance_id).filter(|id| self.instances.is_known(*id)) else {
            return ProtoBufEvent::NoInstance(instance_id);
        };
        let server = Arc::clone(self);
        // All that may go wrong is inside, where a panic is a fault of this event and of nothing else.
        ProtoBufEvent::Runs(Event::new(&self.events.spares, |exchange| async move {
            let mut pdk = ProtoBufPdk(exchange.clone());
            let refusal = if Phase::find(&event_name, Protocol::ProtoBuf) == Some(Phase::Access) {
                match server.instances.get_or_retry(id).await {
                    Some(Ok(instance)) => {
                        return super::access(&exchange, &mut pdk, &instance).await;
                    }
                    Some(Err(problem)) => Refusal::with(Reason::NotStarted, problem),
                    // Expired or closed since it was looked for.
                    None => Refusal::with(Reason::NotStarted, "the instance has just ended"),
                }
            } else {
                let phase = String::from_utf8_lossy(&event_name);
                Refusal::with(Reason::Internal, format_args!("the plugin has no phase {phase:?}"))
            };
            let decision = refuse_without_instance(&mut pdk, refusal).await;
            server.instances.metrics().decided(decision);
            decision.verdict()
        }))
    }
}

fn status(instance_id: i32) -> Returned {
    Returned::InstanceStatus(InstanceStatus { name: PLUGIN_NAME.into(), instance_id })
}

/// Ids of ours are positive.
fn key(instance_id: i32) -> Option<u64> {
    u64::try_from(instance_id).ok()
}
