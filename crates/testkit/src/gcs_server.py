"""Google Cloud Storage on loopback: gcp-storage-emulator with what it lacks for `gsutil`: TLS, another path for uploads in
parts, boundaries of multipart uploads in single quotes, and preconditions
(https://cloud.google.com/storage/docs/request-preconditions).

    python gcs_server.py PORT CERTIFICATE KEY BUCKET
"""

import email
import functools
import http.server
import io
import json
import ssl
import sys
import threading
import urllib.parse

from gcp_storage_emulator.handlers import buckets
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

writing = threading.Lock()


class Handler(RequestHandler):
    def do_POST(self):
        self.path = self.path.removeprefix("/resumable")
        kind = self.headers.get("Content-Type", "").replace("'", '"')
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.headers.replace_header("Content-Type", kind)
        self.rfile = io.BytesIO(body)
        with writing:
            if self.is_as_expected(kind, body):
                super().do_POST()
            else:
                self.refuse()

    def is_as_expected(self, kind, body):
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        expected = query.get("ifGenerationMatch")
        if expected is None:
            return True
        if kind.startswith("multipart/"):
            message = email.message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
            body = message.get_payload()[0].get_payload()
        bucket = url.path.split("/b/")[1].split("/")[0]
        objects = self.storage.objects.get(bucket, {})
        found = objects.get(json.loads(body)["name"], {"generation": "0"})
        return found["generation"] == expected[0]

    def refuse(self):
        text = "At least one of the pre-conditions you specified did not hold."
        detail = {"message": text, "domain": "global", "reason": "conditionNotMet"}
        answer = json.dumps({"error": {"code": 412, "message": text, "errors": [detail]}}).encode()
        self.send_response(412)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


def main():
    port, certificate, key, bucket = sys.argv[1:]
    storage = Storage(use_memory_fs=True)
    buckets.create_bucket(bucket, storage)
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), functools.partial(Handler, storage))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    # Not while it accepts: one who says nothing would hold up all others.
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True, do_handshake_on_connect=False)
    httpd.serve_forever()


main()
