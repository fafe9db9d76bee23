"""Answers each request with the headers that arrived, one a line.

Takes the port as its argument; 0 is any, and is printed.
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        answer = f"{self.requestline}\n{self.headers.as_string().strip()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


server = ThreadingHTTPServer(("", int(sys.argv[1])), Echo)
print(f"listening on port {server.server_port}", flush=True)
server.serve_forever()
