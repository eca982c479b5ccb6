"""Opens ONNX models and runs them; what onnxruntime raises becomes an error of ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safegen.errors import ConfigError, DataError, EvaluationError


class OnnxModel:
    """One ONNX model with one input and one output."""

    def __init__(
        self, path: Path, *, threads: int = 1, providers: tuple[str, ...] = ("CPUExecutionProvider",)
    ) -> None:
        """Open a model file.

        Args:
            path: The file.
            threads: Of one inference.
            providers: onnxruntime's execution providers, best first.

        Raises:
            DataError: There is no such file, or it is no ONNX model.
            ConfigError: A provider is not part of the installed onnxruntime, which would go on without it.
        """
        import onnxruntime

        if not path.is_file():
            raise DataError(
                f"detector model {path}: no such file; expected an ONNX model, install or train it first"
            )
        _check_providers(providers, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=list(providers))
        except Exception as error:  # onnxruntime raises kinds of its own that share no base
            raise DataError(f"detector model {path}: not a usable ONNX model ({error})") from error
        self._path = path
        self._input_name = self._session.get_inputs()[0].name

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says about itself, by key."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the first output for a batch.

        Raises:
            EvaluationError: The model refuses the batch or fails.
        """
        try:
            return np.asarray(self._session.run(None, {self._input_name: batch})[0])
        except Exception as error:  # onnxruntime raises kinds of its own that share no base
            raise EvaluationError(
                f"detector model {self._path} failed on a batch {batch.shape}: {error}"
            ) from error


def _check_providers(asked: tuple[str, ...], available: list[str]) -> None:
    missing = [provider for provider in asked if provider not in available]
    if missing or not asked:
        raise ConfigError(
            f"execution providers {', '.join(missing) or 'are none'}: the installed onnxruntime has "
            f"{', '.join(available)}; choose among them, or run pip install onnxruntime-gpu for CUDA"
        )
