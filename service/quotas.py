"""Quotas: how many texts a key, or an address, may send in a span of time (sliding window, by the library `limits`)."""

from __future__ import annotations

import math

import limits
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from service.auth import Caller
from service.errors import QuotaError, TooLargeError
from service.settings import Settings


class Quotas:
    """Counts in memory, so each process counts for itself."""

    def __init__(self, settings: Settings) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._per_key = _parse(settings.rate_per_key)
        self._per_address = _parse(settings.rate_per_address)

    def spend(self, caller: Caller, address: str, texts: int) -> None:
        """Count texts against the caller's quotas. Raises QuotaError, with the seconds to wait, where one is used up."""
        own = _parse(caller.rate) or self._per_key
        held = [(own, ("key", caller.name))] if own and caller.name != "anonymous" else []
        held += [(self._per_address, ("address", address))] if self._per_address else []
        for limit, who in held:
            if texts > limit.amount:
                raise TooLargeError(f"expected at most {limit.amount} texts, the whole quota of {limit}, got {texts}")
            if not self._limiter.test(limit, *who, cost=texts):
                lacking = texts - self._limiter.get_window_stats(limit, *who).remaining
                seconds = max(1, math.ceil(lacking * limit.get_expiry() / limit.amount))
                raise QuotaError(f"the quota of {limit} texts is used up; go on in {seconds} s", retry_after_seconds=seconds)
        for limit, who in held:
            self._limiter.hit(limit, *who, cost=texts)


def _parse(rate: str | None) -> limits.RateLimitItem | None:
    return limits.parse(rate) if rate else None
