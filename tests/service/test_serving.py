from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from models.bundle import released_bundle_path
from models.classifier import Classifier, TextItem
from service.app import create_app
from service.auth import Scope, add_key
from service.errors import ActivationError, DeadlineError
from service.serving import ModelHost, check_canary
from service.settings import Settings
from tests.altered import altered, shuffled_head, wrong_threshold
from tests.conftest import LOOPBACK

TEXTS = ["They fled the village.", "نزحت العائلات.", "Rain."]
RELEASED = released_bundle_path().name


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    (folder / RELEASED).symlink_to(released_bundle_path(), target_is_directory=True)
    shutil.copytree(released_bundle_path(), folder / "altered")
    (folder / "altered" / "decision.json").write_text("{}")
    altered(folder / "swapped", sealed=True, model=shuffled_head)
    altered(folder / "eager", sealed=True, decision=wrong_threshold)
    return folder


@pytest.fixture
def client(released: Classifier, bundles: Path) -> Iterator[TestClient]:
    settings = Settings(bundles=bundles, max_request_bytes=64 * 1024, max_texts=64)
    with TestClient(create_app(released, settings), base_url=LOOPBACK) as client:
        yield client


class Gate:
    """Holds the engine of a service back until it is opened."""

    def __init__(self, client: TestClient) -> None:
        self._scheduler = client.app.state.desk.host.active.scheduler
        self._honest = self._scheduler._infer
        self.entered = threading.Event()
        self.open = threading.Event()
        self.rows = 0
        self._scheduler._infer = self._run

    def _run(self, rows: Any, *, alone: bool) -> Any:
        self.entered.set()
        assert self.open.wait(20)
        self.rows += len(rows)
        return self._honest(rows, alone=alone)


def until(reached: Callable[[], bool]) -> None:
    """Wait for something that another thread does."""
    for _ in range(2_000):
        if reached():
            return
        time.sleep(0.005)
    pytest.fail("waited for 10 s in vain")


def lines(response: Response) -> list[dict]:
    return [json.loads(line) for line in response.text.splitlines()]


def test_a_stream_answers_every_line_in_order(client: TestClient, released: Classifier) -> None:
    rows = [b'{"id": "a", "text": "They fled the village."}', b'"Rain."', b"", b"{", b'{"text": 5}', b'"\xff"', b'" "']
    rows += [json.dumps(f"Number {n} fled.").encode() for n in range(70)]
    response = client.post("/v1/classify/stream?evidence=true", content=b"\n".join(rows))
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.headers["x-model-version"] == released.bundle.manifest.version
    found = lines(response)
    assert [row["id"] for row in found] == ["a", *map(str, range(2, 77))]
    codes = [row.get("error", {}).get("code") for row in found[:7]]
    assert codes == [None, None, "invalid_line", "invalid_line", "invalid_line", "empty_text", None]
    assert found[0]["evidence"][0]["text"] == "They fled the village."
    [expected] = released.classify(["Number 69 fled."])
    assert found[-1]["labels"] == expected.model_dump()["labels"]


def test_a_stream_waits_its_turn_and_tells_which_lines_were_too_late(client: TestClient) -> None:
    gate = Gate(client)
    response = client.post("/v1/classify/stream", content=b'"a"\n"b"', headers={"X-Timeout-Seconds": "0.2"})
    gate.open.set()
    assert response.status_code == 200
    assert [row["error"]["code"] for row in lines(response)] == ["deadline_exceeded"] * 2


def test_a_request_that_is_not_answered_in_its_time_is_told_so(client: TestClient) -> None:
    gate = Gate(client)
    response = client.post("/v1/classify", json={"texts": TEXTS}, headers={"X-Timeout-Seconds": "0.2"})
    gate.open.set()
    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")
    for bad in ("0", "-1", "soon", "nan", "inf"):
        response = client.post("/v1/classify", json={"texts": TEXTS}, headers={"X-Timeout-Seconds": bad})
        assert response.status_code == 422, bad


def test_a_full_queue_is_told_at_once_and_when_to_come_again(released: Classifier) -> None:
    with TestClient(create_app(released, Settings(max_waiting_tokens=512, max_batch_tokens=64)), base_url=LOOPBACK) as client:
        gate = Gate(client)
        texts = [f"{'word ' * 40}{n}" for n in range(14)]
        first = threading.Thread(target=client.post, args=("/v1/classify",), kwargs={"json": {"texts": texts}})
        first.start()
        until(lambda: client.app.state.desk.host.state().waiting_tokens > 400)
        response = client.post("/v1/classify", json={"texts": [text + " once more" for text in texts]})
        assert (response.status_code, response.json()["code"]) == (503, "overloaded")
        assert int(response.headers["retry-after"]) >= 1
        assert client.post("/predict", json={"inputs": [[t + " again"] for t in texts]}).status_code == 429
        gate.open.set()
        first.join()


