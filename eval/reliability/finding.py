"""What a proof found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One proof: its figures, and each demand with whether it was met."""

    name: str
    figures: Mapping[str, float]
    demands: Mapping[str, bool]

    @property
    def passed(self) -> bool:
        """Whether every demand was met."""
        return all(self.demands.values())

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {**asdict(self), "passed": self.passed}
