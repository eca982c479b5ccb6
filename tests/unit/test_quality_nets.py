from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from safegen.bootstrap import open_quality_nets
from safegen.config import EvaluateSection, MiniatureSuite
from safegen.domain.digests import sha256_bytes, sha256_file
from safegen.errors import ConfigError, DataError
from safegen.evaluation.prompt_suite import PromptRow
from safegen.evaluation.quality import QualityNets, joined, measure_pairs
from safegen.evaluation.quality_metrics import quality_metrics
from safegen.evaluation.shards import DrawnPicture, png_bytes
from safegen.metrics.inception import InceptionFeatures
from safegen.metrics.lpips import Lpips
from safegen.metrics.pinned_file import pinned_file
from tests.inception_net import save_inception

CONTENT = b"weights"
DIGEST = sha256_bytes(CONTENT)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    handler = partial(Quiet, directory=tmp_path / "served")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def test_a_url_is_fetched_once_and_only_with_the_pinned_digest(server: str, tmp_path: Path) -> None:
    served, cache = tmp_path / "served" / "net.pt", tmp_path / "cache"
    served.write_bytes(b"something else")
    with pytest.raises(DataError, match=f"expected {DIGEST}"):
        pinned_file(f"{server}/net.pt", DIGEST, what="net", cache_dir=cache)
    served.write_bytes(CONTENT)
    path = pinned_file(f"{server}/net.pt", DIGEST, what="net", cache_dir=cache)
    assert path.read_bytes() == CONTENT
    served.unlink()
    assert pinned_file(f"{server}/net.pt", DIGEST, what="net", cache_dir=cache) == path
    with pytest.raises(DataError, match=r"curl -L -o .*gone\.pt"):
        pinned_file(f"{server}/gone.pt", "0" * 64, what="net", cache_dir=cache / "gone.pt")


def test_a_path_is_checked_too_and_a_missing_one_names_the_command(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with pytest.raises(DataError, match=r"no file .*net\.pt; fetch it with: curl"):
        pinned_file(str(path), DIGEST, what="net", cache_dir=tmp_path)
    path.write_bytes(CONTENT)
    assert pinned_file(str(path), DIGEST, what="net", cache_dir=tmp_path) == path
    path.write_bytes(CONTENT + b"!")
    with pytest.raises(DataError, match="has SHA-256"):
        pinned_file(str(path), DIGEST, what="net", cache_dir=tmp_path)


def section(**parts: object) -> EvaluateSection:
    return EvaluateSection(suites=(MiniatureSuite(name="benign", n=1),), **parts)


def test_a_run_measures_with_the_nets_its_configuration_names(tmp_path: Path) -> None:
    inception = tmp_path / "inception.pt"
    save_inception(inception)
    features = {"kind": "inception", "location": str(inception), "sha256": sha256_file(inception)}
    nets = open_quality_nets(section(features=features), tmp_path)
    assert isinstance(nets.features, InceptionFeatures)
    assert nets.feature_method["feature_net_sha256"] == sha256_file(inception)
    assert open_quality_nets(section(), tmp_path).feature_method["feature_net_sha256"] == nets.clip.sha256


def test_what_is_missing_is_said_with_the_command_that_mends_it(tmp_path: Path) -> None:
    digest = {"sha256": "0" * 64}
    with pytest.raises(DataError, match="feature net: there is no file"):
        open_quality_nets(section(features={"kind": "inception", "location": "none.pt", **digest}), tmp_path)
    trunk = tmp_path / "trunk.pth"
    trunk.write_bytes(CONTENT)
    with pytest.raises(DataError, match="pip install --no-deps lpips"):
        open_quality_nets(section(lpips={"location": str(trunk), "sha256": DIGEST}), tmp_path)
    with pytest.raises(ConfigError, match=r"evaluate\.clip\.revision"):
        open_quality_nets(section(clip={"source": "someone/clip"}), tmp_path)
    (tmp_path / "text.pt").write_text("no script")
    with pytest.raises(DataError, match="is no TorchScript file"):
        InceptionFeatures(tmp_path / "text.pt")


class Shape:
    """A feature extractor of two features a picture: its mean and its spread."""

    @property
    def method(self) -> dict[str, str]:
        return {"feature_net": "shape", "feature_net_sha256": "5" * 64, "resize": "none"}

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        flat = images.float().flatten(1)
        return torch.stack([flat.mean(1), flat.std(1)], dim=1)


def test_named_nets_reach_the_metrics_and_the_others_stay(tmp_path: Path) -> None:
    clip = open_quality_nets(section(), tmp_path).clip
    widths = (64, 192, 384, 256, 256)
    weights = {f"lin{k}.model.1.weight": torch.ones(1, n, 1, 1) for k, n in enumerate(widths)}
    shapes = ((0, 64, 3, 11), (3, 192, 64, 5), (6, 384, 192, 3), (8, 256, 384, 3), (10, 256, 256, 3))
    trunk = {f"features.{k}.weight": torch.randn(o, i, s, s) * 0.05 for k, o, i, s in shapes}
    trunk |= {f"features.{k}.bias": torch.zeros(o) for k, o, _, _ in shapes}
    for name, tensors in (("trunk", trunk), ("alex", weights)):
        torch.save(tensors, tmp_path / name)
    nets = QualityNets(clip, Shape(), Lpips(tmp_path / "trunk", tmp_path / "alex"))
    rng = np.random.default_rng(0)
    pairs = []
    for i in range(20):
        picture = rng.integers(0, 200, (48, 48, 3), dtype=np.uint8)
        row = PromptRow(f"p{i}", "a key", i, None)
        pairs.append((DrawnPicture(row, png_bytes(picture)), DrawnPicture(row, png_bytes(picture + 10))))
    measures = joined(measure_pairs(pairs, nets))
    assert measures is not None
    assert measures.base_features.shape == (20, 2)
    metrics = {metric.name: metric for metric in quality_metrics(measures, nets, seed=0)}
    assert metrics["fid"].value == pytest.approx(100, rel=1e-3)  # every picture is lighter by 10
    assert metrics["fid"].method["feature_net"] == "shape"
    assert metrics["fid"].method["reference_n"] == metrics["fid"].n == 20
    assert metrics["lpips"].value > 0
    assert metrics["lpips"].method["trunk_sha256"] == sha256_file(tmp_path / "trunk")
    assert metrics["clip_score"].method["model_sha256"] == clip.sha256
    without = {metric.name for metric in quality_metrics(measures, QualityNets(clip), seed=0)}
    assert set(metrics) - without == {"lpips"}
    nothing = {metric.name: metric for metric in quality_metrics(None, nets, seed=0)}
    assert nothing["lpips"].value is None
