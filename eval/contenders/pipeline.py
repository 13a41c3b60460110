"""Contender: the same weights in float32 through a plain `transformers` pipeline, which is what most people would write.

    python -m eval.contenders.pipeline --bundle BUNDLE --model runs/reference/pytorch --threads 2

This is the one file of `eval` that imports torch and transformers, and it runs only as a process of its own; without them the
benchmark leaves this contender out. It is helped, not hindered: preparation, language, calibration and decision, which Rasid
does within its time, are done while the clock stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    BertPreTrainedModel,
    TextClassificationPipeline,
    pipeline,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from eval.contenders.protocol import Arguments, Loaded, Verdict, read_arguments, serve
from models.bundle import Bundle, load_bundle
from models.language import detect_language
from models.text import prepare_text

Scores = list[dict[str, Any]]


class MeanPooledClassifier(BertPreTrainedModel):  # type: ignore[no-untyped-call]
    """BERT, mean over the tokens, linear head: the network that Rasid was trained as."""

    base_model_prefix = "encoder"

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.head = nn.Linear(config.hidden_size, len(config.id2label or {}))
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SequenceClassifierOutput:
        """Logits `[N, L]` of token ids and their mask `[N, T]`."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return SequenceClassifierOutput(logits=self.head((hidden * mask).sum(dim=1) / mask.sum(dim=1)))


def load(arguments: Arguments) -> Loaded[Scores]:
    """The pipeline over the folder `pytorch` of a reference."""
    torch.set_num_threads(arguments.threads)
    bundle = load_bundle(arguments.bundle, require_seal=False)
    model = MeanPooledClassifier.from_pretrained(arguments.model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    AutoModelForSequenceClassification.register(BertConfig, MeanPooledClassifier, exist_ok=True)
    classifier: TextClassificationPipeline = pipeline(
        "text-classification", model=model, tokenizer=tokenizer, function_to_apply="sigmoid", top_k=None, device="cpu"
    )

    def classify(texts: list[str]) -> list[Scores]:
        found: list[Scores] = classifier(texts, batch_size=len(texts), truncation=True)  # type: ignore[assignment]
        return found

    def judge(texts: list[str], scores: list[Scores]) -> list[Verdict]:
        return verdicts(texts, scores, bundle)

    about = f"the same weights: float32, transformers {transformers.__version__} pipeline, torch {torch.__version__}"
    return Loaded(about, classify, judge, prepare=lambda text: prepare_text(text).text)


def verdicts(texts: Sequence[str], scores: Sequence[Sequence[Mapping[str, Any]]], bundle: Bundle) -> list[Verdict]:
    """The decisions of the bundle's rule on sigmoid scores, which are turned back into logits."""
    labels = bundle.taxonomy.label_ids
    languages = [detect_language(text).language for text in texts]
    by_label = [{entry["label"]: entry["score"] for entry in one} for one in scores]
    sigmoid = np.clip([[one[label] for label in labels] for one in by_label], 1e-12, 1 - 1e-7).astype(np.float64)
    logits = np.log(sigmoid / (1 - sigmoid)).astype(np.float32)
    probabilities = bundle.decision.probabilities(logits, languages, labels)
    found = []
    for row, language in zip(probabilities, languages, strict=True):
        letters = (bundle.decision.decide(float(p), language, label)[0] for p, label in zip(row, labels, strict=True))
        sides = (p >= bundle.decision.rules[language][label].threshold for p, label in zip(row, labels, strict=True))
        found.append(Verdict("".join(letters), "".join("1" if side else "0" for side in sides)))
    return found


def main() -> None:
    """Answer on standard input and output."""
    arguments = read_arguments(
        "A plain transformers pipeline on the PyTorch model of rasid-train reference.",
        "python -m eval.contenders.pipeline --bundle BUNDLE --model runs/reference/pytorch --threads 2",
    )
    serve(lambda: load(arguments))


if __name__ == "__main__":
    main()
