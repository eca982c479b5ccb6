"""A defence: refuses prompts that hold a listed word. The weakest there is, which makes it a good baseline."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict

from safegen.defences.defence import ProtectedModel
from safegen.domain.digests import digest_json


class WordListSettings(BaseModel):
    """Settings, as they stand in a run's TOML.

    Attributes:
        kind: "word_list".
        words: Refused in any case, as whole words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["word_list"] = "word_list"
    words: tuple[str, ...]


@dataclass(frozen=True)
class WordListFilter:
    """Implements `safegen.defences.defence.PromptFilter`."""

    words: tuple[str, ...]

    @property
    def description(self) -> str:
        """Names the list by its digest: the words themselves stay out of reports."""
        return f"word list {digest_json(sorted(self.words))[:12]}"

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(rf"\b(?:{'|'.join(map(re.escape, self.words))})\b", re.IGNORECASE)

    def refuses(self, prompts: Sequence[str]) -> list[bool]:
        """Return for each prompt whether it holds a listed word."""
        return [bool(self.words) and self._pattern.search(prompt) is not None for prompt in prompts]


@dataclass(frozen=True)
class WordList:
    """Implements `safegen.defences.defence.Defence`."""

    settings: WordListSettings
    name: str = "word-list"
    text_dependent: bool = True  # a synonym gets round it

    def protect(self, model: ProtectedModel) -> ProtectedModel:
        """Return the model with one more filter; its weights stay, and so does its digest."""
        return replace(model, prompt_filters=(*model.prompt_filters, WordListFilter(self.settings.words)))
