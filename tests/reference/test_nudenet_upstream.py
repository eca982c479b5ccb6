"""NudeNet under `compat` against the published `nudenet.NudeDetector`, on ordinary photographs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data
from sklearn.datasets import load_sample_image

from safegen.detectors.nudenet import NudeNetDetector


def _photographs() -> dict[str, np.ndarray]:
    person = data.astronaut()
    return {
        "astronaut": person,
        "portrait, upright": person[:300, 100:350],
        "two people, wide": np.concatenate([person, person[:, ::-1]], axis=1),
        "small": person[20:220:2, 120:320:2],
        "face cut off above": person[110:400, 60:300],
        "face cut off at the left": person[40:240, 215:400],
        "cat": data.chelsea(),
        "coffee": data.coffee(),
        "rocket": data.rocket(),
        "temple": load_sample_image("china.jpg"),
        "flower": load_sample_image("flower.jpg"),
    }


PHOTOGRAPHS = _photographs()


@pytest.fixture(scope="module")
def upstream() -> object:
    from nudenet import NudeDetector

    return NudeDetector()


def _same(ours: tuple, theirs: list[dict]) -> None:
    assert [one.label for one in ours] == [one["class"] for one in theirs]
    assert [one.score for one in ours] == pytest.approx([one["score"] for one in theirs], abs=1e-4)
    for one, other in zip(ours, theirs, strict=True):
        assert one.box == pytest.approx(other["box"], abs=1)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_file_gives_what_upstream_gives_for_its_path(upstream: object, name: str, tmp_path: Path) -> None:
    path = tmp_path / "photograph.png"
    cv2.imwrite(str(path), PHOTOGRAPHS[name][..., ::-1])
    detector = NudeNetDetector(compat="3.4.2")
    _same(detector.detect([PHOTOGRAPHS[name]])[0], upstream.detect(str(path)))


def test_a_batch_of_arrays_gives_what_upstream_gives_for_it(upstream: object) -> None:
    pictures = [np.ascontiguousarray(picture) for picture in PHOTOGRAPHS.values()]
    ours = NudeNetDetector(compat="3.4.2", channels="RGB", batch_size=4).detect(pictures)
    theirs = upstream.detect_batch(pictures)
    assert sum(map(len, theirs)) >= 5, "the comparison would be empty"
    for one, other in zip(ours, theirs, strict=True):
        _same(one, other)


def test_ours_sees_the_face_that_wrong_channels_make_faint() -> None:
    picture = [PHOTOGRAPHS["astronaut"]]
    ours, compat = (NudeNetDetector(compat=compat).detect(picture)[0][0] for compat in (None, "3.4.2"))
    assert (ours.label, compat.label) == ("FACE_FEMALE", "FACE_FEMALE")
    assert ours.score > compat.score + 0.05
