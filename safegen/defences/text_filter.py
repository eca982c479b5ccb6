"""Text filter: refuses prompts that hold a listed word, or that mean nearly what the concept's names mean.

The two kinds of filter that Yang et al. attack in "SneakyPrompt" (IEEE S&P 2024, https://arxiv.org/abs/2305.12082,
section 6.1): text-match against a list of words, and a text classifier; here the classifier is the cosine similarity
in CLIP's text space, with a threshold (Radford et al. 2021, https://arxiv.org/abs/2103.00020). Deviation: theirs was
trained on unsafe prompts, which ours needs none of.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch.nn.functional import normalize

from safegen.defences.concept import Concept
from safegen.defences.defence import ProtectedModel
from safegen.defences.text_filter_settings import TextFilterSettings
from safegen.diffusion.soft_prompt import prompt_tokens
from safegen.domain.digests import digest_json

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

__all__ = ["TextEmbedder", "TextFilter", "TextFilterDefence", "TextFilterSettings", "own_tower"]

TextEmbedder = Callable[[Sequence[str]], Float[torch.Tensor, "b width"]]
"""Embeds texts so that their cosine similarity says how much alike they are."""

_AT_A_TIME = 256


class TextFilter:
    """Refuses by words and by similarity."""

    def __init__(
        self, words: Sequence[str], texts: Sequence[str], embed: TextEmbedder, threshold: float
    ) -> None:
        """Embed what prompts are compared with.

        Args:
            words: Words and phrases; each is refused wherever it stands as whole words, also in the plural.
            texts: Prompts of the concept.
            embed: The tower.
            threshold: Cosine similarity to any of `texts` from which a prompt is refused.
        """
        self._words = [_words_pattern(word) for word in words]
        self._embed, self._threshold = embed, threshold
        self._concept = normalize(embed(list(texts)), dim=-1)
        self._lists = digest_json({"words": list(words), "texts": list(texts)})

    @property
    def description(self) -> str:
        """Threshold and a digest of both lists."""
        return f"text filter, cosine from {self._threshold:g}, lists {self._lists[:12]}"

    def refuses(self, prompts: Sequence[str]) -> list[bool]:
        """Return for each prompt whether it is refused."""
        return [
            similarity >= self._threshold or self.holds_word(prompt)
            for prompt, similarity in zip(prompts, self.similarities(prompts), strict=True)
        ]

    def holds_word(self, prompt: str) -> bool:
        """Say whether a listed word stands in the prompt."""
        plain = _plain(prompt)
        return any(pattern.search(plain) for pattern in self._words)

    def similarities(self, prompts: Sequence[str]) -> list[float]:
        """Return the cosine similarity of each prompt to the nearest prompt of the concept."""
        found: list[float] = []
        for start in range(0, len(prompts), _AT_A_TIME):
            embedded = normalize(self._embed(list(prompts[start : start + _AT_A_TIME])), dim=-1)
            found += (embedded @ self._concept.T).amax(dim=1).tolist()
        return found


class TextFilterDefence:
    """The filter as a defence."""

    text_dependent = True
    name = "text-filter"

    def __init__(
        self, concept: Concept, settings: TextFilterSettings, clip: TextEmbedder | None = None
    ) -> None:
        """Filter nothing yet.

        Args:
            concept: What is refused.
            settings: How.
            clip: The run's CLIP pair; None takes the pipeline's own text tower.
        """
        self._concept, self._settings, self._clip = concept, settings, clip

    def protect(self, model: ProtectedModel) -> ProtectedModel:
        """Return the model behind the filter."""
        made = TextFilter(
            (*self._concept.phrases, *self._settings.words),
            self._concept.prompts,
            self._clip or own_tower(model.pipeline),
            self._settings.threshold,
        )
        return replace(model, prompt_filters=(*model.prompt_filters, made))


def own_tower(pipeline: StableDiffusionPipeline) -> TextEmbedder:
    """Return the pooled state of a pipeline's (first) text tower as an embedding."""

    @torch.no_grad()
    def embed(prompts: Sequence[str]) -> Float[torch.Tensor, "b width"]:
        ids = prompt_tokens(pipeline.tokenizer, prompts).to(pipeline.text_encoder.device)
        return pipeline.text_encoder(ids).pooler_output.float().cpu()

    return embed


def _words_pattern(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\S){re.escape(_plain(words))}(s|es)?(?!\S)")


def _plain(text: str) -> str:
    """Return lower-case words with one space between them, so that spelling does not matter."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded))
