"""What a file is, judged by its content and never by its name."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from schemas.errors import DocumentError, ErrorCode

PDF = "application/pdf"
SVG = "image/svg+xml"
EPUB = "application/epub+zip"
XPS = "application/oxps"
OOXML = "application/vnd.openxmlformats-officedocument."
DOCX = OOXML + "wordprocessingml.document"
PPTX = OOXML + "presentationml.presentation"
XLSX = OOXML + "spreadsheetml.sheet"

ZIP = "application/zip"
TAR = "application/x-tar"
GZIP = "application/gzip"
ARCHIVES = frozenset({ZIP, TAR, GZIP})
"""Types that hold documents and are none themselves; of gzip only what holds a tar."""

CONVERTED = {SVG: "svg", EPUB: "epub", XPS: "xps", DOCX: "docx", PPTX: "pptx", XLSX: "xlsx"}
"""Types that PyMuPDF lays out into PDF pages, with its name for each."""

PICTURES = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/gif": "GIF",
    "image/bmp": "BMP",
    "image/webp": "WEBP",
    "image/tiff": "TIFF",
    "image/heic": "HEIF",
}
"""Types that Pillow decodes, with its name for each."""

UNZIPPABLE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, ArithmeticError, RuntimeError)
"""What `zipfile` raises on a damaged file, besides OSError."""

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"II+\0", "image/tiff"),
    (b"MM\0+", "image/tiff"),
)
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"}
_ZIP_MEMBERS = (
    ("word/", DOCX),
    ("ppt/", PPTX),
    ("xl/", XLSX),
    ("FixedDocSeq.fdseq", XPS),
    ("FixedDocumentSequence.fdseq", XPS),
)
_SVG_START = re.compile(
    rb"\s*(<\?xml.*?\?>|<!--.*?-->|<!DOCTYPE[^>\[]*(\[.*?\])?\s*>|\s)*<svg[\s>]", re.S
)
_HEAD_BYTES = 4096
_TAR_BLOCK = 512
_TAR_RECORD = 20 * _TAR_BLOCK
_MOST_ZIP_DIRECTORY = 32 << 20


def media_type(path: str) -> str:
    """The media type of a file.

    Raises:
        DocumentError: `corrupt` if the file is empty, `unsupported_type` if it is none of ours.
    """
    with open(path, "rb") as file:
        start = file.read(_TAR_RECORD + 1)
    if not start:
        raise DocumentError(ErrorCode.CORRUPT, "the file is empty (0 bytes)")
    head = start[:_HEAD_BYTES]
    # First, for a tar begins with a name of anyone's choosing, and both hold whole documents.
    found = _container(path, start) or _by_signature(head) or _by_structure(head)
    if found is None:
        raise DocumentError(
            ErrorCode.UNSUPPORTED_TYPE,
            f"the content is no type that can be read (it begins with {_printable(head[:16])}); "
            "leave such files out with --exclude",
        )
    return found


@contextmanager
def zip_file(path: str) -> Iterator[zipfile.ZipFile]:
    """A ZIP opened for reading.

    Raises:
        DocumentError: `too_large` if its table of contents is; else what `zipfile` raises.
    """
    with _ZipBytes(io.FileIO(path)) as file, zipfile.ZipFile(file) as opened:
        yield opened


class _ZipBytes(io.BufferedReader):
    """Refuses to give a table of contents that would take hundreds of megabytes once parsed."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MOST_ZIP_DIRECTORY:
            raise DocumentError(
                ErrorCode.TOO_LARGE,
                f"the ZIP's table of contents has {size:,} bytes, of which "
                f"{_MOST_ZIP_DIRECTORY:,} are the most; split the archive",
            )
        return super().read(size)


def _container(path: str, start: bytes) -> str | None:
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _inside_zip(path)
    if start.startswith(b"\x1f\x8b\x08"):
        try:
            unpacked = zlib.decompressobj(wbits=31).decompress(start, _TAR_RECORD + 1)
        except zlib.error:
            return None
        return GZIP if _is_tar(unpacked) else None
    return TAR if _is_tar(start) else None


def _is_tar(start: bytes) -> bool:
    if start[257:262] == b"ustar":
        return True
    if not any(start):
        # No members: no more than one record of zeros, for a long file of them is a lost document.
        return len(start) in range(2 * _TAR_BLOCK, _TAR_RECORD + 1, _TAR_BLOCK)
    try:  # the format before POSIX has no magic, but a checksum
        tarfile.TarInfo.frombuf(start[:_TAR_BLOCK], "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def _by_signature(head: bytes) -> str | None:
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "image/heic"
    if head[:2] == b"BM" and len(head) >= 26 and head[6:10] == b"\0\0\0\0":
        return "image/bmp"
    return None


def _by_structure(head: bytes) -> str | None:
    # Readers accept a PDF header anywhere in the first kilobyte, after mail headers for example.
    if b"%PDF-" in head[:1024]:
        return PDF
    if _SVG_START.match(head.removeprefix(b"\xef\xbb\xbf")):
        return SVG
    return None


def _inside_zip(path: str) -> str | None:
    try:
        with zip_file(path) as archive:
            names = archive.namelist()
            declared = names and names[0] == "mimetype" and archive.infolist()[0].file_size < 100
            if declared and archive.read(archive.infolist()[0]).strip() == EPUB.encode():
                return EPUB
    except (*UNZIPPABLE, OSError) as error:
        raise DocumentError(ErrorCode.CORRUPT, f"a damaged ZIP container: {error}") from None
    for prefix, kind in _ZIP_MEMBERS:
        if any(name.startswith(prefix) for name in names):
            return kind
    # OpenDocument, Visio and their like declare themselves: documents that cannot be read, whose
    # parts are none.
    if names[:1] == ["mimetype"] or "[Content_Types].xml" in names:
        return None
    return ZIP


def _printable(head: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in head)
