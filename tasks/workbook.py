"""XLSX files as MuPDF can read them: it leaves out strings that stand in their cells, which is how
openpyxl and pandas may write them."""

from __future__ import annotations

import io
import re
import zipfile

_INLINE = re.compile(rb't="inlineStr"([^>]*)><is>(.*?)</is>', re.S)
_MARKUP = re.compile(rb"<[^>]*>")


def with_plain_strings(path: str) -> bytes:
    """The workbook with each string of a cell as a plain value."""
    rewritten = io.BytesIO()
    with zipfile.ZipFile(path) as book, zipfile.ZipFile(rewritten, "w") as copy:
        for member in book.infolist():
            data = book.read(member)
            if member.filename.startswith("xl/worksheets/"):
                data = _INLINE.sub(_plain, data)
            copy.writestr(member.filename, data)
    return rewritten.getvalue()


def _plain(found: re.Match[bytes]) -> bytes:
    return b't="str"' + found[1] + b"><v>" + _MARKUP.sub(b"", found[2]) + b"</v>"
