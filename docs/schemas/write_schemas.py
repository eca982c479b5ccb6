"""Writes the JSON Schemas of the documents that safegen exchanges. Run it again when one changes."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel

from safegen.config import RunConfig
from safegen.domain.benchmark import BenchmarkDocument
from safegen.domain.decision import Decision
from safegen.domain.policy import Policy
from safegen.domain.release import AuditEntry, Channel, ReleaseManifest
from safegen.domain.report import Report

DOCUMENTS: dict[str, type[BaseModel]] = {
    "config.v1.json": RunConfig,
    "report.v1.json": Report,
    "decision.v1.json": Decision,
    "policy.v1.json": Policy,
    "release-manifest.v1.json": ReleaseManifest,
    "channel.v1.json": Channel,
    "audit-entry.v1.json": AuditEntry,
    "benchmark.v1.json": BenchmarkDocument,
}


def schema_text(model: type[BaseModel]) -> str:
    """Return the JSON Schema of one document, indented, ending in a newline."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def main() -> None:
    """Write every schema."""
    for name, model in DOCUMENTS.items():
        (Path(__file__).parent / name).write_text(schema_text(model), encoding="utf-8")


if __name__ == "__main__":
    main()
