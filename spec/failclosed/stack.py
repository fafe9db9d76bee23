"""This knows how Kong, mtls-auth and two tls-shims are set up in a folder, started and stopped."""

import base64
import grp
import http.client
import json
import os
import pwd
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from pathlib import Path

from .faults import Relay

LOOPBACK = "127.0.0.1"

# How each protected route is defended. All three are routes of the same Kong, so that they meet the same fault.
GUARD = "guard"  # the plugin and the guard beside it; strangers talk to Kong's plain port
SHIM = "shim"  # the plugin alone; everybody talks to a tls-shim that watches the plugin server
NEITHER = "neither"  # the plugin alone; strangers talk to Kong's plain port
ARRANGEMENTS = (GUARD, SHIM, NEITHER)
OPEN = "open"  # a route without the plugin

GUARD_LUA = """\
if not (kong.client.get_credential() or kong.client.get_consumer()) then
  return kong.response.error(503, "Authentication is not available")
end
"""
CA_ID = "6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2d"

# How long anything may take to start or to end on a slow machine, in seconds.
PATIENCE = 60


class Failure(Exception):
    """The run cannot go on, and says nothing about Kong or the plugin."""


def host(route):
    return f"{route}.example"


def end_by_sigterm():
    """SIGTERM ends this program as Ctrl-C does, through `finally`; a second one does not cut that short."""

    def leave(*_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(2)

    signal.signal(signal.SIGTERM, leave)


def wait_until(what, holds, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while not holds():
        if time.monotonic() > deadline:
            raise Failure(f"waited {patience} s in vain: {what}")
        time.sleep(0.05)


def free_ports(count):
    """Ports that nobody listens on. They are found together, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind((LOOPBACK, 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Pki:
    """Throw-away certificates: a CA with alice and the server under it, and one of the same name that nobody trusts."""

    def __init__(self, folder, routes=(*ARRANGEMENTS, OPEN)):
        self.folder = folder
        folder.mkdir()
        for name in ("ca", "other"):
            self._openssl(
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=fail-closed CA",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", f"{name}.key", "-out", f"{name}.crt",
            )
        self._leaf("alice", "ca", "alice", "extendedKeyUsage=clientAuth")
        self._leaf("mallory", "other", "alice", "extendedKeyUsage=clientAuth")
        names = ",".join(f"DNS:{host(route)}" for route in routes)
        self._leaf("server", "ca", "server", f"extendedKeyUsage=serverAuth\nsubjectAltName={names}")

    def _leaf(self, name, ca, common_name, extensions, validity=("-days", "2")):
        (self.folder / f"{name}.ext").write_text(
            # Newer Pythons insist on the identifiers (RFC 5280, section 4.2.1.1).
            f"basicConstraints=CA:FALSE\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n{extensions}\n"
        )
        self._openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={common_name}",
            "-keyout", f"{name}.key", "-out", f"{name}.csr",
        )
        self._openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.crt", "-CAkey", f"{ca}.key", "-CAcreateserial",
            *validity, "-extfile", f"{name}.ext", "-out", f"{name}.crt",
        )

    def _openssl(self, *arguments):
        done = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failure(f"openssl {arguments[0]}: {done.stderr.strip()}")

    def path(self, name):
        return self.folder / name

    def client(self, name=None):
        """A client that trusts the server, with the certificate of that name or without any."""
        context = ssl.create_default_context(cafile=str(self.path("ca.crt")))
        if name:
            context.load_cert_chain(self.path(f"{name}.crt"), self.path(f"{name}.key"))
        return context


class Stack:
    """One Kong with all that stands around it, in a folder of its own."""

    def __init__(self, programs, folder, pki, protocol, upstream_port, fault):
        self.programs, self.folder, self.pki = programs, folder, pki
        self.protocol, self.upstream_port, self.fault = protocol, upstream_port, fault
        folder.mkdir()
        self.prefix = folder / "prefix"
        self.prefix.mkdir()
        self.socket = self.prefix / "mtls-auth.socket"
        # A relay between Kong and the plugin server takes the path that Kong knows.
        self.server_socket = self.prefix / "behind.socket" if fault.relayed else self.socket
        self.kong_port, self.plain_shim_port, self.watching_shim_port = free_ports(3)
        self.kong = self.server = self.relay = None
        self.children = []

    def start(self):
        self._write_key()
        self._write_declarative_config()
        self._write_kong_conf()
        if not self.fault.managed and not self.fault.late:
            self.start_server()
        if self.fault.relayed:
            self.relay = Relay(self.socket, self.server_socket)
        self.kong = self._run("kong", self.programs.kong, "start", "-c", self.folder / "kong.conf", "-p", self.prefix)
        wait_until("Kong answers", self._kong_answers)
        for port, watches in ((self.plain_shim_port, False), (self.watching_shim_port, True)):
            self._start_shim(port, watches)

    def start_server(self):
        """Starts mtls-auth, where Kong does not."""
        output = "/dev/full" if self.fault.full_stderr else None
        self.server = self._run("mtls-auth", *self._server_command(), output=output)
        wait_until("mtls-auth serves", lambda: self.server_pid() == self.server.pid)

    def server_pid(self):
        """The process that listens on the plugin server's socket now, or None. The system knows who has called listen()."""
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.settimeout(5)
                connection.connect(str(self.server_socket))
            except OSError:
                return None
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return struct.unpack("3i", credentials)[0]

    def reload(self):
        self._kong("reload")

    def stop(self):
        """Lets Kong answer what it still has, so that nothing arrives after the count."""
        if self.kong and self.kong.poll() is None:
            self._kong("quit", "--timeout", "70")
        self.kill()

    def kill(self):
        """Ends whatever is left of it, whatever state it is in."""
        for child in self.children:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()
        if self.relay:
            self.relay.close()
        # Kong starts the plugin server in a group of its own; our folder stands in its command line, and in no other.
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if str(self.folder).encode() in (entry / "cmdline").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
            except (OSError, ValueError):
                pass

    def log(self):
        """The last lines of each log, for when something went wrong."""
        lines = []
        for path in sorted(self.folder.glob("*.log")) + [self.prefix / "logs" / "error.log"]:
            if path.is_file():
                lines += [f"--- {path}"] + path.read_text(errors="replace").splitlines()[-15:]
        return "\n".join(lines)

    def _run(self, name, *command, output=None):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("KONG_")}
        with open(output or self.folder / f"{name}.log", "ab") as log:
            # A session of its own, so that Ctrl-C reaches this script alone, and its group can be ended.
            child = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                start_new_session=True,
            )
        self.children.append(child)
        return child

    def _kong(self, command, *arguments):
        child = self._run(f"kong-{command}", self.programs.kong, command, "-p", self.prefix, *arguments)
        try:
            child.wait(timeout=100)
        except subprocess.TimeoutExpired as error:
            raise Failure(f"kong {command} does not end") from error

    def _kong_answers(self):
        # To listen is not enough: `kong start` listens for a moment when it tests its configuration.
        if not self._listens(self.kong_port, self.kong):
            return False
        connection = http.client.HTTPConnection(LOOPBACK, self.kong_port, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == 404
        except (http.client.HTTPException, OSError):
            return False
        finally:
            connection.close()

    @staticmethod
    def _listens(port, process):
        if process.poll() is not None:
            raise Failure(f"{process.args[0]} has ended")
        with socket.socket() as connection:
            return connection.connect_ex((LOOPBACK, port)) == 0

    def _start_shim(self, port, watches):
        name = self._shim_name(watches)
        # JSON is YAML.
        (self.folder / f"{name}.yml").write_text(json.dumps(self._shim_settings(port, watches), indent=2))
        output = "/dev/full" if self.fault.full_stderr else None
        shim = self._run(name, *self._shim_command(self.folder / f"{name}.yml"), output=output)
        wait_until("tls-shim listens", lambda: self._listens(port, shim))
        return shim

    def _shim_command(self, settings):
        return [self.programs.tls_shim, "--config", settings]

    @staticmethod
    def _shim_name(watches):
        return "tls-shim-watching" if watches else "tls-shim"

    def _shim_settings(self, port, watches):
        settings = {
            "listen": [f"{LOOPBACK}:{port}"],
            "upstream": f"http://{LOOPBACK}:{self.kong_port}",
            "kong": {"declarative_config": str(self.folder / "kong.json")},
            "default_certificate": {"cert": str(self.pki.path("server.crt")), "key": str(self.pki.path("server.key"))},
            "proof_key_file": str(self.folder / "proof.key"),
        }
        if watches:
            settings["plugin_server"] = str(self.socket)
        return settings

    def _write_key(self):
        key = self.folder / "proof.key"
        key.touch(mode=0o600)
        key.write_bytes(base64.b64encode(os.urandom(32)))

    def _server_command(self):
        return [
            self.programs.mtls_auth, "--kong-prefix", self.prefix, "--socket", self.server_socket,
            "--proof-key-file", self.folder / "proof.key", "--declarative-config", self.folder / "kong.json",
        ]

    def _entities(self):
        """The plugins of each route, and the consumers."""
        plugin = {"name": "mtls-auth", "config": {"ca_certificates": [CA_ID]}}
        guard = {"name": "post-function", "config": {"access": [GUARD_LUA]}}
        return {GUARD: [plugin, guard], SHIM: [plugin], NEITHER: [plugin], OPEN: []}, ["alice"]

    def _write_declarative_config(self):
        plugins, consumers = self._entities()
        routes = [
            {"name": route, "hosts": [host(route)], "snis": [host(route)], "plugins": plugins[route]} for route in plugins
        ]
        config = {
            "_format_version": "3.0",
            "ca_certificates": [{"id": CA_ID, "cert": self.pki.path("ca.crt").read_text()}],
            "consumers": [{"username": name} for name in consumers],
            # Without retries, what arrives at the upstream twice was sent twice.
            "services": [
                {"name": "upstream", "url": f"http://{LOOPBACK}:{self.upstream_port}", "retries": 0, "routes": routes}
            ],
        }
        (self.folder / "kong.json").write_text(json.dumps(config, indent=2))

    def _write_kong_conf(self):
        lines = [f"{name} = {value}\n" for name, value in self._kong_settings().items()]
        (self.folder / "kong.conf").write_text("".join(lines))

    def _kong_settings(self):
        dump = f"{self.programs.mtls_auth} -dump --protocol {self.protocol}"
        settings = {
            "database": "off",
            "declarative_config": self.folder / "kong.json",
            "proxy_listen": f"{LOOPBACK}:{self.kong_port}",
            "admin_listen": "off",
            "admin_gui_listen": "off",
            "status_listen": "off",
            "anonymous_reports": "off",
            "nginx_daemon": "off",
            "nginx_worker_processes": 2,
            "log_level": "info",
            "proxy_access_log": "off",
            "plugins": "bundled,mtls-auth",
            # Under another name than the plugin's, for which Kong would start a server that is installed.
            "pluginserver_names": "fail-closed",
            "pluginserver_fail_closed_socket": self.socket,
            "pluginserver_fail_closed_query_cmd": dump,
            "trusted_ips": f"{LOOPBACK}/32",
            "nginx_proxy_large_client_header_buffers": "8 64k",
        }
        if self.fault.managed:
            settings["pluginserver_fail_closed_start_cmd"] = " ".join(str(part) for part in self._server_command())
        if self.fault.full_log:
            settings["proxy_error_log"] = "/dev/full"
        if os.geteuid() == 0:
            # Kong's workers would run as nobody, who may not read the folder.
            user = pwd.getpwuid(0).pw_name
            settings["nginx_user"] = f"{user} {grp.getgrgid(pwd.getpwuid(0).pw_gid).gr_name}"
        return settings
