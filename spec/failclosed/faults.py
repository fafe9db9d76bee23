"""This knows the faults: what each of them does to the plugin server while the load goes on."""

import os
import random
import signal
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import Callable


@dataclass(frozen=True)
class Fault:
    """What is done, and what must be so from the start for it."""

    says: str
    inflict: Callable
    managed: bool = True  # Kong starts the plugin server
    late: bool = False  # nobody does, until the fault itself does
    relayed: bool = False  # a relay stands between Kong and the plugin server
    full_log: bool = False  # Kong's error log, to which the plugin server's output goes, is full
    full_stderr: bool = False  # the plugin server's own standard error is full, and the shims'


def _kill(stack, _):
    for _ in range(5):
        pid = stack.server_pid()
        if pid:
            os.kill(pid, signal.SIGKILL)
        time.sleep(2)


def _stop(stack, seconds):
    pid = stack.server_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


def _start_late(stack, _):
    time.sleep(8)
    stack.start_server()


def _remove_socket(stack, _):
    os.unlink(stack.socket)
    time.sleep(5)
    # With those of the servers' own, from which the first could be made again.
    for path in stack.socket.parent.glob(f"{stack.socket.name}*"):
        path.unlink()
    time.sleep(5)


def _reload(stack, _):
    for _ in range(3):
        stack.reload()
        time.sleep(3)


def _wait(_, __):
    time.sleep(8)


def _cut(stack, _):
    stack.relay.cuts = True
    time.sleep(15)
    stack.relay.cuts = False


def _fake(answer):
    def inflict(stack, _):
        fake = Fake(stack.socket, answer)
        # In this order, for at no time shall there be nobody: that is another fault.
        stack.server.kill()
        stack.server.wait()
        time.sleep(8)
        # The real one takes the path from the fake.
        stack.start_server()
        fake.close()

    return inflict


class Fake:
    """Takes the path of the plugin server's socket, and answers whatever comes with bytes; with None it closes."""

    def __init__(self, path, answer):
        self._answer, self._connections = answer, []
        self._listener = socket.socket(socket.AF_UNIX)
        new = f"{path}.fake"
        self._listener.bind(new)
        self._listener.listen(256)
        os.rename(new, path)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection):
        with connection:
            try:
                while call := _read(connection):
                    answer = self._answer(call)
                    if answer is None:
                        return
                    connection.sendall(answer)
            except OSError:
                pass

    def close(self):
        for each in [self._listener, *self._connections]:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()


class Relay(Fake):
    """Passes on what Kong and the plugin server say; while it cuts, every fourth answer is lost with its connection.

    So the plugin server dies, as Kong sees it, at each step of a conversation.
    """

    def __init__(self, path, server):
        self.cuts, self._server = False, server
        self._random = random.Random(1)
        super().__init__(path, None)

    def _converse(self, connection):
        with connection, socket.socket(socket.AF_UNIX) as server:
            try:
                server.connect(str(self._server))
                threading.Thread(target=self._pass_calls, args=(connection, server), daemon=True).start()
                while answer := server.recv(1 << 16):
                    if self.cuts and self._random.random() < 0.25:
                        break
                    connection.sendall(answer)
                # Wakes the other direction.
                for each in (connection, server):
                    each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    @staticmethod
    def _pass_calls(connection, server):
        try:
            while call := connection.recv(1 << 16):
                server.sendall(call)
            server.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def _random_bytes(_):
    return os.urandom(random.randint(1, 64))


def _nothing(_):
    return None


def _http(_):
    return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def _error(call):
    """An error to each call: in MsgPack:1 a text; ProtoBuf:1 has none, so there a PDK method that Kong does not have."""
    if _is_frame(call):
        return _frame(b"sorry") + _frame(b"")
    return b"\x94\x01" + _msgid(call) + b"\xa5sorry\xc0"


def _nil(call):
    """That all is done: in MsgPack:1 neither error nor result, in ProtoBuf:1 an event that ends without a PDK call."""
    if not _is_frame(call):
        return b"\x94\x01" + _msgid(call) + b"\xc0\xc0"
    fields = _fields(call[FRAME_HEADER:])
    answer = b"\x08" + fields[SEQUENCE]
    if CMD_START_INSTANCE in fields:
        # The status of the instance, in a field of the same number: its id is 1.
        return _frame(answer + b"\x8a\x02\x02\x10\x01")
    return (_frame(b"") if CMD_HANDLE_EVENT in fields else b"") + _frame(answer)


# Of RpcCall, in Kong's pluginsocket.proto.
SEQUENCE, CMD_START_INSTANCE, CMD_HANDLE_EVENT = 1, 33, 36


def _fields(message):
    """The fields of a protobuf message by number, as they stand there. Kong writes them in any order."""
    fields, at = {}, 0
    while at < len(message):
        key, at = _varint(message, at)
        begins = at
        value, at = _varint(message, at)
        if key & 7 == 2:
            begins, at = at, at + value
        fields[key >> 3] = message[begins:at]
    return fields


def _varint(message, at):
    value, shift = 0, 0
    while True:
        byte, at = message[at], at + 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


FRAME_HEADER = 4


def _is_frame(call):
    """Whether it is ProtoBuf:1: a length that has room in three bytes, rather than MsgPack:1's [0, id, "method", ...]. The
    shim asks in MsgPack:1, whatever Kong speaks."""
    return not call.startswith(b"\x94\x00") or call.startswith(b"\x94\x00\x00\x00")


def _read(connection):
    """A call, or what there is of it at its end. Kong writes those of MsgPack:1 at once, and frames in two parts."""
    call = connection.recv(1 << 16)
    while call and _is_frame(call):
        missing = FRAME_HEADER - len(call)
        if missing <= 0:
            missing += struct.unpack_from("<I", call)[0]
        more = connection.recv(missing) if missing > 0 else b""
        if not more:
            break
        call += more
    return call


def _msgid(call):
    """The id of a call [0, id, ...] as it stands there: a MessagePack integer of one to nine bytes."""
    length = {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}.get(call[2], 1)
    return call[2 : 2 + length]


def _frame(content):
    return struct.pack("<I", len(content)) + content


FAULTS = {
    "kill": Fault("kill -9, five times, every 2 s; Kong starts it again", _kill),
    "stop": Fault("SIGSTOP for 90 s, then SIGCONT", _stop),
    "late": Fault("Kong takes requests 8 s before the plugin server starts", _start_late, managed=False, late=True),
    "socket": Fault("its socket's file is removed, and 5 s later all files of its sockets", _remove_socket),
    "reload": Fault("kong reload, three times", _reload),
    "cut": Fault("for 15 s every fourth answer of it is lost with its connection", _cut, managed=False, relayed=True),
    "fake-random": Fault("killed; what listens in its place answers random bytes", _fake(_random_bytes), managed=False),
    "fake-close": Fault("killed; what listens in its place closes each connection", _fake(_nothing), managed=False),
    "fake-error": Fault("killed; what listens in its place answers an error", _fake(_error), managed=False),
    "fake-nil": Fault("killed; what listens in its place says that all is done", _fake(_nil), managed=False),
    "fake-http": Fault("killed; what listens in its place speaks HTTP", _fake(_http), managed=False),
    "full-log": Fault("the disk of Kong's error log is full", _wait, full_log=True),
    "full-stderr": Fault("the disk of its own log, and the shim's, is full", _wait, managed=False, full_stderr=True),
}
