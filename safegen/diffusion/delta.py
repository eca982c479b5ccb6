"""The edit on its own: a small safetensors file that holds only the self-attention weights an edit changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safegen.domain.digests import digest_json, sha256_bytes
from safegen.errors import DataError

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

_FORMAT = "safegen-attn1-delta/1"


def self_attention_weights(unet: UNet2DConditionModel) -> dict[str, torch.nn.Parameter]:
    """Return the parameters of all vision-only self-attention layers (`attn1`) by name.

    In SD 1.4 these are 49,574,080 of 859,520,964 parameters.
    """
    return {name: weight for name, weight in unet.named_parameters() if ".attn1." in name}


def untouched_digest(unet: UNet2DConditionModel) -> str:
    """Return a digest of all U-Net weights outside `attn1`; an edit leaves it as it is."""
    import torch

    digests = {
        name: sha256_bytes(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        for name, weight in unet.state_dict().items()
        if ".attn1." not in name
    }
    return digest_json(digests)


def save_delta(unet: UNet2DConditionModel, path: Path) -> None:
    """Write the edited self-attention weights and the digest of the U-Net that they belong to.

    Args:
        unet: The edited U-Net.
        path: A ``.safetensors`` file.
    """
    from safetensors.torch import save_file

    weights = {
        name: weight.detach().cpu().contiguous() for name, weight in self_attention_weights(unet).items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path, metadata={"format": _FORMAT, "untouched": untouched_digest(unet)})


def apply_delta(pipeline: StableDiffusionPipeline, delta: Path | str) -> StableDiffusionPipeline:
    """Put an edit into the pipeline of the base model that it was made from.

    Args:
        pipeline: The unedited base model, in the floating-point type in which the delta was saved.
        delta: File written by `save_delta`.

    Returns:
        The same pipeline, edited in place.

    Raises:
        DataError: The file is no delta, or belongs to another base model. The pipeline is then unchanged.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    path = Path(delta)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"delta {path}: cannot be read ({error}); expected a file written by safegen edit"
        ) from error
    if metadata.get("format") != _FORMAT:
        raise DataError(f"delta {path}: format is {metadata.get('format')!r}; expected {_FORMAT!r}")
    unet = pipeline.unet
    targets = self_attention_weights(unet)
    shapes = {name: tuple(weight.shape) for name, weight in targets.items()}
    if shapes != {name: tuple(weight.shape) for name, weight in weights.items()}:
        raise DataError(
            f"delta {path}: its {len(weights)} tensors do not fit this U-Net's {len(targets)} in attn1"
        )
    if metadata.get("untouched") != untouched_digest(unet):
        raise DataError(
            f"delta {path}: was made from another base model or another dtype; load that base and retry"
        )
    if odd := [name for name, weight in weights.items() if not torch.isfinite(weight).all()]:
        raise DataError(f"delta {path}: {odd[0]} is not finite; it would draw nothing, so make it again")
    with torch.no_grad():
        for name, weight in weights.items():
            targets[name].copy_(weight)
    return pipeline
