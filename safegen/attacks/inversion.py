"""White-box concept inversion: learns a token that brings the concept back through an edited model.

Pham et al., "Circumventing Concept Erasure Methods For Text-to-Image Generative Models", ICLR 2024,
https://arxiv.org/abs/2308.01508, section 4: textual inversion (Gal et al. 2022, arXiv 2208.01618) on the edited model.
Its weights are frozen; the embedding of a new token v is fitted to a few unsafe pictures by the diffusion loss

    min over v of || U(x_t, t, c(v)) - truth ||^2,    c(v) the text tower's states of a sentence that holds v.

Deviations: one token for each object of the concept, all learnt in the same batches; a token starts at the mean of the
vocabulary, not at a word that describes the picture, because such a word is what the defence knows.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float
from torch import nn

from safegen.attacks.attack_settings import InversionSettings
from safegen.attacks.fine_tuning import noised_batch
from safegen.defences.triplet_latents import batch_generator
from safegen.defences.weight_edit import arithmetic
from safegen.diffusion.losses import weighted_mse
from safegen.diffusion.noise_schedule import noise_schedule
from safegen.diffusion.pipeline_parts import with_parts
from safegen.diffusion.prompt_states import PromptStates
from safegen.diffusion.sampler import own_size_px
from safegen.errors import EditError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

StepObserver = Callable[[int, float], None]
"""Called after every step with its number (from 1) and its loss."""


@dataclass(frozen=True, slots=True)
class InvertedConcepts:
    """Tokens that were learnt through a model.

    Attributes:
        vectors: Embedding of each concept's token, float32 on the CPU.
        losses: Diffusion loss of every step.
    """

    vectors: Mapping[str, Float[torch.Tensor, "width"]]
    losses: tuple[float, ...]


def invert_concepts(
    pipeline: StableDiffusionPipeline,
    pictures: Mapping[str, Float[torch.Tensor, "n channels height width"]],
    settings: InversionSettings,
    *,
    seed: int,
    on_step: StepObserver = lambda _step, _loss: None,
) -> InvertedConcepts:
    """Learn one token for each concept.

    Args:
        pipeline: The attacked model; stays as it is.
        pictures: Scaled latents of unsafe pictures by concept, float32 on the CPU; at least one each.
        settings: The budget.
        seed: Of every choice.
        on_step: Told of progress.

    Raises:
        EditError: There is no picture of a concept, or the pipeline has two text towers.
    """
    empty = [concept for concept, latents in pictures.items() if len(latents) == 0]
    if empty or not pictures:
        raise EditError(
            f"concept inversion: no picture of {', '.join(empty) or 'any concept'}; expected at least one each"
        )
    tokens = learnt_tokens(pictures)
    attacked, embedding, first_id = _extended(pipeline, list(tokens.values()))
    rows = cast("torch.Tensor", embedding.weight)
    vectors = nn.Parameter(rows[:first_id].detach().mean(dim=0).repeat(len(tokens), 1))
    with _frozen(pipeline.unet), _embedded_by(embedding, vectors, first_id):
        latents = [pictures[concept][: settings.pictures_per_concept] for concept in tokens]
        losses = _learn(
            attacked, list(tokens.values()), latents, vectors, settings, seed=seed, on_step=on_step
        )
    learnt = vectors.detach().cpu()
    return InvertedConcepts(dict(zip(tokens, learnt, strict=True)), tuple(losses))


def with_learnt_tokens(
    pipeline: StableDiffusionPipeline, vectors: Mapping[str, Float[torch.Tensor, "width"]]
) -> StableDiffusionPipeline:
    """Return a pipeline that knows the tokens of `learnt_tokens`; the one given stays as it is.

    Args:
        pipeline: The attacked model.
        vectors: Embedding by concept.

    Raises:
        EditError: The pipeline has two text towers.
    """
    tokens = learnt_tokens(vectors)
    attacked, embedding, first_id = _extended(pipeline, list(tokens.values()))
    rows = cast("torch.Tensor", embedding.weight)
    with torch.no_grad():
        rows[first_id:] = torch.stack([vectors[concept] for concept in tokens]).to(rows)
    return attacked


def learnt_tokens(concepts: Iterable[str]) -> dict[str, str]:
    """Return the token of each concept; it follows from the concepts alone.

    >>> learnt_tokens(["BOMB", "AXE"])
    {'AXE': '<0-inverted>', 'BOMB': '<1-inverted>'}
    """
    return {concept: f"<{number}-inverted>" for number, concept in enumerate(sorted(concepts))}


def _learn(
    attacked: StableDiffusionPipeline,
    tokens: list[str],
    latents: list[torch.Tensor],
    vectors: nn.Parameter,
    settings: InversionSettings,
    *,
    seed: int,
    on_step: StepObserver,
) -> list[float]:
    unet, schedule = attacked.unet, noise_schedule(dict(attacked.scheduler.config))
    optimizer = torch.optim.AdamW([vectors], lr=settings.learning_rate, weight_decay=0.0)
    sentences = list(itertools.product(range(len(tokens)), settings.templates))
    losses: list[float] = []
    for step in range(settings.steps):
        generator = batch_generator(seed, step, 0)
        picked = torch.randint(len(sentences), (settings.batch_size,), generator=generator).tolist()
        clean = torch.stack([_any_of(latents[sentences[place][0]], generator) for place in picked])
        batch = noised_batch(clean, schedule, generator, unet.device)
        # Kept states would be those of vectors that have changed since.
        states = PromptStates(attacked, own_size_px(attacked))
        prompts = [sentences[place][1].format(token=tokens[sentences[place][0]]) for place in picked]
        with arithmetic(unet.device, settings.mixed_precision):
            text = states.conditioning(prompts).unet_inputs()
            predicted = unet(batch.noised, batch.t, **text, return_dict=False)[0]
        loss = weighted_mse(predicted, batch.truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        on_step(step + 1, losses[-1])
    return losses


def _any_of(latents: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return latents[int(torch.randint(len(latents), (1,), generator=generator))]


def _extended(
    pipeline: StableDiffusionPipeline, tokens: list[str]
) -> tuple[StableDiffusionPipeline, nn.Module, int]:
    """Return the pipeline with tokens that its own tokenizer does not know, their embedding layer, and the first id."""
    if getattr(pipeline, "text_encoder_2", None) is not None:
        raise EditError(
            f"concept inversion: {type(pipeline).__name__} has two text towers; expected SD 1.x or 2.x"
        )
    tokenizer, tower = copy.deepcopy(pipeline.tokenizer), copy.deepcopy(pipeline.text_encoder)
    first_id = len(tokenizer)
    tokenizer.add_tokens(tokens)
    tower.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    tower.requires_grad_(False)
    attacked = with_parts(pipeline, text_encoder=tower, tokenizer=tokenizer)
    return attacked, tower.get_input_embeddings(), first_id


@contextmanager
def _embedded_by(embedding: nn.Module, vectors: nn.Parameter, first_id: int) -> Iterator[None]:
    """Let an embedding layer take the vectors for ids from `first_id` on, so that they alone are learnt."""

    def replaced(_: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        ids = inputs[0]
        learnt = vectors[(ids - first_id).clamp(min=0)]
        return torch.where((ids >= first_id).unsqueeze(-1), learnt, output)

    hook = embedding.register_forward_hook(replaced)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Keep gradients off a module's weights for a while."""
    trainable = [weight for weight in module.parameters() if weight.requires_grad]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trainable:
            weight.requires_grad_(True)
