"""What a model card says, read by the hub's own library, and what is uploaded, to a hub of one repository."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from gistcache.shared.errors import SettingsError, StorageError
from gistcache.train.run.run import train_student
from gistcache.train.settings import TrainSettings
from huggingface_hub import ModelCard
from sentence_transformers import SentenceTransformer

from tests.conftest import random_pairs, write_jsonl

REPOSITORY = "org/tiny"


class Hub(BaseHTTPRequestHandler):
    """Answers the calls of an upload and keeps the files."""

    files: dict[str, bytes]
    asked: list[dict]
    public = False

    def do_GET(self):
        self.reply({"id": REPOSITORY, "modelId": REPOSITORY, "private": not self.public, "siblings": [], "tags": []})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        url = f"http://{self.headers['Host']}/{REPOSITORY}"
        if self.headers.get("Authorization") != "Bearer hf_test":
            self.reply({"error": "Invalid username or password."}, 401)
        elif self.path == "/api/repos/create":
            self.asked.append(json.loads(body))
            self.reply({"url": url, "name": REPOSITORY, "id": REPOSITORY})
        elif "/preupload/" in self.path:
            modes = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
            self.reply({"files": [mode | {"shouldIgnore": False} for mode in modes]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.reply(
                {"success": True, "commitOid": "0" * 40, "commitUrl": f"{url}/commit/{'0' * 40}", "hookOutput": ""}
            )
        else:  # the check of the card's metadata
            self.reply({"errors": [], "warnings": []})

    def reply(self, content: dict, status: int = 200):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    """The hub at a loopback address, and a token for it."""
    handler = type("OneHub", (Hub,), {"files": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, small_index, student_folder):
    """Settings of a run that has ended, and its metrics."""
    folder = tmp_path_factory.mktemp("hub")
    held_out = write_jsonl(folder / "held.jsonl", random_pairs(20, seed=31))
    settings = {
        "index": small_index,
        "student": str(student_folder),
        "out": folder / "tiny",
        "batch_size": 16,
        "device": "cpu",
        "max_steps": 4,
        "save_steps": 2,
        "learning_rate": 1e-3,
        "eval_pairs": (str(held_out),),
        "eval_steps": 2,
    }
    return settings, train_student(TrainSettings(**settings))


def test_the_cards_metadata_is_the_hubs_and_its_results_are_those_after_training(trained):
    settings, metrics = trained
    text = (settings["out"] / "README.md").read_text()
    card = ModelCard(text, ignore_metadata_errors=False)
    assert {"sentence-transformers", "gistembed", "loss:GuidedContrastiveLoss"} <= set(card.data.tags)
    assert card.data.library_name == "sentence-transformers"
    assert card.data.pipeline_tag == "sentence-similarity"
    held = {result.metric_type: result for result in card.data.eval_results}
    after = metrics["retrieval"]["student after"]
    assert after != metrics["retrieval"]["student before"]
    assert {name: held[f"cosine_{name}"].metric_value for name in after} == pytest.approx(after)
    assert held["cosine_ndcg@10"].dataset_name == "held out pairs"
    assert "@misc{solatorio2024gistembed" in text
    assert "label" not in text.partition("### Training Dataset")[2].partition("* Samples")[0]


def test_a_student_from_the_hub_is_named_as_base_model(tmp_path, trained, student_folder, monkeypatch):
    settings, _ = trained
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **kwargs: str(student_folder))
    train_student(TrainSettings(**settings | {"out": tmp_path / "based", "student": "org/base", "max_steps": 2}))
    card = ModelCard.load(tmp_path / "based" / "README.md")
    assert card.data.base_model == "org/base"


def test_only_what_loading_takes_is_uploaded_and_no_folder_of_this_machine(tmp_path, trained, hub):
    settings, metrics = trained
    again = train_student(TrainSettings(**settings, push_to_hub=REPOSITORY, hub_private=True))
    assert again["retrieval"] == metrics["retrieval"]
    assert "private" in hub.asked[0].values()
    assert "model.safetensors" in hub.files
    assert "README.md" in hub.files
    for name, content in hub.files.items():
        assert not name.startswith("checkpoints")
        assert name != "metrics.json"
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
        for folder in (settings["out"].parent, settings["index"].parent, settings["student"]):
            assert str(folder).encode() not in content, name
    texts = ["red dog", "blue cat"]
    uploaded, here = (SentenceTransformer(str(each), device="cpu") for each in (tmp_path, settings["out"]))
    assert uploaded.encode(texts) == pytest.approx(here.encode(texts))


def test_a_public_repository_is_not_taken_for_a_private_one(trained, hub, monkeypatch):
    monkeypatch.setattr(hub, "public", True)
    with pytest.raises(StorageError, match="public"):
        train_student(TrainSettings(**trained[0], push_to_hub=REPOSITORY, hub_private=True))
    assert not hub.files


@pytest.mark.parametrize("fault", ["token", "network"])
def test_a_hub_that_does_not_take_it_is_told_once_the_model_is_safe(trained, hub, monkeypatch, fault):
    if fault == "token":
        monkeypatch.setenv("HF_TOKEN", "hf_other")
    else:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="complete in") as told:
        train_student(TrainSettings(**trained[0], push_to_hub=REPOSITORY))
    assert "hf auth login" in told.value.fix
    assert "hf_other" not in str(told.value)


def test_what_cannot_be_pushed_is_told_before_training(tmp_path):
    with pytest.raises(SettingsError, match="Repo id"):
        TrainSettings(student="none", push_to_hub="a//b")
    with pytest.raises(SettingsError, match="Nothing is uploaded"):
        TrainSettings(student="none", hub_private=True)
