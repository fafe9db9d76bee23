//! This knows how to make a disk hang for one process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::PATIENCE;

/// A disk that hangs whenever a test says so, for the processes that are started [on it](Self::on).
pub struct Disk {
    preloaded: PathBuf,
    sign: PathBuf,
}

impl Disk {
    /// Builds what comes between a process and its files, in this folder.
    ///
    /// # Panics
    /// Where there is no C compiler.
    pub fn new(folder: &Path) -> Self {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../spec/soaking/slow_disk.c");
        let preloaded = folder.join("slow_disk.so");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&preloaded).arg(source).status();
        assert!(built.expect("a C compiler").success(), "{source} cannot be built");
        Self { preloaded, sign: folder.join("disk-hangs") }
    }

    /// The same command with its files on this disk.
    pub fn on(&self, command: &Command) -> Command {
        let mut on = Command::new("env");
        on.arg(assignment("LD_PRELOAD", &self.preloaded)).arg(assignment("SLOW_DISK", &self.sign));
        on.arg(command.get_program()).args(command.get_args());
        on
    }

    /// Nothing that goes to a file comes back from now on. Returns once so many calls wait for it.
    ///
    /// # Panics
    /// After [`PATIENCE`].
    pub fn hang(&self, calls: u64) {
        std::fs::write(&self.sign, "").expect("a file");
        let since = Instant::now();
        while std::fs::metadata(&self.sign).expect("a file").len() < calls {
            assert!(since.elapsed() < PATIENCE, "no {calls} calls go to a file");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What waits goes on.
    pub fn recover(&self) {
        std::fs::remove_file(&self.sign).expect("a disk that hangs");
    }
}

fn assignment(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}
