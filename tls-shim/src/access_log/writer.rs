//! This knows how lines come into a file while requests never wait for it: by a queue that has an end, and one thread.
//!
//! What the queue has no room for, or the file does not take, is lost, and counted: a line tells of it once lines can be
//! written again.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use nix::libc::O_NONBLOCK;

use super::{dropped_line, line};
use crate::file::FileError;
use crate::limits;
use crate::record::{Finished, Observer};
use crate::settings;

/// Takes lines.
#[derive(Clone)]
pub(crate) struct AccessLog {
    queue: SyncSender<Vec<u8>>,
    shared: Arc<Shared>,
}

/// What whoever queues and whoever writes have in common.
struct Shared {
    /// None: standard output.
    path: Option<PathBuf>,
    /// Opened anew, and not yet written to.
    next: Mutex<Option<File>>,
    /// The lines that were lost since the last that was written.
    lost: AtomicU64,
    /// When the log was last told of lines that are lost.
    complained: Mutex<Option<Instant>>,
}

/// The thread that writes. It ends when there is nobody left to queue anything, once all is written.
pub(crate) struct Writing {
    /// Nothing comes; its other end goes with the thread.
    done: Receiver<()>,
}

/// Begins to write where the settings say; None where that is nowhere.
///
/// # Errors
/// The file cannot be opened, or there is no thread.
pub(crate) fn open(to: &settings::AccessLog) -> Result<Option<(AccessLog, Writing)>, FileError> {
    let (path, file) = match to {
        settings::AccessLog::Off => return Ok(None),
        settings::AccessLog::Stdout => (None, io::stdout().as_fd().try_clone_to_owned().map(File::from)),
        settings::AccessLog::File(path) => (Some(path.clone()), append(path, true)),
    };
    let named = path.clone().unwrap_or_else(|| "standard output".into());
    let wrong = |error: io::Error| FileError::new(&named, error);
    let file = file.map_err(wrong)?;
    let (queue, lines) = sync_channel(limits::LOG_QUEUE);
    let (alive, done) = channel();
    let shared = Arc::new(Shared {
        path,
        next: Mutex::default(),
        lost: AtomicU64::new(0),
        complained: Mutex::default(),
    });
    let mut writer = Writer { file, rest: Vec::new(), shared: Arc::clone(&shared) };
    let write = move || {
        let _alive = alive;
        writer.run(&lines);
    };
    std::thread::Builder::new().name("access-log".into()).spawn(write).map_err(wrong)?;
    Ok(Some((AccessLog { queue, shared }, Writing { done })))
}

/// Whether [`open`] would succeed, as far as that can be told without making a file: who tries may be another user than the
/// one whose file it shall be.
///
/// # Errors
/// It would not.
pub(crate) fn probe(to: &settings::AccessLog) -> Result<(), FileError> {
    let settings::AccessLog::File(path) = to else { return Ok(()) };
    let tried = match append(path, false) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(Path::new("/"));
            let folder = if folder == Path::new("") { Path::new(".") } else { folder };
            folder.metadata().map(drop)
        }
        tried => tried.map(drop),
    };
    tried.map_err(|error| FileError::new(path, error))
}

fn append(path: &Path, create: bool) -> io::Result<File> {
    // A pipe that nobody reads is an error, rather than something to wait for.
    OpenOptions::new().append(true).create(create).mode(0o640).custom_flags(O_NONBLOCK).open(path)
}

impl AccessLog {
    /// Opens the file anew, which may have been renamed. Lines that are queued from now on come into the new one.
    ///
    /// # Errors
    /// It cannot be opened: lines go on into the old one.
    pub(crate) fn reopen(&self) -> Result<(), FileError> {
        let Some(path) = &self.shared.path else { return Ok(()) };
        let file = append(path, true).map_err(|error| FileError::new(path, error))?;
        *self.shared.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }

    fn queue(&self, line: Vec<u8>) {
        match self.queue.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.shared.lose(1, "they are not written as fast as they come"),
            Err(TrySendError::Disconnected(_)) => self.shared.lose(1, "nobody writes them any more"),
        }
    }
}

impl Observer for AccessLog {
    fn finished(&self, request: &Finished<'_>) {
        self.queue(line(request, SystemTime::now()));
    }
}

impl Writing {
    /// Waits until all is written that was queued, but not for a disk that hangs. Whoever could queue more must be gone.
    pub(crate) fn finish(self) {
        let ended = self.done.recv_timeout(limits::LOG_FLUSH);
        if ended == Err(RecvTimeoutError::Timeout) {
            tracing::error!("the end of the access log was not written in time");
        }
    }
}

