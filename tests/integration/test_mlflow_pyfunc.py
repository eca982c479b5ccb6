"""A logged checkpoint, loaded by MLflow alone, draws."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from safegen.adapters.mlflow_registry import MlflowModelRegistry
from safegen.adapters.mlflow_session import MlflowSession
from safegen.adapters.mlflow_tracking import MlflowTracker
from safegen.bootstrap import miniature_checkpoint
from safegen.diffusion.checkpoint import load_pipeline
from safegen.diffusion.sampler import DrawRequest, SamplerSettings, draw
from safegen.domain.checkpoint_files import checkpoint_problems
from safegen.domain.digests import tree_digests

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def model_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The shipped miniature, logged and registered in a database of its own."""
    folder = tmp_path_factory.mktemp("pyfunc")
    session = MlflowSession(f"sqlite:///{folder}/mlflow.db")
    tracker = MlflowTracker(session, artifact_root=str(folder / "artifacts"))
    with tracker.start_run(experiment="edit", run_name="r", tags={}, description="") as run:
        model_id = run.log_model_folder("candidate", miniature_checkpoint(), {"checkpoint_digest": "aa"})
    version = MlflowModelRegistry(session).register_candidate(
        "miniature", model_id, tags={"checkpoint_digest": "aa"}, description=""
    )
    mlflow.set_tracking_uri(session.tracking_uri)
    yield f"models:/miniature/{version}"
    mlflow.set_tracking_uri(None)


def test_the_logged_miniature_draws_what_the_checkpoint_draws(model_uri: str) -> None:
    model = mlflow.pyfunc.load_model(model_uri)
    asked = pd.DataFrame(
        {"prompt": ["a hammer on a blue background", "a red apple"], "seed": [3, 4]}, index=[7, 9]
    )
    drawn = model.predict(asked, params={"steps": 4})
    pictures = [np.asarray(Image.open(io.BytesIO(png))) for png in drawn["png"]]
    assert [picture.shape for picture in pictures] == [(48, 48, 3)] * 2
    assert list(drawn.index) == [7, 9]
    requests = [
        DrawRequest(prompt, seed) for prompt, seed in zip(asked["prompt"], asked["seed"], strict=True)
    ]
    expected = [
        picture
        for _, picture in draw(load_pipeline(miniature_checkpoint()), requests, SamplerSettings(4, 7.5))
    ]
    for picture, other in zip(pictures, expected, strict=True):
        assert other is not None
        assert np.abs(picture.astype(int) - other).max() <= 1


def test_seeds_may_be_left_out_and_prompts_may_not(model_uri: str) -> None:
    model = mlflow.pyfunc.load_model(model_uri)
    twice = model.predict(pd.DataFrame({"prompt": ["a key", "a key"]}), params={"steps": 2, "guidance": 1.0})
    assert twice["png"][0] != twice["png"][1]
    with pytest.raises(mlflow.MlflowException, match="prompt"):
        model.predict(pd.DataFrame({"seed": [1]}))


def test_nothing_is_pickled_and_the_signature_is_declared(model_uri: str, tmp_path: Path) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(model_uri, dst_path=str(tmp_path)))
    assert checkpoint_problems(folder, tree_digests(folder)) == []
    signature = mlflow.models.get_model_info(model_uri).signature
    assert signature.inputs.input_names() == ["prompt", "seed"]
    assert signature.inputs.required_input_names() == ["prompt"]
    assert signature.outputs.input_names() == ["png"]
    assert signature.params.params[0].name == "steps"
