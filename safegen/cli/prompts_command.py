"""Looks into the file of a prompt set: counts, never a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safegen.cli.answer import Answer, answering

if TYPE_CHECKING:
    from safegen.evaluation.prompt_sets.load import PromptSet
    from safegen.evaluation.prompt_sets.settings import PromptFileSettings

commands = typer.Typer()


@commands.command()
@answering
def prompts(
    file: Annotated[Path, typer.Argument(help="Prompt set: CSV, Parquet or, where the format allows, text.")],
    *,
    prompt_format: Annotated[str, typer.Option("--format", help="Whose format, such as i2p.")] = "plain",
    sha256: Annotated[str | None, typer.Option(help="Digest that the file must have.")] = None,
    column: Annotated[str | None, typer.Option(help="Column that is drawn, if not the format's own.")] = None,
    category: Annotated[list[str] | None, typer.Option(help="Category to keep; may be repeated.")] = None,
) -> Answer:
    """Count rows by category, and what would be refused and why; shows no prompt.

    Example: safegen prompts unsafe-prompts4703.csv --format i2p --json
    """
    from safegen.evaluation.prompt_sets.load import read_prompt_set

    settings = _settings(
        prompt_format, {"file": file, "sha256": sha256, "column": column, "categories": tuple(category or ())}
    )
    found = read_prompt_set(settings, seed=0)
    return Answer(_document(settings, prompt_format, found), _text(settings, prompt_format, found))


def _settings(prompt_format: str, options: dict[str, object]) -> PromptFileSettings:
    from pydantic import ValidationError

    from safegen.config import first_problem
    from safegen.errors import ConfigError
    from safegen.evaluation.prompt_sets.formats import format_named

    kind = format_named(prompt_format)
    # Neither what a suite is for nor its name plays a part in counting.
    named = {"name": prompt_format, "kind": "unsafe", "format": prompt_format}
    try:
        return kind.model_validate({**named, **options})
    except ValidationError as error:
        raise ConfigError(f"prompts: {first_problem(error)}") from error


def _document(settings: PromptFileSettings, prompt_format: str, found: PromptSet) -> dict[str, object]:
    sifted = found.sifted
    return {
        "file": str(settings.file),
        "format": prompt_format,
        "sha256": found.sha256,
        "rows": found.n_rows,
        "expected_rows": list(found.expected_rows),
        "complete": found.is_complete,
        "kept": len(sifted.rows),
        "repeated_prompts": sifted.repeated,
        "categories": dict(sorted(sifted.categories.items())),
        "kept_categories": dict(sorted(sifted.kept_categories.items())),
        "left_out": sifted.left_out,
        "refused": {str(reason): count for reason, count in sifted.refused.items()},
    }


def _text(settings: PromptFileSettings, prompt_format: str, found: PromptSet) -> str:
    sifted = found.sifted
    expected = " or ".join(map(str, found.expected_rows))
    lines = [
        f"{settings.file} ({prompt_format}), SHA-256 {found.sha256}",
        f"{found.n_rows:>7} rows" + (f", expected {expected}" if found.is_complete is False else ""),
        f"{len(sifted.rows):>7} can be drawn",
        f"{sifted.left_out:>7} of categories that were not asked for",
        *(f"{count:>7} refused: {reason}" for reason, count in sifted.refused.items()),
        *(f"{count:>7} of category {name}" for name, count in sorted(sifted.categories.items())),
    ]
    return "\n".join(lines)
