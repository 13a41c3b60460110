from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from models.classifier import Classifier
from models.engine import Engine, OnnxEngine, open_engine
from models.errors import EngineError

ROWS = [[0, *range(4, 4 + n), 2] for n in (3, 8, 8, 15, 3, 40, 1, 8)]


@pytest.mark.parametrize(("threads", "streams"), [(1, 1), (1, 3), (2, None), (3, 1)])
def test_neither_threads_nor_streams_change_a_number(tiny_bundle: Path, threads: int, streams: int | None) -> None:
    alone = OnnxEngine(tiny_bundle / "model.onnx", threads=1, streams=1)
    expected = np.concatenate([alone.logits([row]) for row in ROWS])
    engine = OnnxEngine(tiny_bundle / "model.onnx", threads=threads, streams=streams)
    assert engine.streams == (streams or threads)
    assert np.array_equal(engine.logits(ROWS), expected)
    assert np.array_equal(engine.run([ROWS[1], ROWS[2]], alone=False), expected[1:3])


def test_no_rows_have_no_logits(tiny: Classifier) -> None:
    assert tiny.engine.logits([]).shape == (0, 4)


def test_what_a_runtime_raises_is_an_engine_error_without_its_words(tiny: Classifier) -> None:
    with pytest.raises(EngineError, match=r"batch of \(1, 2\): \w+$"):
        tiny.engine.run([[0, 10**9]])


def test_a_missing_engine_names_the_command_that_installs_it(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(EngineError, match="pip install"):
        open_engine("openvino", tiny_bundle / "model.onnx")


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino, an extra, is not installed")
def test_openvino_answers_the_same_file(tiny_bundle: Path, tiny: Classifier) -> None:
    engine: Engine = open_engine("openvino", tiny_bundle / "model.onnx", threads=2)
    expected = tiny.engine.logits(ROWS)
    found = engine.logits(ROWS)
    assert np.abs(found - expected).max() < 0.5 * np.abs(expected).max()
    assert np.array_equal(np.concatenate([engine.run([row]) for row in ROWS]), found)
    with pytest.raises(EngineError, match="could not be loaded"):
        open_engine("openvino", tiny_bundle / "manifest.json")
