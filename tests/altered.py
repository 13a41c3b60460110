"""Bundles like the released one with something wrong in them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from models.bundle import MODEL_FILES, RELEASE_FILES, hash_file, read_manifest, released_bundle_path, write_manifest


def altered(folder: Path, *, sealed: bool = False, **changes: Any) -> Path:
    """A candidate, or a sealed bundle, like the released one with some files written anew by functions of their content."""
    released = released_bundle_path()
    folder.mkdir()
    names = (*MODEL_FILES, *RELEASE_FILES) if sealed else MODEL_FILES
    for name in names:
        change = changes.get(name.split(".")[0])
        if change is None:
            shutil.copyfile(released / name, folder / name)
        else:
            (folder / name).write_bytes(change((released / name).read_bytes()))
    files = {name: hash_file(folder / name) for name in names}
    manifest = read_manifest(released).model_copy(update={"files": files, "seal": None, "version": "worse"})
    write_manifest(folder, manifest.model_copy(update={"seal": manifest.expected_seal()}) if sealed else manifest)
    return folder


def wrong_threshold(content: bytes) -> bytes:
    """The threshold of calls for accountability so low that every text gets the label, whatever the weights."""
    rules = json.loads(content)
    for by_label in rules["rules"].values():
        by_label["accountability_call"] |= {"threshold": 1e-9, "review_low": 1e-9, "review_high": 1e-9}
    return json.dumps(rules).encode()


def shuffled_head(content: bytes) -> bytes:
    """The outputs of two labels swapped."""
    model = onnx.load_from_string(content)
    for name in ("head.w", "head.b"):
        [tensor] = [one for one in model.graph.initializer if one.name == name]
        values = numpy_helper.to_array(tensor)
        axis = int(np.argmax(np.array(values.shape) == 4))
        tensor.CopyFrom(numpy_helper.from_array(np.take(values, [1, 0, 2, 3], axis=axis), name))
    return model.SerializeToString()
