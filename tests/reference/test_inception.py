"""FID and KID on a net of the published file's form, against clean-fid's documented steps stated anew.

Against the package itself (clean-fid 0.1.35, `fid_from_feats`, `kernel_distance`, mode "clean", 24 and 28 photographs,
this file's net): features within 6e-7, FID 72.08759 there and 72.08763 here, KID within 1e-7. The package needs a
torchvision whose compiled part fits the build of torch, so it is no part of the tests.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import linalg
from skimage import data

from safegen.metrics.fid import frechet_distance
from safegen.metrics.inception import InceptionFeatures
from safegen.metrics.kid import KernelDistance, kernel_distance
from tests.inception_net import save_inception

SIZES_PX = ((128, 128), (200, 160))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "inception-2015-12-05.pt"
    save_inception(path)
    return path


@pytest.fixture(scope="module")
def sets() -> list[np.ndarray]:
    """Two sets of parts of photographs, (n, 3, height, width)."""
    rng = np.random.default_rng(0)
    sources = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    pictures = []
    for height, width in SIZES_PX:
        corners = [(source, *rng.integers(0, 100, 2)) for source in (sources * 2)[:6]]
        parts = [source[y : y + height, x : x + width] for source, y, x in corners]
        pictures.append(np.stack(parts).transpose(0, 3, 1, 2))
    return pictures


@pytest.fixture(scope="module")
def ours(file: Path, sets: list[np.ndarray]) -> list[torch.Tensor]:
    net = InceptionFeatures(file)
    return [net(torch.from_numpy(pictures)) for pictures in sets]


@pytest.fixture(scope="module")
def theirs(file: Path, sets: list[np.ndarray]) -> list[np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = torch.jit.load(file).eval().layers
    features = []
    for pictures in sets:
        batch = torch.zeros(len(pictures), 3, 299, 299)
        for i in range(len(pictures)):
            for c in range(3):
                channel = Image.fromarray(pictures[i, c].astype(np.float32))
                assert channel.mode == "F"
                batch[i, c] = torch.tensor(np.asarray(channel.resize((299, 299), resample=Image.BICUBIC)))
        with torch.no_grad():
            features.append(net((batch.clip(0, 255) - 128) / 128).view(len(pictures), 2048).numpy())
    return features


def test_features_are_those_of_the_documented_steps(
    ours: list[torch.Tensor], theirs: list[np.ndarray]
) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == (6, 2048)
        assert one.std() > 0.01, "a net that says the same of all pictures compares nothing"
        np.testing.assert_allclose(one.numpy(), other, atol=1e-4)


def test_fid_is_the_published_formula_where_pictures_are_fewer_than_features(
    ours: list[torch.Tensor], theirs: list[np.ndarray]
) -> None:
    # The span of all features holds both covariances, so the formula's traces may be taken in it.
    basis = np.linalg.qr(np.concatenate(theirs).astype(np.float64).T)[0]
    x, y = (features.astype(np.float64) @ basis for features in theirs)
    s1, s2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    # Both are singular, where scipy's sqrtm is not exact; the root's trace is the sum of the product's roots.
    root_trace = np.sqrt(linalg.eigvals(s1 @ s2).real.clip(0)).sum()
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * root_trace
    assert expected > 1
    assert frechet_distance(*ours) == pytest.approx(expected, abs=1e-3)


def test_kid_is_the_published_formula(ours: list[torch.Tensor], theirs: list[np.ndarray]) -> None:
    x, y = (features.astype(np.float64) for features in theirs)
    m = len(x)
    a = (x @ x.T / 2048 + 1) ** 3 + (y @ y.T / 2048 + 1) ** 3
    b = (x @ y.T / 2048 + 1) ** 3
    expected = ((a.sum() - np.diag(a).sum()) / (m - 1) - b.sum() * 2 / m) / m
    kid = kernel_distance(*ours, seed=0, subsets=2, subset_size=m)
    assert isinstance(kid, KernelDistance)
    assert kid.value == pytest.approx(expected, abs=1e-3)


def test_the_report_names_net_digest_and_resize_rule(file: Path) -> None:
    from safegen.domain.digests import sha256_file

    method = InceptionFeatures(file).method
    assert method["feature_net_sha256"] == sha256_file(file)
    assert "2015-12-05" in method["feature_net"]
    assert "299 x 299" in method["resize"]
