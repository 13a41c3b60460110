from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from models.classifier import Classifier
from service.app import create_app
from service.settings import Settings


@pytest.fixture(scope="module")
def address(released: Classifier) -> Iterator[str]:
    """A service that really listens."""
    server = uvicorn.Server(uvicorn.Config(create_app(released, Settings(threads=1)), port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()
