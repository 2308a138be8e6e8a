"""Local stub server for the parts of the Hugging Face hub API that fuzzyseg uses."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Request handler for one model, `anna/streets`. Records uploaded files, requested paths and the creation."""

    files: dict[str, bytes]
    asked: list[str]
    created: dict[str, object]

    def log_message(self, *_):
        pass

    def _answer(self, status, body=b"", **headers):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, content):
        self._answer(200, json.dumps(content).encode(), Content_Type="application/json")

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.asked.append(self.path)
        path = self.path.split("?")[0]
        name = path.rpartition("/")[2]
        if path.startswith("/api/models/anna/streets/tree"):
            entries = [{"type": "file", "path": key, "size": len(v), "oid": "0"} for key, v in self.files.items()]
            self._json(entries)
        elif path.startswith("/api/models/anna/streets"):
            siblings = [{"rfilename": key} for key in self.files]
            self._json({"id": "anna/streets", "modelId": "anna/streets", "sha": COMMIT, "siblings": siblings})
        elif path.startswith("/anna/streets/resolve/") and name in self.files:
            content = self.files[name]
            digest = hashlib.sha256(content).hexdigest()
            self._answer(200, content, ETag=f'"{digest}"', X_Repo_Commit=COMMIT)
        elif path == "/":
            self._answer(200)
        else:
            self._answer(404, X_Error_Code="RepoNotFound")

    def do_POST(self):
        self.asked.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != "Bearer hf_stub":
            self._answer(401, b'{"error": "Invalid username or password."}', Content_Type="application/json")
        elif self.path.startswith("/api/repos/create"):
            self.created.update(json.loads(body))
            self._json({"url": f"http://{self.headers['Host']}/anna/streets"})
        elif "/preupload/" in self.path:
            files = [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                     for each in json.loads(body)["files"]]  # fmt: skip
            self._json({"files": files})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._json(
                {
                    "success": True,
                    "commitUrl": f"http://{self.headers['Host']}/anna/streets/commit/{COMMIT}",
                    "commitOid": COMMIT,
                }
            )
        else:
            self._json({})


@contextmanager
def served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """Serve an empty hub and redirect huggingface-hub to it, with `folder` as working directory and cache location."""
    handler = type("Stub", (Hub,), {"files": {}, "asked": [], "created": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_stub")
    monkeypatch.chdir(folder)
    try:
        yield handler
    finally:
        server.shutdown()
        server.server_close()
