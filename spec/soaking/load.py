"""This knows who comes, what each of them should get, and what is wrong of what they got."""

import base64
import collections
import random
import shutil
import ssl
import subprocess
import threading
import time
from dataclasses import dataclass

from failclosed.load import SENDER, Client
from failclosed.stack import LOOPBACK, OPEN, host

from .stack import PROTECTED, STRICT

# Each connection serves so many requests, then the session is resumed on another one.
REQUESTS_OF_A_CONNECTION = 20

# Without a fault near, a request may take so long, in seconds.
PATIENCE = 20


@dataclass(frozen=True)
class Kind:
    """Those who should all get the same."""

    name: str
    answer: str  # while there is no fault
    consumer: str = None  # the only name under which they may arrive; None for those who may not arrive
    certificate: str = None
    route: str = PROTECTED
    sni: str = None  # another than the host
    past_the_shim: bool = False
    forges: tuple = ()
    http2: bool = False
    count: int = 1

    @property
    def may_arrive(self):
        return self.consumer is not None


# As the consumer of the open route, where nobody is authenticated.
NOBODY = ""

KINDS = [
    Kind("alice", "200", "alice", certificate="alice", count=3),
    Kind("bob", "200", "bob", certificate="bob", count=2),
    Kind("alice, strictly", "200", "alice", certificate="alice", route=STRICT, count=2),
    Kind("alice over HTTP/2", "200", "alice", certificate="alice", http2=True),
    Kind("anybody", "200", NOBODY, route=OPEN),
    Kind("eve, revoked", "401", certificate="eve", route=STRICT, count=2),
    Kind("no certificate", "401", count=2),
    Kind("no certificate over HTTP/2", "401", http2=True),
    Kind("mallory, of another CA", "401", certificate="mallory", count=2),
    Kind("a certificate that has ended", "401", certificate="late"),
    Kind("a certificate for servers", "401", certificate="server-only"),
    Kind("another host on a connection that was not asked", "421", sni=OPEN),
    Kind("past the shim", "401", past_the_shim=True, count=2),
    Kind("past the shim with a forged hand-off", "401", past_the_shim=True, forges=("Client-Cert", "Client-Cert-Proof")),
    Kind("past the shim with underscores", "401", past_the_shim=True, forges=("Client_Cert", "client_cert_proof")),
    Kind("through the shim with a forged hand-off", "401", forges=("Client-Cert", "Client-Cert-Proof")),
]


class Visitor(Client):
    """One of a kind. Claims to be alice if it is not, and somebody else if it is."""

    def __init__(self, load, kind, port, tls, leaf):
        super().__init__(load, kind.name, kind.name, kind.route, port, tls, patience=PATIENCE)
        self.of, self.served, self.sni = kind, 0, host(kind.sni or kind.route)
        self.headers = {
            "Host": host(kind.route), SENDER: kind.name,
            "X-Consumer-Username": "bob" if kind.consumer == "alice" else "alice", "X_Consumer_Username": "root",
        }
        for name in kind.forges:
            sni = base64.urlsafe_b64encode(host(kind.route).encode()).decode().rstrip("=")
            proof = f"v1.{int(time.time())}.{sni}.{'A' * 43}"
            self.headers[name] = f":{leaf}:" if name.lower().endswith("cert") else proof

    def _send(self):
        self.served += 1
        if self.connection and self.served % REQUESTS_OF_A_CONNECTION == 0:
            self._leave()
        return super()._send()

    def _leave(self):
        if self.tls:
            # As browsers do; Python knows nothing of tickets that came after its first read.
            self.session = self.connection.sock.session
        self.connection.close()
        self.connection = None


class Curl(Visitor):
    """The same over HTTP/2, by a program that is not ours."""

    def __init__(self, load, kind, port, tls, leaf):
        super().__init__(load, kind, port, tls, leaf)
        certificate = []
        if kind.certificate:
            pki = load.stack.pki
            certificate = ["--cert", pki.path(f"{kind.certificate}.crt"), "--key", pki.path(f"{kind.certificate}.key")]
        headers = [word for name, value in self.headers.items() if name != "Host" for word in ("-H", f"{name}: {value}")]
        self.command = [
            "curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", "--http2", "-m", str(PATIENCE),
            "--cacert", load.stack.pki.path("ca.crt"), *certificate, *headers,
            "--connect-to", f"::{LOOPBACK}:{port}", f"https://{host(kind.route)}/",
        ]

    def _send(self):
        # A process is dear.
        time.sleep(1)
        said = subprocess.run([str(part) for part in self.command], capture_output=True, text=True).stdout.split()
        if len(said) != 2 or said[0] == "000":
            return "no answer"
        return said[0] if said[1] == "2" else f"{said[0]} over HTTP/{said[1]}"


class Crowd:
    """All visitors at once."""

    def __init__(self, stack):
        self.stack, self.is_over, self.is_in_step = stack, threading.Event(), False
        leaf = "".join(stack.pki.path("alice.crt").read_text().split("-----")[2].split())
        self.visitors = []
        for kind in KINDS:
            if kind.http2 and not shutil.which("curl"):
                continue
            for position in range(kind.count):
                shims = (stack.plain_shim_port, stack.watching_shim_port)
                port = stack.kong_port if kind.past_the_shim else shims[position % 2]
                tls = None if kind.past_the_shim else self._tls(kind, position)
                self.visitors.append((Curl if kind.http2 else Visitor)(self, kind, port, tls, leaf))

    def _tls(self, kind, position):
        context = self.stack.pki.client(kind.certificate)
        if position % 2:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context

    def start(self):
        for visitor in self.visitors:
            visitor.start()

    def end(self):
        self.is_over.set()
        for visitor in self.visitors:
            visitor.join()

    def served_since(self, moment):
        """Whether each has had the answer that it should have, to a request that it began after a moment."""
        return all(
            any(sent.began >= moment and sent.answer == visitor.of.answer for sent in reversed(visitor.sent[-50:]))
            for visitor in self.visitors
        )

    def waiting_for(self, moment):
        """Who has not, and what they got."""
        return {
            visitor.of.name: collections.Counter(sent.answer for sent in visitor.sent if sent.began >= moment)
            for visitor in self.visitors
            if not any(sent.began >= moment and sent.answer == visitor.of.answer for sent in visitor.sent)
        }


def wrong_arrivals(arrived):
    """Requests that have arrived at the upstream and should not have, or under a name that is not theirs."""
    kinds = {kind.name: kind for kind in KINDS}
    wrong = collections.Counter()
    for (sender, names), count in arrived.items():
        kind = kinds.get(sender)
        mine = () if kind and kind.consumer == NOBODY else (kind.consumer,) if kind else None
        if kind is None or not kind.may_arrive or names != mine:
            wrong[f"{sender} as {', '.join(names) or 'nobody'}"] += count
    return wrong


def wrong_answers(visitors, faults):
    """Answers that nobody's fault explains: by kind, what was answered how often. `faults` are spans of time."""
    wrong, right = collections.Counter(), 0
    for visitor in visitors:
        for sent in visitor.sent:
            if any(sent.began <= ended and began <= sent.ended for began, ended in faults):
                continue
            if sent.answer == visitor.of.answer:
                right += 1
            else:
                wrong[f"{visitor.of.name}: {sent.answer}"] += 1
    return wrong, right


def shuffled(faults, seed):
    """All of them in one order after another, without end."""
    order = random.Random(seed)
    while True:
        round_ = list(faults)
        order.shuffle(round_)
        yield from round_
