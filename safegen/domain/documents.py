"""Reads documents strictly: no unknown or repeated key, no NaN, no text where a number belongs; and any TOML safely."""

from __future__ import annotations

import json
import tomllib
from typing import NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from safegen.errors import ConfigError, DataError

Document = TypeVar("Document", bound=BaseModel)

_SHOWN = 3


def parse_document(model: type[Document], text: str, *, what: str) -> Document:
    """Parse JSON text into a frozen model.

    Args:
        model: The model; it decides which keys there are.
        text: The document.
        what: What it is, for the message ("report eval/report.json").

    Raises:
        DataError: It is not JSON, repeats a key, or does not fit the model. Names the first few places.
    """
    try:
        json.loads(text, object_pairs_hook=_refuse_repeats, parse_constant=_refuse_constant)
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise DataError(f"{what} does not fit its schema: {describe(error)}; see docs/schemas") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{what} is not valid JSON: {error}; write it again") from error


def parse_toml(text: str, *, what: str) -> dict[str, object]:
    """Parse TOML text, whatever it is.

    Args:
        text: The document.
        what: What it is, for the message.

    Raises:
        ConfigError: It is no TOML.
    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, nesting without end
        raise ConfigError(f"{what} is not readable TOML ({error}); mend that line") from error


def describe(error: ValidationError) -> str:
    """Say in one line what a document got wrong: "checks.0.treshold: Extra inputs are not permitted"."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [
        f"{'.'.join(str(part) for part in problem['loc']) or 'all'}: {problem['msg']}" for problem in problems
    ]
    more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return " ".join("; ".join(lines[:_SHOWN]).split()) + more


def _refuse_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(
            f"the key {next(key for key in keys if keys.count(key) > 1)!r} appears twice in one object"
        )
    return content


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")
