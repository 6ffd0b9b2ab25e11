"""What a file is, judged by its content and never by its name."""

from __future__ import annotations

import re
import zipfile

from schemas.errors import DocumentError, ErrorCode

PDF = "application/pdf"
SVG = "image/svg+xml"
EPUB = "application/epub+zip"
XPS = "application/oxps"
OOXML = "application/vnd.openxmlformats-officedocument."
DOCX = OOXML + "wordprocessingml.document"
PPTX = OOXML + "presentationml.presentation"
XLSX = OOXML + "spreadsheetml.sheet"

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


def media_type(path: str) -> str:
    """The media type of a file.

    Raises:
        DocumentError: `corrupt` if the file is empty, `unsupported_type` if it is none of ours.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        raise DocumentError(ErrorCode.CORRUPT, "the file is empty (0 bytes)")
    found = _by_signature(head) or _by_structure(path, head)
    if found is None:
        raise DocumentError(
            ErrorCode.UNSUPPORTED_TYPE,
            f"the content is no type that can be read (it begins with {_printable(head[:16])}); "
            "leave such files out with --exclude",
        )
    return found


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


def _by_structure(path: str, head: bytes) -> str | None:
    # Readers accept a PDF header anywhere in the first kilobyte, after mail headers for example.
    if b"%PDF-" in head[:1024]:
        return PDF
    if _SVG_START.match(head.removeprefix(b"\xef\xbb\xbf")):
        return SVG
    if head.startswith(b"PK\x03\x04"):
        return _inside_zip(path)
    return None


def _inside_zip(path: str) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            declared = names and names[0] == "mimetype" and archive.infolist()[0].file_size < 100
            if declared and archive.read("mimetype").strip() == EPUB.encode():
                return EPUB
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        raise DocumentError(ErrorCode.CORRUPT, f"a damaged ZIP container: {error}") from None
    for prefix, kind in _ZIP_MEMBERS:
        if any(name.startswith(prefix) for name in names):
            return kind
    return None


def _printable(head: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in head)
