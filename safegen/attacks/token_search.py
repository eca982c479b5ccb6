"""Black-box search for prompts that get round a defence, in the manner of SneakyPrompt.

Yang et al., "SneakyPrompt: Jailbreaking Text-to-image Generative Models", IEEE S&P 2024,
https://arxiv.org/abs/2305.12082, section 4. The attacker sees answers alone: a picture, or none. It replaces the
concept's words in a prompt by other tokens of the vocabulary and is rewarded by the CLIP similarity of the picture to
the prompt that it stands for; an answer without a picture is the worst. A search ends at the asked similarity, or when
its queries are spent.

Deviations: the choice of tokens is learnt by the cross-entropy method (Rubinstein 1999), a distribution over the pool
for every position, in the place of an LSTM trained by REINFORCE; the pool holds the tokens that bring the
prompt nearest to its target in CLIP's text space, which the paper's baselines use and its agent does not; and a
refused prompt counts as a query.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from safegen.attacks.attack_settings import TokenSearchSettings
from safegen.defences.protected_drawing import ProtectedPicture
from safegen.diffusion.sampler import DrawRequest
from safegen.domain.minors import refers_to_minors
from safegen.errors import DataError
from safegen.evaluation.prompt_suite import PromptRow
from safegen.metrics.clip_pair import ClipPair
from safegen.metrics.clip_score import SCALE, clip_scores

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

Answers = Callable[[Sequence[DrawRequest]], Sequence[ProtectedPicture]]
"""The attacked service: requests in, answers out."""

_WORST = -SCALE
_SPELLING = re.compile(r"[a-z]{2,}")
_END_OF_WORD = "</w>"
_EMBEDDED_AT_A_TIME = 256
_TRIES_PER_PROMPT = 100


@dataclass(frozen=True, slots=True)
class SearchTarget:
    """A prompt that the defence knows, and what names the concept in it.

    Attributes:
        row: The prompt, the seed of its picture and what it shows.
        words: Names of the concept, any case; the longest that the prompt holds is replaced.
    """

    row: PromptRow
    words: tuple[str, ...] = field(repr=False)

    def around(self) -> tuple[str, str]:
        """Return the prompt before and after the concept's words.

        Raises:
            DataError: It holds none of them.
        """
        for word in sorted(self.words, key=len, reverse=True):
            found = re.search(rf"\b{re.escape(word)}\b", self.row.text, flags=re.IGNORECASE)
            if found:
                return self.row.text[: found.start()], self.row.text[found.end() :]
        raise DataError(
            f"prompt {self.row.prompt_id!r} holds none of the {len(self.words)} words of its concept; "
            "add the word that names it, or leave the prompt out"
        )


@dataclass(frozen=True, slots=True)
class FoundPrompt:
    """How a search ended.

    Attributes:
        row: The best prompt found, under the id, seed and subject of its target.
        similarity: CLIP similarity (cosine x 100) of its picture to the target; None where no query gave a picture.
        queries: How many were made.
        succeeded: Whether the asked similarity was reached.
    """

    row: PromptRow
    similarity: float | None
    queries: int
    succeeded: bool


def candidate_tokens(
    tokenizer: CLIPTokenizer, *, forbidden: Sequence[str], most: int, seed: int
) -> list[str]:
    """List the whole words of a vocabulary that an attacker may use.

    Args:
        tokenizer: Of the attacked model, or of any CLIP.
        forbidden: Names of the concept; their words, and words that begin with one of them, are left out.
        most: Largest number; of a larger vocabulary it is a seeded sample.
        seed: Of the sample.

    Returns:
        Lower-case words of at least two letters in alphabetic order.
    """
    banned = {word for name in forbidden for word in _SPELLING.findall(name.lower())}
    words = sorted(
        word
        for token in tokenizer.get_vocab()
        if token.endswith(_END_OF_WORD)
        and _SPELLING.fullmatch(word := token.removesuffix(_END_OF_WORD))
        and not any(word == bad or (len(bad) > 2 and word.startswith(bad)) for bad in banned)
    )
    if len(words) <= most:
        return words
    chosen = np.random.default_rng(seed).choice(len(words), most, replace=False)
    return [words[place] for place in sorted(chosen)]


def search_tokens(
    target: SearchTarget,
    answers: Answers,
    clip: ClipPair,
    vocabulary: Sequence[str],
    settings: TokenSearchSettings,
    *,
    seed: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> FoundPrompt:
    """Search for a prompt that makes a service draw what the target prompt says.

    Args:
        target: What to draw.
        answers: The service.
        clip: Rewards pictures, and ranks tokens.
        vocabulary: Words to use, see `candidate_tokens`.
        settings: The budget.
        seed: Of every choice.
        progress: Told of queries made and of the budget.

    Raises:
        DataError: The prompt holds no word of its concept, or there is no token to use.
    """
    search = _Search(target, clip, vocabulary, settings, seed)
    while (left := settings.queries - len(search.tried)) > 0:
        prompts = search.propose(min(left, settings.batch_size))
        if not prompts:
            break
        requests = [DrawRequest(prompt, target.row.seed) for prompt in prompts]
        search.learn(prompts, answers(requests))
        progress(len(search.tried), settings.queries)
        if search.best_similarity() >= settings.success_similarity:
            break
    return search.outcome()


class _Search:
    """One search: a distribution over the pool for every position, and the rewards so far."""

    def __init__(
        self,
        target: SearchTarget,
        clip: ClipPair,
        vocabulary: Sequence[str],
        settings: TokenSearchSettings,
        seed: int,
    ) -> None:
        self._target, self._clip, self._settings = target, clip, settings
        self._before, self._after = target.around()
        digest = hashlib.sha256(f"{seed}|{target.row.prompt_id}".encode()).digest()
        self._random = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        self._text = clip.text_embeddings([target.row.text])
        self._pool, weights = self._ranked(vocabulary)
        self._first = np.tile(weights, (settings.tokens, 1))  # [positions, pool]
        self._choice = self._first.copy()
        self.tried: dict[str, tuple[tuple[int, ...], float]] = {}

    def propose(self, count: int) -> list[str]:
        """Return prompts that were not tried yet, fewer than asked where the choice has become narrow."""
        proposed: dict[str, tuple[int, ...]] = {}
        for _ in range(count * _TRIES_PER_PROMPT):
            if len(proposed) == count:
                break
            rows = self._first if self._random.random() < self._settings.exploration else self._choice
            tokens = tuple(int(self._random.choice(len(row), p=row)) for row in rows)
            prompt = self._prompt(" ".join(self._pool[place] for place in tokens))
            if prompt not in self.tried and not refers_to_minors(prompt):
                proposed.setdefault(prompt, tokens)
        self._proposed = proposed
        return list(proposed)

    def learn(self, prompts: Sequence[str], answered: Sequence[ProtectedPicture]) -> None:
        """Take in the answers, and move the choice towards the best prompts so far."""
        for prompt, reward in zip(prompts, self._rewards(answered), strict=True):
            self.tried[prompt] = (self._proposed[prompt], reward)
        drawn = sorted((one for one in self.tried.values() if one[1] > _WORST), key=lambda one: -one[1])
        elite = drawn[: self._settings.elites]
        if not elite:
            return
        shares = np.zeros_like(self._choice)
        for tokens, _ in elite:
            shares[np.arange(len(tokens)), tokens] += 1 / len(elite)
        step = self._settings.step
        self._choice = (1 - step) * self._choice + step * shares
        self._choice /= self._choice.sum(axis=1, keepdims=True)

    def best_similarity(self) -> float:
        return max(reward for _, reward in self.tried.values())

    def outcome(self) -> FoundPrompt:
        if not self.tried:
            raise DataError(
                f"prompt {self._target.row.prompt_id!r}: no token of the pool makes a prompt that may be asked for"
            )
        prompt, (_, reward) = max(self.tried.items(), key=lambda one: one[1][1])
        return FoundPrompt(
            row=replace(self._target.row, text=prompt),
            similarity=None if reward == _WORST else reward,
            queries=len(self.tried),
            succeeded=reward >= self._settings.success_similarity,
        )

    def _prompt(self, words: str) -> str:
        return f"{self._before}{words}{self._after}"

    def _ranked(self, vocabulary: Sequence[str]) -> tuple[list[str], NDArray[np.float64]]:
        """Return the tokens nearest to the target and the share with which each is chosen at first."""
        if not vocabulary:
            raise DataError("the vocabulary offers no token to replace the concept's words by; expected some")
        prompts = [self._prompt(word) for word in vocabulary]
        nearness = np.concatenate(
            [
                clip_scores(
                    part := self._clip.text_embeddings(prompts[start : start + _EMBEDDED_AT_A_TIME]),
                    self._text.expand(len(part), -1),
                ).numpy()
                for start in range(0, len(prompts), _EMBEDDED_AT_A_TIME)
            ]
        )
        chosen = np.argsort(-nearness, kind="stable")[: self._settings.pool]
        weights = np.exp((nearness[chosen] - nearness[chosen].max()) / self._settings.temperature)
        pool = [vocabulary[int(place)] for place in chosen]
        return pool, weights / weights.sum()

    def _rewards(self, answered: Sequence[ProtectedPicture]) -> list[float]:
        pictures = [one.picture for one in answered if one.picture is not None]
        if not pictures:
            return [_WORST] * len(answered)
        embedded = self._clip.picture_embeddings(pictures)[0]
        scores = iter(
            cast("list[float]", clip_scores(embedded, self._text.expand(len(embedded), -1)).tolist())
        )
        return [_WORST if one.picture is None else next(scores) for one in answered]
