"""What a second release of Stable Diffusion's size sends: an SD-1.4 U-Net of true shapes, fp16, edited in attn1."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from threading import Lock
from time import sleep

import pytest
import torch
from diffusers import UNet2DConditionModel

from safegen.adapters.folder_store import FolderStore
from safegen.ports import ObjectInfo, ObjectStore
from tests.signed_releases import released

PARAMETERS, ATTN1_PARAMETERS = 859_520_964, 49_574_080


@dataclass
class WeighingStore:
    """Keeps documents, and of blobs their lengths alone; counts what is put, and how many puts run at once."""

    documents: ObjectStore
    blobs: dict[str, int] = field(default_factory=dict)
    sent_bytes: int = 0
    running: int = 0
    most_running: int = 0
    lock: Lock = field(default_factory=Lock)

    def __getattr__(self, name: str) -> object:
        return getattr(self.documents, name)

    def head(self, key: str) -> ObjectInfo | None:
        if not key.startswith("blobs/"):
            return self.documents.head(key)
        return ObjectInfo(key, self.blobs[key], "") if key in self.blobs else None

    def put(self, key: str, data: bytes, **conditions: object) -> ObjectInfo:
        with self.lock:
            self.sent_bytes += len(data)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            if not key.startswith("blobs/"):
                return self.documents.put(key, data, **conditions)
            sleep(0.001)  # as a server would take
            self.blobs[key] = len(data)
            return ObjectInfo(key, len(data), "")
        finally:
            with self.lock:
                self.running -= 1


@pytest.fixture(scope="module")
def shapes() -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    return {name: tuple(value.shape) for name, value in unet.state_dict().items()}


def write_weights(path: Path, shapes: dict[str, tuple[int, ...]], stamp: bytes, only: str = "") -> None:
    """Write fp16 tensors of these shapes, in place, each marked by a stamp of its own; only those that hold `only`.

    The rest of each tensor is a hole of the file: 1.7 GB of true sizes that need no disk.
    """
    header, position = {}, 0
    for name in sorted(shapes):
        end = position + 2 * prod(shapes[name])
        header[name] = {"dtype": "F16", "shape": shapes[name], "data_offsets": (position, end)}
        position = end
    text = json.dumps(header).encode()
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, entry in header.items():
            if only in name:
                file.seek(8 + len(text) + entry["data_offsets"][0])
                file.write(hashlib.sha256(stamp + name.encode()).digest())
        file.truncate(8 + len(text) + position)


@pytest.mark.slow
@pytest.mark.timeout(900)  # seven gigabytes are hashed
def test_an_attn1_edit_of_sd14_sends_at_most_eight_percent(
    shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    assert sum(prod(shape) for shape in shapes.values()) == PARAMETERS
    assert sum(prod(shape) for name, shape in shapes.items() if "attn1" in name) == ATTN1_PARAMETERS
    weights = tmp_path / "new" / "unet" / "unet.safetensors"
    weights.parent.mkdir(parents=True)
    store, sent = WeighingStore(FolderStore(tmp_path / "store")), [0]
    for stamp, only in ((b"base", ""), (b"edit", "attn1")):
        write_weights(weights, shapes, stamp, only)
        released(store, tmp_path / "new")
        sent.append(store.sent_bytes)
    first, second = sent[1], sent[2] - sent[1]
    assert first >= 2 * PARAMETERS
    assert second >= 2 * ATTN1_PARAMETERS
    assert second / first <= 0.08
    assert store.most_running == 4
