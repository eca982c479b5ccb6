"""Base models from a folder, an object store and the Hub, the last over HTTP against a stub of its API."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from safegen.adapters.folder_store import FolderStore
from safegen.adapters.hub_checkpoint import fetch_hub_checkpoint
from safegen.adapters.stored_checkpoint import fetch_stored_checkpoint
from safegen.config import BaseSection
from safegen.diffusion.checkpoint import load_pipeline
from safegen.diffusion.placement import Placement, place
from safegen.domain.digests import tree_digests
from safegen.errors import DataError
from tests.tiny_pipeline import tiny_pipeline, tiny_tokenizer, tiny_xl_pipeline

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As SD 1.x lies on the Hub: with names of a safety checker, and with other forms of the same weights."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_pipeline(tiny_tokenizer(folder / "words")).save_pretrained(folder / "tiny")
    index = folder / "tiny" / "model_index.json"
    content = json.loads(index.read_text())
    content["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    content["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index.write_text(json.dumps(content))
    return folder / "tiny"


@pytest.fixture
def upstream(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "upstream"))


class Hub(ThreadingHTTPServer):
    """Serves one repository at one commit, and remembers what was fetched."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.folder = folder
        self.fetched: set[str] = set()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class HubHandler(BaseHTTPRequestHandler):
    server: Hub  # type: ignore[assignment]

    def do_HEAD(self) -> None:
        self.respond(body=False)

    def do_GET(self) -> None:
        self.respond(body=True)

    def respond(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        names = [
            file.relative_to(self.server.folder) for file in self.server.folder.rglob("*") if file.is_file()
        ]
        if path.startswith("/api/models/owner/tiny/revision/"):
            siblings = [{"rfilename": name.as_posix()} for name in names]
            self.send(json.dumps({"id": "owner/tiny", "sha": COMMIT, "siblings": siblings}).encode(), body)
        elif path.startswith("/api/models/owner/tiny/tree/"):
            entries = [self.entry(name) for name in names]
            self.send(json.dumps(entries).encode(), body)
        elif path.startswith(f"/owner/tiny/resolve/{COMMIT}/"):
            name = path.removeprefix(f"/owner/tiny/resolve/{COMMIT}/")
            if body:
                self.server.fetched.add(name)
            self.send((self.server.folder / name).read_bytes(), body)
        else:
            self.send_error(404)

    def entry(self, name: Path) -> dict[str, object]:
        data = (self.server.folder / name).read_bytes()
        return {
            "type": "file",
            "path": name.as_posix(),
            "size": len(data),
            "oid": hashlib.sha1(data).hexdigest(),
        }

    def send(self, data: bytes, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(upstream: Path) -> Iterator[Hub]:
    server = Hub(upstream)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_model_of_the_hub_is_fetched_at_its_commit_without_pickles_and_duplicates(
    hub: Hub, upstream: Path, tmp_path: Path
) -> None:
    expected = tree_digests(upstream)
    (upstream / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps("never fetched"))
    (upstream / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"never fetched")
    (upstream / "v1-4.ckpt").write_bytes(b"never fetched")
    (upstream / "onnx").mkdir()
    (upstream / "onnx" / "config.json").write_text("{}")
    cache = tmp_path / "cache"
    folder = fetch_hub_checkpoint(
        "owner/tiny", COMMIT, tmp_path / "bases", cache=cache, endpoint=hub.endpoint
    )
    assert tree_digests(folder) == expected == {name: expected[name] for name in sorted(hub.fetched)}
    assert load_pipeline(folder).unet.dtype == torch.float32
    hub.shutdown()
    assert fetch_hub_checkpoint("owner/tiny", COMMIT, tmp_path / "bases", endpoint=hub.endpoint) == folder


def test_a_model_that_the_hub_does_not_have_is_named(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"owner/none at 0123.*cannot be fetched"):
        fetch_hub_checkpoint("owner/none", COMMIT, tmp_path, cache=tmp_path / "cache", endpoint=hub.endpoint)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("owner")]


def test_a_checkpoint_in_a_store_is_fetched_once_and_again_when_it_changes(
    upstream: Path, tmp_path: Path
) -> None:
    store = FolderStore(tmp_path / "store")
    for path in upstream.rglob("*"):
        if path.is_file():
            store.upload(f"models/tiny/{path.relative_to(upstream).as_posix()}", path)
    folder = fetch_stored_checkpoint(store, "models/tiny", tmp_path / "bases")
    assert tree_digests(folder) == tree_digests(upstream)
    assert fetch_stored_checkpoint(store, "models/tiny/", tmp_path / "bases") == folder
    store.put("models/tiny/README.txt", b"other")
    assert fetch_stored_checkpoint(store, "models/tiny", tmp_path / "bases") != folder
    store.put("models/tiny/unet/weights.bin", pickle.dumps("never fetched"))
    with pytest.raises(DataError, match=r"unet/weights\.bin is a pickle file"):
        fetch_stored_checkpoint(store, "models/tiny", tmp_path / "bases")
    with pytest.raises(DataError, match="there is no object"):
        fetch_stored_checkpoint(store, "models/absent", tmp_path / "bases")


@pytest.mark.parametrize(
    ("source", "revision"),
    [
        ("owner/tiny", "main"),
        ("owner/tiny", COMMIT[:12]),
        ("s3://models/tiny", COMMIT),
        ("miniature", COMMIT),
    ],
)
def test_a_revision_is_the_full_commit_of_a_hub_model(source: str, revision: str) -> None:
    with pytest.raises(ValueError, match=r"revision|pattern"):
        BaseSection(source=source, revision=revision)
    assert BaseSection(source="owner/tiny", revision=COMMIT).revision == COMMIT


def test_each_family_loads_as_its_own_pipeline_and_others_are_refused(tmp_path: Path) -> None:
    pipeline = tiny_xl_pipeline(tiny_tokenizer(tmp_path / "words"))
    pipeline.save_pretrained(tmp_path / "xl")
    loaded = load_pipeline(tmp_path / "xl")
    assert isinstance(loaded, StableDiffusionXLPipeline)
    assert torch.equal(loaded.unet.conv_in.weight, pipeline.unet.conv_in.weight)
    index = tmp_path / "xl" / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionXLPipeline", "FluxPipeline"))
    with pytest.raises(DataError, match="is a FluxPipeline; expected StableDiffusionPipeline or"):
        load_pipeline(tmp_path / "xl")


def test_channels_last_and_compilation_change_how_a_unet_computes_not_what(tmp_path: Path) -> None:
    pipeline = tiny_pipeline(tiny_tokenizer(tmp_path))
    inputs = (torch.randn(2, 4, 8, 8), torch.tensor([5, 500]), torch.randn(2, 16, 32))
    with torch.no_grad():
        plain = pipeline.unet(*inputs).sample
        placed = place(pipeline, Placement("cpu", channels_last=True))
        assert placed.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(placed.unet(*inputs).sample, plain, rtol=1e-4, atol=1e-5)
        names = set(pipeline.unet.state_dict())
        place(pipeline, Placement("cpu", compiled=True))
        assert set(pipeline.unet.state_dict()) == names
        assert pipeline.unet._compiled_call_impl is not None


def test_attention_is_one_fused_operation_a_layer(tmp_path: Path) -> None:
    """PyTorch's scaled dot product attention, which is diffusers' default."""
    pipeline = tiny_pipeline(tiny_tokenizer(tmp_path))
    inputs = (torch.randn(1, 4, 8, 8), torch.tensor([5]), torch.randn(1, 16, 32))
    with torch.no_grad(), torch.profiler.profile() as profile:
        pipeline.unet(*inputs)
    calls = {event.key: event.count for event in profile.key_averages()}
    assert calls["aten::scaled_dot_product_attention"] == len(pipeline.unet.attn_processors) > 0
