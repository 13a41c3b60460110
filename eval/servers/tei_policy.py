"""Contender: the policy of text-embeddings-inference on a CPU, in process: float32, first come first served, eight a batch.

    python -m eval.servers.tei_policy --bundle BUNDLE --model runs/reference/float32.onnx --threads 2

Its own server cannot be installed everywhere; this is what its scheduler makes of the texts, without HTTP, which favours it.
Texts of a batch are padded to the longest, as it does. The float32 graph has no mask, so only its time is of use.
"""

from __future__ import annotations

import onnxruntime

from eval.contenders.protocol import Arguments, Loaded, Verdict, read_arguments, serve
from models.bundle import load_bundle
from models.engine import OnnxEngine
from models.text import prepare_text

_BATCH = 8


def load(arguments: Arguments) -> Loaded[int]:
    """The float32 graph behind the policy."""
    bundle = load_bundle(arguments.bundle, require_seal=False)
    tokenizer = bundle.tokenizer()
    engine = OnnxEngine(arguments.model, threads=arguments.threads, streams=1)

    def classify(texts: list[str]) -> list[int]:
        for start in range(0, len(texts), _BATCH):
            batch = [prepare_text(text).text for text in texts[start : start + _BATCH]]
            rows = [encoding.ids for encoding in tokenizer.encode_batch(batch)]
            longest = max(map(len, rows))
            engine.run([row + [1] * (longest - len(row)) for row in rows])
        return [0] * len(texts)

    about = f"float32, batches of {_BATCH} in the order of arrival, padded; ONNX Runtime {onnxruntime.__version__}"
    return Loaded(about, classify, lambda texts, _found: [Verdict("", "")] * len(texts))


def main() -> None:
    """Answer on standard input and output."""
    arguments = read_arguments(
        "The batching policy of text-embeddings-inference on the float32 graph of rasid-train reference.",
        "python -m eval.servers.tei_policy --bundle BUNDLE --model runs/reference/float32.onnx --threads 2",
    )
    serve(lambda: load(arguments))


if __name__ == "__main__":
    main()
