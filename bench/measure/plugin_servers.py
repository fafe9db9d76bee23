"""This knows the plugin servers that are measured side by side, and the Kong or its double that asks them.

All do the same for a request that passes: `get_headers`, the proof and the certificate, `set_headers`, `authenticate`. One does
nothing but the calls, with the same arguments each time.
"""

import base64
import http.client
import json
import os
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .machine import LOOPBACK, OTHER_CORES, SERVER_CORE, Failure, Process, free_port, wait_until
from .pki import SNI

CONSUMER, CONSUMER_ID = "alice", "7a8b5d3e-0d4c-4c64-9d28-0f5c2b7c6a11"
PEERS = Path(__file__).resolve().parent.parent / "peers"
PROTOCOLS = {"msgpack": "MsgPack:1", "protobuf": "ProtoBuf:1"}


@dataclass
class Setting:
    """What all of them need."""

    folder: Path
    keys: Path
    binaries: Path
    server: Path
    upstream: int

    def __post_init__(self):
        self.folder.mkdir()
        self.key_file = self.folder / "mtls-auth.key"
        self.key_file.touch(0o600)
        self.key_file.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
        self.ca = (self.keys / "ca.crt").read_text()

    def declarative(self, folder, plugin, config):
        """Kong's configuration. In YAML, which JSON is."""
        service = {"name": "behind", "url": f"http://{LOOPBACK}:{self.upstream}",
                   "routes": [{"name": "behind", "paths": ["/"], "plugins": [{"name": plugin, "config": config}]}]}
        consumer = {"username": CONSUMER, "id": CONSUMER_ID}
        file = folder / "kong.yml"
        file.write_text(json.dumps({"_format_version": "3.0", "services": [service], "consumers": [consumer]}))
        return file


class Server:
    """A plugin server, while it runs. It listens on a socket that nobody but Kong or the double knows."""

    plugin = "mtls-auth"
    protocols = tuple(PROTOCOLS)
    # How many requests a measurement takes.
    requests = 40_000

    def __init__(self, name, folder, setting, protocol):
        self.name, self.folder, self.setting, self.protocol = name, folder, setting, protocol
        folder.mkdir(parents=True)
        self.socket = folder / "server.socket"
        self.declarative = setting.declarative(folder, self.plugin, self.config())
        self.info = folder / "info.json"
        self.info.write_text(self.query())
        self.process = Process(self.command(), folder / "log", OTHER_CORES)

        def listens():
            if self.process.child.poll() is not None:
                raise Failure(f"{name} ended at once:\n{self.process.log.read_text(errors='replace')[-2000:]}")
            return self.socket.exists()

        _or_end(self.process, lambda: wait_until(f"the socket of {name}", listens))

    def config(self):
        return {"ca_certificates": [self.setting.ca]}

    def query(self):
        """What Kong is told of the plugin."""
        return ran(self.setting.server, "-dump", "--protocol", self.protocol)

    def command(self):
        raise NotImplementedError

    def end(self):
        self.process.end()


class Ours(Server):
    options = ()

    def command(self):
        return [self.setting.server, "--socket", self.socket, "--proof-key-file", self.setting.key_file,
                "--declarative-config", self.declarative, *self.options]


class Nothing(Server):
    def command(self):
        return [self.setting.binaries / "bench-nothing", "--socket", self.socket, "--protocol", self.protocol,
                "--consumer", CONSUMER, "--consumer-id", CONSUMER_ID]


class Peer(Server):
    """One of Kong's own PDKs, with the same plugin in its language."""

    plugin = "bench-peer"
    protocols = ("msgpack",)
    requests = 4_000

    def config(self):
        return {"ca": self.setting.ca, "key": self.setting.key_file.read_text()}

    def query(self):
        said = json.loads(ran(*self.program(), "--dump-all-plugins", "-d", self.plugins()))
        return json.dumps(said if isinstance(said, dict) else {"Protocol": "MsgPack:1", "Plugins": said})


class Python(Peer):
    def program(self):
        return [installed_python(self.setting) / "bin" / "kong-python-pluginserver"]

    def plugins(self):
        return PEERS / "python"

    def command(self):
        return [*self.program(), "-p", self.folder, "--socket-name", self.socket.name, "-d", self.plugins()]


