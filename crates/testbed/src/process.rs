//! This knows how to build, start and stop the two binaries as child processes.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long a process may take over anything that a test waits for, on a slow and busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Builds a binary of the workspace with the profile of the running program, and returns its path. Where cargo does
/// not run this program, the binary must be beside it.
///
/// Cargo builds no binaries of other packages for a test or a program, so both ask for them here.
pub fn binary(name: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("the path of this program");
    // target/<profile>/name, or target/<profile>/deps/name-hash for a test.
    let dir = exe.parent().expect("a folder");
    let dir = if dir.ends_with("deps") { dir.parent().expect("a folder") } else { dir };
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", name, "--bin", name]);
        if dir.ends_with("release") {
            build.arg("--release");
        }
        build.arg("--target-dir").arg(dir.parent().expect("a target folder"));
        assert!(build.status().expect("cargo runs").success(), "cargo cannot build {name}");
    }
    dir.join(name)
}

/// The same command, started with a umask that keeps nothing from anybody, and with core dumps where they are allowed.
pub fn laxly(command: &Command) -> Command {
    let mut laxly = Command::new("sh");
    laxly.args(["-c", "umask 0; ulimit -c unlimited 2>/dev/null; exec \"$0\" \"$@\""]);
    laxly.arg(command.get_program()).args(command.get_args());
    laxly
}

/// The same command with one core: whatever then waits on a thread that serves requests is felt.
pub fn on_one_core(command: &Command) -> Command {
    let mut on_one = Command::new("taskset");
    on_one.args(["--cpu-list", &a_core()]).arg(command.get_program()).args(command.get_args());
    on_one
}

/// One that this process may run on.
fn a_core() -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("a process");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("its cores");
    list.trim().split([',', '-']).next().expect("one of them").to_owned()
}

/// Leaves no room for what others would write to this stream, until somebody reads from its other end.
pub fn fill(stream: &UnixStream) {
    stream.set_nonblocking(true).expect("a socket");
    while (&*stream).write(&[b'\n'; 4096]).is_ok() {}
    while (&*stream).write(b"\n").is_ok() {}
    stream.set_nonblocking(false).expect("a socket");
}

/// Whether a process keeps its memory and its files from others, as far as the system shows it: a core dump has no room,
/// its umask takes all from others and writing from its group, and its memory belongs to root.
///
/// # Panics
/// What is not so.
pub fn keeps_to_itself(pid: u32) {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).expect("a process");
    let limits = read("limits");
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).expect("a limit");
    assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"]);
    let status = read("status");
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:")).expect("a umask");
    let umask = u32::from_str_radix(umask.trim(), 8).expect("an octal number");
    assert_eq!(umask & 0o027, 0o027, "{umask:04o}");
    // What stands in it belongs to the user of who can be dumped, and to root of who cannot (proc(5)).
    let owner = std::fs::metadata(format!("/proc/{pid}/environ")).expect("a process").uid();
    assert_eq!(owner, 0, "its memory belongs to its user");
}

/// A child process whose output is kept; it is killed when this is dropped.
pub struct Process {
    name: String,
    child: Child,
    output: Arc<Output>,
}

#[derive(Default)]
struct Output {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

impl Process {
    /// Starts a command with an empty environment, as Kong starts its plugin servers.
    pub fn start(command: &mut Command) -> Self {
        let name =
            Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut child = command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let output = Arc::new(Output::default());
        keep(child.stdout.take().expect("a pipe"), &output);
        keep(child.stderr.take().expect("a pipe"), &output);
        Self { name, child, output }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn output(&self) -> Vec<String> {
        self.output.lines.lock().unwrap().clone()
    }

    /// Waits until it has printed a line that contains `text`, and returns the line.
    ///
    /// # Panics
    /// After [`PATIENCE`], with all that it printed instead.
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_for_count(text, 1)
    }

    /// Waits until it has printed so many lines that contain `text`, and returns the last of them.
    ///
    /// # Panics
    /// As [`Self::wait_for`]; where `count` is 0.
    pub fn wait_for_count(&self, text: &str, count: usize) -> String {
        let lines = self.output.lines.lock().unwrap();
        let found =
            |lines: &Vec<String>| lines.iter().filter(|line| line.contains(text)).nth(count - 1).cloned();
        let (lines, _) =
            self.output.more.wait_timeout_while(lines, PATIENCE, |lines| found(lines).is_none()).unwrap();
        let (line, printed) = (found(&lines), lines.join("\n"));
        // Whoever panics with it could not be dropped, which needs it too.
        drop(lines);
        line.unwrap_or_else(|| panic!("{} never printed {text:?}, but:\n{printed}", self.name))
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, signal: &str) {
        let pid = self.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "{} cannot be sent SIG{signal}", self.name);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// After [`PATIENCE`].
    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "{} does not end:\n{}", self.name, self.output().join("\n"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let lines = self.output();
            #[allow(clippy::print_stderr, reason = "a failed test shows what its processes said")]
            {
                eprintln!("--- {} printed:\n{}", self.name, lines.join("\n"));
            }
        }
    }
}

fn keep(pipe: impl Read + Send + 'static, output: &Arc<Output>) {
    let output = Arc::clone(output);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            output.lines.lock().unwrap().push(line);
            output.more.notify_all();
        }
    });
}
