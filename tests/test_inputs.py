"""Every type of document that can be read, each as a file made here and read in one run."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rapidfuzz.fuzz import partial_ratio

from tests.conftest import pagelake
from tests.makers import (
    DOCX,
    PDF,
    PPTX,
    SIZE_PT,
    SVG,
    XLSX,
    Make,
    animated,
    deep_gray,
    drawn,
    epub,
    fax,
    heic,
    lying,
    pdf,
    saved,
    see_through,
    sheets,
    slides,
    svg,
    three_frames,
    word,
    write_pdf,
    xps,
)

Row = dict[str, Any]


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
