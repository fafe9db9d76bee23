"""This knows the TLS fronts that are measured side by side, each with one worker or thread, and what stands behind them.

All do the same: ask every client for a certificate, take any whose key it has, and put it into a header of the request.
"""

import base64
import secrets

from .machine import CONNECTIONS, LOOPBACK, OTHER_CORES, Process, free_port
from .pki import SNI

# Of TLS 1.2, for all alike.
CIPHERS = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"


class Upstream:
    """An nginx that answers with 12 bytes, with 1 MiB or 100 MiB, and takes bodies of any size."""

    def __init__(self, folder):
        folder.mkdir()
        self.port = free_port()
        for name, size in (("1m", 1 << 20), ("100m", 100 << 20)):
            with open(folder / name, "wb") as file:
                file.truncate(size)
        (folder / "nginx.conf").write_text(f"""
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections {2 * CONNECTIONS}; }}
http {{
  access_log off; client_body_temp_path {folder}/body; keepalive_requests 100000000; client_max_body_size 0;
  sendfile on; tcp_nodelay on; large_client_header_buffers 8 64k;
  server {{
    listen {LOOPBACK}:{self.port} backlog=4096;
    location = /1m {{ root {folder}; }}
    location = /100m {{ root {folder}; }}
    # The whole body is read before there is an answer, as an application does.
    location /up {{ proxy_pass http://{LOOPBACK}:{self.port}/; client_body_buffer_size 128m; }}
    location = /whoami {{ return 200 $http_x_consumer_username; }}
    location / {{ return 200 "hello world\\n"; }}
  }}
}}""")
        self.process = Process(["nginx", "-p", folder, "-c", folder / "nginx.conf"], folder / "log", OTHER_CORES)
        self.process.serves(self.port)

    def end(self):
        self.process.end()


class Front:
    """One of them, while it runs."""

    def __init__(self, name, folder, keys, kind, upstream):
        self.name = name
        self.folder = folder
        self.keys = keys
        self.kind = kind
        self.upstream = upstream
        self.port = free_port()
        folder.mkdir(parents=True)
        self.process = self.start()
        self.process.serves(self.port)

    def start(self):
        raise NotImplementedError

    def end(self):
        self.process.end()


class Nginx(Front):
    def start(self):
        (self.folder / "nginx.conf").write_text(f"""
daemon off; pid {self.folder}/nginx.pid; error_log {self.folder}/error.log; worker_processes 1;
events {{ worker_connections {2 * CONNECTIONS}; }}
http {{
  access_log off; client_body_temp_path {self.folder}/body; proxy_temp_path {self.folder}/proxy;
  keepalive_requests 100000000; keepalive_timeout 600s; client_max_body_size 0; large_client_header_buffers 8 64k;
  http2_max_requests 100000000; http2_max_concurrent_streams 200; tcp_nodelay on;
  upstream behind {{ server {LOOPBACK}:{self.upstream}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen {LOOPBACK}:{self.port} ssl http2 backlog=4096; server_name {SNI};
    ssl_certificate {self.keys}/server-{self.kind}.crt; ssl_certificate_key {self.keys}/server-{self.kind}.key;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_ciphers {CIPHERS}; ssl_ecdh_curve X25519:prime256v1;
    ssl_verify_client optional_no_ca; ssl_session_tickets on; ssl_session_cache off;
    location / {{
      proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_set_header X-Client-Cert $ssl_client_escaped_cert; proxy_set_header X-Forwarded-For $remote_addr;
      proxy_request_buffering off; proxy_max_temp_file_size 0;
    }}
  }}
}}""")
        return Process(["nginx", "-p", self.folder, "-c", self.folder / "nginx.conf"], self.folder / "log")


class Haproxy(Front):
    def start(self):
        (self.folder / "haproxy.cfg").write_text(f"""
global
  nbthread 1
  maxconn {CONNECTIONS}
  tune.ssl.default-dh-param 2048
  ssl-default-bind-ciphers {CIPHERS}
  ssl-default-bind-curves X25519:P-256
  tune.h2.max-concurrent-streams 200
defaults
  mode http
  timeout client 600s
  timeout server 600s
  timeout connect 5s
  option http-keep-alive
  http-reuse always
frontend tls
  bind {LOOPBACK}:{self.port} ssl crt {self.keys}/server-{self.kind}.pem ca-file {self.keys}/ca.crt verify optional ca-ignore-err all crt-ignore-err all alpn h2,http/1.1 ssl-min-ver TLSv1.2
  http-request set-header X-Client-Cert %[ssl_c_der,base64]
  http-request set-header X-Forwarded-For %[src]
  default_backend behind
backend behind
  server one {LOOPBACK}:{self.upstream} pool-max-conn 256
""")
        return Process(["haproxy", "-db", "-f", self.folder / "haproxy.cfg"], self.folder / "log")


class Shim(Front):
    """Ours. `binary` says which build."""

    binary = None
    declarative = "kong.yml"

    def start(self):
        key = self.folder / "mtls-auth.key"
        key.touch(0o600)
        key.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
        (self.folder / self.declarative).write_text(self._kong())
        (self.folder / "shim.yml").write_text(f"""
listen: ["{LOOPBACK}:{self.port}"]
upstream: http://{LOOPBACK}:{self.upstream}
kong: {{declarative_config: {self.folder}/{self.declarative}}}
default_certificate: {{cert: {self.keys}/server-{self.kind}.crt, key: {self.keys}/server-{self.kind}.key}}
proof_key_file: {key}
tls:
  ciphers: [{', '.join(CIPHERS.split(':'))}]
  groups: [X25519, P-256]
time_limits: {{idle: 600s, header: 600s}}
limits: {{connections: {CONNECTIONS}}}
{self.more_settings()}
""")
        return Process([self.binary, "--config", self.folder / "shim.yml"], self.folder / "log",
                       environment={"TOKIO_WORKER_THREADS": "1"})

    def more_settings(self):
        return ""

    def _kong(self):
        pem = "\n".join("          " + line for line in (self.keys / "ca.crt").read_text().splitlines())
        return f"""
_format_version: "3.0"
services:
- name: behind
  url: http://{LOOPBACK}:{self.upstream}
  routes:
  - name: behind
    hosts: [{SNI}]
    snis: [{SNI}]
    paths: [/]
    plugins:
    - name: mtls-auth
      config:
        ca_certificates:
        - |
{pem}
"""


def shim(binary):
    """A build of ours."""
    return type("Shim", (Shim,), {"binary": binary})
