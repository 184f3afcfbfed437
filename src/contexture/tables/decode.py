"""The bytes of a file to text: which encoding, and whether it is text at all.

In this order: the encoding asked for; a byte-order mark (UTF-8, UTF-16, UTF-32); UTF-8; Windows-1252, and Latin-1
where a byte has no meaning in it. A file that is UTF-8 but for a few bytes is damaged, not Windows-1252: more of its
characters outside ASCII decode than do not. NUL and other control characters mean that it is no text.
"""

import codecs
import re
from dataclasses import dataclass

from contexture.errors import InputError

__all__ = ["REPLACEMENT", "Decoded", "decode"]

REPLACEMENT = "\ufffd"

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8 with a byte-order mark"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
_SIGNATURES = (
    (b"PK\x03\x04", "a zip archive or a spreadsheet (.xlsx)", "save the sheet as CSV"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"BZh", "a bzip2 archive", "unpack it first"),
    (b"\xfd7zXZ", "an xz archive", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it first"),
    (b"%PDF", "a PDF document", "copy the table into a CSV file"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet (.xls)", "save the sheet as CSV"),
    (b"\x89PNG", "a PNG picture", "give a CSV or Parquet file"),
    (b"SQLite format 3", "an SQLite database", "write the table to CSV"),
    (b"\x93NUMPY", "a NumPy array", "write it as CSV"),
    (b"\x89HDF", "an HDF5 file", "write the table to CSV"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """The text of a file; where `damaged`, the bytes that do not decode stand as U+FFFD."""

    text: str
    encoding: str
    finding: str
    damaged: bool = False


def decode(data: bytes, *, source: str, encoding: str | None = None) -> Decoded:
    """Return the text of a file's bytes; raises InputError for an unknown encoding and for what is not text."""
    for signature, what, mend in _SIGNATURES:
        if data.startswith(signature):
            raise InputError(f"{source} is {what}, not a CSV or Parquet file: {mend}.")
    decoded = _with_encoding(data, source, encoding) if encoding else _guessed(data)
    control = _CONTROL.search(decoded.text)
    if control:
        line = len(_LINE_END.findall(decoded.text, 0, control.start())) + 1
        unmarked = not encoding and not decoded.encoding.startswith("utf-16") and _looks_wide(data)
        wide = "; if it is UTF-16 without a byte-order mark, give --encoding utf-16-le" if unmarked else ""
        raise InputError(
            f"{source}, line {line} holds the control character 0x{ord(control[0]):02x}: this is a binary file, not "
            f"text; give a CSV or Parquet file{wide}."
        )
    return decoded


def _with_encoding(data: bytes, source: str, encoding: str) -> Decoded:
    try:
        name = codecs.lookup(encoding).name
        "".encode(name)
    except LookupError:
        raise InputError(
            f"{encoding!r} is not an encoding that Python knows; try utf-8, utf-16, cp1252 or latin-1."
        ) from None
    if name == "utf-8" and data.startswith(codecs.BOM_UTF8):
        name = "utf-8-sig"
    return _decoded(data, name, f"encoding {encoding}, as asked")


def _guessed(data: bytes) -> Decoded:
    for mark, name, words in _MARKS:
        if data.startswith(mark):
            return _decoded(data, name, f"encoding {words}")
    try:
        return Decoded(text=data.decode("utf-8"), encoding="utf-8", finding="encoding UTF-8")
    except UnicodeDecodeError as fault:
        first = fault.start
    repaired = data.decode("utf-8", errors="replace")
    num_bad = repaired.count(REPLACEMENT)
    if sum(not character.isascii() for character in repaired) - num_bad >= num_bad:
        return Decoded(text=repaired, encoding="utf-8", finding="encoding UTF-8, damaged", damaged=True)
    try:
        text, name = data.decode("cp1252"), "cp1252"
    except UnicodeDecodeError:
        text, name = data.decode("latin-1"), "latin-1"
    line = len(_LINE_END.findall(text, 0, first)) + 1
    return Decoded(
        text=text,
        encoding=name,
        finding=f"encoding {name}, because the byte 0x{data[first]:02x} on line {line} is not UTF-8",
    )


def _decoded(data: bytes, name: str, finding: str) -> Decoded:
    try:
        return Decoded(text=data.decode(name), encoding=name, finding=finding)
    except UnicodeDecodeError:
        text = data.decode(name, errors="replace")
        return Decoded(text=text, encoding=name, finding=finding, damaged=True)


def _looks_wide(data: bytes) -> bool:
    return data[1:400:2].count(0) > 0.4 * len(data[1:400:2])
