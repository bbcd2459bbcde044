"""A server whose workers are forked after kernels have run; they answer GET with digests.

The smallest form of what gunicorn and uWSGI do with an application that was loaded before. It prints its port and
ends when its stdin does.
"""

import http.server
import json
import os
import signal
import sys

import mix

WORKERS = 2


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"worker": os.getpid(), "digests": mix.digests(mix.few())}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    mix.digests(mix.few())
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    server.socket.settimeout(None)
    children = []
    for _ in range(WORKERS):
        child = os.fork()
        if not child:
            signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
            server.serve_forever()
        children.append(child)
    print(server.server_port, flush=True)
    sys.stdin.read()
    for child in children:
        os.kill(child, signal.SIGTERM)
    print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])


if __name__ == "__main__":
    main()
