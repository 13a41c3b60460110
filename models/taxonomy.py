"""The taxonomy: which labels there are, in which order, and what they mean in each language.

A model's outputs, a labelled example and a decision rule all refer to one taxonomy by name and version. Rasid's own is
`taxonomy.json` beside this module; a bundle carries the one that its model was trained for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.errors import TaxonomyError, told_value

DEFAULT_TAXONOMY_PATH = Path(__file__).with_name("taxonomy.json")


class Label(BaseModel):
    """One label: a stable id, and a name and a definition for each language."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    name: dict[str, str]
    definition: dict[str, str] = Field(default_factory=dict)


class Taxonomy(BaseModel):
    """The labels of a task, in the order of the model's outputs, and the languages it is decided in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    languages: tuple[str, ...] = Field(min_length=1)
    labels: tuple[Label, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _labels_differ(self) -> Self:
        ids = [label.id for label in self.labels]
        if len(set(ids)) != len(ids):
            raise ValueError(f"label ids must differ, got {ids}")
        return self

    @cached_property
    def label_ids(self) -> tuple[str, ...]:
        """The ids of the labels in the order of the model's outputs."""
        return tuple(label.id for label in self.labels)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON: equal for equal taxonomies whatever the file's layout."""
        canonical = json.dumps(self.model_dump(mode="json"), ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def check_labels(self, labels: Iterable[str]) -> None:
        """Raise TaxonomyError where a label is not of this taxonomy."""
        unknown = sorted(set(labels) - set(self.label_ids))
        if unknown:
            raise TaxonomyError(
                f"unknown label {told_value(unknown[0])}; taxonomy {self.name} {self.version} has {', '.join(self.label_ids)}"
            )


def load_taxonomy(path: Path = DEFAULT_TAXONOMY_PATH) -> Taxonomy:
    """Read a taxonomy from JSON. Raises TaxonomyError where the file is missing or breaks the format."""
    try:
        return Taxonomy.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise TaxonomyError(f"expected a taxonomy file at {path}, found none") from error
    except ValidationError as error:
        raise TaxonomyError(f"{path.name} is not a taxonomy: {error}") from error
