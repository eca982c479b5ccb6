"""What a run says about a suite that is read from a file, and what a format says about its columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from safegen.domain.report import Name, Sha256, SuiteKind

Count = Annotated[int, Field(ge=1)]

SEED_COLUMNS = ("evaluation_seed", "sd_seed", "seed")
GUIDANCE_COLUMNS = ("evaluation_guidance", "sd_guidance_scale", "guidance_scale", "guidance")
ID_COLUMNS = ("case_number", "image_id", "coco_id")


@dataclass(frozen=True, slots=True)
class PromptColumns:
    """The columns of a format; where several names are given, the first that the file has is taken.

    Names are compared in lower case with spaces as underscores: `sensitive prompt` is `sensitive_prompt`.

    Attributes:
        prompt: What is drawn.
        ids: Ids of rows; without one a row is named by its number.
        seeds: Seeds of first latents; without one they follow from the run's seed and the prompt.
        guidance: Classifier-free guidance scales; without one the run's own is used.
        categories: Comma-separated categories.
        subject: Label of the object asked for.
        also: Further columns that published copies have; known so that messages may name them.
    """

    prompt: tuple[str, ...]
    ids: tuple[str, ...] = ID_COLUMNS
    seeds: tuple[str, ...] = SEED_COLUMNS
    guidance: tuple[str, ...] = GUIDANCE_COLUMNS
    categories: tuple[str, ...] = ()
    subject: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """All names that this format knows."""
        groups = (self.prompt, self.ids, self.seeds, self.guidance, self.categories, self.subject, self.also)
        return frozenset(name for group in groups for name in group)


class PromptFileSettings(BaseModel):
    """A suite that is read from a file; each format adds its name and its columns.

    Attributes:
        name: Of the suite, as policies name it.
        kind: What its prompts ask for.
        file: The file.
        n: Prompts used, from the first on; None for all.
        sha256: Digest of the file; another file is refused before it is parsed. None takes any.
        rows: Rows that the file must have; None for the number that the published file has, where it is known.
        column: Column that is drawn; None for the format's own.
        categories: Categories used; empty for all.
        guidance: "file" draws each prompt with its own guidance scale where the file has one, "run" never does.
        max_bytes: Largest file.
        max_chars: Longest prompt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    kind: SuiteKind
    file: Path
    n: Count | None = None
    sha256: Sha256 | None = None
    rows: Count | None = None
    column: str | None = None
    categories: tuple[str, ...] = ()
    guidance: Literal["file", "run"] = "file"
    max_bytes: Count = 64_000_000
    max_chars: Count = 2000

    columns: ClassVar[PromptColumns]
    published_rows: ClassVar[tuple[int, ...]] = ()
    published_categories: ClassVar[tuple[str, ...]] = ()
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".parquet")

    @property
    def expected_rows(self) -> tuple[int, ...]:
        """Row counts that make the file complete; empty where none is known."""
        return self.published_rows if self.rows is None else (self.rows,)

    @field_validator("categories")
    @classmethod
    def _are_published(cls, categories: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in categories if name not in cls.published_categories]
        if unknown:
            known = ", ".join(cls.published_categories) or "none, this format has no categories"
            raise ValueError(f"categories {', '.join(unknown)} are not known; expected {known}")
        return categories