def test_work_of_a_caller_who_hangs_up_is_dropped(released: Classifier) -> None:
    app = create_app(released, Settings())
    with TestClient(app, base_url=LOOPBACK) as client:
        gate = Gate(client)
        body = json.dumps({"texts": ["They left."]}).encode()
        sent: list[dict] = []

        async def run() -> None:
            left = asyncio.Event()
            messages = [{"type": "http.request", "body": body, "more_body": False}]

            async def receive() -> dict:
                if messages:
                    return messages.pop()
                await left.wait()
                return {"type": "http.disconnect"}

            async def send(message: dict) -> None:
                sent.append(message)

            scope = {
                "type": "http",
                "asgi": {"version": "3.0"},
                "http_version": "1.1",
                "method": "POST",
                "path": "/v1/classify",
                "raw_path": b"/v1/classify",
                "query_string": b"",
                "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
                "client": ("127.0.0.1", 1),
                "server": ("127.0.0.1", 2),
                "scheme": "http",
                "root_path": "",
            }
            task = asyncio.ensure_future(app(scope, receive, send))
            await asyncio.to_thread(gate.entered.wait, 10)
            left.set()
            await asyncio.wait_for(task, 10)

        asyncio.run(run())
        gate.open.set()
        assert sent[0]["status"] == 499


def test_a_body_may_be_packed(client: TestClient) -> None:
    plain = client.post("/v1/classify", json={"texts": TEXTS}).json()
    packed = gzip.compress(json.dumps({"texts": TEXTS}).encode())
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    assert client.post("/v1/classify", content=packed, headers=headers).json() == plain

    def code(content: bytes, **more: str) -> tuple[int, str]:
        response = client.post("/v1/classify", content=content, headers={**headers, **more})
        return response.status_code, response.json()["code"]

    assert code(gzip.compress(b" " * 10_000_000)) == (413, "too_large")
    assert code(packed[:-9]) == (400, "malformed_body")
    assert code(packed + packed) == (400, "malformed_body")
    assert code(b"not packed") == (400, "malformed_body")

    def junk() -> Iterator[bytes]:
        yield packed
        for _ in range(1_000):  # a stream that goes on after its end must not be collected
            yield b"x" * 65_536

    assert client.post("/v1/classify", content=junk(), headers=headers).status_code in (400, 413)
    assert code(packed, **{"content-encoding": "br"}) == (415, "unsupported_encoding")


def test_an_answer_tells_where_its_time_went_and_whose_it_is(client: TestClient) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    response = client.post("/v1/classify", json={"texts": TEXTS}, headers={"traceparent": trace, "x-request-id": "r-1"})
    phases = [part.split(";")[0] for part in response.headers["server-timing"].split(", ")]
    assert phases == ["prepare", "queue", "inference"]
    assert response.headers["x-request-id"] == "r-1"


