"""Settings of the text filter, apart from it: a configuration is read without loading torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class TextFilterSettings(BaseModel):
    """Settings of the filter.

    Attributes:
        kind: Names this defence in a run configuration.
        words: Words and phrases that are refused besides the concept's own.
        threshold: Cosine similarity to a prompt of the concept from which a prompt is refused; ours, since it depends
            on the tower. 1 leaves the similarity out, but for prompts that are the concept's.
        tower: Whose embeddings: the pipeline's own text tower (pooled state), or the run's "clip" pair, which was
            trained so that its embeddings compare.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["text-filter"] = "text-filter"
    words: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    threshold: Annotated[float, Field(ge=-1, le=1)] = 0.9
    tower: Literal["pipeline", "clip"] = "clip"
