"""Scoring in this process: while a window is computed the next one is read and tokenised."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from models.bundle import Bundle
from models.classifier import Classifier, Encoded
from service.score.rows import Row, read_rows
from service.score.sources import Source
from service.score.windows import Entry, ScoreOptions, cut_windows, make_entry, make_reject


class LocalScorer:
    """Scores with a classifier. Memory holds two windows, whatever the size of the input."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        manifest = classifier.bundle.manifest
        self._model = f"{manifest.name} {manifest.version}"

    @property
    def bundle(self) -> Bundle:
        """The model."""
        return self._classifier.bundle

    def score(self, sources: list[Source], options: ScoreOptions, *, done: int) -> Iterator[list[Entry]]:
        """The rows of the sources behind the first `done`, in order, window by window. Raises InputError or EngineError."""
        rows = read_rows(sources, options.columns, max_characters=options.max_characters, keep_columns=options.keep_columns)
        windows = cut_windows(islice(rows, done, None))

        def read() -> tuple[list[Row], Encoded] | None:
            window = next(windows, None)
            return None if window is None else (window, self.encode(window, options))

        with ThreadPoolExecutor(1, thread_name_prefix="rasid-read") as reader:
            coming = reader.submit(read)
            while (found := coming.result()) is not None:
                coming = reader.submit(read)
                yield self.decide(*found, options)

    def encode(self, window: list[Row], options: ScoreOptions) -> Encoded:
        """Prepare and tokenise the rows that can be scored."""
        items = [row.item for row in window if row.item is not None]
        return self._classifier.encode(items, granularity=options.granularity, evidence=options.evidence)

    def decide(self, window: list[Row], work: Encoded, options: ScoreOptions) -> list[Entry]:
        """Classify an encoded window."""
        answers = iter(self._classifier.decide(work, self._classifier.engine.logits(work.rows)))
        return [
            make_entry(row, next(answers), self._model, options)
            if row.rejection is None
            else make_reject(row, row.rejection.code, row.rejection.detail)
            for row in window
        ]
