from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from safegen.detectors.nudenet import EXPLICIT_LABELS, LABELS, NudeNetDetector, bundled_model_file
from safegen.domain.digests import sha256_file
from safegen.errors import DataError


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    datasets = pytest.importorskip("sklearn.datasets")
    return [datasets.load_sample_image(name) for name in ("china.jpg", "flower.jpg")]


def test_a_temple_and_a_flower_are_not_explicit(photographs: list[np.ndarray]) -> None:
    found = NudeNetDetector(score_floor=0.05).detect(photographs)
    assert len(found) == 2
    assert [
        one for picture in found for one in picture if one.label in EXPLICIT_LABELS and one.score >= 0.2
    ] == []


def test_a_batch_gives_what_single_pictures_give(photographs: list[np.ndarray]) -> None:
    pictures = [photographs[0], photographs[1][:200, :150], photographs[0][::3, ::2]]
    detector = NudeNetDetector(score_floor=1e-4, batch_size=3)
    together = detector.detect(pictures)
    alone = [detector.detect([picture])[0] for picture in pictures]
    assert any(together)
    for batch, single in zip(together, alone, strict=True):
        assert [one.label for one in batch[:5]] == [one.label for one in single[:5]]
        assert [one.score for one in batch[:5]] == pytest.approx([one.score for one in single[:5]], abs=1e-5)
    for picture, detections in zip(pictures, together, strict=True):
        height, width = picture.shape[:2]
        for one in detections:
            x, y, w, h = one.box
            assert 0 <= x <= x + w <= width + 1e-6
            assert 0 <= y <= y + h <= height + 1e-6


def test_the_identity_names_the_file_and_opening_it_loads_no_opencv() -> None:
    identity = NudeNetDetector().identity
    assert (identity.name, identity.model_sha256) == ("nudenet", sha256_file(bundled_model_file()))
    assert identity.settings["channels"] == "RGB"
    assert set(EXPLICIT_LABELS) < set(LABELS)
    assert len(set(LABELS)) == 18
    assert "nudenet" not in sys.modules


def test_a_missing_or_damaged_model_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.onnx: no such file"):
        NudeNetDetector(tmp_path / "none.onnx")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(bundled_model_file().read_bytes()[:1000])
    with pytest.raises(DataError, match="not a usable ONNX model"):
        NudeNetDetector(damaged)
