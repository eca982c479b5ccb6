from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from safegen.bootstrap import open_detector
from safegen.config import DetectorSection, NudeNetSection
from safegen.detectors.nudenet import EXPLICIT_LABELS, LABELS, NudeNetDetector, bundled_model_file
from safegen.detectors.worker_pool import DetectorPool
from safegen.domain.digests import sha256_file
from safegen.errors import ConfigError, DataError, EvaluationError


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
    code = (
        "import sys; from safegen.detectors.nudenet import NudeNetDetector; NudeNetDetector(); "
        "sys.exit(bool({'nudenet', 'cv2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_or_damaged_model_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.onnx: no such file"):
        NudeNetDetector(tmp_path / "none.onnx")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(bundled_model_file().read_bytes()[:1000])
    with pytest.raises(DataError, match="not a usable ONNX model"):
        NudeNetDetector(damaged)


def test_several_scales_and_the_mirror_find_more_and_the_mirrored_picture_gives_the_mirrored_boxes() -> None:
    person = data.astronaut()
    detector = NudeNetDetector(scales=(1.0, 1.5), flip=True)
    plain, mirrored = detector.detect([person, np.ascontiguousarray(person[:, ::-1])])
    (once,) = NudeNetDetector().detect([person])
    assert plain[0].label == once[0].label == "FACE_FEMALE"
    assert plain[0].score >= once[0].score
    assert [one.label for one in plain] == [one.label for one in mirrored]
    for one, other in zip(plain, mirrored, strict=True):
        x, y, width, height = other.box
        assert one.score == pytest.approx(other.score, abs=1e-4)
        assert one.box == pytest.approx((512 - x - width, y, width, height), abs=0.1)


def test_a_picture_that_is_not_square_keeps_its_boxes_in_place_when_mirrored() -> None:
    portrait = data.astronaut()[:300, 100:350]
    (plain,), (both,) = (NudeNetDetector(flip=flip).detect([portrait]) for flip in (False, True))
    assert plain[0].box == pytest.approx(both[0].box, abs=15)


def test_the_identity_tells_conventions_scales_and_mirror_apart() -> None:
    detectors = (
        NudeNetDetector(),
        NudeNetDetector(flip=True),
        NudeNetDetector(scales=(1.0, 2.0)),
        NudeNetDetector(compat="3.4.2"),
        NudeNetDetector(compat="3.4.2", channels="RGB"),
    )
    settings = [tuple(sorted(detector.identity.settings.items())) for detector in detectors]
    assert len(set(settings)) == len(detectors)
    assert dict(settings[3])["compat"] == "3.4.2"
    assert dict(settings[2])["input_px"] == "320, 640"


def test_worker_processes_find_what_one_process_finds(photographs: list[np.ndarray]) -> None:
    pictures = [data.astronaut()[:: 1 + i % 3, i:] for i in range(12)] + photographs
    alone = open_detector(DetectorSection(kind="nudenet", threads=1))
    with open_detector(DetectorSection(kind="nudenet", threads=1, nudenet=NudeNetSection(workers=2))) as pool:
        assert isinstance(pool, DetectorPool)
        assert (pool.identity, pool.labels) == (alone.identity, alone.labels)
        assert pool.detect([]) == []
        found = pool.detect(pictures)
    assert found == alone.detect(pictures)
    assert sum(map(len, found)) >= 5


class DyingDetector(NudeNetDetector):
    def detect(self, images: object) -> list[tuple]:
        os._exit(1)


def test_a_worker_that_dies_is_an_error_and_no_empty_answer() -> None:
    with DetectorPool(DyingDetector, 1) as pool, pytest.raises(EvaluationError, match="worker process died"):
        pool.detect([data.astronaut()])


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="NowhereExecutionProvider"):
        NudeNetDetector(providers=("NowhereExecutionProvider",))
    with pytest.raises(ConfigError, match="scales"):
        NudeNetDetector(scales=(0.01,))
    with pytest.raises(ConfigError, match="compat"):
        NudeNetDetector(compat="3.4.2", score_floor=0.1)
    with pytest.raises(ConfigError, match="0 processes"):
        DetectorPool(NudeNetDetector, 0)
