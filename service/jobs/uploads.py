"""A multipart form whose file goes straight to the disk, and never into memory."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import python_multipart
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from models.errors import InputError
from service.errors import StorageFullError

_CHUNK_BYTES = 1024 * 1024
_RESERVE_BYTES = 256 * 1024 * 1024
_MOST_FIELDS, _MOST_FIELD_BYTES = 32, 4_096
_FILE = "file"


class FormError(InputError):
    """A body is not the form that is expected."""

    code = "invalid_form"


@dataclass(slots=True)
class Upload:
    """A form that came in: its fields, and its file as it lies on the disk."""

    path: Path
    fields: dict[str, str] = field(default_factory=dict)
    name: str = ""
    size: int = 0
    sha256: str = ""
    has_file: bool = False


async def receive_form(body: AsyncIterator[bytes], content_type: str, path: Path) -> Upload:
    """Read a form with one file, named `file`, which goes to `path`.

    Raises FormError where it is no such form, StorageFullError where the disk is full; then nothing is left at `path`.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise FormError("expected a form, multipart/form-data, with a file in the field file")
    form = _Form(path)
    waiting = bytearray()
    try:
        with _told():
            parser = python_multipart.MultipartParser(options[b"boundary"], form.callbacks())
            async for chunk in body:
                waiting += chunk
                if len(waiting) >= _CHUNK_BYTES:
                    await asyncio.to_thread(parser.write, bytes(waiting))
                    waiting.clear()
            await asyncio.to_thread(parser.write, bytes(waiting))
            return await asyncio.to_thread(form.finish)
    except BaseException:
        form.close()
        path.unlink(missing_ok=True)
        raise


def check_room(folder: Path, size: int) -> None:
    """Raise StorageFullError where a file of so many bytes would fill the disk."""
    if shutil.disk_usage(folder).free < size + _RESERVE_BYTES:
        raise _full()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except FormParserError:
        raise FormError("expected a form, multipart/form-data; it does not parse") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _full() from None
        raise


def _full() -> StorageFullError:
    return StorageFullError("there is no room on the disk for this file; try again later", retry_after_seconds=600)


class _Form:
    """What the parser tells, part by part."""

    def __init__(self, path: Path) -> None:
        self._upload = Upload(path)
        self._digest = hashlib.sha256()
        self._file: IO[bytes] | None = None
        self._header, self._value = b"", b""
        self._disposition = b""
        self._name = ""
        self._content = bytearray()
        self._is_file = False
        self._whole = False

    def callbacks(self) -> python_multipart.multipart.MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._start,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finished,
        }

    def finish(self) -> Upload:
        if not self._whole:
            raise FormError("expected a whole form, its last boundary is missing")
        if self._file is None:
            raise FormError("expected a file in the field file, there is none")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._upload.sha256 = self._digest.hexdigest()
        return self._upload

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _begin(self) -> None:
        self._header, self._value, self._disposition = b"", b"", b""
        self._content.clear()

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _start(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = self._name == _FILE and b"filename" in options
        if self._is_file:
            if self._upload.has_file:
                raise FormError("expected one file, got more; send a job for each")
            self._upload.has_file = True
            self._upload.name = options[b"filename"].decode("utf-8", "replace")
            self._file = self._upload.path.open("xb", buffering=_CHUNK_BYTES)
        elif b"filename" in options or not self._name or self._name == _FILE:
            raise FormError("expected a file in the field file and options in the others")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file and self._file is not None:
            self._file.write(data[start:end])
            self._digest.update(data[start:end])
            self._upload.size += end - start
            return
        self._content += data[start:end]
        if len(self._content) > _MOST_FIELD_BYTES:
            raise FormError(f"expected options of at most {_MOST_FIELD_BYTES} bytes, got a longer one")

    def _end(self) -> None:
        if self._is_file:
            return
        if self._name in self._upload.fields or len(self._upload.fields) >= _MOST_FIELDS:
            raise FormError("expected each option once")
        self._upload.fields[self._name] = self._content.decode("utf-8", "replace")

    def _finished(self) -> None:
        self._whole = True
