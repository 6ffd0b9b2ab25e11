"""Every type of document that can be read, each as a file made here and read in one run."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docx
import numpy as np
import openpyxl
import pillow_heif
import pptx
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw, ImageFont
from rapidfuzz.fuzz import partial_ratio

from tests.conftest import pagelake

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
Row = dict[str, Any]


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


@dataclass(frozen=True)
class Case:
    """A file, the words in it, and what its rows must say; `size` None: the reader decides."""

    name: str
    make: Make
    media_type: str
    words: str
    size: tuple[float, float] | None = SIZE_PT
    origin: str = "ocr"
    pages: int = 1


LAYER = "text_layer"
CASES = [
    Case("mail.pdf", pdf, PDF, "The harbour master signed the letter", (400, 300), LAYER),
    Case("photo.jpg", pdf, PDF, "This letter is no photo of a garden", (400, 300), LAYER),
    Case("minutes", pdf, PDF, "Minutes of the winter meeting", (400, 300), LAYER),
    Case("word.docx", word, DOCX, "The baker ordered more flour", None, LAYER),
    Case("archive.zip", word, DOCX, "A contract about two horses", None, LAYER),
    Case("deck.pptx", slides, PPTX, "Sales of umbrellas went up", None, LAYER),
    Case("book.xlsx", sheets, XLSX, "Copper Silver Platinum Mercury", None, LAYER),
    Case("novel.epub", epub, "application/epub+zip", "It rained in the town", None, LAYER),
    Case("print.xps", xps, "application/oxps", "The printer has no paper", (360, 240), LAYER),
    Case("inch.svg", svg("6in", "4in"), SVG, "A map of the valley", (432, 288), LAYER),
    Case("pixels.svg", svg("480", "320"), SVG, "A plan of the station", (480, 320), LAYER),
    Case("plain.png", saved("PNG"), "image/png", "Seven bicycles for the school"),
    Case("report.pdf", saved("PNG", dpi=(144, 144)), "image/png", "Called a report", (360, 160)),
    Case("receipt", saved("JPEG", quality=90), "image/jpeg", "A receipt without a name"),
    Case(
        "side.jpg", lying("JPEG", dpi=(120, 120)), "image/jpeg", "A camera on its side", (432, 192)
    ),
    Case("side.webp", lying("WEBP", quality=90), "image/webp", "A telephone on its side"),
    Case("side.tif", lying("TIFF", dpi=(72, 144)), "image/tiff", "A fax on its side", (360, 320)),
    Case("photo.webp", saved("WEBP", quality=90), "image/webp", "The mountain path is closed"),
    Case("old.bmp", saved("BMP"), "image/bmp", "Paint the kitchen before Monday"),
    Case("flat.gif", saved("GIF", "P"), "image/gif", "Tickets are sold at the counter"),
    Case("moving.gif", animated, "image/gif", "Only the first moment is read"),
    Case("pages.tiff", three_frames, "image/tiff", "Lease of the old mill", pages=3),
    Case("fax.tif", fax, "image/tiff", "Confirm the delivery by fax", (508.235, 226.286)),
    Case("phone.heic", heic, "image/heic", "The menu of the little restaurant"),
    Case("deep.png", deep_gray, "image/png", "An X-ray of the left shoulder"),
    Case("press.jpg", saved("JPEG", "CMYK"), "image/jpeg", "Printed in four colours of ink"),
    Case("cutout.png", see_through, "image/png", "The logo has no background"),
    Case("alpha.png", saved("PNG", "RGBA"), "image/png", "A screenshot of the calendar"),
]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Row, list[Row]]]:
    """By file name: the row of `documents` and the rows of `pages`."""
    source = tmp_path_factory.mktemp("inputs")
    for case in CASES:
        case.make(source / case.name, case.words)
    lake = tmp_path_factory.mktemp("lakes") / "inputs"
    ended = pagelake("ingest", source, lake, "--layout", "none", "--json")
    assert ended.code in (0, 3), ended.err
    pages = sorted(pq.read_table(lake / "pages").to_pylist(), key=lambda row: row["page_number"])
    return {
        Path(row["source_uri"]).name: (
            row,
            [page for page in pages if page["document_id"] == row["document_id"]],
        )
        for row in pq.read_table(lake / "documents").to_pylist()
    }


Read = dict[str, tuple[Row, list[Row]]]
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@each
def test_the_type_is_judged_by_content(read: Read, case: Case) -> None:
    assert read[case.name][0]["media_type"] == case.media_type


@each
def test_every_page_is_a_row_and_is_read(read: Read, case: Case) -> None:
    document, pages = read[case.name]
    assert (document["status"], document["page_count"]) == ("ok", case.pages)
    assert [page["page_number"] for page in pages] == list(range(1, case.pages + 1))
    assert {page["origin"] for page in pages} == {case.origin}


@each
def test_the_words_are_found_upright(read: Read, case: Case) -> None:
    for page in read[case.name][1]:
        assert partial_ratio(case.words, " ".join(page["text"].split())) >= 90, page["text"]
        assert page["rotation"] == 0


@pytest.mark.parametrize("case", [case for case in CASES if case.size], ids=lambda case: case.name)
def test_the_page_has_the_size_that_the_file_states(read: Read, case: Case) -> None:
    for page in read[case.name][1]:
        assert (page["width_pt"], page["height_pt"]) == pytest.approx(case.size, rel=1e-3)


def test_frames_of_a_tiff_are_pages_in_their_order(read: Read) -> None:
    texts = [" ".join(page["text"].split()) for page in read["pages.tiff"][1]]
    assert [text.rsplit(" ", 1)[-1] for text in texts] == ["one", "two", "three"]


def test_later_frames_of_an_animation_are_not_read(read: Read) -> None:
    assert "later" not in read["moving.gif"][1][0]["text"]


@pytest.fixture(scope="module")
def askew(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], list[Row]]:
    """Pages and blocks of a PDF whose two pages, one of text and one scanned, are displayed
    turned by /Rotate 90 and cut to a CropBox, 600 × 500 points.

    What is to stand at (x, y) of the page as displayed is written at (y + 50, x + 100) of the
    file, turned left.
    """
    page = "/MediaBox [0 0 600 800] /CropBox [50 100 550 700] /Rotate 90"
    lines = {"Harbour master": (120, 200), "Winter meeting": (300, 400), "Cut off": (120, -30)}
    text = "".join(
        f"BT /F1 24 Tf 0 1 -1 0 {y + 50} {x + 100} Tm ({line}) Tj ET\n"
        for line, (x, y) in lines.items()
    )
    scan = io.BytesIO()
    drawn("The scanned letter of the baker").save(scan, "JPEG", quality=95)
    picture = b"q 0 360 -160 0 360 150 cm /Im Do Q"  # at (50, 150), 360 × 160: half a point a pixel
    folder = tmp_path_factory.mktemp("askew")
    write_pdf(folder / "askew.pdf", [page, page], [text.encode(), picture], scan.getvalue())
    ended = pagelake("ingest", folder / "askew.pdf", folder / "lake", "--json")
    assert ended.code == 0, ended.err
    pages, blocks = (
        sorted(
            pq.read_table(folder / "lake" / name).to_pylist(), key=lambda row: row["page_number"]
        )
        for name in ("pages", "blocks")
    )
    return pages, blocks


def test_a_turned_and_cropped_page_is_measured_as_displayed(
    askew: tuple[list[Row], list[Row]],
) -> None:
    pages, _ = askew
    assert [(page["width_pt"], page["height_pt"]) for page in pages] == [(600, 500), (600, 500)]
    assert [page["origin"] for page in pages] == ["text_layer", "ocr"]
    assert "Harbour master" in pages[0]["text"] and "Cut off" not in pages[0]["text"]


def test_boxes_lie_on_the_page_as_displayed(askew: tuple[list[Row], list[Row]]) -> None:
    for block in askew[1]:
        assert 0 <= block["x0"] < block["x1"] <= 600 and 0 <= block["y0"] < block["y1"] <= 500


@pytest.mark.parametrize(
    ("words", "box"),
    [
        ("Harbour master", (120, 178, 287, 205)),
        ("Winter meeting", (300, 378, 461, 405)),
        ("The scanned letter of the baker", (80, 199, 248, 247)),
    ],
)
def test_the_box_of_words_is_where_they_are_displayed(
    askew: tuple[list[Row], list[Row]], words: str, box: tuple[float, ...]
) -> None:
    [found] = [row for row in askew[1] if partial_ratio(words, row["text"] or "") >= 90]
    assert [found[name] for name in ("x0", "y0", "x1", "y1")] == pytest.approx(box, abs=8), found
