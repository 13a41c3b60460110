"""Contender: Rasid itself, the `Classifier` on a bundle, as the service and the batch command call it.

Run as `python -m eval.contenders.rasid --bundle models/released/rasid-1.2.0 --threads 2`.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnxruntime

from eval.contenders.protocol import Arguments, Loaded, Verdict, read_arguments, serve
from models.bundle import Bundle, load_bundle
from models.classifier import Classifier
from models.engine import OnnxEngine
from models.prediction import Answer, Prediction


def load(arguments: Arguments) -> Loaded[Answer]:
    """The classifier with the bundle's own model."""
    bundle = load_bundle(arguments.bundle, require_seal=False)
    name = f"{bundle.manifest.name} {bundle.manifest.version}"
    about = f"{name}: int8, ONNX Runtime {onnxruntime.__version__}"
    return loaded(Classifier(bundle, OnnxEngine(bundle.model_path, threads=arguments.threads)), about)


def loaded(classifier: Classifier, about: str) -> Loaded[Answer]:
    """A contender out of any classifier: a text is one passage, as `/v1/classify` takes it by default."""

    def classify(texts: list[str]) -> list[Answer]:
        return classifier.classify(texts)

    def judge(_texts: list[str], answers: list[Answer]) -> list[Verdict]:
        return verdicts(answers, classifier.bundle)

    return Loaded(about, classify, judge)


def verdicts(answers: Sequence[Answer], bundle: Bundle) -> list[Verdict]:
    """The decisions in letters; nothing for a text that was rejected."""
    labels = bundle.taxonomy.label_ids
    found = []
    for answer in answers:
        if not isinstance(answer, Prediction):
            found.append(Verdict("", ""))
            continue
        rules = bundle.decision.rules[answer.language]
        above = (answer.labels[label].probability >= rules[label].threshold for label in labels)
        letters = "".join(answer.labels[label].decision[0] for label in labels)
        found.append(Verdict(letters, "".join("1" if side else "0" for side in above)))
    return found


def main() -> None:
    """Answer on standard input and output."""
    arguments = read_arguments(
        "Rasid's classifier behind the line protocol of eval.contenders.protocol.",
        "python -m eval.contenders.rasid --bundle models/released/rasid-1.2.0 --threads 2",
    )
    serve(lambda: load(arguments))


if __name__ == "__main__":
    main()
