from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from huggingface_hub import InferenceClient

from models.classifier import Classifier
from service.app import create_app
from service.settings import Settings
from tests.conftest import LOOPBACK

FLIGHT = "Hundreds of families fled the burning quarter."
LABELS = {"sectarian_violence", "displacement", "official_statement", "accountability_call"}


@pytest.fixture(scope="module")
def client(released: Classifier) -> Iterator[TestClient]:
    with TestClient(create_app(released, Settings(max_texts=4, max_text_characters=50_000)), base_url=LOOPBACK) as client:
        yield client


def test_predict_answers_one_text_with_its_labels_best_first(client: TestClient, released: Classifier) -> None:
    [expected] = released.classify([FLIGHT])
    for inputs in (FLIGHT, [FLIGHT]):
        scores = client.post("/predict", json={"inputs": inputs}).json()
        assert {entry["label"] for entry in scores} == LABELS
        assert scores[0]["label"] == "displacement"
        assert [entry["score"] for entry in scores] == sorted((entry["score"] for entry in scores), reverse=True)
        assert {entry["label"]: entry["score"] for entry in scores} == {
            label: given.probability for label, given in expected.labels.items()
        }
    raw = client.post("/predict", json={"inputs": FLIGHT, "raw_scores": True}).json()
    assert raw[0]["score"] > 0 > raw[-1]["score"]


def test_predict_answers_a_batch_in_its_order(client: TestClient) -> None:
    found = client.post("/predict", json={"inputs": [["Rain."], [FLIGHT]]}).json()
    assert len(found) == 2
    assert found[1] == client.post("/predict", json={"inputs": FLIGHT}).json()


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"inputs": ["a", "b"]}, 422, "Tokenizer"),
        ({"inputs": [["a"], ["b", "c"]]}, 422, "Tokenizer"),
        ({"inputs": [["a"]] * 5}, 413, "Validation"),
        ({"inputs": " \u200b"}, 400, "Empty"),
        ({"inputs": "word " * 2_000, "truncate": False}, 413, "Validation"),
        ({"inputs": "x" * 50_001}, 413, "Validation"),
    ],
)
def test_predict_refuses_as_text_embeddings_inference_does(client: TestClient, body: dict, status: int, kind: str) -> None:
    response = client.post("/predict", json=body)
    assert response.status_code == status
    assert response.json()["error_type"] == kind
    assert response.json()["error"]


def test_predict_cuts_a_long_text_when_told_to(client: TestClient) -> None:
    assert client.post("/predict", json={"inputs": "word " * 2_000, "truncate": True}).status_code == 200


def test_the_client_of_hugging_face_is_answered(address: str) -> None:
    client = InferenceClient(base_url=address)
    found = client.text_classification(FLIGHT)
    assert found[0].label == "displacement"
    assert {entry.label for entry in found} == LABELS
    best = client.text_classification("نزحت مئات العائلات من القرية بعد القصف.", top_k=1)
    assert [entry.label for entry in best] == ["displacement"]
    shares = client.text_classification(FLIGHT, function_to_apply="softmax")
    assert sum(entry.score for entry in shares) == pytest.approx(1)
    odds = client.text_classification(FLIGHT, function_to_apply="none")
    assert odds[0].score > 0 > odds[-1].score


def test_an_empty_text_is_a_problem_at_the_client_of_hugging_face(client: TestClient) -> None:
    response = client.post("/", json={"inputs": " "})
    assert (response.status_code, response.json()["code"]) == (422, "empty_text")
