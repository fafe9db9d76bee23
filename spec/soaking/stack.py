"""This knows what the long run has beside the stack of fail-closed: consumers, revocation, an Admin API that comes and goes, a
clock that jumps."""

import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

from failclosed.faults import Fault
from failclosed.stack import CA_ID, GUARD_LUA, LOOPBACK, OPEN, Failure, Pki, Stack, free_ports, host, wait_until

PROTECTED = "protected"  # the plugin with the guard
STRICT = "strict"  # the same with revocation_check_mode STRICT
ROUTES = (PROTECTED, STRICT, OPEN)

# As Kong starts it, so that it can be killed.
MANAGED = Fault("", None)

# How long what was learnt of the Admin API and of the responder counts, in seconds: short, so that their faults are felt.
REMEMBERED = 3


class People(Pki):
    """Certificates of all who come, each of whom is to be told from the others."""

    def __init__(self, folder):
        self.ocsp_port, = free_ports(1)
        super().__init__(folder, ROUTES)
        (folder / "index.txt").touch()
        (folder / "ca.cnf").write_text(
            "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n"
            "unique_subject=no\nrand_serial=yes\n[p]\ncommonName=supplied\n"
        )
        client = "extendedKeyUsage=clientAuth"
        self._issue("alice", client)
        self._issue("bob", f"{client}\nsubjectAltName=DNS:bob", subject="somebody")
        self._issue("eve", client)
        self._issue("late", client, subject="alice", end="20240201000000Z")
        self._issue("server-only", "extendedKeyUsage=serverAuth", subject="alice")
        self._openssl("ca", "-config", "ca.cnf", "-cert", "ca.crt", "-keyfile", "ca.key", "-revoke", "eve.crt")

    def _issue(self, name, extensions, subject=None, end="20450101000000Z"):
        (self.folder / f"{name}.ext").write_text(
            "basicConstraints=CA:FALSE\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
            f"authorityInfoAccess=OCSP;URI:http://{LOOPBACK}:{self.ocsp_port}/\n{extensions}\n"
        )
        self._openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={subject or name}",
            "-keyout", f"{name}.key", "-out", f"{name}.csr",
        )
        self._openssl(
            "ca", "-batch", "-notext", "-config", "ca.cnf", "-cert", "ca.crt", "-keyfile", "ca.key",
            "-in", f"{name}.csr", "-out", f"{name}.crt", "-extfile", f"{name}.ext",
            "-startdate", "20240101000000Z", "-enddate", end,
        )


