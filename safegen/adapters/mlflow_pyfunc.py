"""What `mlflow.pyfunc.load_model` needs of a logged checkpoint: a description of it, and a loader that draws.

The description (`MLmodel`) lies beside the checkpoint's own files and names this module; so nothing is pickled, the
weights stay safetensors, and a checkpoint that asks for code of its own is refused when it is loaded.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from safegen.errors import EvaluationError

if TYPE_CHECKING:
    import pandas as pd
    from diffusers import StableDiffusionPipeline
    from mlflow.models import ModelSignature

MLMODEL = "MLmodel"
_FLAVOR = "python_function"
_LOADER = {"loader_module": __name__}
_STEPS, _GUIDANCE = 25, 7.5


@dataclass(frozen=True)
class LoggedIdentity:
    """What a description says of the model that it describes.

    Attributes:
        model_id: The logged model's id.
        run_id: The run that made it.
        metadata: Its tags, such as the checkpoint's digest.
    """

    model_id: str
    run_id: str
    metadata: dict[str, str]


def describe_pyfunc(identity: LoggedIdentity) -> str:
    """Return the content of `MLmodel` for a checkpoint folder in diffusers layout."""
    from mlflow.models import Model

    model = Model(
        run_id=identity.run_id,
        model_id=identity.model_id,
        flavors={_FLAVOR: dict(_LOADER)},
        signature=pyfunc_signature(),
        metadata=identity.metadata,
    )
    return model.to_yaml()


def pyfunc_signature() -> ModelSignature:
    """Return what `predict` takes and gives: prompts and seeds, steps and guidance; PNG pictures."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "prompt"), ColSpec(DataType.long, "seed", required=False)]),
        outputs=Schema([ColSpec(DataType.binary, "png")]),
        params=ParamSchema(
            [
                ParamSpec("steps", DataType.long, _STEPS),
                ParamSpec("guidance", DataType.double, _GUIDANCE),
            ]
        ),
    )


def is_own_description(content: bytes) -> bool:
    """Tell whether an `MLmodel` names this loader and no other way to load, hence no code of somebody else."""
    import yaml

    try:
        described = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError):
        return False
    return isinstance(described, dict) and described.get("flavors") == {_FLAVOR: _LOADER}


@final
class DrawingModel:
    """A checkpoint as MLflow's Python function."""

    def __init__(self, pipeline: StableDiffusionPipeline) -> None:
        """Keep the pipeline."""
        self._pipeline = pipeline

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Draw a picture for every row.

        Args:
            model_input: Column `prompt`, and `seed` where rows are not to be seeded by their position.
            params: `steps` and `guidance`.

        Returns:
            Column `png`: the pictures as PNG bytes, in the order and with the index of the input.

        Raises:
            EvaluationError: A picture's numbers are not finite.
        """
        import pandas as pd

        from safegen.diffusion.sampler import DrawRequest, SamplerSettings, draw

        chosen = params or {}
        seeds = model_input["seed"] if "seed" in model_input else pd.Series(range(len(model_input)))
        requests = [
            DrawRequest(str(prompt), position if pd.isna(seed) else int(seed))
            for position, (prompt, seed) in enumerate(zip(model_input["prompt"], seeds, strict=True))
        ]
        settings = SamplerSettings(
            steps=int(chosen.get("steps", _STEPS)), guidance=float(chosen.get("guidance", _GUIDANCE))
        )
        pictures = [_png(row, picture) for row, picture in draw(self._pipeline, requests, settings)]
        return pd.DataFrame({"png": pictures}, index=model_input.index)


def _png(row: int, picture: Any) -> bytes:  # an array, or None
    from PIL import Image

    if picture is None:
        raise EvaluationError(f"the picture of row {row} did not come out: its numbers are not finite")
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG")
    return file.getvalue()


def _load_pyfunc(path: str) -> DrawingModel:
    """Load a logged checkpoint; MLflow calls this by name."""
    from safegen.diffusion.checkpoint import load_pipeline

    return DrawingModel(load_pipeline(Path(path)))
