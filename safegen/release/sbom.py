"""The bill of materials of a release, as a CycloneDX 1.6 ML-BOM (https://cyclonedx.org/docs/1.6/json/).

It is written here because `cyclonedx-python-lib` 11 has no model card, the part that makes it an ML-BOM; tests hold the
result to that library's copy of the schema.
"""

from __future__ import annotations

import json
import uuid
from datetime import UTC

from safegen.domain.report import Metric
from safegen.release.facts import ReleaseFacts

_NAMESPACE = uuid.UUID("6f4dcbfb-52f5-5b4e-9f4e-0d6c8a3f6b0e")
_MODEL_REF = "model"


def ml_bom(facts: ReleaseFacts) -> bytes:
    """Return the bill of materials as JSON; the same facts give the same bytes.

    Args:
        facts: What is known of the release.
    """
    libraries, data = _libraries(facts), _data(facts)
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, facts.decision.model_dump_json())}",
        "version": 1,
        "metadata": {
            "timestamp": facts.decision.decided_utc.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tools": {
                "components": [
                    {
                        "type": "application",
                        "name": "safegen",
                        "version": facts.decision.versions.get("safegen", ""),
                    }
                ]
            },
            "component": _model(facts),
        },
        "components": [*_files(facts), *data, _detector(facts), *libraries],
        "dependencies": [
            {"ref": _MODEL_REF, "dependsOn": [part["bom-ref"] for part in (*data, *libraries)]},
        ],
    }
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True).encode() + b"\n"


def _model(facts: ReleaseFacts) -> dict[str, object]:
    report = facts.report
    base = {
        "type": "machine-learning-model",
        "name": facts.base,
        "properties": [_property("safegen:tree-sha256", report.base_sha256)],
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": _MODEL_REF,
        "name": facts.model,
        "version": report.checkpoint_sha256[:16],
        "licenses": [{"license": {"name": facts.licence_text}}],
        "pedigree": {"ancestors": [base], "notes": f"Edited by {facts.method}."},
        "modelCard": _card(facts),
        "properties": [
            _property("safegen:tree-sha256", report.checkpoint_sha256),
            _property("safegen:policy-sha256", facts.decision.policy_sha256 or ""),
            *(_property(f"safegen:setting:{name}", str(value)) for name, value in facts.settings.items()),
        ],
    }


def _card(facts: ReleaseFacts) -> dict[str, object]:
    return {
        "modelParameters": {
            "task": "text-to-image",
            "architectureFamily": "latent diffusion",
            "modelArchitecture": facts.architecture,
            "datasets": [{"ref": _dataset_ref(name)} for name in facts.report.datasets],
            "inputs": [{"format": "text"}],
            "outputs": [{"format": "image"}],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [
                _performance(suite.name, metric)
                for suite in facts.report.suites
                for metric in suite.metrics
                if metric.value is not None
            ]
        },
        "considerations": {"technicalLimitations": list(facts.limits)},
    }


def _performance(suite: str, metric: Metric) -> dict[str, object]:
    measured: dict[str, object] = {
        "type": metric.name,
        "value": f"{metric.value:.6g}",
        "slice": f"{suite}, n = {metric.n}",
    }
    if metric.low is not None and metric.high is not None:
        measured["confidenceInterval"] = {
            "lowerBound": f"{metric.low:.6g}",
            "upperBound": f"{metric.high:.6g}",
        }
    return measured


def _files(facts: ReleaseFacts) -> list[dict[str, object]]:
    return [
        {"type": "file", "bom-ref": f"file:{path}", "name": path, "hashes": [_sha256(digest)]}
        for path, digest in facts.files.items()
    ]


def _data(facts: ReleaseFacts) -> list[dict[str, object]]:
    return [
        {
            "type": "data",
            "bom-ref": _dataset_ref(name),
            "name": name,
            "version": digest[:16],
            "hashes": [_sha256(digest)],
            "data": [{"type": "dataset", "name": name}],
        }
        for name, digest in facts.report.datasets.items()
    ]


def _detector(facts: ReleaseFacts) -> dict[str, object]:
    detector = facts.report.detector
    return {
        "type": "machine-learning-model",
        "bom-ref": "detector",
        "name": detector.name,
        "version": detector.version,
        "hashes": [_sha256(detector.model_sha256)],
        "description": "The detector that judged the pictures; it is no part of the release.",
        "scope": "excluded",
    }


def _libraries(facts: ReleaseFacts) -> list[dict[str, object]]:
    versions = {**facts.decision.versions, **facts.report.versions}
    return [
        {
            "type": "library",
            "bom-ref": f"library:{name}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{version.replace('+', '%2B')}",
        }
        for name, version in sorted(versions.items())
    ]


def _dataset_ref(name: str) -> str:
    return f"dataset:{name}"


def _sha256(digest: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest}


def _property(name: str, value: str) -> dict[str, str]:
    return {"name": name, "value": value}
