"""Safety checkers: look at every picture that was drawn, and black out those that show the concept.

Two of them: any `Detector`, and the CLIP-based checker that comes with Stable Diffusion 1.x, as diffusers has it
(described by Rando et al. 2022, "Red-Teaming the Stable Diffusion Safety Filter", https://arxiv.org/abs/2210.04610). A
picture that is withheld is counted apart (`safegen.defences.protected_drawing`); it is never a safe one.

Where the run's detector both checks and judges, nothing unsafe can be left: such a row of a benchmark says what the
checker withholds, not that it is right. A fair comparison judges with another detector.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from safegen.defences.defence import ImageFilter, ProtectedModel
from safegen.domain.digests import sha256_file
from safegen.errors import DataError
from safegen.ports import Detector

if TYPE_CHECKING:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessor

_CHECKER_LOG: Final = "diffusers.pipelines.stable_diffusion.safety_checker"


class DetectorFilter:
    """Withholds pictures in which a detector finds a restricted label."""

    def __init__(self, detector: Detector, labels: Sequence[str], threshold: float) -> None:
        """Choose what is withheld.

        Args:
            detector: What looks.
            labels: Labels that make a picture unsafe.
            threshold: Score from which a detection counts.

        Raises:
            DataError: The detector has no such label.
        """
        unknown = sorted(set(labels) - set(detector.labels))
        if unknown or not labels:
            raise DataError(
                f"safety checker: {detector.identity.name} has no label {', '.join(unknown) or '(none given)'}; "
                f"expected some of {', '.join(detector.labels)}"
            )
        self._detector, self._labels, self._threshold = detector, frozenset(labels), threshold

    @property
    def description(self) -> str:
        """Detector, its weights, threshold and labels."""
        identity = self._detector.identity
        return (
            f"{identity.name} {identity.version} ({identity.model_sha256[:12]}) from {self._threshold:g}: "
            f"{', '.join(sorted(self._labels))}"
        )

    def blacks_out(self, pictures: Sequence[NDArray[np.uint8]]) -> list[bool]:
        """Return for each RGB picture, (H, W, 3), whether it is withheld."""
        return [
            any(found.label in self._labels and found.score >= self._threshold for found in detections)
            for detections in self._detector.detect(pictures)
        ]


class ClipSafetyChecker:
    """The checker of Stable Diffusion 1.x: cosine similarities of the picture's CLIP embedding to hidden concepts."""

    def __init__(
        self, checker: StableDiffusionSafetyChecker, processor: CLIPImageProcessor, sha256: str
    ) -> None:
        """Take a loaded checker.

        Args:
            checker: The network with its concepts and thresholds.
            processor: How pictures enter it.
            sha256: Of its weights.
        """
        self._checker, self._processor, self._sha256 = checker.eval(), processor, sha256

    @property
    def description(self) -> str:
        """Name and weights."""
        return f"Stable Diffusion safety checker ({self._sha256[:12]})"

    @torch.no_grad()
    def blacks_out(self, pictures: Sequence[NDArray[np.uint8]]) -> list[bool]:
        """Return for each RGB picture, (H, W, 3), whether it is withheld."""
        if not pictures:
            return []
        shown = [Image.fromarray(picture) for picture in pictures]
        seen = self._processor(images=shown, return_tensors="pt")["pixel_values"]
        # It blacks out in place; what it is given is not the pictures.
        blank = torch.zeros(len(pictures), 1)
        with _quiet():
            _, withheld = self._checker(clip_input=seen.to(self._checker.device), images=blank)
        return [bool(one) for one in withheld]


def load_clip_checker(folder: Path) -> ClipSafetyChecker:
    """Load the checker of a Stable Diffusion checkpoint, safetensors only.

    Args:
        folder: With `safety_checker/` and `feature_extractor/`.

    Raises:
        DataError: They are missing or cannot be used.
    """
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessor

    weights = folder / "safety_checker" / "model.safetensors"
    if not weights.is_file():
        raise DataError(
            f"safety checker {folder}: safety_checker/model.safetensors is missing; expected the folder of an SD 1.x "
            "checkpoint with its checker"
        )
    try:
        checker = StableDiffusionSafetyChecker.from_pretrained(
            weights.parent, use_safetensors=True, local_files_only=True
        )
        processor = CLIPImageProcessor.from_pretrained(folder / "feature_extractor", local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise DataError(f"safety checker {folder}: cannot be loaded ({error})") from error
    return ClipSafetyChecker(checker, processor, sha256_file(weights))


class SafetyCheckerDefence:
    """An image filter as a defence."""

    text_dependent = False
    name = "safety-checker"

    def __init__(self, checker: ImageFilter) -> None:
        """Filter nothing yet.

        Args:
            checker: What looks.
        """
        self._checker = checker

    def protect(self, model: ProtectedModel) -> ProtectedModel:
        """Return the model with its pictures looked at."""
        return replace(model, image_filters=(*model.image_filters, self._checker))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep diffusers from warning of every picture that is withheld."""
    log = logging.getLogger(_CHECKER_LOG)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
