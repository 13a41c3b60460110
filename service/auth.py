"""Who calls: API keys with scopes and quotas, kept as hashes in one file.

A key is 256 random bits, so one SHA-256 of it is as hard to turn back as the key is to guess; a slow hash would add nothing but
time to every request. Keys are compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import InputError
from service.errors import ForbiddenError, UnauthorizedError

_PREFIX = "rasid_"
_ANONYMOUS = "anonymous"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_RATE = r"^\d+ ?/ ?(second|minute|hour|day)$"


class Scope(StrEnum):
    """What a key may do."""

    CLASSIFY = "classify"
    JOBS = "jobs"
    ADMIN = "admin"


class Caller(BaseModel):
    """Somebody who may call, under a name that may be logged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=_NAME)
    scopes: tuple[Scope, ...]
    rate: str | None = Field(default=None, pattern=_RATE, description="Texts that may be sent, as 6000/minute.")

    def require(self, scope: Scope) -> None:
        """Raise ForbiddenError without the scope."""
        if scope not in self.scopes:
            raise ForbiddenError(f"this needs a key with the scope {scope}; this caller has {', '.join(self.scopes) or 'none'}")


class StoredKey(Caller):
    """A key as the file keeps it: only its hash."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    created: str


class _KeyFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: list[StoredKey]


class KeyRing:
    """The keys of one service. Without any, every caller is `anonymous` with the scopes given for that."""

    def __init__(
        self, keys: Sequence[StoredKey], *, anonymous_scopes: Sequence[Scope], stranger_scopes: Sequence[Scope] = ()
    ) -> None:
        self._keys = [(bytes.fromhex(key.sha256), key) for key in keys]
        self.anonymous = Caller(name=_ANONYMOUS, scopes=() if keys else tuple(anonymous_scopes))
        self.stranger = Caller(name=_ANONYMOUS, scopes=() if keys else tuple(stranger_scopes))
        """Anonymous by way of a web page or a gateway: the machine's owner may not know of it."""

    @classmethod
    def open(
        cls,
        path: Path | None,
        *,
        anonymous_scopes: Sequence[Scope] = tuple(Scope),
        stranger_scopes: Sequence[Scope] = (Scope.CLASSIFY,),
    ) -> Self:
        """The keys of a file; with no path, none. Raises InputError where it cannot be used or holds no key."""
        if path is None:
            return cls([], anonymous_scopes=anonymous_scopes, stranger_scopes=stranger_scopes)
        keys = read_keys(path)
        if not keys:
            raise InputError(f"{path} holds no key; make one with rasid keys add NAME --file {path}")
        return cls(keys, anonymous_scopes=())

    def identify(self, authorization: str, api_key: str) -> Caller:
        """Who a request's `Authorization: Bearer` or `X-Api-Key` header names. Raises UnauthorizedError."""
        if not self._keys:
            return self.anonymous
        kind, _, given = authorization.partition(" ")
        given = given.strip() if kind.lower() == "bearer" else api_key.strip()
        if not given:
            raise UnauthorizedError("expected an API key as Authorization: Bearer KEY or X-Api-Key: KEY; there was none")
        digest = hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest()
        found: Caller | None = None
        for known, key in self._keys:  # all of them, so that the time tells nothing
            if hmac.compare_digest(known, digest):
                found = key
        if found is None:
            raise UnauthorizedError("the API key is not known; ask whoever runs this service for one")
        return found


def read_keys(path: Path) -> list[StoredKey]:
    """The keys that a file holds. Raises InputError where it is none of `rasid keys`."""
    try:
        return _KeyFile.model_validate_json(path.read_bytes()).keys
    except FileNotFoundError:
        raise InputError(f"there is no key file {path}; make one with rasid keys add NAME --file {path}") from None
    except (OSError, ValidationError) as error:
        raise InputError(f"{path} is not a key file of rasid keys: {type(error).__name__}") from None


def add_key(path: Path, name: str, *, scopes: Sequence[Scope], rate: str | None = None) -> str:
    """Make a key, store its hash, and return it: it cannot be shown again. Raises InputError for a name in use."""
    keys = read_keys(path) if path.exists() else []
    if name == _ANONYMOUS:
        raise InputError(f"the name {name} stands for callers without a key; take another")
    if any(key.name == name for key in keys):
        raise InputError(f"there is a key named {name} in {path}; take another name, or rasid keys remove {name}")
    key = _PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(key.encode()).hexdigest()
    created = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        stored = StoredKey(name=name, scopes=tuple(dict.fromkeys(scopes)), rate=rate, sha256=digest, created=created)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise InputError(f"{first['loc'][0]}: {first['msg']}") from None
    _write(path, [*keys, stored])
    return key


def remove_key(path: Path, name: str) -> None:
    """Take a key away. Raises InputError where there is none of that name."""
    keys = read_keys(path)
    kept = [key for key in keys if key.name != name]
    if len(kept) == len(keys):
        raise InputError(f"there is no key named {name} in {path}; rasid keys list shows what there is")
    _write(path, kept)


def _write(path: Path, keys: list[StoredKey]) -> None:
    """Replace the file in one step, readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    content = _KeyFile(keys=keys).model_dump_json(indent=1) + "\n"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
