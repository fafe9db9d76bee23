//! This knows where an instance finds Kong's entities: CA certificates, consumers and manual mappings. They come from a
//! declarative file, from the Admin API, or, as far as it can tell, from Kong itself.

mod kong;

use std::sync::Arc;
use std::time::Duration;

use kong_entities::{
    CaCertificate, Consumer, ConsumerKey, Directory, FAILURE_PAUSE, Mapping, SourceHealth, is_pem,
};

use crate::config::{Config, ConsumerField};
use crate::pdk::Pdk;
use crate::reason::{Reason, Refusal};

pub(crate) use kong::KongConsumers;

/// The one source of a plugin server.
pub(crate) enum EntitySource {
    /// Kong that asks us: its consumers by id and username. It has no call for anything else.
    Kong(KongConsumers),
    /// A declarative file or the Admin API.
    Directory(Directory),
}

impl EntitySource {
    /// Whether a configuration asks for nothing that the source does not know. To let it start all the same would be to
    /// find nobody where somebody is.
    ///
    /// # Errors
    /// Names the field.
    pub(crate) fn check(&self, config: &Config) -> Result<(), String> {
        const OPTIONS: &str = "--admin-url or --declarative-config";
        if matches!(self, Self::Directory(_)) {
            return Ok(());
        }
        if let Some(position) = config.ca_certificates.iter().position(|entry| !is_pem(entry)) {
            let entry = &config.ca_certificates[position];
            return Err(format!(
                "config.ca_certificates[{position}]: {entry:?} is not PEM, and without {OPTIONS} no ids are known"
            ));
        }
        if config.maps_by(ConsumerField::CustomId) {
            return Err(format!(
                "config.consumer_by: without {OPTIONS} consumers are found by username only, not by custom_id"
            ));
        }
        Ok(())
    }

    /// The CA certificate with this id. While it does not change, the same `Arc` is given.
    ///
    /// # Errors
    /// The source does not answer, or not as it should.
    pub(crate) async fn ca_certificate(
        &self,
        id: &str,
        max_age: Duration,
    ) -> Result<Option<Arc<CaCertificate>>, Refusal> {
        match self {
            Self::Kong(_) => Ok(None),
            Self::Directory(directory) => Ok(directory.ca_certificate(id, max_age).await?),
        }
    }

    /// A consumer. `fallback` names the one that the caller would take in place of one that there is not.
    ///
    /// # Errors
    /// The source does not answer, or not as it should: then there is no fallback either.
    pub(crate) async fn consumer(
        &self,
        pdk: &mut impl Pdk,
        key: ConsumerKey,
        max_age: Duration,
        fallback: Option<&str>,
    ) -> Result<Option<Arc<Consumer>>, Refusal> {
        match self {
            Self::Kong(consumers) => consumers.find(pdk, key, max_age, fallback).await,
            Self::Directory(directory) => Ok(directory.consumer(key, max_age).await?),
        }
    }

    /// How the source fares.
    pub(crate) fn health(&self) -> SourceHealth {
        match self {
            Self::Kong(consumers) => consumers.health(),
            Self::Directory(directory) => directory.health(),
        }
    }

    /// Whether anything can be known of the entities. Kong is there whenever it asks; a declarative file was read at the
    /// start; an Admin API must have answered once.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn is_ready(&self) -> Result<(), String> {
        match self {
            Self::Directory(directory) if directory.health().age.is_none() => {
                Err("the Admin API has not answered yet".into())
            }
            Self::Directory(_) | Self::Kong(_) => Ok(()),
        }
    }

    /// Asks the source until it has answered once, though nobody wants to know anything yet: who is only asked once it is
    /// ready would never be.
    pub(crate) async fn wait_until_ready(&self) {
        if let Self::Directory(directory) = self {
            while let Err(error) = directory.check().await {
                tracing::debug!(%error, "the Admin API is not there yet");
                tokio::time::sleep(FAILURE_PAUSE).await;
            }
        }
    }

    /// The manual mappings for exactly this subject name, beside those of the configuration.
    pub(crate) fn mappings(&self, subject_name: &str) -> Vec<Mapping> {
        match self {
            Self::Kong(_) => Vec::new(),
            Self::Directory(directory) => directory.mappings(subject_name),
        }
    }

    /// What a configuration that names a CA by its id is told where there is none.
    pub(crate) fn unknown_ca(position: usize, id: &str) -> Refusal {
        Refusal::with(
            Reason::CaUnavailable,
            format_args!("config.ca_certificates[{position}]: there is no CA certificate with the id {id:?}"),
        )
    }
}
