"""Which room may import which: the contracts of import-linter in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_no_room_imports_what_it_may_not(tmp_path: Path) -> None:
    code = "from importlinter.cli import lint_imports_command as lint; lint()"  # in this process it would switch loggers off
    command = [sys.executable, "-c", code, "--no-logo", "--cache-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
