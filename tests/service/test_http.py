from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from models.classifier import Classifier
from models.errors import EngineError
from service.app import create_app
from service.logs import JsonFormatter
from service.settings import Settings
from tests.conftest import LOOPBACK

SECRET = "Qamishli-street-seventeen"
ARABIC = "😀 قالت وزارة الداخلية إن من أحرقوا بيوت العائلات الدرزية سيحاكمون. ونزحت مئات العائلات من قراها بعد القصف."


@pytest.fixture(scope="module")
def client(released: Classifier) -> Iterator[TestClient]:
    settings = Settings(max_texts=8, max_text_characters=5_000, max_request_bytes=64 * 1024)
    with TestClient(create_app(released, settings), base_url=LOOPBACK, raise_server_exceptions=False) as client:
        yield client


def post(client: TestClient, body: object) -> tuple[int, dict]:
    response = client.post("/v1/classify", json=body)
    return response.status_code, response.json()


def test_an_article_in_arabic_comes_back_with_evidence_at_exact_offsets(client: TestClient) -> None:
    status, answer = post(client, {"texts": [ARABIC], "granularity": "document", "evidence": True})
    assert status == 200
    assert set(answer["model"]) == {"name", "version"}
    [prediction] = answer["predictions"]
    assert prediction["language"] == "ar"
    assert set(prediction) == {"id", "language", "flags", "labels", "evidence", "truncated"}
    assert prediction["labels"]["official_statement"]["decision"] != "no"
    assert prediction["labels"]["displacement"]["decision"] == "yes"
    assert {piece["label"] for piece in prediction["evidence"]} >= {"official_statement", "displacement"}
    ranges = {piece["label"]: (piece["start"], piece["end"], piece["text"]) for piece in prediction["evidence"]}
    second = ARABIC.index("ونزحت")
    assert ranges["displacement"] == (second, len(ARABIC), ARABIC[second:])
    assert ranges["official_statement"][:2] in ((0, second - 1), (2, second - 1))
    assert len(str(prediction["labels"]["displacement"]["probability"])) <= 6


def test_ids_are_kept_and_order_is_kept(client: TestClient) -> None:
    body = {"texts": [{"id": "b", "text": "They fled."}, "It rained.", {"id": "a", "text": "هربوا من القرية."}]}
    _, answer = post(client, body)
    assert [p["id"] for p in answer["predictions"]] == ["b", "1", "a"]


def test_one_bad_text_does_not_fail_its_batch(client: TestClient) -> None:
    status, answer = post(client, {"texts": ["", "They fled.", "x" * 5_001, "\u200b\u0000"]})
    assert status == 200
    codes = [p.get("error", {}).get("code") for p in answer["predictions"]]
    assert codes == ["empty_text", None, "text_too_long", "empty_text"]


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("\ud83d", None),
        ("a\u0000b", []),
        ("😀😀", ["no_letters"]),
        ("שלום לכולם", ["unsupported_language"]),
        ("این خبر درست نیست", ["unsupported_language"]),
        ("12 345", ["no_letters"]),
        ("\ufeffThey fled", []),
        ("\u202eevil\u202c", []),
        ("a" * 4_999, []),
    ],
)
def test_odd_texts_get_honest_answers(client: TestClient, text: str, flags: list[str] | None) -> None:
    for granularity in ("passage", "document"):
        body = json.dumps({"texts": [text, "They fled."], "evidence": True, "granularity": granularity})  # with lone surrogates
        response = client.post("/v1/classify", content=body, headers={"content-type": "application/json"})
        assert response.status_code == 200
        first, second = response.json()["predictions"]
        assert first.get("flags") == flags
        assert ("error" in first) == (text == "\ud83d")
        assert "error" not in second


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 422, "invalid_request"),
        (b"{", 400, "malformed_body"),
        (b'{"texts": ["\xff"]}', 400, "malformed_body"),
        (b"[]", 422, "invalid_request"),
        (b"{}", 422, "invalid_request"),
        (b'{"texts": []}', 422, "invalid_request"),
        (b'{"texts": [5]}', 422, "invalid_request"),
        (b'{"texts": ["a"], "granularity": "word"}', 422, "invalid_request"),
        (b'{"texts": ["a"], "colour": "blue"}', 422, "invalid_request"),
        (b'{"texts": [{"id": "1", "text": "a", "more": 1}]}', 422, "invalid_request"),
        (b'{"texts": [' + b'"a",' * 8 + b'"a"]}', 413, "too_large"),
        (b'{"texts": ["' + b"a" * 70_000 + b'"]}', 413, "too_large"),
    ],
)
def test_bad_requests_get_problem_documents(client: TestClient, content: bytes, status: int, code: str) -> None:
    headers = {"content-type": "application/json", "x-request-id": "req-7"}
    response = client.post("/v1/classify", content=content, headers=headers)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["code"], problem["status"], problem["request_id"]) == (code, status, "req-7")
    assert response.headers["x-request-id"] == "req-7"
    assert problem["detail"]


