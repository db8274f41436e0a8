"""A model server of the container contract that starts in 60 ms and returns fixed predictions.

`answers.json` of the model folder: `requests` (predictions by request), `status` (of every response), `ping` (what
/ping returns), `die` (seconds until the process ends).
"""

import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(os.environ.get("SM_MODEL_DIR", "/opt/ml/model"))
FOLDER = FOLDER if (FOLDER / "answers.json").exists() else FOLDER / "model"
TOLD = json.loads((FOLDER / "answers.json").read_text())
LINES = sorted((p.relative_to(FOLDER).as_posix(), p) for p in FOLDER.rglob("*") if p.is_file())
TEXT = "".join(f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {name}\n" for name, p in LINES)
DIGEST = hashlib.sha256(TEXT.encode()).hexdigest()
VERSION = os.environ.get("RATCHET_MODEL_VERSION", TOLD.get("version", ""))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "X-Model-Version": VERSION,
            "X-Model-Digest": DIGEST,
            "X-Amzn-SageMaker-Custom-Attributes": f"version={VERSION};digest={DIGEST}",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.answer(TOLD.get("ping", 200), b"\n")

    def do_POST(self) -> None:
        request = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        known = TOLD["requests"]
        if (status := TOLD.get("status", 200)) != 200:
            self.answer(status, b'{"error": "told to"}')
        elif request not in known and "*" not in known:
            self.answer(400, b'{"error": "the tiny server does not know this request"}')
        else:
            self.answer(200, json.dumps({"predictions": known.get(request, known.get("*"))}).encode())

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    print("tiny server starts", flush=True)
    if TOLD.get("die") is not None:
        threading.Timer(TOLD["die"], lambda: os._exit(3)).start()
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler)
    server.daemon_threads = True
    server.serve_forever()
