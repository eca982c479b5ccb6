"""From settings to defences: one `match` that ends in `assert_never`, so that a new kind cannot be forgotten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from safegen.defences.concept import Concept
from safegen.defences.defence import Defence, ImageFilter
from safegen.defences.settings import DefenceSettings, WeightEditSettings
from safegen.defences.stack import Stack
from safegen.errors import ConfigError
from safegen.ports import Detector

if TYPE_CHECKING:
    from safegen.defences.safety_checker_settings import SafetyCheckerSettings
    from safegen.defences.text_filter import TextEmbedder
    from safegen.defences.triplet_latents import TripletLatents
    from safegen.defences.weight_edit import WeightEdit


@dataclass(frozen=True, slots=True)
class DefenceParts:
    """What defences are made of besides their settings; what is costly is opened only by the defence that needs it.

    Attributes:
        concept: The concept in words; None where a run does not say.
        seed: Of everything random.
        triplets: Makes the data of SafeGen's edit.
        detector: Opens the run's detector.
        unsafe_labels: Its labels that make a picture unsafe.
        unsafe_threshold: Score from which they count.
        clip: Opens the text side of the run's CLIP pair.
        retrained_unet: Folder of the miniature's second U-Net.
        work_dir: Where unfinished edits are kept; None keeps none.
    """

    concept: Concept | None
    seed: int
    triplets: Callable[[], TripletLatents]
    detector: Callable[[], Detector]
    unsafe_labels: tuple[str, ...]
    unsafe_threshold: float
    clip: Callable[[], TextEmbedder]
    retrained_unet: Path
    work_dir: Path | None = None

    def named_concept(self) -> Concept:
        """Return the concept in words.

        Raises:
            ConfigError: The run does not say.
        """
        if self.concept is None:
            raise ConfigError(
                "config: table 'concept' is missing; a defence that acts on text needs its phrases"
            )
        return self.concept


def open_defence(settings: DefenceSettings, parts: DefenceParts) -> Defence:  # noqa: PLR0911  (one return a kind)
    """Return a defence.

    Args:
        settings: Which, and how.
        parts: What it is made of.

    Raises:
        ConfigError: It acts on text, and the run does not say what the concept is called.
        DataError: A file that it needs is missing or damaged.
    """
    match settings.kind:
        case "unedited":
            from safegen.defences.stack import Unedited

            return Unedited()
        case "retrained":
            from safegen.defences.retrained import RetrainedCheckpoint, RetrainedUnet

            if settings.source == "miniature":
                return RetrainedUnet(parts.retrained_unet)
            return RetrainedCheckpoint(Path(settings.source))
        case "text-filter":
            from safegen.defences.text_filter import TextFilterDefence

            clip = parts.clip() if settings.tower == "clip" else None
            return TextFilterDefence(parts.named_concept(), settings, clip)
        case "safety-checker":
            from safegen.defences.safety_checker import SafetyCheckerDefence

            return SafetyCheckerDefence(_checker(settings, parts))
        case "sld":
            from safegen.defences.sld import SafeLatentDiffusion

            return SafeLatentDiffusion(parts.named_concept(), settings)
        case "safegen" | "esd" | "uce" | "adv-unlearn":
            from safegen.defences.weight_edit import EditedWeights

            return EditedWeights(open_edit(settings, parts), parts.work_dir)
        case _:
            assert_never(settings.kind)


def open_edit(settings: WeightEditSettings, parts: DefenceParts) -> WeightEdit:
    """Return a weight edit.

    Args:
        settings: Which, and how.
        parts: What it is made of.

    Raises:
        ConfigError: As `open_defence`.
    """
    match settings.kind:
        case "safegen":
            from safegen.defences.safegen_edit import SafeGenEdit

            return SafeGenEdit(parts.triplets(), settings, seed=parts.seed)
        case "esd":
            from safegen.defences.esd import EsdEdit

            return EsdEdit(parts.named_concept(), settings, seed=parts.seed)
        case "uce":
            from safegen.defences.uce import UceEdit

            return UceEdit(parts.named_concept(), settings)
        case "adv-unlearn":
            from safegen.defences.adv_unlearn import AdvUnlearnEdit

            return AdvUnlearnEdit(parts.named_concept(), settings, seed=parts.seed)
        case _:
            assert_never(settings.kind)


def open_stack(settings: Sequence[DefenceSettings], parts: DefenceParts) -> Defence:
    """Return several defences as one; one alone as itself.

    Args:
        settings: Of each, in the order in which they protect.
        parts: What they are made of.

    Raises:
        ConfigError: There is none, or as `open_defence`.
        DataError: As `open_defence`.
    """
    if not settings:
        raise ConfigError('a stack of defences is empty; name at least one, such as "unedited"')
    opened = [open_defence(one, parts) for one in settings]
    return opened[0] if len(opened) == 1 else Stack(opened)


def is_weight_edit(settings: DefenceSettings) -> bool:
    """Say whether a defence changes weights, so that its result is a checkpoint."""
    return where_it_acts(settings) == "the weights"


def where_it_acts(settings: DefenceSettings) -> str:
    """Return where a defence acts, in words."""
    match settings.kind:
        case "safegen" | "esd" | "uce" | "adv-unlearn":
            return "the weights"
        case "unedited":
            return "nothing"
        case "retrained":
            return "the choice of the model"
        case "text-filter":
            return "the prompt, before drawing"
        case "safety-checker":
            return "the finished picture"
        case "sld":
            return "the sampler, while drawing"
        case _:
            assert_never(settings.kind)


def _checker(settings: SafetyCheckerSettings, parts: DefenceParts) -> ImageFilter:
    from safegen.defences.safety_checker import DetectorFilter, load_clip_checker

    if settings.clip_checker is not None:
        return load_clip_checker(settings.clip_checker)
    threshold = parts.unsafe_threshold if settings.threshold is None else settings.threshold
    return DetectorFilter(parts.detector(), parts.unsafe_labels, threshold)
