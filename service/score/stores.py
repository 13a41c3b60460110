"""Files in object stores, by URL: `s3://`, `gs://`, `abfs://`, `hdfs://`, `file://`, as pyarrow opens them."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from models.errors import InputError

_URL_CHARACTERS = "%/:?=&@+,;!$'()*"  # beside letters and digits; what else is in a URL is a name as people write it


def is_url(path: str) -> bool:
    """Whether a path names a file in a store rather than one of this machine's."""
    return "://" in path


def list_urls(url: str) -> list[str]:
    """The files at a URL, in a folder of it, or that match its `*`, in order. Raises InputError where there is none."""
    from pyarrow import fs  # noqa: PLC0415 - takes a while

    named, mark, query = url.partition("?")
    folder = named[: named.index("*")].rpartition("/")[0] if "*" in named else named.rstrip("/")
    store, path = _open_store(folder + mark + query)
    try:
        if store.get_file_info(path).type == fs.FileType.File:
            return [url]
        inside = store.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    except OSError as error:
        raise InputError(f"{url}: cannot be listed: {type(error).__name__}") from None
    found = sorted(entry.path.removeprefix(path).lstrip("/") for entry in inside if entry.type == fs.FileType.File)
    if "*" in named:
        pattern = unquote(named.removeprefix(folder)).lstrip("/")
        found = [entry for entry in found if fnmatch.fnmatchcase(entry, pattern)]
    if not found:
        raise InputError(f"there is no file at {url}")
    return [f"{folder}/{quote(entry, safe='/')}{mark}{query}" for entry in found]


def facts_of_url(url: str) -> tuple[int, int]:
    """The size of a file in bytes and the time it was changed, in nanoseconds."""
    store, path = _open_store(url)
    info = store.get_file_info(path)
    return int(info.size or 0), int(info.mtime_ns or 0)


def open_url(url: str) -> Any:
    """A binary file that can be read and sought in. Raises InputError."""
    store, path = _open_store(url)
    try:
        return store.open_input_file(path)
    except OSError as error:
        raise InputError(f"{url}: cannot be read: {type(error).__name__}") from None


def check_url(url: str) -> None:
    """Raise InputError where there is no folder or bucket to put a file of this URL into."""
    from pyarrow import fs  # noqa: PLC0415

    store, path = _open_store(url)
    folder, _, _name = path.rpartition("/")
    place = folder if folder.startswith("/") else folder.partition("/")[0]  # a store of objects has no folders but buckets
    try:
        found = store.get_file_info(place or path).type
    except OSError as error:
        raise InputError(f"{url}: cannot be reached: {type(error).__name__}") from None
    if found != fs.FileType.Directory:
        raise InputError(f"there is no {place} to put {url} into; make it first")


def upload(local: Path, url: str) -> None:
    """Put a whole file into a store. Raises InputError."""
    from pyarrow import fs  # noqa: PLC0415

    store, path = _open_store(url)
    try:
        fs.copy_files(str(local), path, fs.LocalFileSystem(), store)
    except OSError as error:
        raise InputError(f"{url}: cannot be written: {type(error).__name__}") from None


def _open_store(url: str) -> tuple[Any, str]:
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import fs  # noqa: PLC0415

    try:
        store, path = fs.FileSystem.from_uri(quote(url, safe=_URL_CHARACTERS))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise InputError(
            f"{url}: expected a URL such as s3://BUCKET/KEY, gs://BUCKET/KEY or file:///PATH: {type(error).__name__}"
        ) from None
    return store, str(path)
