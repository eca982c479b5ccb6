"""Pages of the site that are made from the code when it is built: commands, schemas, and the notebook.

MkDocs calls `on_files` (`hooks` in mkdocs.yml).
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.main import get_command

DOCS = Path(__file__).parent
SCHEMA_TITLES = {
    "config": "Run configuration",
    "policy": "Gate policy",
    "report": "Report",
    "decision": "Decision",
    "release-manifest": "Release manifest",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages; those written by hand are found by MkDocs itself."""
    pages = {"reference/cli.md": command_page(), "how-to/notebook.md": notebook_page()}
    pages |= {f"reference/{name}.md": schema_page(name, title) for name, title in SCHEMA_TITLES.items()}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def command_page() -> str:
    """Return the reference of all commands, from what `--help` knows."""
    from safegen.cli.app import app

    lines = [
        "# Commands",
        "",
        (
            "`safegen …` and `python -m safegen …` are the same. Every command takes `--json` "
            "([what it prints](json.md)) and `--debug` (vendors' logs, and an error's traceback). Progress goes to "
            "standard error; nothing asks questions."
        ),
        "",
        (
            "Exit codes: 0 done, promoted, passed or valid; 1 blocked or not valid; 2 wrong usage or configuration; "
            "3 the infrastructure failed, which blocks as well."
        ),
        "",
    ]
    for words, command in _commands(get_command(app), ("safegen",)):
        lines += _command_section(words, command)
    return "\n".join(lines)


def _commands(group: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*words, name))
        else:
            yield (*words, name), command


def _command_section(words: tuple[str, ...], command: Any) -> list[str]:
    text, _, example = str(command.help).partition("Example: ")
    lines = [f"## {' '.join(words)}", "", " ".join(text.split()), "", "```sh", example.strip(), "```", ""]
    rows = [row for parameter in command.params if (row := _parameter_row(parameter))]
    return (
        [*lines, "| option | value | default | meaning |", "|---|---|---|---|", *rows, ""] if rows else lines
    )


def _parameter_row(parameter: Any) -> str:
    if parameter.name in {"json_output", "debug", "help"}:
        return ""
    name = ", ".join(parameter.opts) if parameter.opts[0].startswith("-") else parameter.opts[0].upper()
    default = (
        "required" if parameter.required else "" if parameter.default is None else f"`{parameter.default}`"
    )
    return (
        f"| `{name}` | {_value(parameter.type_descriptor.annotation)} | {default} | {parameter.help or ''} |"
    )


def _value(annotation: Any) -> str:
    """Return what an option takes.

    >>> _value(Literal["a", "b"]), _value(list[Path] | None), _value(str)
    ('`a` or `b`', 'path, repeatable', 'text')
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{one}`" for one in parts)
    if origin is list:
        return f"{_value(parts[0])}, repeatable"
    if parts:
        return " or ".join(_value(one) for one in parts if one is not type(None))
    return {Path: "path", str: "text"}.get(annotation, annotation.__name__)


def schema_page(name: str, title: str) -> str:
    """Return the tables of a document's schema."""
    file = f"{name}.v1.json"
    schema = json.loads((DOCS / "schemas" / file).read_text(encoding="utf-8"))
    lines = [
        f"# {title}",
        "",
        f"Version 1, as JSON Schema: [{file}](../schemas/{file}). Unknown keys are refused.",
        "",
    ]
    for heading, part in ((title, schema), *sorted(schema.get("$defs", {}).items())):
        if "properties" in part:
            lines += _object_section(heading, part)
    return "\n".join(lines)


def _object_section(heading: str, part: dict[str, Any]) -> list[str]:
    text, told = _told(part.get("description", ""))
    told = {**_shared_attributes(), **told}
    lines = [f"## {heading}", "", text, "", "| key | type | default | meaning |", "|---|---|---|---|"]
    for key, value in part["properties"].items():
        needed = key in part.get("required", ())
        default = "required" if needed else f"`{json.dumps(value['default'])}`" if "default" in value else ""
        lines.append(f"| `{key}` | {_type(value)} | {_cell(default)} | {_cell(told.get(key, ''))} |")
    return [*lines, ""]


def _told(docstring: str) -> tuple[str, dict[str, str]]:
    r"""Split a class's docstring into what it says of the whole and of each attribute.

    >>> _told("A thing.\n\nAttributes:\n    size: Its size\n        in px.\n    name: Its name.")
    ('A thing.', {'size': 'Its size in px.', 'name': 'Its name.'})
    """
    text, _, attributes = docstring.partition("Attributes:\n")
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", attributes, flags=re.MULTILINE)
    return " ".join(text.split()), {name: " ".join(words.split()) for name, words in found}


def _shared_attributes() -> dict[str, str]:
    """Return what schemas do not carry along: attributes told in a base class, or under another name."""
    from safegen.config import RunConfig
    from safegen.evaluation.prompt_sets.settings import PromptFileSettings

    told = _told(inspect.cleandoc(PromptFileSettings.__doc__ or ""))[1]
    validation = _told(inspect.cleandoc(RunConfig.__doc__ or ""))[1]["validation"]
    return {**told, "format": "Whose format.", "validate": validation, "kind": "Tells the variants apart."}


def _type(value: dict[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if options := value.get("anyOf") or value.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(one) for one in options))
    if "const" in value or "enum" in value:
        return " or ".join(f"`{json.dumps(one)}`" for one in value.get("enum", [value.get("const")]))
    if value.get("type") == "array":
        items = value.get("items") or {}
        return f"list of {_type(items)}" if items else "list"
    if value.get("type") == "object" and isinstance(value.get("additionalProperties"), dict):
        return f"table of {_type(value['additionalProperties'])}"
    limits = [
        f"{sign} {value[key]}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if key in value
    ]
    return " ".join([str(value.get("type", "any")), ", ".join(limits)]).strip()


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def notebook_page() -> str:
    """Return the notebook as a page; a test runs it."""
    notebook = json.loads((DOCS / "notebooks" / "miniature.ipynb").read_text(encoding="utf-8"))
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join(parts)