class JavaScript(Peer):
    def program(self):
        return [installed_javascript(self.setting) / "kong-js-pluginserver"]

    def plugins(self):
        return PEERS / "javascript"

    def command(self):
        return [*self.program(), "-p", self.folder, "--sock-name", self.socket.name, "-d", self.plugins()]


SERVERS = {"mtls-auth": Ours, "do-nothing": Nothing, "python-pdk": Python, "javascript-pdk": JavaScript}


def _or_end(process, comes_up):
    """Nobody else ends a process that does not come up."""
    try:
        comes_up()
    except Failure:
        process.end()
        raise


def installed_python(setting):
    """kong-pdk from PyPI, in an environment of its own."""
    folder = setting.folder / "python"
    if not folder.exists():
        ran("python3", "-m", "venv", folder)
        ran(folder / "bin" / "pip", "install", "-q", "kong-pdk", "cryptography")
    return folder


def installed_javascript(setting):
    """kong-pdk from npm."""
    folder = setting.folder / "javascript"
    if not folder.exists():
        folder.mkdir()
        ran("npm", "install", "--silent", "--prefix", folder, "kong-pdk")
    return folder / "node_modules" / ".bin"


def ran(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"{command[0]}: {done.stderr.strip()[-2000:]}")
    return done.stdout


class Kong:
    """A real Kong with one worker, on a core of its own."""

    def __init__(self, program, server):
        folder = server.folder / "kong"
        folder.mkdir()
        self.port = free_port()
        user = "nginx_user = root root" if os.geteuid() == 0 else ""
        (folder / "kong.conf").write_text(f"""
prefix = {folder}/prefix
database = off
declarative_config = {server.declarative}
proxy_listen = {LOOPBACK}:{self.port}
admin_listen = off
status_listen = off
admin_gui_listen = off
anonymous_reports = off
proxy_access_log = off
nginx_daemon = off
nginx_worker_processes = 1
{user}
nginx_http_keepalive_requests = 100000000
upstream_keepalive_max_requests = 0
plugins = {server.plugin}
pluginserver_names = bench
pluginserver_bench_socket = {server.socket}
pluginserver_bench_query_cmd = /bin/cat {server.info}
""")
        self.process = Process([program, "start", "-c", folder / "kong.conf"], folder / "log", SERVER_CORE, cwd=folder)
        _or_end(self.process, lambda: wait_until("Kong", self._answers))

    def _answers(self):
        """Whether it answers at all. That it listens is not enough: nginx does so, too, while it tests its configuration."""
        if self.process.child.poll() is not None:
            raise Failure(f"Kong ended at once:\n{self.process.log.read_text(errors='replace')[-2000:]}")
        asked = http.client.HTTPConnection(LOOPBACK, self.port, timeout=5)
        try:
            asked.request("GET", "/")
            return asked.getresponse().status in (200, 401)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            asked.close()

    def end(self):
        self.process.end()


class Double:
    """Kong's double, which needs no Kong."""

    def __init__(self, server, routes=None):
        config = server.folder / "config.json"
        config.write_text(json.dumps(server.config()))
        command = [server.setting.binaries / "bench-double", "--socket", server.socket, "--info", server.info, "--config", config,
                   "--upstream", f"{LOOPBACK}:{server.setting.upstream}", "--consumer", CONSUMER, "--consumer-id", CONSUMER_ID]
        command += ["--routes", str(routes)] if routes else []
        self.child = subprocess.Popen(["taskset", "-c", SERVER_CORE, *map(str, command)], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True)
        said = self.child.stdout.readline()
        if not said:
            raise Failure("the double ended at once")
        self.port = int(said)

    def end(self):
        self.child.stdin.close()
        self.child.stdout.close()
        self.child.wait()


class PlainLoad:
    """Requests past the shim, with its hand-off, on kept connections."""

    def __init__(self, setting):
        self.setting = setting

    def command(self, port, *load, clients=()):
        setting = self.setting
        clients = clients or ("--cert", setting.keys / "client-p256.crt", "--key", setting.keys / "client-p256.key")
        return list(map(str, ["taskset", "-c", OTHER_CORES, setting.binaries / "bench-load", "--connect", f"{LOOPBACK}:{port}",
                              "--sni", SNI, "--plain", "--handoff-key", setting.key_file, *clients, *load]))

    def run(self, *arguments, **options):
        return json.loads(ran(*self.command(*arguments, **options)))
