"""The step of SafeGen's published training script, stated again plainly from its description, to compare with.

For each triplet: the VAE encodes the unsafe, the censored and the benign picture; the U-Net predicts all three noised
latents (the prediction for the censored one is then not used); both losses go backward through the attn1 layers, with
gradient checkpointing; a running average follows the trained weights. The only liberty is that noise, timesteps and
posterior means are given, so that both sides of a comparison see the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from safegen.diffusion.delta import self_attention_weights

_DECAY = 0.9999


@dataclass(frozen=True, slots=True)
class Step:
    """What one forward pass is given; all with the same leading batch dimension.

    Attributes:
        pictures: Unsafe, censored and benign pictures in [-1, 1].
        t: Noise levels.
        noise: Of the unsafe (and the censored) latent.
        benign_noise: Of the benign latent.
        text: States of the empty prompt.
    """

    pictures: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    t: torch.Tensor
    noise: torch.Tensor
    benign_noise: torch.Tensor
    text: torch.Tensor


class PublishedLoop:
    """The published training loop around a U-Net and a VAE."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        alphas_cumprod: torch.Tensor,
        *,
        learning_rate: float,
    ) -> None:
        self._unet, self._vae, self._alphas = unet, vae, alphas_cumprod
        unet.requires_grad_(False).train()
        unet.enable_gradient_checkpointing()
        self._weights = list(self_attention_weights(unet).values())
        for weight in self._weights:
            weight.requires_grad_(True)
        self._optimizer = torch.optim.AdamW(self._weights, lr=learning_rate, weight_decay=0.01)
        self._average = [weight.detach().clone() for weight in self._weights]

    def step(self, parts: Sequence[Step]) -> tuple[float, float]:
        """Do one optimiser step over accumulated passes and return the mean mosaic and preserve loss."""
        self._optimizer.zero_grad(set_to_none=True)
        losses = torch.tensor([self._add_gradient(given, 1 / len(parts)) for given in parts])
        torch.nn.utils.clip_grad_norm_(self._weights, 1.0)
        self._optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self._average, list[torch.Tensor](self._weights), 1 - _DECAY)
        mosaic, preserve = losses.mean(dim=0).tolist()
        return mosaic, preserve

    def _add_gradient(self, given: Step, share: float) -> tuple[float, float]:
        with torch.no_grad():
            unsafe, censored, benign = (self._encode(picture) for picture in given.pictures)
        noised = self._noised(unsafe, given.noise, given.t)
        predicted = self._unet(noised, given.t, given.text).sample
        self._unet(self._noised(censored, given.noise, given.t), given.t, given.text)
        benign_predicted = self._unet(
            self._noised(benign, given.benign_noise, given.t), given.t, given.text
        ).sample
        mosaic = torch.nn.functional.mse_loss(predicted, given.noise + (unsafe - censored))
        preserve = torch.nn.functional.mse_loss(benign_predicted, given.benign_noise)
        (share * (0.1 * mosaic + 0.9 * preserve)).backward()
        return mosaic.item(), preserve.item()

    def _encode(self, picture: torch.Tensor) -> torch.Tensor:
        encoded = self._vae.encode(picture, return_dict=False)[0]
        return encoded.mean * self._vae.config["scaling_factor"]

    def _noised(self, clean: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a = self._alphas[t].reshape(-1, 1, 1, 1)
        return a.sqrt() * clean + (1 - a).sqrt() * noise
