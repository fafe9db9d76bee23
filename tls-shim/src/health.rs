//! This knows what monitoring is told of the shim: its metrics, and whether it can do its work.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use telemetry::Pulse;
use telemetry::prometheus_client::collector::Collector;
use telemetry::prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use telemetry::prometheus_client::metrics::MetricType;
use telemetry::prometheus_client::metrics::gauge::ConstGauge;
use telemetry::prometheus_client::registry::Registry;
use telemetry::status::{Check, Listener, Report, Status};

use crate::connection::Shim;
use crate::plugin_server::PluginServer;
use crate::tls::Tls;

/// A running shim at which is looked. What is here stays the same over reloads.
struct Health {
    tls: Arc<Tls>,
    plugin_server: Option<PluginServer>,
    registry: Registry,
}

/// What is not counted but looked at whenever somebody asks.
struct Collected {
    tls: Arc<Tls>,
    plugin_server: Option<PluginServer>,
}

/// Begins to tell how the shim fares.
///
/// # Errors
/// The system gives no more threads or descriptors.
pub(crate) fn serve(listener: Listener, pulse: Arc<Pulse>, shim: &Shim) -> io::Result<Status> {
    let (tls, plugin_server) = (Arc::clone(&shim.tls), shim.plugin_server.clone());
    let mut registry = telemetry::registry("tls_shim", env!("CARGO_PKG_VERSION"));
    shim.metrics.register(&mut registry);
    let collected = Collected { tls: Arc::clone(&tls), plugin_server: plugin_server.clone() };
    registry.register_collector(Box::new(collected));
    listener.serve(pulse, Arc::new(Health { tls, plugin_server, registry }))
}

impl Report for Health {
    fn registry(&self) -> &Registry {
        &self.registry
    }

    async fn readiness(&self) -> Vec<Check> {
        let known = match self.tls.map().is_known {
            true => Ok(()),
            false => Err("nothing is known of Kong's configuration: everybody is asked".to_owned()),
        };
        let mut checks = vec![Check { name: "kong", result: known }];
        if let Some(plugin_server) = &self.plugin_server {
            let answers = plugin_server.answers();
            let result = if answers { Ok(()) } else { Err("the plugin server does not answer".to_owned()) };
            checks.push(Check { name: "plugin_server", result });
        }
        checks
    }
}

impl fmt::Debug for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collected")
    }
}

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let map = self.tls.map();
        // As many bits as a number of Prometheus has: it is the same where the configuration is.
        let [a, b, c, d, e, f, ..] = map.generation;
        let generation = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        let since = map.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut gauges = vec![
            (
                "map_generation",
                "A digest of who is asked and by which plugins: shims that differ in it do not agree",
                generation,
            ),
            ("map_changed_timestamp_seconds", "When the generation became another", since),
            ("map_names", "Server names that are asked for certificates", map.names as u64),
            (
                "map_known",
                "Whether anything is known of Kong's configuration; everybody is asked otherwise",
                map.is_known.into(),
            ),
        ];
        if let Some(plugin_server) = &self.plugin_server {
            gauges.push((
                "plugin_server_up",
                "Whether the plugin server answers",
                plugin_server.answers().into(),
            ));
        }
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            gauge.encode(metric)?;
        }
        self.server_certificates(&mut encoder)
    }
}

impl Collected {
    /// As many labels as there are certificates in Kong's configuration, and one or two for the default.
    fn server_certificates(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let certificates = self.tls.certificates();
        let default = self.tls.default_certificate();
        let all = certificates.usable().chain([&default]);
        let ends: BTreeMap<_, _> = all
            .flat_map(|certificate| {
                let id = certificate.id().unwrap_or_default();
                certificate
                    .ends()
                    .map(move |(subject, sha256, ends)| ((id.to_owned(), sha256), (subject, ends)))
            })
            .collect();
        let mut family = encoder.encode_descriptor(
            "server_certificate_expiry_timestamp_seconds",
            "When a server certificate ends, in seconds since 1970; by Kong's id of it, which the default has not",
            None,
            MetricType::Gauge,
        )?;
        for ((id, sha256), (subject, ends)) in ends {
            let ends = ends.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let labels = [("subject", subject), ("sha256", sha256), ("id", id)];
            ConstGauge::new(ends).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
