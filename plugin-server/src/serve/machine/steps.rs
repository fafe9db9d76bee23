//! This knows what may happen, as strategies of `proptest`.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::kong::{Answer, Protocol};
use super::model::{ADDRESSES, CERTIFICATES, CONFIGS, Config, Event, Given};

/// Something that happens. Indices choose among what there is then.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Connect(Protocol),
    /// Kong closes a connection, be it in the middle of an event in ProtoBuf:1.
    Drop(Index),
    /// The same in the middle of a call.
    DropInCall(Index),
    /// The same before the reply is read.
    DropUnread {
        connection: Index,
        event: Index,
        said: Said,
    },
    Start {
        connection: Index,
        config: Config,
    },
    Close {
        connection: Index,
        instance: Index,
    },
    Begin {
        connection: Index,
        instance: Index,
        given: Given,
        address: usize,
        is_authenticated: bool,
    },
    Answer {
        connection: Index,
        event: Index,
        said: Said,
    },
    /// A step for an event that has ended, or that nobody began.
    AnswerEnded {
        connection: Index,
        event: Option<Index>,
    },
    /// What no Kong does in ProtoBuf:1: it comes back after the call that ends a request.
    AnswerLastWord(Index),
    /// A minute after this step.
    Expire(Index),
    /// As long as an event may take.
    TimeIsOver,
    Reload,
    End(Index),
}

/// What Kong answers to a PDK call.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Rightly,
    Other(Answer),
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let protocol = prop_oneof![Just(Protocol::MsgPack), Just(Protocol::ProtoBuf)];
    let index = any::<Index>;
    let begin = (index(), index(), given(), 0..ADDRESSES.len(), any::<bool>());
    prop_oneof![
        4 => protocol.prop_map(Step::Connect),
        1 => index().prop_map(Step::Drop),
        1 => index().prop_map(Step::DropInCall),
        1 => (index(), index(), said()).prop_map(|(connection, event, said)| {
            Step::DropUnread { connection, event, said }
        }),
        4 => (index(), select(&CONFIGS[..])).prop_map(|(connection, config)| Step::Start { connection, config }),
        1 => (index(), index()).prop_map(|(connection, instance)| Step::Close { connection, instance }),
        14 => begin.prop_map(|(connection, instance, given, address, is_authenticated)| {
            Step::Begin { connection, instance, given, address, is_authenticated }
        }),
        40 => (index(), index(), said()).prop_map(|(connection, event, said)| {
            Step::Answer { connection, event, said }
        }),
        2 => (index(), proptest::option::of(index())).prop_map(|(connection, event)| {
            Step::AnswerEnded { connection, event }
        }),
        2 => index().prop_map(Step::AnswerLastWord),
        1 => index().prop_map(Step::Expire),
        1 => Just(Step::TimeIsOver),
        1 => Just(Step::Reload),
        1 => index().prop_map(Step::End),
    ]
}

fn given() -> impl Strategy<Value = Given> {
    let leaf = 0..CERTIFICATES.leaves.len();
    prop_oneof![
        2 => Just(Given::Nothing),
        // Those of the first CA are the first.
        6 => (0..5_usize).prop_map(Given::Leaf),
        4 => leaf.clone().prop_map(Given::Leaf),
        1 => leaf.clone().prop_map(Given::Unproven),
        1 => leaf.clone().prop_map(Given::Forged),
        1 => leaf.prop_map(Given::OfAnother),
    ]
}

fn said() -> impl Strategy<Value = Said> {
    let other = select(vec![
        Answer::Nil,
        Answer::Bool(true),
        Answer::Bool(false),
        Answer::Text("x".into()),
        Answer::Text(String::new()),
        Answer::Table,
        Answer::Nonsense,
    ]);
    prop_oneof![9 => Just(Said::Rightly), 1 => other.prop_map(Said::Other)]
}

impl Said {
    /// The answer that this is to what an event wants.
    pub(super) fn of(&self, event: &Event) -> Answer {
        match self {
            Self::Rightly => event.right_answer(),
            Self::Other(answer) => answer.clone(),
        }
    }
}