class SoakStack(Stack):
    """A Kong with two shims: one that faults meet, and one that runs from beginning to end."""

    def __init__(self, programs, folder, pki, protocol, upstream_port):
        super().__init__(programs, folder, pki, protocol, upstream_port, MANAGED)
        self.admin_port, relay_port, self.status_port = free_ports(3)
        self.shim_status = dict(zip((self.plain_shim_port, self.watching_shim_port), free_ports(2)))
        self.admin = TcpRelay(relay_port, self.admin_port)
        self.responder, self._responders = None, 0
        self.clock = folder / "clock"
        self.set_clock(0)
        self._slow_disk = folder / "disk-is-slow"

    def start(self):
        self.start_responder()
        super().start()

    def start_responder(self):
        pki = self.pki
        self.responder = self._run(
            "responder", "openssl", "ocsp", "-index", pki.path("index.txt"), "-port", pki.ocsp_port, "-nmin", "1",
            "-rsigner", pki.path("ca.crt"), "-rkey", pki.path("ca.key"), "-CA", pki.path("ca.crt"), "-ignore_err",
        )
        # It says so. Whoever connected to look would be the last that it serves: it waits for what nobody sends.
        self._responders += 1
        log = self.folder / "responder.log"
        wait_until("the responder listens", lambda: log.read_text().count("ACCEPT") >= self._responders)

    def kill(self):
        super().kill()
        self.admin.close()

    def set_clock(self, seconds):
        """By how much the clock of the plugin server is wrong, where libfaketime is there."""
        new = self.clock.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        os.rename(new, self.clock)

    def set_disk_slow(self, is_slow):
        """Whether what goes to a file takes its time, where there is a compiler."""
        if is_slow:
            self._slow_disk.touch()
        else:
            self._slow_disk.unlink()

    def shim_pid(self, port):
        """Whoever serves at the port of a shim: its first process, or one that has taken over. Its settings tell, for what it has
        open is nobody's to see but root's."""
        settings = str(self.folder / self._shim_name(port == self.watching_shim_port)).encode() + b".yml"
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if settings in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                pass
        # While one takes over, there are two; the older one leaves.
        return max(found, default=None)

    def start_shim(self, port):
        self._start_shim(port, port == self.watching_shim_port)

    def write_declarative_config(self):
        self._write_declarative_config()

    def break_declarative_config(self):
        """Half of it, in place: what an editor or a full disk leaves."""
        path = self.folder / "kong.json"
        path.write_text(path.read_text()[:300])

    def running_events(self):
        """Of the plugin server's own metrics; None where it does not answer."""
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{self.status_port}/metrics", timeout=3) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return None
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith("mtls_auth_events_in_flight"))

    def _shim_settings(self, port, watches):
        settings = super()._shim_settings(port, watches)
        settings["status_listen"] = f"{LOOPBACK}:{self.shim_status[port]}"
        settings["plugin_server"] = str(self.socket)
        settings["access_log"] = str(self.folder / f"access-{port}.log")
        return settings

    def _server_command(self):
        command = [
            self.programs.mtls_auth, "--kong-prefix", self.prefix, "--socket", self.server_socket,
            "--proof-key-file", self.folder / "proof.key", "--admin-url", f"http://{LOOPBACK}:{self.admin.port}",
            "--allow-private-revocation-urls", "--status-listen", f"{LOOPBACK}:{self.status_port}",
        ]
        clock = {
            "FAKETIME_TIMESTAMP_FILE": self.clock, "FAKETIME_NO_CACHE": 1, "FAKETIME_DONT_FAKE_MONOTONIC": 1,
        }
        return [*self._with((self.programs.faketime, clock), self._disk()), *command]

    def _shim_command(self, settings):
        return [*self._with(self._disk()), *super()._shim_command(settings)]

    def _disk(self):
        return self.programs.slow_disk, {"SLOW_DISK": self._slow_disk, "SLOW_DISK_SECONDS": 1}

    @staticmethod
    def _with(*libraries):
        """What starts a command with libraries that are there, and with what they read of the environment."""
        there = [(path, variables) for path, variables in libraries if path]
        variables = {"LD_PRELOAD": ":".join(str(path) for path, _ in there)} if there else {}
        for _, more in there:
            variables |= more
        return ["/usr/bin/env", *(f"{name}={value}" for name, value in variables.items())]

    def _entities(self):
        def plugins(**more):
            config = {"ca_certificates": [CA_ID], "cache_ttl": REMEMBERED, "cert_cache_ttl": REMEMBERED, **more}
            guard = {"name": "post-function", "config": {"access": [GUARD_LUA]}}
            return [{"name": "mtls-auth", "config": config}, guard]

        by_route = {
            PROTECTED: plugins(revocation_check_mode="SKIP"),
            STRICT: plugins(revocation_check_mode="STRICT"),
            OPEN: [{"name": "request-transformer", "config": {"remove": {"headers": ["X-Consumer-Username"]}}}],
        }
        return by_route, ["alice", "bob", "eve"]

    def _kong_settings(self):
        return {**super()._kong_settings(), "admin_listen": f"{LOOPBACK}:{self.admin_port}"}


class TcpRelay:
    """Passes on what comes to a port, refuses it, or swallows it."""

    def __init__(self, port, to):
        self.port, self._to, self.mode = port, to, "pass"
        self._listener = socket.create_server((LOOPBACK, port), backlog=128)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection:
            if self.mode == "refuse":
                return
            try:
                with socket.create_connection((LOOPBACK, self._to)) as kong:
                    threading.Thread(target=self._pump, args=(connection, kong), daemon=True).start()
                    self._pump(kong, connection)
            except OSError:
                pass

    def _pump(self, source, sink):
        try:
            while data := source.recv(1 << 16):
                while self.mode == "swallow":
                    time.sleep(0.1)
                if self.mode == "refuse":
                    break
                sink.sendall(data)
        except OSError:
            pass
        for each in (source, sink):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self._listener.close()


def end(process):
    """Ends a child at once."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def build_slow_disk(folder):
    """The library that makes files slow."""
    library = folder / "slow_disk.so"
    source = Path(__file__).with_name("slow_disk.c")
    built = subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source], capture_output=True, text=True)
    if built.returncode != 0:
        raise Failure(f"cc: {built.stderr.strip()}")
    return library


def check_faketime(path):
    """That the library moves a clock."""
    said = subprocess.run(
        ["date", "+%s"], capture_output=True, text=True, env={"LD_PRELOAD": path, "FAKETIME": "+1000000"}, check=True
    ).stdout
    if int(said) < time.time() + 900_000:
        raise Failure(f"{path} moves no clock")
