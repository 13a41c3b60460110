from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from models.bundle import MODEL_FILES, load_bundle, read_manifest, released_bundle_path, write_manifest
from models.errors import BundleCorruptError, BundleNotFoundError, BundleUnsealedError


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


def edit(path: Path, **changes: object) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | changes))


def test_a_candidate_opens_only_when_no_seal_is_asked_for(copy: Path) -> None:
    assert load_bundle(copy, require_seal=False).manifest.name == "tiny"
    with pytest.raises(BundleUnsealedError, match="rasid-train release"):
        load_bundle(copy)


@pytest.mark.parametrize("name", MODEL_FILES)
def test_an_altered_file_is_refused(copy: Path, name: str) -> None:
    with (copy / name).open("ab") as handle:
        handle.write(b" ")
    with pytest.raises(BundleCorruptError, match=name):
        load_bundle(copy, require_seal=False)


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleCorruptError, match=name):
        load_bundle(copy, require_seal=False)


def test_a_manifest_changed_after_sealing_is_refused(tmp_path: Path) -> None:
    sealed = Path(shutil.copytree(released_bundle_path(), tmp_path / "sealed"))
    load_bundle(sealed)
    edit(sealed, version="9.9.9")
    with pytest.raises(BundleCorruptError, match="after the bundle was sealed"):
        load_bundle(sealed)


def test_another_format_version_is_refused(copy: Path) -> None:
    edit(copy, format_version=99)
    with pytest.raises(BundleCorruptError, match="expected bundle format 1, got 99"):
        load_bundle(copy, require_seal=False)


@pytest.mark.parametrize("content", ["", "[]", "{}", "not json", '{"format_version": 1}'])
def test_a_broken_manifest_is_refused(copy: Path, content: str) -> None:
    (copy / "manifest.json").write_text(content)
    with pytest.raises(BundleCorruptError):
        load_bundle(copy, require_seal=False)


def test_no_bundle_at_all_is_told(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError, match="found none"):
        load_bundle(tmp_path)


def test_rules_for_other_labels_are_refused(copy: Path) -> None:
    decision = json.loads((copy / "decision.json").read_text())
    del decision["rules"]["ar"]["displacement"]
    (copy / "decision.json").write_text(json.dumps(decision))
    manifest = read_manifest(copy)
    from models.bundle import hash_file

    files = manifest.files | {"decision.json": hash_file(copy / "decision.json")}
    write_manifest(copy, manifest.model_copy(update={"files": files}))
    with pytest.raises(BundleCorruptError, match="expected rules for"):
        load_bundle(copy, require_seal=False)


def test_the_released_bundle_is_sealed_small_and_documented() -> None:
    bundle = load_bundle(released_bundle_path())
    assert bundle.sealed
    assert sum(path.stat().st_size for path in bundle.path.iterdir()) <= 60_000_000
    assert bundle.manifest.base_licence == "MIT"
    card = (bundle.path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert bundle.manifest.model_hash in card
    report = json.loads((bundle.path / "report.json").read_text(encoding="utf-8"))
    assert report["model_hash"] == bundle.manifest.model_hash
