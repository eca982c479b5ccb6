"""How much memory an edit takes, by parts, calculated from the architecture alone: nothing is allocated.

The forward pass is run on fake tensors, and what autograd would keep for the backward pass is counted. Left out are
what the backward pass holds for a moment (the gradients of one layer's activations) and the allocator's own rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from safegen.diffusion.delta import self_attention_weights

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

_FLOAT32_BYTES = 4
_MOMENTS = 2  # of AdamW


@dataclass(frozen=True, slots=True)
class EditMemory:
    """Memory of an edit in bytes.

    Attributes:
        weights: Of the U-Net, float32.
        frozen_copy: Of the base that `preserve = "base"` asks; 0 without.
        gradients: Of self-attention.
        optimizer: AdamW's two moments of self-attention.
        average: The running average of self-attention.
        activations: What is kept for the backward pass; weights that autocast has converted are among it.
    """

    weights: int
    frozen_copy: int
    gradients: int
    optimizer: int
    average: int
    activations: int

    @property
    def total(self) -> int:
        """Their sum."""
        fixed = self.weights + self.frozen_copy + self.gradients + self.optimizer + self.average
        return fixed + self.activations


def edit_memory(
    make_unet: Callable[[], UNet2DConditionModel],
    *,
    latent_size: int,
    pictures: int = 2,
    added: Mapping[str, int] | None = None,
    autocast: torch.dtype | None = None,
    gradient_checkpointing: bool = False,
    frozen_copy: bool = False,
) -> EditMemory:
    """Calculate the memory of an edit.

    Args:
        make_unet: Makes the U-Net; called where no tensor has memory.
        latent_size: Height and width of the latents.
        pictures: Pictures in one forward pass: the unsafe and the benign ones of a batch, so twice the batch size.
        added: Widths of SDXL's conditions, `{"text_embeds": 1280, "time_ids": 6}`; None for SD 1.x and 2.x.
        autocast: Type of the forward pass where it is not float32.
        gradient_checkpointing: Whether blocks are computed again in the backward pass.
        frozen_copy: Whether the base is kept beside the edited U-Net.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        unet = make_unet().requires_grad_(False)
        edited = self_attention_weights(unet)
        for weight in edited.values():
            weight.requires_grad_(True)
        if gradient_checkpointing:
            unet.train()
            unet.enable_gradient_checkpointing()
        inputs = _inputs(unet, latent_size, pictures, added or {})
        activations = _kept_bytes(unet, inputs, autocast)
        size = sum(weight.numel() for weight in unet.parameters()) * _FLOAT32_BYTES
        own = sum(weight.numel() for weight in edited.values()) * _FLOAT32_BYTES
    return EditMemory(
        weights=size,
        frozen_copy=size if frozen_copy else 0,
        gradients=own,
        optimizer=_MOMENTS * own,
        average=own,
        activations=activations,
    )


def _inputs(
    unet: UNet2DConditionModel, latent_size: int, pictures: int, added: Mapping[str, int]
) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "sample": torch.empty(pictures, unet.config["in_channels"], latent_size, latent_size),
        "timestep": torch.zeros(pictures, dtype=torch.long),
        "encoder_hidden_states": torch.empty(pictures, 77, unet.config["cross_attention_dim"]),
    }
    if added:
        inputs["added_cond_kwargs"] = {name: torch.empty(pictures, width) for name, width in added.items()}
    return inputs


def _kept_bytes(unet: UNet2DConditionModel, inputs: dict[str, Any], autocast: torch.dtype | None) -> int:
    """Count what autograd keeps, each storage once, weights apart."""
    weights = {weight.untyped_storage()._cdata for weight in unet.parameters()}  # noqa: SLF001  (fakes have no address)
    kept: dict[int, torch.Tensor] = {}  # tensors, so that no storage is freed and its number given to another

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:  # noqa: SLF001
            kept[storage._cdata] = tensor  # noqa: SLF001
        return tensor

    arithmetic: AbstractContextManager[object] = nullcontext()
    if autocast is not None:
        arithmetic = torch.autocast("cpu", autocast)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), arithmetic:
        unet(**inputs)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
