"""The service against its own OpenAPI document, by schemathesis: what is described is what happens, whatever is sent."""

from __future__ import annotations

import math
import os
from pathlib import Path

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from models.classifier import Classifier
from service.app import create_app
from service.auth import Scope, add_key
from service.settings import Settings

EXAMPLES = int(os.environ.get("RASID_CONTRACT_EXAMPLES", "20"))  # of each operation, valid and not


UNTOLD = ("visible character", "unknown_file_type", "idempotency_key_reused")
"""What no schema tells: which characters are visible, which bytes are rows, which key was used before."""


@schemathesis.serializer("application/x-ndjson")
def lines(_context: object, value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_what_is_described_is_what_happens(released: Classifier, mode: GenerationMode, tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys.json", "tester", scopes=list(Scope))
    app = create_app(released, Settings(max_texts=64, keys=tmp_path / "keys.json", jobs=tmp_path / "jobs", max_jobs=10_000))
    app.state.desk.jobs._pause_until = math.inf  # what is sent is no file of rows: a worker would only take time
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    seen = []
    for found in schema.get_all_operations():
        operation = found.ok()
        seen.append(operation.label)

        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        @hypothesis.settings(
            max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
        )
        def call(case: schemathesis.Case) -> None:
            response = case.call(headers={"Authorization": f"Bearer {key}"})
            excluded = []
            if response.status_code == 504:
                excluded.append(not_a_server_error)  # what was asked for in too short a time is told so
            if "stream" in case.operation.path:
                excluded.append(negative_data_rejection)  # a line that cannot be used is answered in its place
            form = case.body if isinstance(case.body, dict) and case.media_type == "multipart/form-data" else {}
            if any(not isinstance(form.get(name, ""), str) for name in ("text_column", "id_column")):
                excluded.append(negative_data_rejection)  # on the wire the name of a column is a string whatever it was
            if any(reason in response.text for reason in UNTOLD):
                excluded.append(positive_data_acceptance)
            case.validate_response(response, excluded_checks=excluded)

        try:
            call()
        except hypothesis.errors.Unsatisfiable:  # nothing can be wrong about a request without parameters
            assert mode is GenerationMode.NEGATIVE
    app.state.desk.jobs.close()
    app.state.desk.host.close()
    assert "POST /v1/classify" in seen
    assert len(seen) >= 12
