"""The Dockerfile's own steps, run in an empty environment where no container engine is at hand.

COPY and RUN are carried out below a temporary root with nothing of this process's environment but what pip needs; then the
image's own command is started and its own health check run against it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
INSTRUCTIONS = [
    tuple(line.split(maxsplit=1)) for line in re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text()).splitlines()
    if line and not line.startswith("#")
]  # fmt: skip
IGNORED = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
MEMORY_LIMIT_MB = 500


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def classify(port: int, text: str) -> Any:
    body = json.dumps({"texts": [text]}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/classify", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.loads(response.read())


class Image:
    """The file system and environment that the Dockerfile makes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        kept = {key: value for key, value in os.environ.items() if key.startswith(("PIP_", "SSL_", "XDG_CONFIG"))}
        self.environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(root / "home"), **kept}
        (root / "home").mkdir()

    def rooted(self, text: str) -> str:
        return re.sub(r"(?<![\w.])/(src|opt)\b", lambda found: str(self.root / found[1]), text)

    def build(self) -> None:
        python = shutil.which("python3")
        for kind, rest in INSTRUCTIONS:
            if kind == "COPY" and not rest.startswith("--from"):
                shutil.copytree(ROOT, self.root / "src", ignore=ignored)
            elif kind == "RUN" and "useradd" not in rest:
                command = self.rooted(rest).replace("python3 -m venv", f"{python} -m venv")
                done = subprocess.run(
                    ["/bin/sh", "-c", command], env=self.environment, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, f"{rest}\n{done.stdout}\n{done.stderr}"
            elif kind == "ENV":
                for name, value in (pair.split("=", 1) for pair in rest.split()):
                    self.environment[name] = self.rooted(value).replace("$PATH", self.environment["PATH"])

    def command(self, kind: str) -> list[str]:
        [rest] = [rest for name, rest in INSTRUCTIONS if name == kind]
        return [str(part) for part in json.loads(rest[rest.index("[") :])]


def ignored(folder: str, names: list[str]) -> set[str]:
    """What .dockerignore keeps out; patterns are of the root, `**/` of every folder."""
    inside = Path(folder).relative_to(ROOT)
    return {name for name in names if any(fits(inside / name, pattern) for pattern in IGNORED)}


def fits(path: Path, pattern: str) -> bool:
    anywhere, own = pattern.startswith("**/"), Path(pattern.removeprefix("**/")).parts
    parts = path.parts[-len(own) :] if anywhere else path.parts
    return len(parts) == len(own) and all(map(fnmatchcase, parts, own))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    built = Image(tmp_path_factory.mktemp("image"))
    built.build()
    return built


@pytest.fixture(scope="module")
def running(image: Image) -> Iterator[tuple[Image, subprocess.Popen[bytes], int]]:
    port = free_port()
    environment = image.environment | {"RASID_PORT": str(port), "RASID_HOST": "127.0.0.1"}
    program = shutil.which(image.command("CMD")[0], path=environment["PATH"])
    assert program, "the image's command is not on its PATH"
    image.environment = environment
    log = (image.root / "log").open("wb")
    process = subprocess.Popen([program, *image.command("CMD")[1:]], env=environment, stderr=log)
    try:
        for _ in range(200):
            if process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        assert process.poll() is None, (image.root / "log").read_text()
        yield image, process, port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)
        log.close()


def test_the_image_holds_no_training_libraries(image: Image) -> None:
    packages = {path.name.split("-")[0].lower() for path in image.root.glob("opt/rasid/lib/python3*/site-packages/*")}
    assert "onnxruntime" in packages
    assert not packages & {"torch", "transformers", "sklearn", "scikit_learn", "datasets", "onnx", "pytest"}


def test_the_image_does_not_serve_everybody_without_being_told_to(image: Image) -> None:
    program = shutil.which(image.command("CMD")[0], path=image.environment["PATH"])
    environment = image.environment | {"RASID_HOST": "0.0.0.0"}
    done = subprocess.run(
        [str(program), *image.command("CMD")[1:]], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert "RASID_KEYS" in done.stderr


def test_the_health_check_and_a_request_are_answered(running: tuple[Image, subprocess.Popen[bytes], int]) -> None:
    image, _process, port = running
    check = image.command("HEALTHCHECK")
    assert check[0] == "python"
    program = image.root / "opt/rasid/bin/python"
    assert subprocess.run([str(program), *check[1:]], env=image.environment, check=False).returncode == 0
    answer = classify(port, "نزحت مئات العائلات من القرية بعد القصف.")
    assert answer["predictions"][0]["labels"]["displacement"]["decision"] == "yes"


def test_the_service_stays_within_its_memory(running: tuple[Image, subprocess.Popen[bytes], int]) -> None:
    _image, process, _port = running
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        pytest.skip("memory is read from /proc, which this system does not have")
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1024
    assert peak < MEMORY_LIMIT_MB, f"peak resident memory {peak:.0f} MB"


def test_what_stays_out_of_the_image_is_what_dockerignore_names() -> None:
    assert not [pattern for pattern in IGNORED if pattern.startswith("!") or pattern != pattern.strip("/ ")]  # not understood
    assert ignored(str(ROOT), ["tests", "runs", ".venv", ".ruff_cache", "models", "README.md"]) == {
        "tests",
        "runs",
        ".venv",
        ".ruff_cache",
    }
    assert ignored(str(ROOT / "training"), ["corpus", "__pycache__", "tests", "base.py"]) == {"corpus", "__pycache__"}


def test_it_stops_when_asked_to(running: tuple[Image, subprocess.Popen[bytes], int]) -> None:
    image, process, port = running
    classify(port, "نزحت مئات العائلات من القرية بعد القصف.")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == -signal.SIGTERM  # uvicorn raises it again when it is done
    log = (image.root / "log").read_text()
    assert "Traceback" not in log
    lines = [json.loads(line) for line in log.splitlines()]
    assert {"starting", "Application shutdown complete."} <= {line["message"] for line in lines}
    assert "/v1/classify" in [line.get("route") for line in lines]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert "العائلات" not in log
