//! This knows what is not counted but looked at whenever somebody asks.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use telemetry::prometheus_client::collector::Collector;
use telemetry::prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use telemetry::prometheus_client::metrics::MetricType;
use telemetry::prometheus_client::metrics::counter::ConstCounter;
use telemetry::prometheus_client::metrics::gauge::ConstGauge;

use crate::certificate::hex;
use crate::revocation::Revocation;
use crate::rpc::Server;
use crate::trust;

/// A server at which is looked.
pub(crate) struct Collected(pub(crate) Arc<Server>);

impl fmt::Debug for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collected")
    }
}

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(server) = self;
        let connections = server.connections.load(Ordering::Acquire) as u64;
        gauge(&mut encoder, "connections", "Open connections from Kong", connections)?;
        self.instances(&mut encoder)?;
        self.entity_source(&mut encoder)?;
        self.authorities(&mut encoder)?;
        self.revocation(&mut encoder)?;
        match server.instances.metrics().nearest.seen_lately(SystemTime::now()) {
            Some(ends) => gauge(
                &mut encoder,
                "client_certificate_nearest_expiry_timestamp_seconds",
                "When the first of the client certificates ends that were verified within the last hour or two",
                ends,
            ),
            None => Ok(()),
        }
    }
}

impl Collected {
    fn instances(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Self(server) = self;
        let mut family = encoder.encode_descriptor(
            "instances",
            "Plugin instances: one for each configuration in each of Kong's workers",
            None,
            MetricType::Gauge,
        )?;
        let running = server.instances.running().len();
        for (state, count) in [("running", running), ("not_started", server.instances.count_unstarted())] {
            ConstGauge::new(count as u64).encode(family.encode_family(&[("state", state)])?)?;
        }
        Ok(())
    }

    fn entity_source(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let health = self.0.instances.entities().health();
        if let Some(age) = health.age {
            gauge(
                encoder,
                "entity_source_age_seconds",
                "Time since the declarative file was last seen to be what is in use, or since the Admin API last answered \
                 what somebody wanted to know",
                age.as_secs_f64(),
            )?;
        }
        for (name, help, count) in [
            (
                "entity_source_errors",
                "How often the source of consumers and CAs did not answer as it should",
                health.failures,
            ),
            ("entity_cache_hits", "Consumers and CAs that were remembered", health.cache.hits),
            ("entity_cache_misses", "Consumers and CAs that had to be asked for", health.cache.misses),
        ] {
            let counter = ConstCounter::new(count);
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        Ok(())
    }

    /// As many labels as there are sources and codes.
    fn revocation(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Revocation::Checked(checker) = self.0.instances.revocation() else { return Ok(()) };
        let counts = checker.counts();
        let mut family = encoder.encode_descriptor(
            "revocation_checks",
            "What sources said of certificates, whether they were asked or had been before",
            None,
            MetricType::Counter,
        )?;
        for (source, result, count) in counts.checks {
            let labels = [("source", source), ("result", result)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        for (name, help, count) in [
            ("revocation_answers", "OCSP answers that are remembered", counts.answers),
            ("revocation_crls", "CRLs that are remembered", counts.crls),
            ("revocation_crl_entries", "Entries of CRLs that are remembered", counts.crl_entries),
            ("revocation_crl_bytes", "Memory that CRLs take which are remembered", counts.crl_bytes),
            ("revocation_local_crls", "CRLs of --crl-path", counts.local_crls),
            (
                "revocation_servers_left_alone",
                "OCSP responders and servers of CRLs that have failed, and are left alone for a while",
                counts.left_alone,
            ),
        ] {
            gauge(encoder, name, help, count)?;
        }
        Ok(())
    }

    /// As many labels as there are CAs in the configurations that run.
    fn authorities(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let trusts: Vec<_> =
            self.0.instances.running().iter().filter_map(|instance| instance.trust_as_last_read()).collect();
        let authorities: HashMap<_, _> = trusts.iter().flat_map(|trust| trust.authorities()).collect();
        let mut family = encoder.encode_descriptor(
            "ca_expiry_timestamp_seconds",
            "When a CA of a running instance ends, in seconds since 1970",
            None,
            MetricType::Gauge,
        )?;
        for (digest, authority) in authorities {
            let Some((subject, ends)) = trust::subject_and_end(authority) else { continue };
            let ends = ends.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let labels = [("subject", subject), ("sha256", hex(digest))];
            ConstGauge::new(ends).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn gauge<V>(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: V) -> fmt::Result
where
    ConstGauge<V>: EncodeMetric,
{
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}
