"""Loads checkpoints in diffusers layout: safetensors only, and nothing that could run code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safegen.domain.checkpoint_files import checkpoint_problems
from safegen.errors import DataError

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline


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


def _refuse_remote_code(config: Path, folder: Path) -> None:
    try:
        content = json.loads(config.read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"checkpoint {folder}: {config.relative_to(folder)} is not readable JSON ({error})"
        ) from error
    if isinstance(content, dict) and {"auto_map", "custom_pipelines"} & content.keys():
        raise DataError(
            f"checkpoint {folder}: {config.relative_to(folder)} asks for code of its own (auto_map), which is never "
            "run; use a checkpoint of a class that diffusers itself has"
        )


def load_pipeline(folder: Path, dtype: torch.dtype | None = None) -> StableDiffusionPipeline:
    """Load a Stable Diffusion pipeline from a local folder.

    Args:
        folder: In diffusers layout.
        dtype: Floating-point type of the weights; None for float32.

    Raises:
        DataError: `check_checkpoint_folder` refuses it, or diffusers cannot load it.
    """
    check_checkpoint_folder(folder)
    import torch
    from diffusers import StableDiffusionPipeline
    from safetensors import SafetensorError

    try:
        with _no_loading_bar():
            pipeline = StableDiffusionPipeline.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                safety_checker=None,
                requires_safety_checker=False,
            )
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        AttributeError,
        SafetensorError,
    ) as error:
        raise DataError(f"checkpoint {folder}: cannot be loaded as Stable Diffusion ({error})") from error
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
