"""Published measurements: plain JSON with a schema version, finite numbers only, replaced as a whole."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contexture.errors import InputError
from contexture.store import json_text
from contexture.store.atomic import DISK, Disk, write_file

SCHEMA = 1


def write_result(path: str | Path, document: Mapping[str, Any], *, disk: Disk = DISK) -> None:
    """Write `document`, with the schema version as its first key, so that a reader never sees half of it.

    Every float comes back bit for bit. Raises InputError, naming the key, for NaN, infinity and what JSON cannot hold.
    """
    if document.get("schema", SCHEMA) != SCHEMA:
        raise InputError(f"{path} would have schema {document['schema']!r}, but this program writes {SCHEMA}")
    text = json_text.dumps({"schema": SCHEMA, **document}, what=f"the result {path}", finite=True, indent=2)
    write_file(path, text.encode() + b"\n", disk=disk)


def read_result(path: str | Path) -> dict[str, Any]:
    """Read what `write_result` wrote; InputError says why a file is refused."""
    try:
        document = json_text.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"the result {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"the result {path} is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else None
        raise InputError(f"the result {path} has schema {found!r}, but this program reads {SCHEMA}")
    return document
