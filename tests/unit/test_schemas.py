from __future__ import annotations

import importlib.util
import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


def documents() -> dict[str, type]:
    spec = importlib.util.spec_from_file_location("write_schemas", SCHEMAS / "write_schemas.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: module.schema_text(model) for name, model in module.DOCUMENTS.items()}


@pytest.mark.parametrize(("name", "text"), documents().items())
def test_the_schemas_in_the_repository_are_current(name: str, text: str) -> None:
    assert (SCHEMAS / name).read_text(encoding="utf-8") == text, "run python docs/schemas/write_schemas.py"
    jsonschema.Draft202012Validator.check_schema(json.loads(text))


def test_the_shipped_policies_fit_their_schema() -> None:
    schema = json.loads((SCHEMAS / "policy.v1.json").read_text())
    policies = sorted((SCHEMAS.parents[1] / "policies").glob("*.toml"))
    assert policies
    for path in policies:
        jsonschema.validate(tomllib.loads(path.read_text()), schema)


def test_the_shipped_configurations_fit_their_schema() -> None:
    schema = json.loads((SCHEMAS / "config.v1.json").read_text())
    configs = [
        path
        for path in sorted((SCHEMAS.parents[1] / "configs").glob("*.toml"))
        if not path.name.startswith("benchmark-")  # those name a run's configuration and have their own model
    ]
    assert configs
    for path in configs:
        jsonschema.validate(tomllib.loads(path.read_text()), schema)
    with pytest.raises(jsonschema.ValidationError, match="colour"):
        jsonschema.validate({**tomllib.loads(configs[0].read_text()), "colour": 1}, schema)
