from __future__ import annotations

import stat
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from models.classifier import Classifier
from models.errors import InputError
from service.app import create_app, is_exposed
from service.auth import KeyRing, Scope, add_key, read_keys, remove_key
from service.cli import app
from service.errors import ForbiddenError, UnauthorizedError
from service.settings import Settings
from tests.conftest import LOOPBACK

BODY = {"texts": ["They fled."]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_key_is_known_by_its_hash_alone(file: Path) -> None:
    key = add_key(file, "newsroom", scopes=[Scope.CLASSIFY], rate="60/minute")
    assert key not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    ring = KeyRing.open(file)
    for authorization, api_key in ((f"Bearer {key}", ""), (f"bearer  {key} ", ""), ("", key)):
        caller = ring.identify(authorization, api_key)
        assert (caller.name, caller.rate) == ("newsroom", "60/minute")
    caller.require(Scope.CLASSIFY)
    with pytest.raises(ForbiddenError, match="admin"):
        caller.require(Scope.ADMIN)
    for wrong in ("", key[:-1], key + "x", "é\udcff", read_keys(file)[0].sha256):
        with pytest.raises(UnauthorizedError):
            ring.identify(f"Bearer {wrong}", "")


def test_keys_are_added_and_removed_one_by_one(file: Path) -> None:
    first = add_key(file, "a", scopes=[Scope.CLASSIFY])
    second = add_key(file, "b", scopes=[Scope.JOBS, Scope.JOBS, Scope.ADMIN])
    assert KeyRing.open(file).identify(f"Bearer {second}", "").scopes == (Scope.JOBS, Scope.ADMIN)
    with pytest.raises(InputError, match="there is a key named a"):
        add_key(file, "a", scopes=[Scope.CLASSIFY])
    remove_key(file, "b")
    ring = KeyRing.open(file)
    assert ring.identify("", first).name == "a"
    with pytest.raises(UnauthorizedError):
        ring.identify("", second)
    with pytest.raises(InputError, match="no key named b"):
        remove_key(file, "b")
    for name, rate in (("bad name", None), ("c", "many"), ("anonymous", None)):
        with pytest.raises(InputError):
            add_key(file, name, scopes=[Scope.CLASSIFY], rate=rate)


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"keys": [{"name": "a"}]}', b"\xff", b'{"keys": []}'])
def test_a_file_without_usable_keys_stops_the_start(file: Path, content: bytes | None) -> None:
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError):
        KeyRing.open(file)


def test_with_keys_nothing_but_health_and_documents_is_open(released: Classifier, file: Path) -> None:
    plain = add_key(file, "plain", scopes=[Scope.CLASSIFY])
    jobs = add_key(file, "jobs", scopes=[Scope.JOBS])
    admin = add_key(file, "admin", scopes=[Scope.ADMIN])
    with TestClient(create_app(released, Settings(keys=file)), base_url=LOOPBACK) as client:
        for path in ("/livez", "/readyz", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200
        for method, path in (("GET", "/metrics"), ("GET", "/v1/model"), ("GET", "/nowhere"), ("POST", "/v1/classify")):
            response = client.request(method, path, content=b"not json")  # refused before the body is looked at
            assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"
        told = {"Authorization": f"Bearer {plain}"}
        assert client.post("/v1/classify", json=BODY, headers=told).status_code == 200
        assert client.get("/metrics", headers=told).status_code == 403
        assert client.get("/metrics", headers={"X-Api-Key": admin}).status_code == 200
        response = client.post("/v1/model/rollback", headers=told)
        assert (response.status_code, response.json()["code"]) == (403, "forbidden")
        assert client.post("/v1/classify", json=BODY, headers={"X-Api-Key": jobs}).status_code == 403


def test_quotas_count_texts_by_key_and_by_address(released: Classifier, file: Path) -> None:
    free = add_key(file, "free", scopes=[Scope.CLASSIFY])
    small = add_key(file, "small", scopes=[Scope.CLASSIFY], rate="3/hour")
    settings = Settings(keys=file, rate_per_address="6/hour")
    with TestClient(create_app(released, settings), base_url=LOOPBACK) as client:

        def send(key: str, texts: int) -> tuple[int, str]:
            response = client.post("/v1/classify", json={"texts": ["a"] * texts}, headers={"X-Api-Key": key})
            return response.status_code, response.headers.get("retry-after", "")

        assert send(small, 4)[0] == 413
        assert send(small, 2) == (200, "")
        status, wait = send(small, 2)
        assert status == 429
        assert int(wait) == 1_200  # one text too many of three an hour
        assert send(small, 1)[0] == 200
        assert send(free, 3)[0] == 200
        assert send(free, 1)[0] == 429
        limits = client.get("/v1/limits", headers={"X-Api-Key": small}).json()
        assert (limits["caller"], limits["rate"], limits["rate_per_address"]) == ("small", "3/hour", "6/hour")


@pytest.mark.parametrize("header", ["Origin", "X-Forwarded-For", "X-Real-IP", "Via", "Host", "Sec-Fetch-Site"])
def test_a_page_or_a_gateway_without_a_key_administers_nothing(released: Classifier, header: str) -> None:
    with TestClient(create_app(released, Settings()), base_url=LOOPBACK) as client:
        assert client.post("/v1/model/rollback").json()["code"] == "activation_failed"
        for path in ("/v1/model/rollback", "/v1/jobs"):
            response = client.post(path, headers={header: "evil.example:80"})
            assert (response.status_code, response.json()["code"]) == (403, "forbidden")
        assert client.post("/v1/classify", json=BODY, headers={header: "evil.example:80"}).status_code == 200


@pytest.mark.parametrize(
    ("options", "exposed"),
    [
        ({}, False),
        ({"host": "::1"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "10.0.0.7"}, True),
        ({"host": "0.0.0.0", "allow_anonymous": True}, False),
        ({"host": "0.0.0.0", "keys": "keys.json"}, False),
    ],
)
def test_beyond_loopback_keys_are_wanted(options: dict, exposed: bool) -> None:
    assert is_exposed(Settings(**options)) == exposed


def test_the_command_line_makes_lists_and_removes_keys_and_refuses_to_serve_in_the_open(file: Path) -> None:
    runner = CliRunner()
    done = runner.invoke(app, ["keys", "add", "desk", "--scope", "classify", "--scope", "admin", "--file", str(file)])
    assert done.exit_code == 0, done.output
    assert KeyRing.open(file).identify("", done.stdout.strip()).scopes == (Scope.CLASSIFY, Scope.ADMIN)
    listed = runner.invoke(app, ["keys", "list"], env={"RASID_KEYS": str(file)})
    assert listed.stdout.startswith("desk\tclassify,admin\t-\t")
    assert runner.invoke(app, ["keys", "remove", "other", "--file", str(file)]).exit_code == 2
    assert runner.invoke(app, ["keys", "remove", "desk", "--file", str(file)]).exit_code == 0
    refused = runner.invoke(app, ["serve", "--host", "0.0.0.0"])
    assert refused.exit_code == 2
    assert "rasid keys add" in refused.output


def test_beyond_loopback_nobody_without_a_key_sees_or_sends_jobs(released: Classifier) -> None:
    settings = Settings(host="0.0.0.0", allow_anonymous=True)
    with TestClient(create_app(released, settings), base_url=LOOPBACK) as client:
        assert client.get("/v1/jobs").status_code == 403
        assert client.post("/v1/model/rollback").status_code == 403
        assert client.post("/v1/classify", json=BODY).status_code == 200
