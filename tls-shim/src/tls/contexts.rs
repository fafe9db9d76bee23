//! This knows the OpenSSL contexts that handshakes go on with: one for each list of CA names.
//!
//! OpenSSL takes the names from the context of a connection, or from a copy made for that connection alone. Contexts are
//! made when the map changes, so that a handshake only changes a pointer.

use std::collections::HashMap;
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::ssl::{SslContext, SslContextRef};
use openssl::stack::Stack;
use openssl::x509::X509Name;

use crate::ca_names::Sent;
use crate::distinguished_name::DistinguishedName;
use crate::sni::{ServerName, SniMap};

/// Who is asked, and how: a map with its contexts. It is replaced as a whole.
pub(super) struct Policy {
    map: Arc<SniMap>,
    /// The one without CA names.
    plain: SslContext,
    /// What goes with each of [`SniMap::sent`].
    contexts: Vec<SslContext>,
}

impl Policy {
    /// One that asks nobody.
    pub(super) fn nobody(plain: SslContext) -> Self {
        Self { map: Arc::default(), plain, contexts: Vec::new() }
    }

    /// The one for a new map. Contexts for names that were there before are taken over; `make` makes the others.
    pub(super) fn next(
        &self,
        map: Arc<SniMap>,
        make: impl Fn(Stack<X509Name>) -> Result<SslContext, ErrorStack>,
    ) -> Self {
        let known: HashMap<&Sent, &SslContext> = self.map.sent().iter().zip(&self.contexts).collect();
        let context = |sent: &Sent| match (sent, known.get(sent)) {
            (Sent::Names(_), Some(&context)) => context.clone(),
            (Sent::Names(names), None) => stack(names).and_then(&make).unwrap_or_else(|error| {
                // Those clients are asked without names, and hold nothing back.
                tracing::error!(%error, "OpenSSL does not take a list of CA names: it is not sent");
                self.plain.clone()
            }),
            (Sent::Nothing | Sent::Incomplete | Sent::TooLong(_), _) => self.plain.clone(),
        };
        let contexts = map.sent().iter().map(context).collect();
        Self { map, plain: self.plain.clone(), contexts }
    }

    /// Whether a client that names this server is asked, and the context that its handshake goes on with.
    pub(super) fn decide(&self, name: &ServerName) -> (bool, &SslContextRef) {
        let asked = self.map.asked(name);
        let context = asked.and_then(|sent| self.contexts.get(sent.position()));
        (asked.is_some(), context.unwrap_or(&self.plain))
    }
}

fn stack(names: &[DistinguishedName]) -> Result<Stack<X509Name>, ErrorStack> {
    let mut stack = Stack::new()?;
    for name in names {
        stack.push(name.to_openssl()?)?;
    }
    Ok(stack)
}
