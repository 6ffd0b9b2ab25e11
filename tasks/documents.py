"""Open documents, inside a worker process: each kept open for the pages that follow."""

from __future__ import annotations

import os
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pymupdf
from PIL import Image

from schemas.errors import DocumentError, ErrorCode
from schemas.records import DocumentFacts, LocalDocument
from tasks import media, picture, workbook
from tasks.storable import clean

pymupdf.TOOLS.mupdf_display_errors(False)
pymupdf.TOOLS.mupdf_display_warnings(False)

# PyMuPDF's own errors derive from RuntimeError.
_BROKEN = (RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)

_METADATA = ("title", "author", "subject", "keywords", "creator", "producer", "creationDate")


@dataclass(frozen=True, slots=True)
class OpenDocument:
    """Either a PDF (or what PyMuPDF has laid out as one) or a picture; the other is None."""

    media_type: str
    pdf: pymupdf.Document | None
    picture: Image.Image | None


def open_document(document: LocalDocument) -> OpenDocument:
    """The document, from this process's cache if it was opened for an earlier page.

    Raises:
        DocumentError: `source_missing` or `source_changed` if the file is not what was fetched,
            else why it cannot be opened.
    """
    try:
        stat = os.stat(document.path)
    except FileNotFoundError:
        raise DocumentError(ErrorCode.SOURCE_MISSING, "the file vanished during the run") from None
    if (stat.st_size, stat.st_mtime_ns) != (document.size_bytes, document.mtime_ns):
        raise DocumentError(ErrorCode.SOURCE_CHANGED, "the file changed while it was being read")
    return _opened(document)


def inspect(document: LocalDocument) -> DocumentFacts:
    """What the document is and how many pages it has; of an archive, just that it is one.

    Raises:
        DocumentError: it cannot be opened, or has no pages.
    """
    kind = media.media_type(document.path)
    if kind in media.ARCHIVES:
        return DocumentFacts(
            content_sha256=document.content_sha256,
            media_type=kind,
            source_bytes=document.size_bytes,
        )
    opened = open_document(document)
    metadata: dict[str, str] = {}
    if opened.picture is not None:
        count = picture.frame_count(opened.picture)
    else:
        assert opened.pdf is not None
        count = _page_count(opened.pdf)
        told = opened.pdf.metadata or {}
        metadata = {name: clean(told[name]) for name in _METADATA if told.get(name)}
    if count == 0:
        raise DocumentError(ErrorCode.NO_PAGES, "the document opens but has no pages")
    return DocumentFacts(
        content_sha256=document.content_sha256,
        media_type=opened.media_type,
        source_bytes=document.size_bytes,
        page_count=count,
        source_page_count=count,
        metadata=metadata,
    )


@lru_cache(maxsize=4)
def _opened(document: LocalDocument) -> OpenDocument:
    kind = media.media_type(document.path)
    if kind in media.PICTURES:
        return OpenDocument(kind, None, picture.open_picture(document.path, kind))
    return OpenDocument(kind, _open_pdf(document.path, kind), None)


def _open_pdf(path: str, kind: str) -> pymupdf.Document:
    try:
        opened = _opened_by_mupdf(path, kind)
        if opened.needs_pass:
            raise DocumentError(
                ErrorCode.ENCRYPTED, "the document asks for a password before it can be read"
            )
        if kind in media.CONVERTED:
            if _page_count(opened) == 0:
                return opened
            opened = pymupdf.open("pdf", opened.convert_to_pdf())
        return opened
    except _BROKEN as error:
        raise DocumentError(ErrorCode.CORRUPT, f"cannot be opened as {kind}: {error}") from None


def _opened_by_mupdf(path: str, kind: str) -> pymupdf.Document:
    form = media.CONVERTED.get(kind, "pdf")
    if kind == media.XLSX:
        return pymupdf.open(stream=workbook.with_plain_strings(path), filetype=form)
    if any("\ud800" <= letter <= "\udfff" for letter in path):  # MuPDF takes UTF-8 names only
        return pymupdf.open(stream=Path(path).read_bytes(), filetype=form)
    return pymupdf.open(path, filetype=form)


def _page_count(opened: pymupdf.Document) -> int:
    try:
        return int(opened.page_count)
    except _BROKEN as error:
        raise DocumentError(ErrorCode.CORRUPT, f"the pages cannot be counted: {error}") from None
