"""Clusters of a pool's passages by their words, to see which kinds of text nobody has labelled yet.

Hashed TF-IDF reduced by truncated SVD (latent semantic analysis, Deerwester et al. 1990) and k-means in mini-batches (Sculley
2010). Nothing here needs a model or a vocabulary, and no more than a share of the texts is in memory at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from tqdm import tqdm

HASHED_WORDS = 2**16
DIMENSIONS = 64
MAX_CLUSTERS = 200
# Enough to know which words go together; 20,000 passages of news take some 10 MB.
FITTED_TEXTS = 20_000
_CHUNK = 2_000


@dataclass(frozen=True, slots=True)
class Clusters:
    """The cluster of each of `N` passages, `[N]`, from 0 to `K - 1`, and how many labelled texts fall into each, `[K]`."""

    assigned: NDArray[np.intp]
    labelled: NDArray[np.int64]


def cluster_texts(
    texts: Callable[[], Iterable[str]],
    count: int,
    *,
    labelled: Iterable[str] = (),
    seed: int = 1,
    show_progress: bool = True,
) -> Clusters:
    """Cluster `count` prepared texts, which `texts` yields anew at every call, and place the labelled ones among them.

    There are `sqrt(count / 2)` clusters, at most 200. Texts without a word of two letters share one place.
    """
    fitted = np.sort(np.random.default_rng(seed).choice(count, min(count, FITTED_TEXTS), replace=False))
    pipeline = _fit(list(_at(texts(), fitted)), seed)
    vectors = np.empty((count, DIMENSIONS), dtype=np.float32)
    at = 0
    with tqdm(total=count, desc="clustering", unit=" passages", disable=not show_progress, dynamic_ncols=True) as bar:
        for part in _vectors(texts(), pipeline):
            vectors[at : at + len(part)] = part
            at += len(part)
            bar.update(len(part))
    number = int(np.clip(round((count / 2) ** 0.5), 1, MAX_CLUSTERS))
    means = MiniBatchKMeans(number, random_state=seed, n_init=3).fit(vectors)
    placed = np.zeros(number, dtype=np.int64)
    for part in _vectors(labelled, pipeline):
        placed += np.bincount(means.predict(part), minlength=number)
    return Clusters(np.asarray(means.labels_, dtype=np.intp), placed)


def _fit(texts: list[str], seed: int) -> Any:
    """The way from texts to vectors of unit length, fitted."""
    words = HashingVectorizer(n_features=HASHED_WORDS, alternate_sign=False, norm=None)
    reduction = TruncatedSVD(min(DIMENSIONS, len(texts)), random_state=seed)
    pipeline = make_pipeline(words, TfidfTransformer(sublinear_tf=True), reduction, Normalizer(copy=False))
    with np.errstate(divide="ignore", invalid="ignore"):  # its share of explained variance, where all texts are alike
        return pipeline.fit(texts)


def _vectors(texts: Iterable[str], pipeline: Any) -> Iterator[NDArray[np.float32]]:
    """Vectors `[n, D]` of the texts in parts, filled up with zeros where fewer texts than dimensions were fitted."""
    stream = iter(texts)
    while part := list(islice(stream, _CHUNK)):
        found = pipeline.transform(part)
        filled = np.zeros((len(part), DIMENSIONS), dtype=np.float32)
        filled[:, : found.shape[1]] = found
        yield filled


def _at(texts: Iterable[str], positions: NDArray[np.intp]) -> Iterator[str]:
    """The texts at ascending positions."""
    wanted = set(positions.tolist())
    return (text for position, text in enumerate(texts) if position in wanted)
