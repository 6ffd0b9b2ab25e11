"""Files of every type that is read, made to say given words."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docx
import numpy as np
import openpyxl
import pillow_heif
import pptx
from PIL import Image, ImageDraw, ImageFont

PDF = "application/pdf"
OOXML = "application/vnd.openxmlformats-officedocument."
DOCX = OOXML + "wordprocessingml.document"
PPTX = OOXML + "presentationml.presentation"
XLSX = OOXML + "spreadsheetml.sheet"
SVG = "image/svg+xml"
XPS = "http://schemas.microsoft.com/xps/2005/06"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/"
SIZE = (720, 320)
SIZE_PT = (540.0, 240.0)  # at 96 dpi, which stands where a file states none
FONT = ImageFont.load_default(40)
ORIENTATION = 0x0112

Make = Callable[[Path, str], None]


def drawn(words: str, size: tuple[int, int] = SIZE, color: str = "black") -> Image.Image:
    """Two lines of type on white, as wide as the picture."""
    picture = Image.new("RGB", size, "white")
    half = words.rindex(" ", 0, len(words) // 2 + 4)
    text = f"{words[:half]}\n{words[half + 1 :]}"
    ImageDraw.Draw(picture).multiline_text((60, 90), text, color, FONT, spacing=24)
    return picture


def saved(form: str, mode: str = "RGB", **options: Any) -> Make:
    """Saves the drawn words by Pillow, in a mode of its own."""

    def make(path: Path, words: str) -> None:
        drawn(words).convert(mode).save(path, form, **options)

    return make


def lying(form: str, **options: Any) -> Make:
    """A picture lying on its left side in the file, whose orientation tag says so."""

    def make(path: Path, words: str) -> None:
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        drawn(words).transpose(Image.Transpose.ROTATE_90).save(path, form, exif=exif, **options)

    return make


def see_through(path: Path, words: str) -> None:
    """White is a transparent entry of the palette, whose colour under it is black."""
    ink = np.asarray(drawn(words).convert("L")) < 128
    picture = Image.fromarray(np.where(ink, 1, 0).astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, 20, 20, 90])
    picture.save(path, "PNG", transparency=0)


def deep_gray(path: Path, words: str) -> None:
    """16 bits a pixel, whose darkest value is far above what 8 bits hold."""
    gray = np.asarray(drawn(words).convert("L")).astype(np.uint16)
    Image.fromarray(gray * 200 + 9000).save(path, "PNG")


def animated(path: Path, words: str) -> None:
    frames = [drawn(words), drawn("A later moment of the same thing")]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:], duration=90)


def three_frames(path: Path, words: str) -> None:
    frames = [drawn(f"{words} page {number}") for number in ("one", "two", "three")]
    frames[0].save(path, "TIFF", save_all=True, append_images=frames[1:], compression="tiff_lzw")


def fax(path: Path, words: str) -> None:
    """Standard resolution: 204 dots an inch across and 98 down."""
    squeezed = drawn(words).resize((1440, 308)).convert("1")
    squeezed.save(path, "TIFF", compression="group4", dpi=(204, 98))


def heic(path: Path, words: str) -> None:
    pillow_heif.from_pillow(drawn(words)).save(path, quality=90)


def pdf(path: Path, words: str) -> None:
    """A page of 400 × 300 points, after a line that is no PDF: readers allow that."""
    content = f"BT /F1 16 Tf 40 200 Td ({words}) Tj ET".encode()
    write_pdf(path, ["/MediaBox [0 0 400 300]"], [content], before=b"Received: by mail\r\n")


def write_pdf(
    path: Path, pages: list[str], contents: list[bytes], scan: bytes = b"", before: bytes = b""
) -> None:
    """A PDF written by hand: a dictionary and a content stream a page, and one JPEG as /Im."""
    kids = " ".join(f"{5 + 2 * index} 0 R" for index in range(len(pages)))
    image = f"/Subtype /Image /Width {SIZE[0]} /Height {SIZE[1]} /ColorSpace /DeviceRGB"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        stream(f"{image} /BitsPerComponent 8 /Filter /DCTDecode", scan),
    ]
    for index, (page, content) in enumerate(zip(pages, contents, strict=True)):
        used = "/Resources << /Font << /F1 3 0 R >> /XObject << /Im 4 0 R >> >>"
        kept = f"/Parent 2 0 R {used} /Contents {6 + 2 * index} 0 R"
        objects += [f"<< /Type /Page {kept} {page} >>".encode(), stream("", content)]
    written, offsets = before + b"%PDF-1.7\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(written) - len(before))
        written += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size, start = len(objects) + 1, len(written) - len(before)
    trailer = f"trailer << /Size {size} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n"
    path.write_bytes(written + f"xref\n0 {size}\n0000000000 65535 f \n{table}{trailer}".encode())


def stream(entries: str, data: bytes) -> bytes:
    return f"<< /Length {len(data)} {entries} >>\nstream\n".encode() + data + b"\nendstream"


def word(path: Path, words: str) -> None:
    document = docx.Document()
    document.add_paragraph(words)
    document.save(str(path))


def slides(path: Path, words: str) -> None:
    deck = pptx.Presentation()
    deck.slides.add_slide(deck.slide_layouts[5]).shapes.title.text = words
    deck.save(str(path))


def sheets(path: Path, words: str) -> None:
    book = openpyxl.Workbook()
    book.active.append(words.split()[:2])
    book.create_sheet("Second").append(words.split()[2:])
    book.save(path)


def zipped(path: Path, members: dict[str, str | bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def epub(path: Path, words: str) -> None:
    container = "urn:oasis:names:tc:opendocument:xmlns:container"
    kinds = 'media-type="application/oebps-package+xml"'
    head = f'<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{words}</dc:title>'
    item = '<item id="a" href="a.xhtml" media-type="application/xhtml+xml"/>'
    zipped(
        path,
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": f'<container version="1.0" xmlns="{container}"><rootfiles>'
            f'<rootfile full-path="a.opf" {kinds}/></rootfiles></container>',
            "a.opf": f'<package version="3.0" xmlns="http://www.idpf.org/2007/opf">{head}'
            f"</metadata><manifest>{item}</manifest>"
            '<spine><itemref idref="a"/></spine></package>',
            "a.xhtml": f'<html xmlns="http://www.w3.org/1999/xhtml"><body>{words}</body></html>',
        },
    )


def xps(path: Path, words: str) -> None:
    """480 × 320 units of 1/96 inch."""
    size = 'Width="480" Height="320"'
    face = 'FontUri="/a.ttf" FontRenderingEmSize="24" OriginX="40" OriginY="80" Fill="#FF000000"'
    types = "".join(
        f'<Default Extension="{name}" ContentType="application/vnd.{kind}"/>'
        for name, kind in {
            "rels": "openxmlformats-package.relationships+xml",
            "fdseq": "ms-package.xps-fixeddocumentsequence+xml",
            "fdoc": "ms-package.xps-fixeddocument+xml",
            "fpage": "ms-package.xps-fixedpage+xml",
            "ttf": "ms-opentype",
        }.items()
    )
    zipped(
        path,
        {
            "[Content_Types].xml": f'<Types xmlns="{PACKAGE}content-types">{types}</Types>',
            "_rels/.rels": f'<Relationships xmlns="{PACKAGE}relationships"><Relationship Id="a" '
            f'Type="{XPS}/fixedrepresentation" Target="/FixedDocSeq.fdseq"/></Relationships>',
            "FixedDocSeq.fdseq": f'<FixedDocumentSequence xmlns="{XPS}">'
            '<DocumentReference Source="/a.fdoc"/></FixedDocumentSequence>',
            "a.fdoc": f'<FixedDocument xmlns="{XPS}"><PageContent Source="/a.fpage" {size}/>'
            "</FixedDocument>",
            "a.fpage": f'<FixedPage xmlns="{XPS}" {size} xml:lang="en">'
            f'<Glyphs {face} UnicodeString="{words}"/></FixedPage>',
            "a.ttf": FONT.font_bytes,
        },
    )


def svg(width: str, height: str) -> Make:
    size = f'width="{width}" height="{height}" viewBox="0 0 480 320"'

    def make(path: Path, words: str) -> None:
        text = f'<text x="40" y="80" font-size="20">{words}</text>'
        drawing = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{text}</svg>'
        path.write_text(f'<?xml version="1.0"?>\n<!-- drawn by hand -->\n{drawing}')

    return make