def test_the_trace_stands_in_the_log(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with caplog.at_level("INFO", logger="rasid.access"):
        client.post("/v1/classify", json={"texts": TEXTS}, headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
        client.post("/v1/classify", json={"texts": TEXTS}, headers={"traceparent": "evil\u20ac".encode()})
    records = [vars(r) for r in caplog.records if r.name == "rasid.access"]
    assert records[0]["trace_id"] == trace
    assert "trace_id" not in records[1]
    assert records[0]["texts"] == 3
    assert records[0]["tokens"] > 10
    assert records[0]["inference_seconds"] > 0


def test_pages_of_other_origins_may_call_only_when_told_to(released: Classifier, client: TestClient) -> None:
    origin = {"Origin": "https://desk.example"}
    assert "access-control-allow-origin" not in client.get("/livez", headers=origin).headers
    with TestClient(
        create_app(released, Settings(cors_origins="https://desk.example, https://b.example")), base_url=LOOPBACK
    ) as open_client:
        assert open_client.get("/livez", headers=origin).headers["access-control-allow-origin"] == origin["Origin"]
        other = open_client.get("/livez", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
        asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        assert open_client.options("/v1/classify", headers=asked).status_code == 200


def test_metrics_count_and_hold_no_text(client: TestClient) -> None:
    secret = "Qamishli-street-seventeen"
    answered = client.post("/v1/classify", json={"texts": [*TEXTS, secret, " "]}, headers={"x-request-id": secret}).json()
    [decision] = [p["labels"]["displacement"]["decision"] for p in answered["predictions"] if p.get("language") == "ar"]
    client.get(f"/{secret}")
    client.request("SECRET", "/livez")
    page = client.get("/metrics").text
    assert secret not in page
    assert 'rasid_requests_total{method="POST",route="/v1/classify",status="200"} 1.0' in page
    assert 'rasid_requests_total{method="GET",route="none",status="404"} 1.0' in page
    assert 'method="other"' in page
    assert 'rasid_texts_total{language="ar"} 1.0' in page
    assert 'rasid_rejected_texts_total{code="empty_text"} 1.0' in page
    assert f'rasid_decisions_total{{decision="{decision}",label="displacement",language="ar"}} 1.0' in page
    assert 'rasid_phase_seconds_count{phase="queue"} 1.0' in page
    assert "rasid_queue_tokens 0.0" in page
    assert "rasid_inference_tokens_total" in page
    assert f'version="{client.app.state.desk.host.active.classifier.bundle.manifest.version}"' in page


def test_limits_are_told(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = client.get("/v1/limits").json()
    assert (limits["max_texts"], limits["max_request_bytes"], limits["max_tokens"]) == (64, 65_536, 256)
    assert limits["caller"] == "anonymous"
    assert limits["max_stream_lines"] == 100_000
    monkeypatch.setattr("service.routes.classify.MAX_STREAM_LINES", 1)
    assert client.post("/v1/classify/stream", content=b'"a"\n"b"').status_code == 413


def test_a_worker_that_died_or_hangs_makes_the_service_unready(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(client)
    monkeypatch.setattr("service.serving._READY_SECONDS", 0.2)
    response = client.get("/readyz")
    assert (response.status_code, response.json()["code"]) == (503, "not_ready")
    monkeypatch.setattr("service.serving._STUCK_SECONDS", 0.0)
    assert "has been running" in client.get("/readyz").json()["detail"]
    gate.open.set()
    client.app.state.desk.host.active.scheduler.close(timeout_seconds=5)
    assert "worker is gone" in client.get("/readyz").json()["detail"]
    response = client.post("/v1/classify", json={"texts": TEXTS})
    assert (response.status_code, response.json()["code"]) == (503, "shutting_down")
    assert int(response.headers["retry-after"]) >= 1


def test_another_bundle_takes_over_while_requests_run_and_can_be_taken_back(client: TestClient, bundles: Path) -> None:
    host: ModelHost = client.app.state.desk.host
    first = host.active.classifier
    gate = Gate(client)
    answered: list[int] = []
    thread = threading.Thread(target=lambda: answered.append(client.post("/v1/classify", json={"texts": TEXTS}).status_code))
    thread.start()
    assert gate.entered.wait(10)
    taking = threading.Thread(target=client.post, args=("/v1/model/activate",), kwargs={"json": {"bundle": RELEASED}})
    taking.start()
    until(lambda: host.active.classifier is not first)
    assert client.post("/v1/classify", json={"texts": TEXTS}).status_code == 200  # by the new one, while the old is busy
    gate.open.set()
    thread.join()
    taking.join()
    assert answered == [200]
    assert host.active.classifier.bundle.path == bundles / RELEASED
    assert client.post("/v1/model/rollback").status_code == 200
    assert host.active.classifier.bundle.path == released_bundle_path()


def test_a_stream_is_answered_to_its_end_by_the_model_it_began_with(client: TestClient) -> None:
    host: ModelHost = client.app.state.desk.host
    first = host.active
    gate = Gate(client)
    got: list[Response] = []
    texts = [f"Number {n} fled." for n in range(100)]
    content = b"\n".join(json.dumps(text).encode() for text in texts)
    thread = threading.Thread(target=lambda: got.append(client.post("/v1/classify/stream", content=content)))
    thread.start()
    assert gate.entered.wait(10)
    assert client.post("/v1/model/activate", json={"bundle": "eager"}).status_code == 200
    assert host.active is not first
    answer = client.post("/v1/classify", json={"texts": texts[:1]}).json()
    assert answer["model"]["version"] == "worse"
    assert answer["predictions"][0]["labels"]["accountability_call"]["decision"] == "yes"
    gate.open.set()
    thread.join()
    expected = [answer.model_dump()["labels"] for answer in first.classifier.classify(texts)]
    assert {labels["accountability_call"]["decision"] for labels in expected} == {"no"}
    assert [row["labels"] for row in lines(got[0])] == expected
    assert got[0].headers["x-model-version"] == first.classifier.bundle.manifest.version
    until(lambda: not first.scheduler.state().alive)  # and then it goes


def test_asking_often_whether_it_is_ready_costs_one_inference(client: TestClient) -> None:
    for _ in range(20):
        assert client.get("/readyz").status_code == 200
    assert "rasid_inference_tokens_total" in client.get("/metrics").text
    page = client.get("/metrics").text
    batches = float(next(line for line in page.splitlines() if line.startswith("rasid_batch_rows_count")).split()[1])
    assert batches <= 2


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"bundle": "altered"}, 409, "bundle_corrupt"),
        ({"bundle": "swapped"}, 409, "activation_failed"),
        ({"bundle": "nothing"}, 404, "bundle_not_found"),
        ({"bundle": "../released"}, 422, "invalid_request"),
        ({"bundle": ".."}, 422, "invalid_request"),
        ({}, 422, "invalid_request"),
    ],
)
def test_a_bundle_that_cannot_serve_is_refused_and_the_active_one_goes_on(
    client: TestClient, body: dict, status: int, code: str
) -> None:
    response = client.post("/v1/model/activate", json=body)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert client.post("/v1/classify", json={"texts": TEXTS}).status_code == 200


def test_without_a_folder_or_a_former_model_there_is_nothing_to_activate(released: Classifier) -> None:
    with TestClient(create_app(released, Settings()), base_url=LOOPBACK) as client:
        assert client.post("/v1/model/activate", json={"bundle": RELEASED}).status_code == 404
        response = client.post("/v1/model/rollback")
        assert (response.status_code, response.json()["code"]) == (409, "activation_failed")


def test_a_model_that_errs_on_the_check_texts_does_not_take_over(tiny: Classifier, released: Classifier) -> None:
    check_canary(released)
    with pytest.raises(ActivationError, match="check text"):
        check_canary(tiny)


@pytest.mark.parametrize(
    ("texts", "allowed", "told"),
    [
        (100, -1.0, "before the texts were computed"),
        (9, 0.1, "before the texts were prepared"),
        (1, 0.1, "not answered within"),
    ],
    ids=["none left", "prepared in a thread", "prepared in the loop"],
)
def test_time_spent_on_preparation_counts(
    released: Classifier, monkeypatch: pytest.MonkeyPatch, texts: int, allowed: float, told: str
) -> None:
    host = ModelHost(released, Settings())
    honest = released.encode

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.5)
        return honest(*arguments, **options)

    async def run() -> None:
        items = [TextItem(str(n), f"They fled {n}.") for n in range(texts)]
        deadline = time.monotonic() + allowed
        with host.request() as serving, pytest.raises(DeadlineError, match=told):
            await host.classify(serving, items, granularity="document", evidence=False, deadline=deadline)

    with monkeypatch.context() as patched:
        patched.setattr(released, "encode", slow)
        asyncio.run(run())
    host.close()


