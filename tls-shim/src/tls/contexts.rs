//! This knows the OpenSSL contexts that handshakes go on with: one for each list of CA names.
//!
//! They have no certificate of the server's: a connection is given that by itself, so that there is not one for each pair
//! of list and certificate. OpenSSL takes the names from the context of a connection, or from a copy made for that connection alone. Contexts are
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
use crate::tls::raw;

/// Who is asked, and how: a map with its contexts. It is replaced as a whole.
pub(super) struct Contexts {
    map: Arc<SniMap>,
    /// The one without CA names.
    plain: SslContext,
    /// What goes with each of [`SniMap::sent`].
    contexts: Vec<SslContext>,
}

impl Contexts {
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
                tracing::error!(%error, "{} does not take a list of CA names: it is not sent", raw::NAME);
                self.plain.clone()
            }),
            (Sent::Nothing | Sent::Incomplete | Sent::TooLong(_), _) => self.plain.clone(),
        };
        let contexts = map.sent().iter().map(context).collect();
        Self { map, plain: self.plain.clone(), contexts }
    }

    /// Who is asked.
    pub(super) fn map(&self) -> &Arc<SniMap> {
        &self.map
    }

    /// That of the map: see [`SniMap::generation`].
    pub(super) fn generation(&self) -> &[u8; 32] {
        self.map.generation()
    }

    /// Whether a client that names this server is asked, and the context that its handshake goes on with.
    pub(super) fn choose(&self, name: &ServerName) -> (bool, &SslContextRef) {
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

#[cfg(test)]
mod tests {
    use openssl::ssl::SslMethod;
    use testbed::pki::Ca;

    use super::*;

    fn context() -> SslContext {
        SslContext::builder(SslMethod::tls_server()).unwrap().build()
    }

    /// The map for routes, each with its own plugin: name and certificates.
    fn map(routes: &[(&str, &str)]) -> Arc<SniMap> {
        let route = |(name, pem): &(&str, &str)| {
            let config = serde_json::json!({"send_ca_dn": true, "ca_certificates": [pem]});
            serde_json::json!({"snis": [name], "plugins": [{"name": "mtls-auth", "config": config}]})
        };
        let routes: Vec<_> = routes.iter().map(route).collect();
        let text = serde_json::json!({"_format_version": "3.0", "routes": routes}).to_string();
        Arc::new(crate::sni::policy(&kong_entities::parse_json(&text).unwrap()))
    }

    fn choose<'a>(contexts: &'a Contexts, name: &str) -> &'a SslContextRef {
        contexts.choose(&ServerName::from_wire(Some(name.as_bytes()))).1
    }

    #[test]
    fn a_list_of_names_has_one_context_for_as_long_as_it_is_there() {
        let (a, b, c) = (Ca::root("a").pem(), Ca::root("b").pem(), Ca::root("c").pem());
        let make = |_| Ok(context());
        let first = Contexts::nobody(context()).next(
            map(&[("a.example", &a), ("b.example", &b), ("other.example", &a), ("none.example", "x")]),
            make,
        );
        let names = ["a.example", "b.example", "none.example"];
        let [of_a, of_b, none] = names.map(|name| choose(&first, name));
        assert!(std::ptr::eq(of_a, choose(&first, "other.example")));
        assert!(!std::ptr::eq(of_a, of_b) && !std::ptr::eq(of_a, none) && !std::ptr::eq(of_b, none));
        assert!(std::ptr::eq(none, choose(&first, "who.is.not.asked")));

        let second = first.next(map(&[("c.example", &c), ("a.example", &b), ("b.example", &a)]), make);
        assert!(std::ptr::eq(choose(&second, "a.example"), of_b));
        assert!(std::ptr::eq(choose(&second, "b.example"), of_a));
        assert!(std::ptr::eq(choose(&second, "who.is.not.asked"), none));
        for old in [of_a, of_b, none] {
            assert!(!std::ptr::eq(choose(&second, "c.example"), old));
        }
    }

    #[test]
    fn a_list_that_openssl_does_not_take_is_not_sent() {
        let map = map(&[("a.example", &Ca::root("a").pem())]);
        let contexts = Contexts::nobody(context()).next(map, |_| Err(ErrorStack::get()));
        let (asked, context) = contexts.choose(&ServerName::from_wire(Some(b"a.example")));
        assert!(asked && std::ptr::eq(context, &*contexts.plain));
    }
}
