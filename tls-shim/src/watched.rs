//! This knows whether `shim.yml`, or a file that it names, has changed on disk. The declarative file and the Admin API are
//! followed elsewhere, and what needs a restart is not looked at.

use std::path::{Path, PathBuf};

use kong_entities::{Looks, Stamp};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::settings::{SessionTickets, Settings};

/// What the settings name and can be read again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    DefaultCertificate,
    ProofKey,
    SessionTickets,
}

impl Part {
    pub(crate) const ALL: [Self; 3] = [Self::DefaultCertificate, Self::ProofKey, Self::SessionTickets];

    /// What names it in the settings.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::DefaultCertificate => "default_certificate",
            Self::ProofKey => "proof_key_file",
            Self::SessionTickets => "session_tickets",
        }
    }

    fn files(self, settings: &Settings) -> Vec<PathBuf> {
        match self {
            Self::DefaultCertificate => {
                let certificate = &settings.default_certificate;
                vec![certificate.cert.clone(), certificate.key.clone()]
            }
            Self::ProofKey => vec![settings.proof_key_file.clone()],
            Self::SessionTickets => match &settings.session_tickets {
                SessionTickets::On(tickets) => tickets.key_file.iter().cloned().collect(),
                SessionTickets::Off => Vec::new(),
            },
        }
    }
}

/// The files that are looked at, as they were when they were read.
pub(crate) struct Watched {
    settings: Group,
    named: Vec<(Part, Group)>,
}

/// Files that count together, such as a certificate and its key.
struct Group {
    paths: Vec<PathBuf>,
    looks: Looks<Vec<Option<Stamp>>>,
}

impl Watched {
    /// Looks at the settings file from now on. As the others, to be called right before it is read: what changes meanwhile
    /// is noticed.
    pub(crate) fn settings(path: &Path) -> Self {
        Self { settings: Group::new(vec![path.to_owned()]), named: Vec::new() }
    }

    /// The settings file is about to be read again.
    pub(crate) fn renew_settings(&mut self) {
        self.settings = Group::new(std::mem::take(&mut self.settings.paths));
    }

    /// Looks at what the settings name, and no longer at what others named, from now on.
    pub(crate) fn name(&mut self, settings: &Settings) {
        self.named = Part::ALL.map(|part| (part, Group::new(part.files(settings)))).into();
    }

    /// Whether the settings file is to be read again.
    pub(crate) fn settings_have_changed(&mut self) -> bool {
        self.settings.has_changed()
    }

    /// What else is to be read again.
    pub(crate) fn changed(&mut self) -> Vec<Part> {
        self.named.iter_mut().filter_map(|(part, group)| group.has_changed().then_some(*part)).collect()
    }
}

impl Group {
    fn new(paths: Vec<PathBuf>) -> Self {
        let looks = Looks::new(stamps(&paths));
        Self { paths, looks }
    }

    /// Whether they are others than were read, and as they were at the last look: whoever writes several files is not done
    /// after the first. This is said once of what they are then.
    fn has_changed(&mut self) -> bool {
        self.looks.is_settled_change(stamps(&self.paths))
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    paths.iter().map(|path| Stamp::of(path)).collect()
}

/// When to look.
pub(crate) fn ticks() -> Interval {
    let mut ticks = interval(kong_entities::POLL_INTERVAL);
    // Two looks right after one another would see nothing of somebody who writes.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
