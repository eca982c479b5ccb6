"""Loads checkpoints in diffusers layout: safetensors only, and nothing that could run code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from safegen.domain.checkpoint_files import checkpoint_problems
from safegen.errors import DataError

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline

_CODE_KEYS = frozenset({"auto_map", "custom_pipelines"})
_WEIGHTED = ("unet", "vae", "text_encoder", "text_encoder_2")
_LIBRARIES = frozenset(
    {"diffusers", "transformers", "stable_diffusion"}
)  # the last for SD 1.x's safety checker


def check_checkpoint_folder(folder: Path) -> None:
    """Refuse a folder that is no diffusers checkpoint, holds a pickle, or asks for code of its own.

    Raises:
        DataError: Says what is wrong and what to do.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        raise DataError(
            f"checkpoint {folder}: model_index.json is missing; expected a Stable Diffusion folder in diffusers layout"
        )
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    problems = checkpoint_problems(folder, files)
    if problems:
        raise DataError(
            f"checkpoint {folder}: {problems[0]}; expected weights in safetensors only (a pickle can run code and is "
            "never loaded); convert the checkpoint first"
        )
    code = sorted(name for name in files if name.endswith((".py", ".pyc", ".so")))
    if code:
        raise DataError(
            f"checkpoint {folder}: {code[0]} is code, which is never run; expected weights and settings alone"
        )
    for config in sorted(folder.rglob("*.json")):
        _refuse_remote_code(config, folder)
    _refuse_foreign_parts(folder)


def _read_config(config: Path, folder: Path) -> object:
    try:
        return json.loads(config.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"checkpoint {folder}: {config.relative_to(folder)} is not readable JSON ({error})"
        ) from error


def _refuse_remote_code(config: Path, folder: Path) -> None:
    content = _read_config(config, folder)
    if config.name in {"config.json", "model_index.json"} and not isinstance(content, dict):
        raise DataError(f"checkpoint {folder}: {config.relative_to(folder)} is no JSON object")
    if _asks_for_code(content):
        raise DataError(
            f"checkpoint {folder}: {config.relative_to(folder)} asks for code of its own (auto_map), which is never "
            "run; use a checkpoint of a class that diffusers itself has"
        )


def _asks_for_code(content: object) -> bool:
    inner: list[object] = [content]
    while inner:
        one = inner.pop()
        if isinstance(one, dict):
            if _CODE_KEYS & one.keys():
                return True
            inner += one.values()
        elif isinstance(one, list):
            inner += one
    return False


def _refuse_foreign_parts(folder: Path) -> None:
    """Refuse parts of other libraries: naming a module is enough to have it imported, which runs it."""
    index = cast("dict[str, object]", _read_config(folder / "model_index.json", folder))
    for name, part in index.items():
        library = part[0] if isinstance(part, list) and part else None
        if library is not None and library not in _LIBRARIES:
            raise DataError(
                f"checkpoint {folder}: model_index.json takes {name} from {library!r}, which is never imported; "
                f"expected one of {', '.join(sorted(_LIBRARIES))}"
            )


def load_pipeline(folder: Path, dtype: torch.dtype | None = None) -> StableDiffusionPipeline:
    """Load a Stable Diffusion pipeline from a local folder.

    Args:
        folder: In diffusers layout: SD 1.x, 2.x or SDXL.
        dtype: Floating-point type of the weights; None for float32.

    Returns:
        The pipeline of the checkpoint's family. `StableDiffusionXLPipeline` is not derived from
        `StableDiffusionPipeline`, but has all the members of it that are used here.

    Raises:
        DataError: `check_checkpoint_folder` refuses it, it is of another family, or diffusers cannot load it.
    """
    check_checkpoint_folder(folder)
    import torch
    from safetensors import SafetensorError

    try:
        with _no_loading_bar():
            pipeline = _load_family(folder)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        AttributeError,
        SafetensorError,
    ) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"checkpoint {folder}: cannot be loaded as Stable Diffusion ({reason})") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(
        dtype or torch.float32
    )  # what `from_pretrained` takes a type by differs between releases


@contextmanager
def _no_loading_bar() -> Iterator[None]:
    """Keep diffusers from drawing a bar over the parts that it loads; no environment variable does that."""
    from diffusers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()


def _load_family(folder: Path) -> StableDiffusionPipeline:
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    family = json.loads((folder / "model_index.json").read_text()).get("_class_name")
    if family == "StableDiffusionPipeline":
        # Its checker would black pictures out, which evaluation must see; it needs no feature extractor then.
        return StableDiffusionPipeline.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            **_whole_parts(folder),
        )
    if family == "StableDiffusionXLPipeline":
        pipeline = StableDiffusionXLPipeline.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, add_watermarker=False, **_whole_parts(folder)
        )
        return cast("StableDiffusionPipeline", pipeline)
    raise DataError(
        f"checkpoint {folder}: is a {family}; expected StableDiffusionPipeline or StableDiffusionXLPipeline"
    )


def _whole_parts(folder: Path) -> dict[str, torch.nn.Module]:
    """Load the parts that hold weights; the libraries would fill in at random what a file lacks, with a warning.

    Raises:
        DataError: A tensor is missing, or a weight is not finite.
    """
    import diffusers
    import transformers

    index = json.loads((folder / "model_index.json").read_text())
    parts: dict[str, torch.nn.Module] = {}
    for name in _WEIGHTED:
        library, kind = index.get(name) or ("", "")
        if not library:
            continue
        module = getattr(diffusers if library == "diffusers" else transformers, kind)
        part, found = module.from_pretrained(
            folder / name, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
        if missing := sorted(found["missing_keys"]):
            raise DataError(
                f"checkpoint {folder}: {name} lacks {len(missing)} tensors (first: {missing[0]}); export it again"
            )
        _refuse_odd_weights(part, f"checkpoint {folder}: {name}")
        parts[name] = part
    return parts


def _refuse_odd_weights(part: torch.nn.Module, what: str) -> None:
    """Refuse NaN and infinity: such a model draws nothing, and nothing unsafe either."""
    import torch

    for name, weight in part.state_dict().items():
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            raise DataError(f"{what} holds a weight that is not finite, in {name}; export it again")
