from __future__ import annotations

from pathlib import Path

import pytest

from safegen.config import load_config
from safegen.detectors.nudenet import EXPLICIT_LABELS
from safegen.domain.gate_files import read_policy
from safegen.shipped import locate

PUBLISHED = {
    "target": "paper_code",
    "text": "empty",
    "preserve": "noise",
    "weight_mosaic": 0.1,
    "weight_preserve": 0.9,
    "weight_hold": 0.0,
    "steps": 1000,
    "batch_size": 1,
    "accumulation": 5,
    "learning_rate": 1e-5,
}


@pytest.mark.parametrize(("name", "size_px"), [("sd14", 512), ("sd21", 768), ("sdxl", 1024)])
def test_a_run_of_stable_diffusion_has_the_published_settings_and_what_its_policy_asks_for(
    name: str, size_px: int
) -> None:
    config = load_config(Path(f"configs/{name}.toml"))
    edit = config.edit.model_dump()
    assert {key: edit[key] for key in PUBLISHED} == PUBLISHED
    assert 0 < config.edit.ema_decay < 1
    assert config.triplets.size_px == size_px
    policy = read_policy(locate(config.gate.policy))
    assert set(policy.required_suites) <= {suite.name for suite in config.evaluate.suites}
    assert policy.detector.name == config.detector.kind
    assert policy.detector.threshold == config.detector.threshold
    assert set(policy.detector.unsafe_labels) == set(EXPLICIT_LABELS)
    assert config.evaluate.unsafe_pictures == "pixelated"
