"""This knows what is measured: rows of work, each done by every front in turn, several rounds, and what one operation costs."""

import json
import statistics
import subprocess
import time
from dataclasses import dataclass, field

from .machine import CONNECTIONS, LOOPBACK, OTHER_CORES, Failure
from .pki import SNI


@dataclass
class Row:
    """Some work. `better` says of the measured quantity whether less or more of it is good."""

    name: str
    says: str
    load: list
    unit: str
    key: str = "p256"
    tls: str = "1.3"
    http: str = "http1"
    path: str = "/"
    # So that ours is within this multiple of the better peer, by build.
    targets: dict = field(default_factory=dict)
    # The peers that count for it; all, where none is named.
    against: tuple = ()
    # What ours must not be above, whatever the peers do.
    limits: dict = field(default_factory=dict)
    better: str = "less"
    quantity: str = "cpu"  # microseconds of the server's CPU for one operation

    @property
    def warm(self):
        """What is asked before it counts: nothing that would leave connections or memory behind."""
        few = self.quantity == "memory" or self.path != "/"
        return ["requests", "--count", "4" if few else "200", "--connections", "1" if few else "8"]


def _full(kind, tls, targets):
    return Row(
        f"full-{kind}-tls{tls}", f"full handshake with a client certificate, {kind}, TLS {tls}, one request",
        ["handshakes", "--count", "2000"], "µs", key=kind, tls=tls, targets=targets,
    )


# In how many pieces each front has its load, in turn with the others.
PIECES = 8

HALF, EQUAL = {"default": 0.5, "fast": 0.3}, {"default": 1.0, "fast": 1.0}
RSA = {"default": 0.7, "fast": 0.7}

ROWS = [
    _full("p256", "1.3", HALF),
    _full("p256", "1.2", HALF),
    _full("rsa2048", "1.3", RSA),
    _full("rsa2048", "1.2", RSA),
    Row("resumed-tls1.2", "resumed handshake, the certificate known afterwards, TLS 1.2, one request",
        ["handshakes", "--count", "4000", "--resume"], "µs", tls="1.2", targets=EQUAL),
    Row("resumed-tls1.3", "resumed handshake, the certificate known afterwards, TLS 1.3, one request",
        ["handshakes", "--count", "4000", "--resume"], "µs", targets=EQUAL),
    Row("kept-http1", "request on a kept connection, HTTP/1.1, 12 bytes of answer",
        ["requests", "--count", "60000"], "µs", targets=EQUAL),
    Row("http2", "request on a kept connection, HTTP/2, 100 streams",
        ["requests", "--count", "60000", "--connections", "1", "--streams", "100"], "µs", http="http2", targets=EQUAL),
    Row("down-1m", "1 MiB down", ["requests", "--count", "1000", "--connections", "4"], "µs", path="/1m", targets=EQUAL),
    Row("down-100m", "100 MiB down", ["requests", "--count", "16", "--connections", "2"], "µs", path="/100m", targets=EQUAL),
    Row("up-1m", "1 MiB up", ["requests", "--count", "1000", "--connections", "4", "--upload", str(1 << 20)], "µs", path="/up", targets=EQUAL),
    Row("up-100m", "100 MiB up", ["requests", "--count", "16", "--connections", "2", "--upload", str(100 << 20)], "µs", path="/up", targets=EQUAL),
    Row("idle", "an idle connection after one request", ["idle", "--count", str(min(10_000, CONNECTIONS - 50))], "KiB", quantity="memory", targets=EQUAL),
    Row("latency-p50", "half the time of answers, at half the saturating load", [], "µs", quantity="p50", targets=EQUAL),
    Row("latency-p99", "99 % of the time of answers, at half the saturating load", [], "µs", quantity="p99", targets=EQUAL),
]


class Load:
    """The program that puts load on a front."""

    def __init__(self, binary, keys):
        self.binary = binary
        self.keys = keys

    def command(self, front, row, load):
        return [
            "taskset", "-c", OTHER_CORES, str(self.binary), "--connect", f"{LOOPBACK}:{front.port}", "--sni", SNI,
            "--cert", str(self.keys / f"client-{row.key}.crt"), "--key", str(self.keys / f"client-{row.key}.key"),
            "--tls", row.tls, "--http", row.http, "--path", row.path, *load,
        ]

    def run(self, front, row, load):
        done = subprocess.run(self.command(front, row, load), capture_output=True, text=True)
        if done.returncode:
            raise Failure(f"{front.name}, {row.name}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def spent(self, front, row):
        """Seconds of the server's CPU for a row's load, and the load's own account."""
        before = front.process.cpu()
        account = self.run(front, row, row.load)
        return front.process.cpu() - before, account

    def idle(self, front, row):
        """Bytes of the server for each of many idle connections."""
        count = int(row.load[-1])
        before = front.process.memory()
        with subprocess.Popen(
            self.command(front, row, row.load), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as child:
            if child.stdout.readline().strip() != "idle":
                raise Failure(f"{front.name}, {row.name}: {child.stderr.read().strip()}")
            # What a front keeps for a while in case there is another request.
            time.sleep(3)
            grown = front.process.memory() - before
            child.stdin.close()
            child.stdout.read()
        return grown / count


def measure(load, fronts, row):
    """One measurement of each front: numbers in the row's unit, by name."""
    if row.quantity == "cpu":
        return _cpu(load, fronts, row)
    return {name: _alone(load, front, row) for name, front in fronts.items()}


def _cpu(load, fronts, row):
    """All run, and each has a piece of its load in turn: where the machine is slower for some seconds, it is so for all. Whoever
    has no load costs nothing."""
    piece = list(row.load)
    at = piece.index("--count") + 1
    piece[at] = str(int(piece[at]) // PIECES)
    before = {name: front.process.cpu() for name, front in fronts.items()}
    done = dict.fromkeys(fronts, 0)
    for _ in range(PIECES):
        for name, front in fronts.items():
            account = load.run(front, row, piece)
            # AWS-LC sends its ticket with the answer, so that of several connections at once some begin before there is one: one
            # in ten is then a full handshake, which counts against it.
            if "--resume" in row.load and account["resumed"] < account["done"] * 0.85:
                raise Failure(f"{name}, {row.name}: only {account['resumed']} of {account['done']} were resumed")
            done[name] += account["done"]
    return {name: (front.process.cpu() - before[name]) / done[name] * 1e6 for name, front in fronts.items()}


def _alone(load, front, row):
    if row.quantity == "memory":
        return load.idle(front, row) / 1024
    saturated = load.run(front, row, ["requests", "--count", "20000", "--connections", "64"])
    rate = saturated["done"] / saturated["seconds"] / 2
    steady = load.run(front, row, ["rate", "--rate", f"{rate:.0f}", "--seconds", "3"])
    return steady[f"{row.quantity}_us"]


def summary(values):
    """The middle, and how far the others are from it."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values), "rounds": len(values)}
