"""UCE: map the concept's words to those of a harmless one, in closed form, in every cross-attention layer.

Gandikota et al., "Unified Concept Editing in Diffusion Models", WACV 2024, https://arxiv.org/abs/2308.14761, section 4,
equation 7. For every key and value matrix W* of cross-attention, with c_i states of the concept's prompts, v_i* what W*
makes of the states of the anchor's, and c_j states of prompts that must stay:

    W = (s_e sum v_i* c_i' + s_r sum W* c_j c_j' + lambda W*) (s_e sum c_i c_i' + s_r sum c_j c_j' + lambda I)^-1

which minimises  s_e sum |W c_i - v_i*|^2 + s_r sum |W c_j - W* c_j|^2 + lambda |W - W*|^2.

Deviations: solved in float64, without inverting; a phrase may stand in templates; `tokens = "all"` maps the tokens
after the phrase as well. Where an anchor is empty its last token is that of the beginning, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float

from safegen.defences.concept import Concept
from safegen.defences.edit_loop import EditObservers
from safegen.defences.uce_settings import UceSettings
from safegen.defences.weight_edit import Part
from safegen.diffusion.prompt_states import PromptStates
from safegen.diffusion.sampler import own_size_px
from safegen.errors import EditError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTokenizer

__all__ = ["TokenMap", "UceEdit", "UceSettings", "mapped_weight"]


@dataclass(frozen=True, slots=True)
class TokenMap:
    """What shall be heard as what.

    Attributes:
        erased: States of the concept's tokens.
        anchored: States that they shall be heard as, row by row.
        retained: States that shall be heard as before.
    """

    erased: Float[torch.Tensor, "n width"]
    anchored: Float[torch.Tensor, "n width"]
    retained: Float[torch.Tensor, "m width"]


def mapped_weight(
    weight: Float[torch.Tensor, "out width"], tokens: TokenMap, settings: UceSettings
) -> Float[torch.Tensor, "out width"]:
    """Return the matrix of equation 7, in the type and on the device of `weight`.

    Args:
        weight: W*, of keys or values.
        tokens: States.
        settings: s_e, s_r and lambda.
    """
    old = weight.detach().double()
    erased, anchored, retained = (part.to(old) for part in (tokens.erased, tokens.anchored, tokens.retained))
    width = old.shape[1]
    gram = settings.erase_scale * erased.T @ erased + settings.retain_scale * retained.T @ retained
    gram += settings.ridge * torch.eye(width, dtype=old.dtype, device=old.device)
    moved = settings.erase_scale * (anchored @ old.T).T @ erased
    kept = settings.retain_scale * old @ retained.T @ retained + settings.ridge * old
    # W gram = moved + kept, and gram is symmetric.
    return torch.linalg.solve(gram, (moved + kept).T).T.to(weight)


class UceEdit:
    """The edit; see the module."""

    text_dependent = True
    parts: tuple[Part, ...] = ("unet",)
    name = "uce"

    def __init__(self, concept: Concept, settings: UceSettings) -> None:
        """Edit nothing yet; there is nothing random.

        Args:
            concept: What is erased, its anchor, and what is retained.
            settings: How.
        """
        self._concept, self._settings = concept, settings

    @property
    def identity(self) -> Mapping[str, object]:
        """Settings and concept."""
        return {**self._settings.model_dump(mode="json"), "concept": self._concept.model_dump(mode="json")}

    def edit(
        self,
        pipeline: StableDiffusionPipeline,
        *,
        progress_file: Path | None = None,
        observers: EditObservers | None = None,
    ) -> None:
        """Edit the U-Net in place; it takes seconds, so no progress is kept. See `WeightEdit.edit`."""
        del progress_file
        tokens = token_map(pipeline, self._concept, self._settings)
        moved = 0.0
        with torch.no_grad():
            for layer in _heard_through(pipeline.unet):
                new = mapped_weight(layer.weight, tokens, self._settings)
                moved += float((new - layer.weight).square().sum())
                layer.weight.copy_(new)
        pipeline.unet.requires_grad_(False)
        if observers is not None:
            observers.on_step(1, {"moved": moved**0.5})


def token_map(pipeline: StableDiffusionPipeline, concept: Concept, settings: UceSettings) -> TokenMap:
    """Return the states of all phrases in all templates, on the device of the U-Net.

    Args:
        pipeline: Whose text towers.
        concept: What is erased, its anchor, and what is retained.
        settings: Which tokens.
    """
    reader = _StateReader(pipeline, settings.tokens)
    erased: list[torch.Tensor] = []
    anchored: list[torch.Tensor] = []
    retained: list[torch.Tensor] = []
    for template in concept.templates:
        anchor = reader.states(template, concept.anchor)
        for phrase in concept.phrases:
            states = reader.states(template, phrase)
            shared = min(len(states), len(anchor))
            erased.append(states[:shared])
            anchored.append(anchor[:shared])
        retained += [reader.states(template, phrase) for phrase in concept.retain]
    nothing = erased[0][:0]
    return TokenMap(torch.cat(erased), torch.cat(anchored), torch.cat([nothing, *retained]))


class _StateReader:
    """Finds the states in which a phrase is heard."""

    def __init__(self, pipeline: StableDiffusionPipeline, tokens: Literal["last", "all"]) -> None:
        self._tokenizer: CLIPTokenizer = pipeline.tokenizer
        self._states = PromptStates(pipeline, own_size_px(pipeline))
        self._device, self._tokens = pipeline.unet.device, tokens

    @torch.no_grad()
    def states(self, template: str, phrase: str) -> Float[torch.Tensor, "tokens width"]:
        """Return the state of the phrase's last token, or of it and all that follow, within a template."""
        before, _, after = template.partition("{}")
        prompt = (before + phrase + after).strip()
        states = self._states.conditioning([prompt]).states[0].to(self._device, torch.float32)
        # The token of the beginning comes first, so this is the place of the last token; of the beginning, if none.
        last = min(len(self._tokenizer(before + phrase).input_ids) - 2, len(states) - 1)
        return states[last:] if self._tokens == "all" else states[last : last + 1]


def _heard_through(unet: UNet2DConditionModel) -> list[torch.nn.Linear]:
    """Return the layers that read the text: keys and values of cross-attention."""
    layers = [
        layer
        for name, layer in unet.named_modules()
        if name.endswith((".attn2.to_k", ".attn2.to_v")) and isinstance(layer, torch.nn.Linear)
    ]
    if not layers:
        raise EditError("uce: the U-Net has no cross-attention that reads text; expected Stable Diffusion's")
    return layers