def test_no_more_requests_are_in_work_than_may_be(released: Classifier) -> None:
    with TestClient(create_app(released, Settings(max_requests=1)), base_url=LOOPBACK) as client:
        gate = Gate(client)
        got: list[int] = []
        first = threading.Thread(target=lambda: got.append(client.post("/v1/classify", json={"texts": TEXTS}).status_code))
        first.start()
        assert gate.entered.wait(10)
        response = client.post("/v1/classify", json={"texts": TEXTS})
        assert (response.status_code, response.json()["code"]) == (503, "overloaded")
        assert int(response.headers["retry-after"]) >= 1
        gate.open.set()
        first.join()
        assert got == [200]
        assert client.post("/v1/classify", json={"texts": TEXTS}).status_code == 200


def test_a_request_that_names_no_time_gets_that_of_the_settings(released: Classifier) -> None:
    with TestClient(create_app(released, Settings(timeout_seconds=0.2)), base_url=LOOPBACK) as client:
        gate = Gate(client)
        for headers in ({}, {"X-Timeout-Seconds": "30"}):  # nobody gets more
            response = client.post("/v1/classify", json={"texts": TEXTS}, headers=headers)
            assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")
        gate.open.set()


@pytest.mark.parametrize(("remembered", "computed"), [(0, 2), (8, 1)])
def test_what_is_remembered_is_computed_once(released: Classifier, remembered: int, computed: int) -> None:
    with TestClient(create_app(released, Settings(cache_texts=remembered)), base_url=LOOPBACK) as client:
        gate = Gate(client)
        gate.open.set()
        answers = [client.post("/v1/classify", json={"texts": TEXTS[:1]}).json() for _ in range(2)]
        assert answers[0] == answers[1]
        assert gate.rows == computed


@pytest.mark.parametrize("setting", ["rate_per_key", "rate_per_address"])
def test_a_quota_of_the_settings_holds_for_who_has_none_of_his_own(released: Classifier, tmp_path: Path, setting: str) -> None:
    key = add_key(tmp_path / "keys.json", "a", scopes=[Scope.CLASSIFY])
    settings = Settings(keys=tmp_path / "keys.json", **{setting: "1/hour"})
    with TestClient(create_app(released, settings), base_url=LOOPBACK, headers={"X-Api-Key": key}) as client:
        assert client.post("/v1/classify", json={"texts": TEXTS[:1]}).status_code == 200
        response = client.post("/v1/classify", json={"texts": TEXTS[:1]})
        assert (response.status_code, response.json()["code"]) == (429, "quota_exceeded")
        assert 0 < int(response.headers["retry-after"]) <= 3_600
