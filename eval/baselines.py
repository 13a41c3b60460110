"""What a model must beat: the baselines of every report, measured on the same texts in the same table.

- majority: the more frequent answer of the training rows for each label, in the text's language;
- lexicon: the words and phrases that a good analyst would search for (`lexicon.json`), whole words, Arabic affixes allowed;
- tf-idf: logistic regression on word and character n-grams;
- frozen encoder: logistic regression on the sentence vectors of the base encoder before fine-tuning.

Trained baselines see the training rows alone; their thresholds are the best F1 in a cross-validation grouped by document.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_curve
from sklearn.model_selection import GroupKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import StandardScaler
from tokenizers import Tokenizer

from eval.metrics import BoolArray, FloatArray
from models.engine import OnnxEngine
from models.errors import InputError
from models.example import LabelledExample
from models.language import detect_language
from models.text import prepare_text

_FOLDS = 4
_LEXICON = Path(__file__).with_name("lexicon.json")
_ARABIC_PREFIX = "(?:[وفبكل]|ال|وال|بال|فال|كال|لل|ولل|س|وس|سي)?"
_ARABIC_SUFFIX = "(?:ة|ه|ها|هم|هن|نا|ي|ك|كم|ا|ات|ون|ين|ان|وا|ت|تها|ته|تهم)?"


@dataclass(frozen=True, slots=True)
class Baseline:
    """Decisions `[N, L]` of one baseline, and probabilities where it has any."""

    name: str
    decided: BoolArray
    probabilities: FloatArray | None = None


def run_baselines(
    examples: Sequence[LabelledExample],
    train: Sequence[LabelledExample],
    labels: Sequence[str],
    *,
    base_encoder: Path | None = None,
    progress: Callable[[str], object] = lambda _name: None,
) -> list[Baseline]:
    """Decide every example with every baseline that can be had: without `train` the lexicon alone, the frozen encoder only
    where `base_encoder` is a folder that `rasid-train reference` wrote.
    """
    texts = [prepare_text(example.text).text for example in examples]
    languages = _languages(examples)
    found = []
    if set(labels) == set(_lexicon()):
        progress("lexicon")
        found.append(Baseline("keyword lexicon", lexicon_decisions(texts, labels)))
    if not train:
        return found
    train_texts = [prepare_text(example.text).text for example in train]
    wanted = np.array([[label in example.labels for label in labels] for example in train])
    groups = np.array([example.document for example in train])
    progress("majority")
    found.insert(0, Baseline("majority", majority_decisions(wanted, _languages(train), languages)))
    progress("tf-idf")
    regression = LogisticRegression(C=20.0, class_weight="balanced", solver="liblinear")
    found.append(_fitted("TF-IDF, logistic regression", _tfidf(len(train)), regression, train_texts, wanted, groups, texts))
    if base_encoder is not None:
        progress("frozen encoder")
        vectors = base_vectors(base_encoder, [*train_texts, *texts])
        known, new = vectors[: len(train)], vectors[len(train) :]
        regression = LogisticRegression(C=0.05, max_iter=2_000)
        found.append(_fitted("frozen encoder, logistic regression", StandardScaler(), regression, known, wanted, groups, new))
    return found


def majority_decisions(wanted: BoolArray, train_languages: NDArray[np.str_], languages: NDArray[np.str_]) -> BoolArray:
    """For each text `[N, L]` what most training rows of its language say, of all languages where there are none."""
    overall = wanted.mean(axis=0) > 0.5
    answers = {lang: wanted[train_languages == lang].mean(axis=0) > 0.5 for lang in set(train_languages.tolist())}
    return np.array([answers.get(language, overall) for language in languages.tolist()])


def lexicon_decisions(texts: Sequence[str], labels: Sequence[str]) -> BoolArray:
    """Which prepared texts `[N, L]` match the patterns of each label.

    A label's entry in `lexicon.json` is a list of rules; a rule names groups, and holds where a word of each of
    them occurs.
    """
    rules = _lexicon()
    decided = np.zeros((len(texts), len(labels)), dtype=np.bool_)
    for row, text in enumerate(texts):
        folded = _fold(text)
        for column, label in enumerate(labels):
            decided[row, column] = any(all(group.search(folded) for group in rule) for rule in rules[label])
    return decided


def base_vectors(folder: Path, texts: Sequence[str]) -> FloatArray:
    """Unit sentence vectors `[N, H]` of the base encoder. Raises InputError where the folder is not a reference folder."""
    if not (folder / "base.onnx").is_file():
        raise InputError(f"expected base.onnx in {folder}, found none; make it with rasid-train reference --out {folder}")
    tokenizer = Tokenizer.from_file(str(folder / "base-tokenizer.json"))
    tokenizer.enable_truncation(256)
    engine = OnnxEngine(folder / "base.onnx")
    vectors = engine.logits([encoding.ids for encoding in tokenizer.encode_batch([f"query: {text}" for text in texts])])
    unit: FloatArray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float64)
    return unit


def _languages(examples: Sequence[LabelledExample]) -> NDArray[np.str_]:
    return np.array([example.lang or detect_language(example.text).language for example in examples], dtype=np.str_)


def _tfidf(rows: int) -> Any:
    rare = 1 if rows < 1_000 else 3
    return make_union(
        TfidfVectorizer(ngram_range=(1, 2), min_df=rare, sublinear_tf=True, max_features=200_000),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), min_df=rare, sublinear_tf=True, max_features=200_000),
    )


def _fitted(
    name: str, features: Any, rate: Any, train: Any, wanted: BoolArray, groups: NDArray[np.str_], texts: Any
) -> Baseline:
    """One logistic regression a label on common features, its threshold chosen on out-of-fold probabilities."""
    model = make_pipeline(features, OneVsRestClassifier(rate))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Label .* is present in all training examples")
        warnings.filterwarnings("ignore", message="Label not .* is present in all training examples")
        thresholds = _thresholds(model, train, wanted, groups)
        fitted = clone(model).fit(train, wanted.astype(int))
    probabilities = fitted.predict_proba(texts)
    return Baseline(name, probabilities >= thresholds, probabilities)


def _thresholds(model: Any, train: Any, wanted: BoolArray, groups: NDArray[np.str_]) -> FloatArray:
    """By label the threshold of the best F1 on out-of-fold probabilities; one half where nothing can be folded."""
    thresholds = np.full(wanted.shape[1], 0.5)
    folds = min(_FOLDS, len(set(groups.tolist())))
    if folds < 2:
        return thresholds
    held_out = np.zeros(wanted.shape)
    for inside, outside in GroupKFold(folds).split(np.arange(len(wanted)), groups=groups):
        fitted = clone(model).fit(_rows(train, inside), wanted[inside].astype(int))
        held_out[outside] = fitted.predict_proba(_rows(train, outside))
    for column in np.flatnonzero(wanted.any(axis=0)):
        precision, recall, candidates = precision_recall_curve(wanted[:, column], held_out[:, column])
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        thresholds[column] = candidates[int(np.argmax(f1[:-1]))]
    return thresholds


def _rows(data: Any, chosen: NDArray[np.intp]) -> Any:
    return data[chosen] if isinstance(data, np.ndarray) else [data[index] for index in chosen]


def _fold(text: str) -> str:
    """Lower case, Arabic letter variants folded: what a search engine for analysts does."""
    return text.lower().translate(str.maketrans("أإآى", "اااي"))


@cache
def _lexicon() -> dict[str, list[list[re.Pattern[str]]]]:
    content = json.loads(_LEXICON.read_text(encoding="utf-8"))
    groups = {name: [*entry["en"], *entry["ar"]] for name, entry in content["groups"].items()}
    return {label: [[_pattern(groups[name]) for name in rule] for rule in rules] for label, rules in content["labels"].items()}


def _pattern(words: Sequence[str]) -> re.Pattern[str]:
    alternatives = []
    for word in words:
        folded = re.escape(_fold(word)).replace(r"\*", r"\w*")
        arabic = any("\u0600" <= char <= "\u06ff" for char in word)
        alternatives.append(f"{_ARABIC_PREFIX}{folded}{_ARABIC_SUFFIX}" if arabic else folded)
    return re.compile(rf"(?<!\w)(?:{'|'.join(alternatives)})(?!\w)")