def test_a_body_sent_in_chunks_meets_the_same_limit(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"texts": ["'
        for _ in range(20):
            yield b"a" * 10_000
        yield b'"]}'

    response = client.post("/v1/classify", content=chunks(), headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (413, "too_large")


def test_errors_never_repeat_what_was_sent(client: TestClient) -> None:
    for body in (
        {"texts": [{"id": "1", "text": 5, "note": SECRET}]},
        {"texts": SECRET},
        {SECRET: 1, "texts": ["a"]},
        {"texts": [{"id": "1", "text": "a", SECRET: 2}]},
    ):
        response = client.post("/v1/classify", json=body)
        assert response.status_code == 422
        assert SECRET not in response.text


def test_unknown_paths_and_methods_get_problem_documents(client: TestClient) -> None:
    for response, status in ((client.get(f"/{SECRET}"), 404), (client.get("/v1/classify"), 405)):
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"
        assert SECRET not in response.text


def test_a_failing_model_is_a_problem_and_its_words_stay_inside(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for error, code in ((EngineError("inference failed"), "engine_error"), (ValueError(SECRET), "internal_error")):

        def fail(*args: object, error: Exception = error, **kwargs: object) -> None:
            raise error

        monkeypatch.setattr(client.app.state.desk.host.active.classifier, "encode", fail)
        with caplog.at_level(logging.DEBUG):
            response = client.post("/v1/classify", json={"texts": [SECRET]})
        assert (response.status_code, response.json()["code"]) == (500, code)
        assert SECRET not in response.text
    formatter = JsonFormatter()
    own = [record for record in caplog.records if record.name.startswith("rasid")]
    assert own
    assert SECRET not in "".join(formatter.format(record) for record in own)


def test_the_log_has_one_line_a_request_and_no_text(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="rasid.access"):
        client.post(f"/v1/classify?q={SECRET}", json={"texts": [SECRET]})
    [record] = [r for r in caplog.records if r.name == "rasid.access"]
    line = json.loads(JsonFormatter().format(record))
    assert (line["route"], line["status"], line["method"]) == ("/v1/classify", 200, "POST")
    assert SECRET not in json.dumps(line)


def test_at_no_level_and_by_no_door_does_a_text_reach_the_log(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    text = f"They fled {SECRET}. أحرقوا {SECRET}"
    with caplog.at_level(logging.DEBUG):
        for path, body in (
            ("/v1/classify", {"texts": [text, {"id": "a", "text": text}], "granularity": "document", "evidence": True}),
            ("/v1/classify", {"texts": [text], "language": SECRET}),
            ("/v1/classify/stream?evidence=true", text),
            ("/v1/classify/stream", {"texts": SECRET}),
            ("/predict", {"inputs": [[text], [text]]}),
            ("/predict", {"inputs": {SECRET: text}}),
            ("/", {"inputs": text}),
        ):
            assert client.post(path, json=body).status_code in (200, 422)
        client.post("/v1/classify", content=f'{{"texts": ["{text}'.encode())
    assert len([record for record in caplog.records if record.name == "rasid.access"]) == 8
    for formatter in (JsonFormatter(), logging.Formatter()):
        assert SECRET not in "".join(formatter.format(record) for record in caplog.records)
    assert SECRET not in str([vars(record) for record in caplog.records])


def test_model_and_labels_describe_themselves(client: TestClient) -> None:
    labels = client.get("/v1/labels").json()
    assert labels["labels"][0]["id"] == "sectarian_violence"
    assert labels["labels"][1]["definition"]["ar"]
    model = client.get("/v1/model").json()
    assert len(model["model_hash"]) == 64
    assert model["base_licence"] == "MIT"
    assert model["quality"]["slices"]["ar"]["macro_f1"] > 0


def test_the_service_is_alive_and_ready(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}

    def fail(*args: object, **kwargs: object) -> None:
        raise EngineError("inference failed")

    monkeypatch.setattr(client.app.state.desk.host.active.scheduler, "_infer", fail)
    assert client.get("/livez").status_code == 200
    client.app.state.desk.host._ready_until = 0.0
    response = client.get("/readyz")
    assert (response.status_code, response.json()["code"]) == (503, "not_ready")
    assert int(response.headers["retry-after"]) >= 1


def test_an_unforeseen_failure_carries_the_request_id(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError(SECRET)

    monkeypatch.setattr("service.routes.model._describe", fail)
    response = client.get("/v1/model", headers={"x-request-id": "req-9"})
    assert (response.status_code, response.json()["request_id"]) == (500, "req-9")
    assert response.headers["x-request-id"] == "req-9"


def test_a_slash_too_many_is_not_redirected(client: TestClient) -> None:
    response = client.post("/v1/classify/", json={"texts": ["a"]}, follow_redirects=False)
    assert response.status_code == 404


def test_a_body_of_many_faults_is_refused_at_the_first(client: TestClient) -> None:
    content = b'{"texts": [' + b"5," * 9_000 + b"5]}"
    response = client.post("/v1/classify", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert len(response.json()["errors"]) <= 3
    assert response.json()["errors"][0]["pointer"] == "/texts/0"


def test_every_reference_of_the_openapi_document_leads_somewhere(client: TestClient) -> None:
    document = client.get("/openapi.json").json()

    def references(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    found = set(references(document))
    assert "#/components/schemas/ProblemDetail" in found
    for reference in found:
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]


def test_the_documentation_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "https://" not in page
    for script in re.findall(r'(?:src|href)="(/[^"]+)"', page):
        assert client.get(script).status_code == 200


def test_the_openapi_document_has_examples_in_both_languages(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    examples = json.dumps(document["components"]["schemas"]["ClassifyRequest"]["examples"], ensure_ascii=False)
    assert "الداخلية" in examples
    assert "ministry" in examples
    assert client.get("/").url.path == "/docs"


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RASID_PORT", "9000")
    monkeypatch.setenv("RASID_MAX_TEXTS", "3")
    assert (Settings().port, Settings().max_texts, Settings().host) == (9000, 3, "127.0.0.1")
