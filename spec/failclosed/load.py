"""This knows the clients, the upstream that counts what arrives, and what is read from both."""

import collections
import http.client
import http.server
import math
import random
import socket
import socketserver
import threading
import time

from .stack import ARRANGEMENTS, LOOPBACK, OPEN, SHIM, host

# Each client sends a request so often, in seconds, unless an answer takes longer.
PERIOD = 0.15

# Kong waits a minute for the plugin server and may then let the request pass: whoever wants to see that waits longer.
LONG_PATIENCE = 75
SHORT_PATIENCE = 3

STRANGER = "stranger"  # without a certificate, or with one of a CA that is not trusted; claims to be alice
ALICE = "alice"  # with a good certificate; claims to be somebody else
ANYBODY = "anybody"  # without a certificate, on the open route


# Who has sent a request is told by a header of its own. By the path it could not be told: to a worker's first requests Kong
# 3.9.1 gives the path of another request of the same route, where no route has `paths`.
SENDER = "X-Sent-By"


class Upstream:
    """Counts what arrives, by who has sent it and the identity that Kong put beside it."""

    def __init__(self):
        self._lock = threading.Lock()
        self._arrived = collections.Counter()
        upstream = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                upstream._count(self.headers.get(SENDER), self.headers.get_all("X-Consumer-Username", []))
                self.send_response(200)
                self.send_header("Content-Length", "3")
                self.end_headers()
                self.wfile.write(b"ok\n")

            def log_message(self, *_):
                pass

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_):
                pass  # Kong ends connections as it likes.

        self._server = Server((LOOPBACK, 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _count(self, sender, names):
        with self._lock:
            self._arrived[sender, tuple(names)] += 1

    def begin(self):
        with self._lock:
            self._arrived.clear()

    def arrived(self):
        """How many requests of whom, and under which names, have arrived so far."""
        with self._lock:
            return collections.Counter(self._arrived)

    def unauthenticated(self, arrangement):
        """Requests of strangers that have arrived, whatever stands in them."""
        return self._sum(lambda sender, _: sender == f"{arrangement} {STRANGER}")

    def misnamed(self, arrangement):
        """Requests of alice that have arrived under any other name, such as the one that she chose for herself."""
        return self._sum(lambda sender, names: sender == f"{arrangement} {ALICE}" and names != ("alice",))

    def _sum(self, counts):
        return sum(number for (sender, names), number in self.arrived().items() if counts(sender, names))


Sent = collections.namedtuple("Sent", "began ended answer")


class Client(threading.Thread):
    """Sends one request after the other over a connection that it keeps."""

    def __init__(self, load, arrangement, kind, route, port, tls=None, patience=SHORT_PATIENCE):
        super().__init__(daemon=True)
        self.load, self.arrangement, self.kind, self.host = load, arrangement, kind, host(route)
        self.port, self.tls, self.patience = port, tls, patience
        # Of TLS: the name to ask for, and a session to resume by the next connection.
        self.sni, self.session = self.host, None
        # A name that is not the client's own, in both cases.
        claimed = "alice" if kind == STRANGER else "somebody-else"
        self.headers = {"Host": self.host, "X-Consumer-Username": claimed, SENDER: f"{arrangement} {kind}"}
        self.connection = None
        self.sent = []

    def run(self):
        time.sleep(random.uniform(0, PERIOD))
        due = time.monotonic()
        while not self.load.is_over.wait(max(0, due - time.monotonic())):
            began = time.monotonic()
            answer = self._send()
            ended = time.monotonic()
            self.sent.append(Sent(began, ended, answer))
            # What was missed in a long wait is not made up for.
            due = max(due + PERIOD, ended)
            if self.load.is_in_step:
                due = math.ceil(due / PERIOD) * PERIOD

    def _send(self):
        is_reused = self.connection is not None
        try:
            if not is_reused:
                self._connect()
            self.connection.request("GET", "/", headers=self.headers)
            response = self.connection.getresponse()
            response.read()
            if self.connection.sock is None:
                self.connection = None
            return str(response.status)
        except socket.timeout:
            return self._lost("timeout")
        except (http.client.HTTPException, OSError):
            answer = self._lost("no answer")
            # A server may close a connection that it keeps whenever it likes (RFC 9112, section 9.3.1).
            return self._send() if is_reused else answer

    def _connect(self):
        sock = socket.create_connection((LOOPBACK, self.port), timeout=self.patience)
        if self.tls:
            session, self.session = self.session, None
            sock = self.tls.wrap_socket(sock, server_hostname=self.sni, session=session)
        self.connection = http.client.HTTPConnection(self.host)
        self.connection.sock = sock

    def _lost(self, answer):
        if self.connection:
            self.connection.close()
            self.connection = None
        return answer


class Load:
    """All clients of all arrangements."""

    def __init__(self, stack):
        self.is_over = threading.Event()
        # All clients at the same moments: Kong then needs more connections to the plugin server than it has kept.
        self.is_in_step = False
        self.clients = []
        nobody, alice, mallory = (stack.pki.client(name) for name in (None, "alice", "mallory"))
        for arrangement in ARRANGEMENTS:
            watching = arrangement == SHIM
            shim = stack.watching_shim_port if watching else stack.plain_shim_port
            door = {"port": shim, "tls": nobody} if watching else {"port": stack.kong_port}
            self._add(4, arrangement, STRANGER, arrangement, patience=LONG_PATIENCE, **door)
            self._add(2, arrangement, STRANGER, arrangement, **door)
            self._add(1, arrangement, STRANGER, arrangement, port=shim, tls=mallory, patience=LONG_PATIENCE)
            self._add(3, arrangement, ALICE, arrangement, port=shim, tls=alice)
            self._add(1, arrangement, ALICE, arrangement, port=shim, tls=alice, patience=LONG_PATIENCE)
            self._add(2, arrangement, ANYBODY, OPEN, **door)

    def _add(self, count, *arguments, **options):
        self.clients += [Client(self, *arguments, **options) for _ in range(count)]

    def start(self):
        for client in self.clients:
            client.start()

    def end(self):
        """Begins nothing new, and waits for what has begun."""
        self.is_over.set()
        for client in self.clients:
            client.join()

    def sent(self, arrangement, kind):
        of_kind = (client for client in self.clients if (client.arrangement, client.kind) == (arrangement, kind))
        return [sent for client in of_kind for sent in list(client.sent)]

    def first_success(self, arrangement, since):
        """When alice had her first answer 200 to a request that she began after a moment, in seconds after it; or None."""
        good = [sent.ended - since for sent in self.sent(arrangement, ALICE) if sent.began >= since and sent.answer == "200"]
        return min(good, default=None)
