"""The bundle: one directory that is all a model is, verified by hash.

`manifest.json` names every file with its SHA-256. The four files that decide an answer (`model.onnx`, `tokenizer.json`,
`taxonomy.json`, `decision.json`) make up the `model_hash`, by which a report names the model it measured. A candidate
bundle becomes a released one by its seal: the SHA-256 of the whole manifest, written last, with the report and the model
card inside. Hashes tell damage and mix-ups, not forgery by somebody who can rewrite the directory.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tokenizers import Tokenizer

from models.decision import DecisionRule
from models.errors import BundleCorruptError, BundleNotFoundError, BundleUnsealedError, TaxonomyError
from models.taxonomy import Taxonomy, load_taxonomy

FORMAT_VERSION = 1
MODEL_FILES = ("model.onnx", "tokenizer.json", "taxonomy.json", "decision.json")
RELEASE_FILES = ("MODEL_CARD.md", "report.json")
RELEASED_DIRECTORY = Path(__file__).with_name("released")


class Manifest(BaseModel):
    """What a bundle says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int
    name: str
    version: str
    created: str = Field(description="UTC time, ISO 8601.")
    taxonomy: str = Field(description="Name and version of the taxonomy.")
    base_model: str
    base_licence: str
    max_tokens: int = Field(gt=2)
    data: dict[str, str] = Field(description="SHA-256 of each labelled file the model was trained on, by name.")
    training: dict[str, Any] = Field(description="Arguments, seed and history of the training.")
    quality: dict[str, Any] = Field(default_factory=dict, description="Summary of what was measured.")
    files: dict[str, str] = Field(description="SHA-256 of each file, by name.")
    seal: str | None = None

    @property
    def model_hash(self) -> str:
        """SHA-256 over names and hashes of the files that decide an answer."""
        content = "".join(f"{name}:{self.files[name]}\n" for name in MODEL_FILES)
        return hashlib.sha256(content.encode()).hexdigest()

    def expected_seal(self) -> str:
        """The seal that this manifest must carry once released."""
        content = json.dumps(self.model_dump(mode="json", exclude={"seal"}), ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle on disk."""

    path: Path
    manifest: Manifest
    taxonomy: Taxonomy
    decision: DecisionRule

    @property
    def model_path(self) -> Path:
        """The ONNX file."""
        return self.path / "model.onnx"

    @property
    def sealed(self) -> bool:
        """Whether the bundle was released."""
        return self.manifest.seal is not None

    def tokenizer(self) -> Tokenizer:
        """The tokenizer, without truncation or padding."""
        tokenizer = Tokenizer.from_file(str(self.path / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer


def released_bundle_path() -> Path:
    """Where the bundle that Rasid ships lies. Raises BundleNotFoundError where there is not exactly one."""
    found = sorted(path.parent for path in RELEASED_DIRECTORY.glob("*/manifest.json"))
    if len(found) != 1:
        raise BundleNotFoundError(
            f"expected one released bundle in {RELEASED_DIRECTORY}, found {len(found)}; name one with RASID_BUNDLE"
        )
    return found[0]


def load_bundle(path: Path, *, require_seal: bool = True) -> Bundle:
    """Read a bundle and verify every hash.

    Raises BundleNotFoundError, BundleCorruptError (missing, altered or inconsistent files) or, unless
    `require_seal=False`, BundleUnsealedError for a candidate.
    """
    manifest = read_manifest(path)
    if require_seal and manifest.seal is None:
        raise BundleUnsealedError(f"{path} is a candidate, not a release; run rasid-train release on it first")
    if manifest.seal is not None and manifest.seal != manifest.expected_seal():
        raise BundleCorruptError(f"{path / 'manifest.json'} was changed after the bundle was sealed")
    needed = (*MODEL_FILES, *RELEASE_FILES) if manifest.seal is not None else MODEL_FILES
    for name in sorted({*needed, *manifest.files}):
        if name not in manifest.files:
            raise BundleCorruptError(f"{path / 'manifest.json'} has no hash for {name}")
        if not (path / name).is_file():
            raise BundleCorruptError(f"{path} lacks {name}; fetch the bundle again")
        if hash_file(path / name) != manifest.files[name]:
            raise BundleCorruptError(f"{path / name} is not the file the manifest names; fetch the bundle again")
    try:
        taxonomy = load_taxonomy(path / "taxonomy.json")
        decision = DecisionRule.model_validate_json((path / "decision.json").read_bytes())
        decision.check(taxonomy)
    except (ValidationError, TaxonomyError) as error:
        raise BundleCorruptError(f"{path}: {error}") from error
    return Bundle(path, manifest, taxonomy, decision)


def read_manifest(path: Path) -> Manifest:
    """Read a bundle's manifest without verifying files. Raises BundleNotFoundError or BundleCorruptError."""
    file = path / "manifest.json"
    if not file.is_file():
        raise BundleNotFoundError(f"expected a bundle with manifest.json at {path}, found none")
    try:
        content = json.loads(file.read_bytes())
        if not isinstance(content, dict) or content.get("format_version") != FORMAT_VERSION:
            got = content.get("format_version") if isinstance(content, dict) else type(content).__name__
            raise BundleCorruptError(f"{file}: expected bundle format {FORMAT_VERSION}, got {got}")
        return Manifest.model_validate(content)
    except (ValueError, ValidationError) as error:
        raise BundleCorruptError(f"{file} is not a manifest: {error}") from error


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest, last of all files, in one step."""
    partial = path / "manifest.json.part"
    partial.write_text(
        json.dumps(manifest.model_dump(mode="json"), ensure_ascii=False, indent=2, sort_keys=True) + "\n",
        encoding="utf-8",
    )
    partial.replace(path / "manifest.json")


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