impl Shared {
    fn lose(&self, lines: u64, reason: &str) {
        let lost = self.lost.fetch_add(lines, Ordering::Relaxed) + lines;
        // Who comes while another one complains need not.
        let Ok(mut complained) = self.complained.try_lock() else { return };
        if complained.is_none_or(|last| last.elapsed() >= limits::LOG_COMPLAINT) {
            *complained = Some(Instant::now());
            tracing::error!(lost, reason, "lines of the access log are lost");
        }
    }
}

/// The thread's side.
struct Writer<F = File> {
    file: F,
    /// What is missing of a line that was written in part. It is the first to be written, so that lines stay whole.
    rest: Vec<u8>,
    shared: Arc<Shared>,
}

impl Writer {
    fn run(&mut self, lines: &Receiver<Vec<u8>>) {
        while let Ok(mut batch) = lines.recv() {
            while batch.len() < limits::LOG_BATCH
                && let Ok(line) = lines.try_recv()
            {
                batch.extend(line);
            }
            // After the lines were taken: those that were queued after the file was opened go there.
            if let Some(next) = self.shared.next.lock().unwrap_or_else(PoisonError::into_inner).take() {
                self.file = next;
                if !self.rest.is_empty() {
                    self.rest.clear();
                    self.shared.lose(1, "the file was opened anew in the middle of it");
                }
            }
            self.write(&batch);
        }
        // The last word, should lines have been lost since the last one.
        if self.shared.lost.load(Ordering::Relaxed) > 0 {
            self.write(&[]);
        }
    }
}

impl<F: Write> Writer<F> {
    /// Writes whole lines in one go, before them what tells of those that are lost.
    fn write(&mut self, lines: &[u8]) {
        let lost = self.shared.lost.swap(0, Ordering::Relaxed);
        let told = if lost > 0 { dropped_line(lost, SystemTime::now()) } else { Vec::new() };
        let all = [&self.rest, &told, lines].concat();
        let (written, error) = write_all(&mut self.file, &all);
        let (done, missing) = all.split_at(written);
        let is_begun = if done.is_empty() { !self.rest.is_empty() } else { !done.ends_with(b"\n") };
        // What was begun is ended next time.
        let (rest, gone) = missing.split_at(if is_begun { first_line(missing) } else { 0 });
        let is_told = told.is_empty() || written + rest.len() > self.rest.len();
        self.rest = rest.to_vec();
        if let Some(error) = error {
            let gone = gone.iter().filter(|&&byte| byte == b'\n').count() as u64;
            self.shared.lose(if is_told { gone } else { gone - 1 + lost }, &error.to_string());
        }
    }
}

/// The length of a line, with its end.
fn first_line(bytes: &[u8]) -> usize {
    bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |end| end + 1)
}

/// How much was written, and what kept the rest from it.
fn write_all(file: &mut impl Write, bytes: &[u8]) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Some(ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (written, Some(error)),
        }
    }
    (written, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has room for so many bytes.
    struct Disk {
        room: usize,
        content: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.room -= count;
            self.content.extend(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shared() -> Arc<Shared> {
        Arc::new(Shared {
            path: None,
            next: Mutex::default(),
            lost: AtomicU64::new(0),
            complained: Mutex::default(),
        })
    }

    #[test]
    fn lines_stay_whole_and_those_that_are_lost_are_counted_wherever_the_disk_is_full() {
        // At each byte of three batches, it is full for the rest of a batch, and then for one more.
        for room in 0..=40 {
            let mut writer =
                Writer { file: Disk { room, content: Vec::new() }, rest: Vec::new(), shared: shared() };
            for batch in ["{\"a\":1}\n{\"a\":2}\n", "{\"a\":3}\n{\"a\":4}\n"] {
                writer.write(batch.as_bytes());
            }
            // Room for a part of what tells of the loss, then for all.
            writer.file.room += 20;
            writer.write(b"{\"a\":5}\n");
            writer.file.room = 1000;
            writer.write(b"{\"a\":6}\n");
            writer.write(b"");
            let content = String::from_utf8(writer.file.content).unwrap();
            let lines: Vec<serde_json::Value> =
                content.lines().map(|line| serde_json::from_str(line).expect(&content)).collect();
            let written = lines.iter().filter(|line| line["a"].is_u64()).count() as u64;
            let told: u64 = lines.iter().filter_map(|line| line["dropped"].as_u64()).sum();
            assert_eq!(written + told, 6, "{room}: {content}");
            assert!(content.ends_with('\n') && writer.rest.is_empty(), "{room}: {content}");
        }
    }

    #[test]
    fn a_queue_that_is_full_makes_nobody_wait() {
        let (queue, lines) = sync_channel(2);
        let log = AccessLog { queue, shared: shared() };
        (0..5).for_each(|_| log.queue(b"{}\n".to_vec()));
        assert_eq!((lines.try_iter().count(), log.shared.lost.load(Ordering::Relaxed)), (2, 3));
    }
}
