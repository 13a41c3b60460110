"""Contender: the same classifier with the same weights as a float32 graph in one session, as ONNX Runtime comes.

What is left is the gain of int8 and of batches that run side by side.

Run as `python -m eval.contenders.float32 --bundle BUNDLE --model runs/reference/float32.onnx --threads 2`.
"""

from __future__ import annotations

import onnxruntime

from eval.contenders import rasid
from eval.contenders.protocol import Arguments, Loaded, read_arguments, serve
from models.bundle import load_bundle
from models.classifier import Classifier
from models.engine import OnnxEngine
from models.prediction import Answer


def load(arguments: Arguments) -> Loaded[Answer]:
    """The classifier with the bundle's decision rule and the float32 model."""
    bundle = load_bundle(arguments.bundle, require_seal=False)
    about = f"the same weights and code: float32, one session, ONNX Runtime {onnxruntime.__version__}"
    engine = OnnxEngine(arguments.model, threads=arguments.threads, streams=1)
    return rasid.loaded(Classifier(bundle, engine), about)


def main() -> None:
    """Answer on standard input and output."""
    arguments = read_arguments(
        "Rasid's classifier on the float32 graph of rasid-train reference.",
        "python -m eval.contenders.float32 --bundle BUNDLE --model runs/reference/float32.onnx --threads 2",
    )
    serve(lambda: load(arguments))


if __name__ == "__main__":
    main()
