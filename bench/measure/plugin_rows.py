"""This knows what is measured of plugin servers: the access phase, on a real Kong and on the double."""

from .machine import Failure
from .plugin_servers import CONSUMER, SERVERS, Double, Kong, PlainLoad
from .rows import Row

OURS = "mtls-auth"
SCRIPTED = ("python-pdk", "javascript-pdk")
NOTHING = ("do-nothing",)

KONG, DOUBLE = "a real Kong, one worker", "Kong's double"


def _on_kong(protocol, name):
    says = f"access phase, {KONG}, {name}"
    return [
        Row(f"kong-{protocol}-rate", f"{says}: requests", [], "requests/s", quantity="rate", better="more", against=NOTHING,
            targets={OURS: 0.95}),
        Row(f"kong-{protocol}-kong", f"{says}: CPU of Kong", [], "µs", quantity="kong", against=NOTHING, targets={OURS: 1.05}),
        Row(f"kong-{protocol}-server", f"{says}: CPU of the plugin server", [], "µs", quantity="server", against=SCRIPTED,
            limits={OURS: 25}),
    ]


def _on_double(protocol, name, targets):
    return [Row(f"double-{protocol}-server", f"access phase, {DOUBLE}, {name}: CPU of the plugin server", [], "µs",
                quantity="server", against=SCRIPTED, targets=targets)]


# Rows of one group are measured together. Nobody's PDK but ours speaks ProtoBuf:1.
GROUPS = {
    "kong-msgpack": ("msgpack", True, _on_kong("msgpack", "MsgPack:1")),
    "kong-protobuf": ("protobuf", True, _on_kong("protobuf", "ProtoBuf:1")),
    "double-msgpack": ("msgpack", False, _on_double("msgpack", "MsgPack:1", {OURS: 0.04})),
    "double-protobuf": ("protobuf", False, _on_double("protobuf", "ProtoBuf:1", {})),
}


def measure(setting, folder, name, protocol, kong):
    """All quantities of one server, by their names. `kong` is the program of a real one, or None for the double."""
    server = SERVERS[name](name, folder, setting, protocol)
    try:
        front = Kong(kong, server) if kong else Double(server)
        try:
            load = PlainLoad(setting)
            ask = lambda count: load.run(front.port, "--path", "/whoami", "requests", "--count", count, "--connections", "16")
            ask(min(2000, server.requests))
            before = server.process.cpu(), front.process.cpu() if kong else 0
            account = ask(server.requests)
            after = server.process.cpu(), front.process.cpu() if kong else 0
        finally:
            front.end()
    finally:
        server.end()
    # Kong lets requests pass whose plugin failed.
    if account["bytes_down"] != account["done"] * len(CONSUMER):
        raise Failure(f"{name}: not all requests came to the upstream as {CONSUMER}")
    each = [(now - then) / account["done"] * 1e6 for then, now in zip(before, after)]
    return {"rate": account["done"] / account["seconds"], "server": each[0], "kong": each[1]}
