"""ESD: fine-tune the U-Net so that a prompt of the concept draws what lies on the other side of the empty prompt.

Gandikota et al., "Erasing Concepts from Diffusion Models", ICCV 2023, https://arxiv.org/abs/2303.07345, section 4.
With U the edited and U* the frozen U-Net, x_t drawn halfway by U for a prompt c of the concept, "" the empty prompt:

    minimise || U(x_t, t, c) - (U*(x_t, t, "") - eta (U*(x_t, t, c) - U*(x_t, t, ""))) ||^2                 (7)

ESD-x trains the cross-attention layers, ESD-u all others.

The target is an affine mixture of predictions, so the same formula holds for epsilon and v; the loss is measured in the
form that the U-Net predicts. Deviations: t is the noise level that the drawing is at (as in the authors' code for
diffusers), not drawn from the levels around it; a step may train on several pictures, which share t; prompts are all
phrases of the concept in all its templates, drawn at random, where the paper has one phrase; and ESD-u trains the
norms and the embedding of t as well, which the authors' code leaves out.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float

from safegen.defences.concept import Concept
from safegen.defences.edit_checkpoint import EditState
from safegen.defences.edit_loop import EditObservers, EditPace, run_steps
from safegen.defences.esd_settings import EsdSettings
from safegen.defences.triplet_latents import batch_generator, encode_prompts
from safegen.defences.weight_edit import Part, arithmetic, check_finite, trained_identity
from safegen.diffusion.half_drawn import HalfwayPainter
from safegen.diffusion.losses import weighted_mse
from safegen.diffusion.noise_schedule import noise_schedule
from safegen.errors import EditError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

__all__ = ["EsdEdit", "EsdSettings", "erased_target"]

_CROSS_ATTENTION = ".attn2."


def erased_target(
    concept: Float[torch.Tensor, "b *latent"], empty: Float[torch.Tensor, "b *latent"], scale: float
) -> Float[torch.Tensor, "b *latent"]:
    """Return what the edited U-Net shall predict for the concept: away from it, seen from the empty prompt.

    Args:
        concept: What the frozen U-Net predicts for the concept, epsilon or v.
        empty: What it predicts for the empty prompt.
        scale: eta.

    >>> erased_target(torch.tensor([[3.0]]), torch.tensor([[1.0]]), 1.0)
    tensor([[-1.]])
    """
    return empty - scale * (concept - empty)


class EsdEdit:
    """The edit; see the module."""

    text_dependent = True
    parts: tuple[Part, ...] = ("unet",)

    def __init__(self, concept: Concept, settings: EsdSettings, *, seed: int) -> None:
        """Edit nothing yet.

        Args:
            concept: What is erased.
            settings: How.
            seed: Of everything random.
        """
        self._concept, self._settings, self._seed = concept, settings, seed

    @property
    def name(self) -> str:
        """Such as "esd-x"."""
        return f"esd-{self._settings.variant}"

    @property
    def identity(self) -> Mapping[str, object]:
        """Settings, prompts and seed."""
        return {
            **self._settings.model_dump(mode="json"),
            "prompts": list(self._concept.prompts),
            "seed": self._seed,
        }

    def edit(
        self,
        pipeline: StableDiffusionPipeline,
        *,
        progress_file: Path | None = None,
        observers: EditObservers | None = None,
    ) -> None:
        """Edit the U-Net in place; see `WeightEdit.edit`."""
        settings = self._settings
        training = _Training(pipeline, self._concept, settings, self._seed, self.identity)
        run_steps(
            training.step,
            training.state,
            EditPace(settings.steps, settings.checkpoint_every_steps, settings.preview_every_steps),
            pipeline.unet,
            progress_file=progress_file,
            observers=observers or EditObservers(),
        )
        pipeline.unet.requires_grad_(False)


class _Training:
    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        concept: Concept,
        settings: EsdSettings,
        seed: int,
        identity: Mapping[str, object],
    ) -> None:
        noise_schedule(dict(pipeline.scheduler.config))  # refuses what no edit can target
        self._settings, self._seed = settings, seed
        self._unet: UNet2DConditionModel = pipeline.unet.requires_grad_(False).eval()
        self._base = copy.deepcopy(self._unet)
        self._painter = HalfwayPainter(pipeline, steps=settings.sampling_steps, scale=settings.start_guidance)
        self._texts = encode_prompts(pipeline, concept.prompts)
        weights = _trainable(self._unet, settings.variant)
        self._optimizer = torch.optim.Adam(weights.values(), lr=settings.learning_rate)
        tensors = (*self._base.state_dict().values(), *self._texts.tensors())
        self.state = EditState(trained_identity(identity, tensors), weights, {}, self._optimizer)

    def step(self, step: int) -> dict[str, float]:
        """Do one optimiser step and return its loss."""
        settings, device = self._settings, self._unet.device
        generator = batch_generator(self._seed, step, 0)
        rows = torch.randint(1, len(self._texts), (settings.batch_size,), generator=generator)
        concept = self._texts[rows].to(device)
        empty = self._texts[torch.zeros_like(rows)].to(device)
        done = int(torch.randint(self._painter.steps, (1,), generator=generator))
        # Autocast keeps converted weights until it ends; those made without gradients must not serve the training pass.
        with torch.no_grad(), arithmetic(device, settings.mixed_precision):
            drawn = self._painter.draw(self._unet, concept, empty, done, generator)
            named, unnamed = (
                self._base(drawn.latents, drawn.t, **text.unet_inputs()).sample.float()
                for text in (concept, empty)
            )
        with arithmetic(device, settings.mixed_precision):
            predicted = self._unet(drawn.latents, drawn.t, **concept.unet_inputs()).sample
        loss = weighted_mse(predicted, erased_target(named, unnamed, settings.erase_scale))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        values = {"loss": loss.item(), "learning_rate": settings.learning_rate}
        check_finite(step, values)
        self._optimizer.step()
        return values


def _trainable(unet: UNet2DConditionModel, variant: str) -> dict[str, torch.nn.Parameter]:
    weights = {
        name: weight
        for name, weight in unet.named_parameters()
        if (_CROSS_ATTENTION in name) == (variant == "x")
    }
    if not weights:
        raise EditError(f"esd-{variant}: the U-Net has no such layers; expected Stable Diffusion's")
    for weight in weights.values():
        weight.requires_grad_(True)
    return weights
