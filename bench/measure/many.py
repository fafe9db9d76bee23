"""This knows what is measured with very many of something: client certificates, plugin instances, routes."""

import json
import re
import signal
import subprocess
import time
import urllib.request

from . import fronts
from .machine import LOOPBACK, Failure, free_port, wait_until
from .pki import SNI
from .plugin_servers import Double, Ours, PlainLoad
from .rows import ROWS, Row

CERTIFICATES, INSTANCES, ROUTES = 100_000, 10_000, 100_000

CA_ID = "6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2d"

SERVER, SHIM, FEW = "mtls-auth", "tls-shim", "tls-shim, one route"

_MANY = f"{CERTIFICATES:,} client certificates, {INSTANCES:,} instances"

GROUPS = {
    "many-certificates": [
        Row("many-bounded-p99", f"{_MANY}, of which 10,000 remembered: 99 % of the server's own times for a request", [], "µs",
            quantity="bounded-p99", limits={SERVER: 1000}),
        Row("many-bounded-memory", f"{_MANY}, of which 10,000 remembered: memory", [], "MiB", quantity="bounded-memory"),
        Row("many-p99", f"{_MANY}, all remembered: 99 % of the server's own times for a request", [], "µs",
            quantity="p99", limits={SERVER: 1000}),
        Row("many-memory", f"{_MANY}, all remembered: memory", [], "MiB", quantity="memory"),
        Row("many-instances", f"{INSTANCES:,} instances: memory of each", [], "KiB", quantity="instance"),
        Row("many-certificate", f"{CERTIFICATES:,} client certificates: memory of each that is remembered", [], "KiB",
            quantity="certificate"),
    ],
    "many-routes": [
        Row("many-routes-reload", f"a map of {ROUTES:,} routes, from SIGHUP until it counts, while a client connects again and again", [], "ms",
            quantity="reload", limits={SHIM: 1000}),
        Row("many-routes-cpu", f"a map of {ROUTES:,} routes, from SIGHUP until it counts: CPU", [], "ms", quantity="reload-cpu",
            limits={SHIM: 1000}),
        Row("many-routes-handshake", f"full handshake and one request, with {ROUTES:,} routes", [], "µs", quantity="handshake",
            targets={SHIM: 1.05}),
    ],
}


class Watched(Ours):
    """Ours with /metrics, and room for so many certificates."""

    room = None

    def command(self):
        self.status = free_port()
        room = ["--verified-certificates", self.room] if self.room else []
        return [*super().command(), "--status-listen", f"{LOOPBACK}:{self.status}", *room]


def metrics(port):
    """All samples, as text."""
    with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics") as answer:
        return answer.read().decode()


def quantile(text, name, labels, share):
    """A quantile of a histogram, between the bounds of its bucket as Prometheus does it, in its unit."""
    pattern = rf'^{name}_bucket{{le="([^"]+)",{labels}}} (\d+)|^{name}_bucket{{{labels},le="([^"]+)"}} (\d+)'
    buckets = [(float((a or c).replace("+Inf", "inf")), int(b or d)) for a, b, c, d in re.findall(pattern, text, re.M)]
    wanted = share * buckets[-1][1]
    lower, below = 0.0, 0
    for bound, count in sorted(buckets):
        if count >= wanted:
            return lower + (bound - lower) * (wanted - below) / (count - below) if bound != float("inf") else lower
        lower, below = bound, count
    raise Failure(f"{name} counts nothing")


def certificates(setting, folder):
    """Every certificate comes twice, each time at another instance than the one before it."""
    measured = {}
    for prefix, room in (("bounded-", None), ("", CERTIFICATES)):
        kind = type("Watched", (Watched,), {"room": room})
        server = kind(SERVER, folder / f"room-{room}", setting, "msgpack")
        try:
            double = Double(server, INSTANCES)
            try:
                load = PlainLoad(setting)
                empty = server.process.memory()
                load.run(double.port, "requests", "--count", INSTANCES, "--connections", "8", clients=_clients(setting, 1, INSTANCES))
                started = server.process.memory()
                begun = metrics(server.status)
                account = load.run(double.port, "requests", "--count", 2 * CERTIFICATES, "--connections", "8",
                                   clients=_clients(setting, CERTIFICATES, INSTANCES))
            finally:
                double.end()
            filled = server.process.memory()
            seconds = quantile(metrics(server.status), "mtls_auth_access_duration_seconds", 'phase="own"', 0.99)
            assert begun and account["done"] == 2 * CERTIFICATES
        finally:
            server.end()
        measured[f"{prefix}p99"] = seconds * 1e6
        measured[f"{prefix}memory"] = filled / 2**20
    measured["instance"] = (started - empty) / INSTANCES / 1024
    measured["certificate"] = (filled - started) / CERTIFICATES / 1024
    return {SERVER: measured}


def _clients(setting, count, paths):
    return ("--certificates", count, "--ca", setting.keys / "ca.crt", "--ca-key", setting.keys / "ca.key", "--paths", paths)


class ManyRoutes(fronts.Shim):
    """The shim with many routes beside the one that is asked for."""

    routes = ROUTES
    # Kong takes JSON, too, and reading YAML of this size is most of the time.
    declarative = "kong.json"

    def more_settings(self):
        self.status = free_port()
        return f'status_listen: "{LOOPBACK}:{self.status}"'

    def _kong(self, version=0):
        ca = {"id": CA_ID, "cert": (self.keys / "ca.crt").read_text()}
        plugin = {"name": "mtls-auth", "config": {"ca_certificates": [CA_ID]}}
        names = [SNI, *(f"n{number}.v{version}.example" for number in range(self.routes))]
        routes = [{"name": name, "snis": [name], "paths": ["/"], "plugins": [plugin]} for name in names]
        return json.dumps({"_format_version": "3.0", "ca_certificates": [ca], "services": [
            {"name": "behind", "url": f"http://{LOOPBACK}:{self.upstream}", "routes": routes}
        ]})

    def generation(self):
        return re.search(r"^tls_shim_map_generation (\S+)", metrics(self.status), re.M)[1]

    def reload(self, version):
        """Milliseconds from SIGHUP until another map counts."""
        before = self.generation()
        new = self.folder / "new.json"
        new.write_text(self._kong(version))
        new.rename(self.folder / self.declarative)
        begun = time.monotonic()
        self.process.child.send_signal(signal.SIGHUP)
        wait_until("another map", lambda: self.generation() != before)
        return (time.monotonic() - begun) * 1000


def routes(binary, load, folder, keys, upstream):
    handshake = next(row for row in ROWS if row.name == "full-p256-tls1.3")
    measured = {}
    for name, count in ((SHIM, ROUTES), (FEW, 0)):
        kind = type("Routes", (ManyRoutes,), {"binary": binary, "routes": count})
        front = kind(name, folder / f"routes-{count}", keys, "p256", upstream.port)
        try:
            load.run(front, handshake, handshake.warm)
            spent, account = load.spent(front, handshake)
            measured[name] = {"handshake": spent / account["done"] * 1e6}
            if count:
                with subprocess.Popen(load.command(front, handshake, ["handshakes", "--count", "1000000", "--at-once", "1"]),
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as clients:
                    measured[name]["reload"] = front.reload(1)
                    clients.kill()
                before = front.process.cpu()
                front.reload(2)
                measured[name]["reload-cpu"] = (front.process.cpu() - before) * 1000
        finally:
            front.end()
    return measured
