//! What becomes of a process whose main loop has stalled: this very test program, run again as one that stalls.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use telemetry::prometheus_client::registry::Registry;
use telemetry::status::{Check, Listener, Report};
use telemetry::{Notify, Watchdog};

/// Says in a program that is run again what it is to do.
const ROLE: &str = "TELEMETRY_TEST_ROLE";

struct Fine(Registry);

impl Report for Fine {
    fn registry(&self) -> &Registry {
        &self.0
    }
    async fn readiness(&self) -> Vec<Check> {
        vec![Check { name: "socket", result: Ok(()) }]
    }
}

/// No test but the program that the others run.
#[test]
fn the_program() {
    let Ok(role) = std::env::var(ROLE) else { return };
    telemetry::log::start("info".parse().unwrap(), "stalled");
    // Short, but long enough for a machine that is busy.
    let (look_every, end_after) = match role.as_str() {
        "is ended" => (Duration::from_millis(10), 100),
        _ => (Duration::from_millis(200), u32::MAX),
    };
    let watchdog = Watchdog { look_every, end_after };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let notify = Notify::from_env().map(Arc::new);
        let pulse = watchdog.watch(notify.clone());
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let _status = listener.serve(pulse, Arc::new(Fine(Registry::default()))).unwrap();
        if let Some(notify) = notify {
            notify.ready();
        }
        // Until it is told to stall.
        let (told, is_told) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || told.send(std::io::stdin().read(&mut [0; 1]).unwrap()));
        is_told.await.unwrap();
        // Long after somebody should have ended it.
        std::thread::sleep(Duration::from_secs(60));
    });
}

/// The program in a role, and the address that it serves its status on.
struct Program {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    address: String,
}

impl Program {
    fn start(role: &str, env: &[(&str, &str)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_program", "--nocapture"])
            .env(ROLE, role)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("status is served") {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ended");
        }
        let address = line.split_once("\"address\":\"").unwrap().1.split_once('"').unwrap().0.to_owned();
        Self { child, stderr, address }
    }

    fn stall(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Status and body.
    fn get(&self, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.address);
        let output = Command::new("curl").args(["-sS", "-w", "%{http_code}", &url]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.split_at(text.len() - 3);
        (status.parse().unwrap(), body.to_owned())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_process_whose_loop_has_stalled_is_ended_and_says_why() {
    let mut program = Program::start("is ended", &[]);
    // Longer than the watchdog waits.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(program.child.try_wait().unwrap(), None, "it beats");
    program.stall();
    let mut said = String::new();
    program.stderr.read_to_string(&mut said).unwrap();
    assert!(said.contains("the main loop has stalled"), "{said}");
    let status = program.child.wait().unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(9), false), "{status}");
}

#[test]
fn health_is_told_truly_while_the_loop_stalls() {
    let mut program = Program::start("is asked", &[]);
    assert_eq!(program.get("/healthz"), (200, "loop: ok\n".into()));
    assert_eq!(program.get("/readyz"), (200, "loop: ok\nsocket: ok\n".into()));
    assert_eq!(program.get("/other").0, 404);
    program.stall();
    let begun = Instant::now();
    while program.get("/healthz").0 == 200 {
        assert!(begun.elapsed() < Duration::from_secs(30), "nobody notices");
    }
    let stalled = (503, "loop: it has stalled\n".to_owned());
    assert_eq!(program.get("/healthz"), stalled);
    assert_eq!(program.get("/readyz"), stalled);
    assert_eq!(program.get("/metrics").0, 200);
}

#[test]
fn a_service_manager_hears_of_the_start_and_of_each_beat_until_it_stalls() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let heard = || {
        let mut datagram = [0; 64];
        let length = manager.recv(&mut datagram)?;
        std::io::Result::Ok(String::from_utf8_lossy(&datagram[..length]).into_owned())
    };
    manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut program =
        Program::start("is asked", &[("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "40000")]);
    let mut all: Vec<String> = (0..5).map(|_| heard().unwrap()).collect();
    all.sort();
    assert_eq!(all[0], "READY=1");
    assert!(all[1..].iter().all(|state| state == "WATCHDOG=1"), "{all:?}");
    program.stall();
    while program.get("/healthz").0 == 200 {}
    // What was sent before is read, and then there is silence.
    manager.set_nonblocking(true).unwrap();
    while heard().is_ok() {}
    assert_eq!(program.get("/healthz").0, 503);
    assert!(heard().is_err(), "it does not run, and says that it does");
}
