"""Receives webhooks of Modelyard, verifies them and prints them. Needs nothing but Python.

WEBHOOK_SECRET=whsec_... python webhook_consumer.py [PORT]
"""

import base64
import hmac
import json
import os
import sys
import time
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = base64.b64decode(os.environ["WEBHOOK_SECRET"].removeprefix("whsec_"))
TOLERANCE_SECONDS = 300  # an older delivery may be one that somebody overheard
MAX_BYTES = 16 * 1024**2
seen: set[str] = set()  # keep it in your database: every delivery comes at least once


def is_genuine(headers: Message, body: bytes) -> bool:
    """Checks timestamp and signatures as https://www.standardwebhooks.com says."""
    timestamp = headers.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp[:12])) > TOLERANCE_SECONDS:
        return False
    signed = f"{headers.get('webhook-id', '')}.{timestamp}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.digest(KEY, signed, "sha256"))
    given = headers.get("webhook-signature", "").encode().split()  # several while secrets are rotated
    return any(hmac.compare_digest(one, expected) for one in given)


class Consumer(BaseHTTPRequestHandler):
    timeout = 10  # seconds for a client that sends nothing

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > 12 or int(length) > MAX_BYTES:
            return self.send_error(413 if length else 411)
        body = self.rfile.read(int(length))
        if not is_genuine(self.headers, body):
            return self.send_error(401)
        delivery = self.headers["webhook-id"]
        if delivery not in seen:
            seen.add(delivery)
            # Only put it into a queue here: the answer must come within seconds.
            print("verified", delivery, json.dumps(json.loads(body)), flush=True)
        self.send_response(204)
        return self.end_headers()


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 8787), Consumer)
    print(f"listening on http://127.0.0.1:{server.server_address[1]}/", flush=True)
    server.serve_forever()
