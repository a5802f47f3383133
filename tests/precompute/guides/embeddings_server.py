"""An OpenAI-compatible embeddings server on loopback: a real model behind it, and faults on demand."""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from gistcache.shared.models.load import load_model

KEY = "sk-the-one-secret-of-these-tests"
NAME = "tiny"
SOON = {"Retry-After": "0.001"}


class EmbeddingsServer(ThreadingHTTPServer):
    """Serves until it is closed.

    Attributes:
        faults: Taken from the front, one a request, before anything is computed: a status, a status with a body,
            "drop" (the connection ends without an answer), or None.
        broken_after: Requests answered before all others are refused as over quota; None for never.
        billed: How often each text was embedded and the answer sent.
        change: Applied to the vectors before they are sent.
    """

    daemon_threads = True

    def __init__(self, model: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.model, self.lock = load_model(model), threading.Lock()
        self.faults: list = []
        self.broken_after: int | None = None
        self.billed, self.requests, self.answered, self.headers = Counter[str](), [], 0, []
        self.change = lambda vectors: vectors
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address):
        pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: EmbeddingsServer

    def log_message(self, *arguments):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(body)
            fault = self.server.faults.pop(0) if self.server.faults else None
            if self.server.broken_after is not None and self.server.answered >= self.server.broken_after:
                fault = 429
        if fault == "drop":
            self.close_connection = True
            return
        status, told = fault if isinstance(fault, tuple) else (fault, "injected")
        if status is None and self.headers["Authorization"] != f"Bearer {KEY}":
            status, told = 401, f"Incorrect API key provided: {self.headers['Authorization']}"
        if status is None and body["model"] != NAME:
            status, told = 404, f"The model {body['model']} does not exist"
        if status is not None:
            self.send(status, {"error": {"message": told}})
            return
        self.send(200, self.embedded(body))

    def embedded(self, body: dict) -> dict:
        with self.server.lock:
            vectors = self.server.model.encode(body["input"], batch_size=1, normalize_embeddings=False)
            self.server.billed.update(body["input"])
            self.server.answered += 1
        vectors = self.server.change(vectors[:, : body.get("dimensions")]).astype(np.float32)
        rows = [
            {"object": "embedding", "index": number, "embedding": encoded(row, body.get("encoding_format"))}
            for number, row in enumerate(vectors)
        ]
        rows.reverse()  # the order is in the indexes
        return {"object": "list", "model": NAME, "data": rows, "usage": {"prompt_tokens": 1, "total_tokens": 1}}

    def send(self, status: int, content: object) -> None:
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **SOON}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def encoded(row: np.ndarray, form: str | None) -> str | list[float]:
    return base64.b64encode(row.tobytes()).decode() if form == "base64" else row.tolist()
