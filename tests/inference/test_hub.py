"""Models of the hub, against a server on the loopback that speaks the part of its protocol that is used."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from fuzzyseg.data import DataError
from fuzzyseg.inference import load, save_model
from fuzzyseg.inference.hub import is_hub_name, upload
from fuzzyseg.networks import build_network
from support.small_images import card, noise

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """One model, `anna/streets`: what was uploaded, by file name."""

    files: dict[str, bytes]
    asked: list[str]

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
        if self.path.startswith("/api/repos/create"):
            if self.headers.get("Authorization") is None:
                self._answer(401)
            else:
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


@pytest.fixture
def hub(tmp_path, monkeypatch):
    handler = type("Stub", (Hub,), {"files": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_stub")
    monkeypatch.chdir(tmp_path)
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def model(tmp_path) -> Path:
    torch.manual_seed(0)
    save_model(tmp_path / "run" / "model", build_network("FPN", "mobilenet_v2", weights="none", channels=3, classes=3),
               card=card(arch="FPN", encoder="mobilenet_v2", temperature=1.5))  # fmt: skip
    (tmp_path / "run" / "model" / "notes.txt").write_text("private")
    return tmp_path / "run"


def test_what_was_pushed_is_what_is_loaded(hub, model):
    assert upload(model, "anna/streets", private=True).endswith("anna/streets")
    assert set(hub.files) == {"fuzzyseg.json", "README.md", "config.json", "model.safetensors",
                              "model.safetensors.sha256"}  # fmt: skip
    loaded = load("anna/streets")
    assert loaded.card == load(model).card and loaded.card.temperature == 1.5
    image = noise(33, 44)
    assert torch.equal(loaded.logits(image), load(model).logits(image))


def test_a_model_that_is_not_there_is_named(hub):
    with pytest.raises(DataError, match=r"anna/other: there is no such path, and http.* shows no such model"):
        load("anna/other")


def test_offline_the_error_names_the_alternative(hub, model, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: nothing listens
    for call in (lambda: load("anna/streets"), lambda: upload(model, "anna/streets")):
        with pytest.raises(DataError, match=r"^anna/streets: .*cannot be reached; copy the model folder") as error:
            call()
        assert "\n" not in str(error.value)
    assert hub.asked == []


def test_a_path_is_never_looked_up(hub, tmp_path):
    (tmp_path / "runs").mkdir()
    for source in ("runs/mistyped", "nothing", "./a/b", "/a/b", "a/b/c", "../x/y"):
        assert not is_hub_name(source)
        with pytest.raises(DataError, match="no such file or folder"):
            load(source)
    assert is_hub_name("anna/streets") and hub.asked == []


def test_only_a_model_is_pushed_and_only_under_a_name(hub, model, tmp_path):
    with pytest.raises(DataError, match=r"found no fuzzyseg\.json"):
        upload(tmp_path, "anna/streets")
    with pytest.raises(DataError, match="expected USER/NAME"):
        upload(model, "streets")
    assert hub.asked == []
