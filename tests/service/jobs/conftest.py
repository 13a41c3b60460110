from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def _programs() -> Path | None:
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return folders[-1] if folders and (folders[-1] / "initdb").exists() else None


def _run(command: list[Any], **options: Any) -> None:
    subprocess.run(command, check=True, **options)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a Postgres of its own, on a socket in a folder of its own."""
    programs = _programs()
    if programs is None:
        pytest.skip("POSTGRES IS NOT INSTALLED, so jobs on it are not tested: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="rasid-pg-"))
    run: dict[str, Any] = {"stdout": subprocess.DEVNULL, "cwd": folder}
    if os.geteuid() == 0:  # Postgres does not run as root
        shutil.chown(folder, "postgres")
        run["user"] = "postgres"
    data = folder / "data"
    _run([programs / "initdb", "-D", data, "-U", "rasid", "-A", "trust", "-E", "UTF8", "--no-sync"], **run)
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    _run([programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start"], **run)
    try:
        yield f"postgresql+psycopg://rasid@/postgres?host={folder}"
    finally:
        _run([programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"], **run)
        shutil.rmtree(folder, ignore_errors=True)
