//! This knows what the plugin does while Kong's own listener shakes hands: it has Kong ask for a client certificate.
//!
//! Kong runs this phase for plugins that apply to everything, before it knows a route. Nothing is decided here, and
//! whatever goes wrong ends in a request without a certificate, which the access phase refuses.

use crate::instance::Instance;
use crate::source::Source;
use crate::wire::pdk::MsgPackPdk;

/// Asks, where the instance takes certificates from Kong's own listener.
pub(crate) async fn ask(pdk: &mut MsgPackPdk, instance: &Instance) {
    if instance.source != Source::Tls {
        return;
    }
    pdk.request_client_certificate().await;
    // A session that is resumed brings the leaf back without its chain, so that it would verify at first and no more then;
    // and it would outlive the plugin that it was made under.
    pdk.disable_session_reuse().await;
}
