from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel

from safegen.diffusion.edit_memory import edit_memory


def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def kept_in_truth(pictures: int) -> int:
    """Count what autograd keeps in a real forward pass, each storage once."""
    net = unet().requires_grad_(False)
    for name, weight in net.named_parameters():
        weight.requires_grad_(".attn1." in name)
    weights = {weight.untyped_storage().data_ptr() for weight in net.parameters()}
    kept: dict[int, int] = {}
    alive: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net(
            torch.randn(pictures, 4, 8, 8),
            torch.zeros(pictures, dtype=torch.long),
            torch.randn(pictures, 77, 32),
        )
    return sum(kept.values())


def test_parts_follow_from_the_numbers_of_weights() -> None:
    real = unet()
    every = sum(weight.numel() for weight in real.parameters())
    edited = sum(weight.numel() for name, weight in real.named_parameters() if ".attn1." in name)
    memory = edit_memory(unet, latent_size=8, frozen_copy=True)
    assert memory.weights == memory.frozen_copy == 4 * every
    assert (memory.gradients, memory.optimizer, memory.average) == (4 * edited, 8 * edited, 4 * edited)
    assert memory.total == 8 * every + 16 * edited + memory.activations


def test_activations_are_those_that_a_real_pass_keeps() -> None:
    for pictures in (2, 4):
        found = edit_memory(unet, latent_size=8, pictures=pictures).activations
        assert abs(found - kept_in_truth(pictures)) < 0.01 * found


def test_checkpointing_keeps_less_and_half_precision_too() -> None:
    plain = edit_memory(unet, latent_size=32)
    assert (
        edit_memory(unet, latent_size=32, gradient_checkpointing=True).activations < 0.5 * plain.activations
    )
    half = edit_memory(unet, latent_size=32, autocast=torch.bfloat16)
    assert half.activations < plain.activations
    assert half.weights == plain.weights
