"""Scoring on Ray Data: the same windows, in actors that each hold a model, on this machine or a cluster.

Files are read by tasks, windows of rows are scored by actors with one processor each, and what comes back is put on the
driver's disk in order, so a run on Ray is resumed, written and rejected from as any other and gives the same answers.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Self

from models.bundle import Bundle, load_bundle, released_bundle_path
from models.classifier import Classifier
from models.errors import EngineError, InputError
from service.score.here import LocalScorer
from service.score.rows import read_rows
from service.score.sources import STANDARD_INPUT, Source
from service.score.windows import Entry, ScoreOptions, cut_windows

_BLOCK_BYTES = 64 * 1024  # less than a window: each goes to whichever actor is free
_ACTOR_SHARE, _READER_SHARE = 0.9, 0.1  # of a processor, so that readers find room beside the actors


class RayScorer:
    """Scores on a Ray cluster: that of `RAY_ADDRESS`, or one started on this machine. A context manager."""

    def __init__(self, bundle: Path | None, *, workers: int | None = None) -> None:
        """`bundle` must lie at the same path on all nodes; None is the one that Rasid ships, there too.

        `workers` is the number of actors, by default one a processor. Raises InputError without Ray.
        """
        try:
            import ray  # noqa: PLC0415 - an extra
        except ImportError:
            raise InputError("--engine ray needs Ray: pip install -e '.[ray]' in the checkout") from None
        self._path = bundle
        self._bundle = load_bundle(bundle or released_bundle_path(), require_seal=True)
        self._workers = workers
        self._ray: Any = ray
        self._started = False

    def __enter__(self) -> Self:
        """Connect, or start a cluster on this machine."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its own warnings stand in its log files
        if not self._ray.is_initialized():
            self._ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            self._started = True
        warnings.filterwarnings("ignore", module=r"ray\.data")  # how a small file could be spread wider
        context = self._ray.data.DataContext.get_current()
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # after it has set its own
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        context.target_max_block_size = _BLOCK_BYTES
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        if self._started:
            self._ray.shutdown()

    @property
    def bundle(self) -> Bundle:
        """The model."""
        return self._bundle

    def score(self, sources: list[Source], options: ScoreOptions, *, done: int) -> Iterator[list[Entry]]:
        """The rows of the sources behind the first `done`, in order, window by window. Raises InputError or EngineError."""
        if any(source.path == STANDARD_INPUT for source in sources):
            raise InputError("standard input cannot be read by a cluster; give files")
        data = self._ray.data
        files: list[dict[str, Any]] = [{"source": pickle.dumps(source)} for source in sources]
        try:
            first = 0
            if len(files) > 1:  # the rows are numbered over all files
                counts = data.from_items(files, override_num_blocks=len(files)).map(_Count(options), num_cpus=_READER_SHARE)
                for file, row in zip(files, counts.take_all(), strict=True):
                    file["first"] = first
                    first += row["rows"]
            workers = self._workers or max(1, int(self._ray.cluster_resources()["CPU"]))
            scored = (
                data.from_items([{"first": 0, **file} for file in files], override_num_blocks=len(files))
                .flat_map(_Read(options, done), num_cpus=_READER_SHARE)
                .map(
                    _Score,
                    fn_constructor_args=(self._path, self._bundle.manifest.model_hash, options),
                    compute=data.ActorPoolStrategy(size=workers),
                    num_cpus=_ACTOR_SHARE,
                )
            )
            for row in scored.iter_rows():
                yield json.loads(row["entries"])
        except (self._ray.exceptions.RayError, RuntimeError) as error:
            raise _ours(error) from None


class _Count:
    """How many rows a file has."""

    def __init__(self, options: ScoreOptions) -> None:
        self._options = options

    def __call__(self, file: dict[str, Any]) -> dict[str, Any]:
        source = pickle.loads(file["source"])  # noqa: S301 - our own
        return {"rows": sum(1 for _ in read_rows([source], self._options.columns, max_characters=self._options.max_characters))}


class _Read:
    """The windows of a file, behind what is done."""

    def __init__(self, options: ScoreOptions, done: int) -> None:
        self._options = options
        self._done = done

    def __call__(self, file: dict[str, Any]) -> Iterator[dict[str, Any]]:
        source = pickle.loads(file["source"])  # noqa: S301 - our own
        options, first = self._options, int(file["first"])
        rows = read_rows(
            [source],
            options.columns,
            max_characters=options.max_characters,
            first=first,
            keep_columns=options.keep_columns,
        )
        for window in cut_windows(islice(rows, max(0, self._done - first), None)):
            yield {"window": pickle.dumps(window)}


class _Score:
    """An actor with a model."""

    def __init__(self, path: Path | None, model_hash: str, options: ScoreOptions) -> None:
        classifier = Classifier.load(path, threads=1)
        if classifier.bundle.manifest.model_hash != model_hash:
            raise EngineError("a node of the cluster has another bundle than the driver; install the same on all")
        self._scorer = LocalScorer(classifier)
        self._options = options

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        window = pickle.loads(row["window"])  # noqa: S301 - our own
        entries = self._scorer.decide(window, self._scorer.encode(window, self._options), self._options)
        return {"entries": json.dumps(entries, ensure_ascii=False, default=str)}


def _ours(error: BaseException) -> InputError | EngineError:
    """Our own error within what Ray makes of it."""
    found: BaseException | None = error
    while found is not None:
        for inner in (found, getattr(found, "cause", None)):
            if isinstance(inner, InputError | EngineError):
                return inner
        found = found.__cause__
    return EngineError(f"Ray failed: {type(error).__name__}; its logs lie in /tmp/ray")
