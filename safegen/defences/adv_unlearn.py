"""AdvUnlearn: fine-tune the text tower to erase the concept under the prompts that would bring it back best.

Zhang et al., "Defensive Unlearning with Adversarial Training for Robust Concept Erasure in Diffusion Models", NeurIPS
2024, https://arxiv.org/abs/2405.15234, section 4. With E the trained text tower, E* the frozen one, U the frozen U-Net,
x_t drawn halfway for a prompt c of the concept, and p* a prefix of learned embeddings:

    inner   p* = argmin || U(x_t, t, E(p, c)) - U(x_t, t, E*(c)) ||^2                          (attack_steps of Adam)
    outer   minimise || U(x_t, t, E(p*, c)) - ESD's target ||^2  +  gamma || U(x_t, t, E(r)) - U(x_t, t, E*(r)) ||^2

with r prompts of what must stay. The first steps train on c without a prefix.

Deviations: the attack works on the outer step's x_t, not on a new one in each of its steps, which saves drawing them;
several pictures of a step share one prefix; the empty prompt is among what must stay, since the sampler asks for it in
every step; the retaining loss is added (the paper's form), not a step of its own (the default of the authors' code).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int

from safegen.defences.adv_unlearn_settings import AdvUnlearnSettings
from safegen.defences.concept import Concept
from safegen.defences.edit_checkpoint import EditState
from safegen.defences.edit_loop import EditObservers, EditPace, run_steps
from safegen.defences.esd import erased_target
from safegen.defences.triplet_latents import batch_generator
from safegen.defences.weight_edit import Part, arithmetic, check_finite, trained_identity
from safegen.diffusion.half_drawn import HalfDrawn, HalfwayPainter
from safegen.diffusion.losses import weighted_mse
from safegen.diffusion.noise_schedule import noise_schedule
from safegen.diffusion.soft_prompt import prompt_states, prompt_tokens
from safegen.diffusion.text_conditioning import TextConditioning
from safegen.errors import EditError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

__all__ = ["AdvUnlearnEdit", "AdvUnlearnSettings"]

_PREFIX = "adversarial prefix"
_FIRST_PREFIX = 1  # part of step 0's randomness that the prefix begins with


class AdvUnlearnEdit:
    """The edit; see the module."""

    text_dependent = True
    parts: tuple[Part, ...] = ("text_encoder",)
    name = "adv-unlearn"

    def __init__(self, concept: Concept, settings: AdvUnlearnSettings, *, seed: int) -> None:
        """Edit nothing yet.

        Args:
            concept: What is erased, and what is retained.
            settings: How.
            seed: Of everything random.
        """
        self._concept, self._settings, self._seed = concept, settings, seed

    @property
    def identity(self) -> Mapping[str, object]:
        """Settings, prompts and seed."""
        return {
            **self._settings.model_dump(mode="json"),
            "prompts": list(self._concept.prompts),
            "retain": list(self._concept.retain_prompts),
            "seed": self._seed,
        }

    def edit(
        self,
        pipeline: StableDiffusionPipeline,
        *,
        progress_file: Path | None = None,
        observers: EditObservers | None = None,
    ) -> None:
        """Edit the text tower in place; see `WeightEdit.edit`.

        Raises:
            EditError: The model has two text towers, or nothing is retained.
        """
        if getattr(pipeline, "text_encoder_2", None) is not None:
            raise EditError(
                f"adv-unlearn: this {type(pipeline).__name__} has two text towers; expected SD 1.x or 2.x; "
                "use esd or uce"
            )
        if not self._concept.retain:
            raise EditError("adv-unlearn: concept.retain is empty; name what must stay")
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
        pipeline.text_encoder.requires_grad_(False)


class _Training:
    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        concept: Concept,
        settings: AdvUnlearnSettings,
        seed: int,
        identity: Mapping[str, object],
    ) -> None:
        noise_schedule(dict(pipeline.scheduler.config))  # refuses what no edit can target
        self._settings, self._seed = settings, seed
        self._unet = pipeline.unet.requires_grad_(False).eval()
        self._encoder = pipeline.text_encoder.requires_grad_(False).eval()
        self._device = self._unet.device
        self._painter = HalfwayPainter(pipeline, steps=settings.sampling_steps, scale=settings.start_guidance)
        tokenizer = pipeline.tokenizer
        self._concept = prompt_tokens(tokenizer, concept.prompts)
        self._attacked = prompt_tokens(tokenizer, concept.prompts, prefix=settings.prefix_tokens)
        self._retained = prompt_tokens(tokenizer, ("", *concept.retain_prompts))
        with torch.no_grad():  # what E* makes of them, kept; so E* itself need not be
            self._concept_states = prompt_states(self._encoder, self._concept)
            self._retained_states = prompt_states(self._encoder, self._retained)
        self._prefix = self._first_prefix()
        weights = self._trainable()
        self._optimizer = torch.optim.Adam(weights.values(), lr=settings.learning_rate)
        tensors = (*self._unet.state_dict().values(), *self._encoder.state_dict().values())
        self.state = EditState(
            trained_identity(identity, tensors), {**weights, _PREFIX: self._prefix}, {}, self._optimizer
        )

    def step(self, step: int) -> dict[str, float]:
        """Attack, then do one optimiser step, and return what happened."""
        settings = self._settings
        generator = batch_generator(self._seed, step, 0)
        done = int(torch.randint(self._painter.steps, (1,), generator=generator))
        erase, values = self._erasing_loss(done, generator, attacked=step >= settings.warmup_steps)
        retain = self._retaining_loss(done, generator)
        loss = erase + settings.retain_weight * retain
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        values |= {"loss_erase": erase.item(), "loss_retain": retain.item(), "loss": loss.item()}
        check_finite(step, values)
        self._optimizer.step()
        return {**values, "learning_rate": settings.learning_rate}

    def _erasing_loss(
        self, done: int, generator: torch.Generator, *, attacked: bool
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Return ESD's loss under the tower that is trained, and how far the attack came."""
        settings = self._settings
        rows = torch.randint(len(self._concept), (settings.batch_size,), generator=generator)
        states = self._concept_states[rows]
        drawn = self._draw(states, done, generator)
        named, unnamed = self._frozen(drawn, states), self._frozen(drawn, self._empty(len(rows)))
        values = {"loss_attack": self._attack(rows, drawn, named)} if attacked else {}
        ids, prefix = (self._attacked, self._prefix) if attacked else (self._concept, None)
        with arithmetic(self._device, settings.mixed_precision):
            erased = self._predict(drawn, prompt_states(self._encoder, ids[rows], prefix))
        return weighted_mse(erased, erased_target(named, unnamed, settings.erase_scale)), values

    def _retaining_loss(self, done: int, generator: torch.Generator) -> torch.Tensor:
        size = self._settings.retain_batch_size
        rows = torch.randint(len(self._retained), (size,), generator=generator)
        states = self._retained_states[rows]
        drawn = self._draw(states, done, generator)
        with arithmetic(self._device, self._settings.mixed_precision):
            retained = self._predict(drawn, prompt_states(self._encoder, self._retained[rows]))
        return weighted_mse(retained, self._frozen(drawn, states))

    def _draw(
        self, states: Float[torch.Tensor, "b tokens width"], done: int, generator: torch.Generator
    ) -> HalfDrawn:
        """Draw halfway, as the base does."""
        asked, empty = TextConditioning(states), TextConditioning(self._empty(len(states)))
        with torch.no_grad(), arithmetic(self._device, self._settings.mixed_precision):
            return self._painter.draw(self._unet, asked, empty, done, generator)

    def _frozen(self, drawn: HalfDrawn, states: Float[torch.Tensor, "b tokens width"]) -> torch.Tensor:
        """Return what the base predicts."""
        with torch.no_grad(), arithmetic(self._device, self._settings.mixed_precision):
            return self._predict(drawn, states).float()

    def _empty(self, count: int) -> Float[torch.Tensor, "b tokens width"]:
        """Return the empty prompt's states in the base."""
        return self._retained_states[:1].expand(count, -1, -1)

    def _attack(self, rows: Int[torch.Tensor, "b"], drawn: HalfDrawn, named: torch.Tensor) -> float:
        """Improve the prefix from where the last step left it, and return the attack's last loss."""
        settings = self._settings
        prefix = self._prefix.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([prefix], lr=settings.attack_learning_rate)
        loss = named.new_zeros(())
        for _ in range(settings.attack_steps):
            with arithmetic(self._device, settings.mixed_precision):
                states = prompt_states(self._encoder, self._attacked[rows], prefix)
                loss = weighted_mse(self._predict(drawn, states), named)
            # Of the prefix alone: the tower's own weights gather no gradient here.
            [prefix.grad] = torch.autograd.grad(loss, [prefix])
            optimizer.step()
        self._prefix.copy_(prefix.detach())
        return loss.item()

    def _predict(self, drawn: HalfDrawn, states: torch.Tensor) -> torch.Tensor:
        return self._unet(drawn.latents, drawn.t, encoder_hidden_states=states).sample

    def _first_prefix(self) -> Float[torch.Tensor, "places width"]:
        """Return embeddings of random words."""
        words = self._encoder.get_input_embeddings().weight.detach()
        generator = batch_generator(self._seed, 0, _FIRST_PREFIX)
        rows = torch.randint(len(words), (self._settings.prefix_tokens,), generator=generator)
        return words[rows.to(words.device)].clone()

    def _trainable(self) -> dict[str, torch.nn.Parameter]:
        weights = {
            name: weight for name, weight in self._encoder.named_parameters() if "encoder.layers." in name
        }
        if not weights:
            raise EditError("adv-unlearn: the text tower has no layers; expected CLIP's")
        for weight in weights.values():
            weight.requires_grad_(True)
        return weights
