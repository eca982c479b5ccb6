from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from safegen.detectors.miniature import MiniatureDetector
from safegen.errors import DataError

NAMES = {0: "AXE", 1: "KEY"}


def write_model(path: Path, names: str | None) -> Path:
    """One cell in the middle, 24 x 12 px: AXE scores the mean of red, KEY that of blue in the upper left corner."""
    box = numpy_helper.from_array(np.array([[[24], [24], [24], [12]]], dtype=np.float32), "box")
    red = np.zeros((2, 3, 48, 48), dtype=np.float32)
    red[0, 0], red[1, 2, :16, :16] = 1 / 48**2, 1 / 16**2
    weights = numpy_helper.from_array(red, "weights")
    nodes = [
        helper.make_node("Conv", ["images", "weights"], ["means"]),  # (b, 2, 1, 1)
        helper.make_node("Squeeze", ["means", "axis"], ["scores"]),  # (b, 2, 1)
        helper.make_node("Shape", ["images"], ["batch"], end=1),
        helper.make_node("Concat", ["batch", "tail"], ["shape"], axis=0),
        helper.make_node("Expand", ["box", "shape"], ["boxes"]),
        helper.make_node("Concat", ["boxes", "scores"], ["output0"], axis=1),
    ]
    axis = numpy_helper.from_array(np.array([3]), "axis")
    tail = numpy_helper.from_array(np.array([4, 1]), "tail")
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["b", 3, 48, 48])
    output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["b", 6, 1])
    graph = helper.make_graph(nodes, "g", [images], [output], [box, weights, axis, tail])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if names is not None:
        helper.set_model_props(model, {"names": names})
    onnx.save(model, str(path))
    return path


def test_channels_scale_and_order_are_those_of_the_picture_whatever_its_size(tmp_path: Path) -> None:
    detector = MiniatureDetector(write_model(tmp_path / "d.onnx", str(NAMES)), batch_size=2)
    assert detector.labels == ("AXE", "KEY")
    small = np.zeros((48, 48, 3), np.uint8)
    small[..., 0] = 255
    wide = np.zeros((96, 144, 3), np.uint8)
    wide[:32, :48, 2] = 51
    found = detector.detect([small, wide, np.zeros((48, 48, 3), np.uint8)])
    assert [[(one.label, round(one.score, 4), one.box) for one in picture] for picture in found] == [
        [("AXE", 1.0, (12, 18, 24, 12))],
        [("KEY", 0.2, (36, 36, 72, 24))],
        [],
    ]


@pytest.mark.parametrize("names", [None, "no dict", "{3: 'AXE'}"])
def test_a_model_that_does_not_name_its_labels_is_refused(tmp_path: Path, names: str | None) -> None:
    with pytest.raises(DataError, match="names"):
        MiniatureDetector(write_model(tmp_path / "d.onnx", names))


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.onnx: no such file"):
        MiniatureDetector(tmp_path / "none.onnx")
