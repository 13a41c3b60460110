"""The contenders of the speed benchmark: each is one way to classify texts, run in a process of its own.

    python -m eval.contenders.rasid --bundle BUNDLE --threads 2

It speaks JSON lines (see `protocol`), so that no contender's libraries, threads or memory touch another's.
"""

from __future__ import annotations

import time

# This package is the first of the project's code that a contender's process runs, before torch or ONNX Runtime is imported.
STARTED = time.perf_counter()
