"""Writes the sample documents and the truth about what they say.

Run `python sample_docs/_make/make_samples.py`; the files land beside the `_make` folder and their
truth in `_make/truth`. The texts live in `_make/content`, so page and truth share one source.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pymupdf
from PIL import Image

from markup import parse
from pictures import picture
from scanning import image_pdf, render, save_fax, save_photo, scan
from truth import PageTruth, missing_strings, write_truth
from typesetting import typeset
from typography import Look

HERE = Path(__file__).resolve().parent
OUT = HERE.parent
A4 = (595.0, 842.0)
A5 = (420.0, 595.0)
LETTER = (612.0, 792.0)
TEAL = (0.05, 0.36, 0.4)
CLOCKWISE_TO_UPRIGHT = {1: 270, 2: 180, 3: 90}


def _slide_bands(page: pymupdf.Page, number: int) -> None:
    if number == 1:
        page.draw_rect((0, 160, 960, 262), color=None, fill=TEAL)
        page.draw_rect((0, 262, 960, 272), color=None, fill=(0.93, 0.66, 0.2))
    else:
        page.draw_rect((0, 0, 960, 84), color=None, fill=TEAL)
        page.draw_rect((0, 84, 960, 90), color=None, fill=(0.93, 0.66, 0.2))


LOOKS = {
    "report": Look(
        A4,
        (54, 66, 54, 62),
        body=10.4,
        leading=1.34,
        justify=True,
        columns=2,
        title_align="center",
        scale=(1.75, 1.2, 1.04),
        header=("Marrow Valley Water Board", "Technical Report 2019-04"),
        footer=("Finding Night Leaks", "Page {page}"),
        rule_header=True,
        table_fill=None,
    ),
    "invoice": Look(
        LETTER,
        (54, 48, 54, 48),
        family="sans",
        body=9.5,
        heading_color=(0.15, 0.2, 0.35),
        table_fill=(0.87, 0.9, 0.95),
        grid=False,
        scale=(1.6, 1.5, 1.0),
        footer=("", "Page 1 of 1"),
    ),
    "letter": Look(
        A4,
        (70, 70, 70, 60),
        heading_family="roman",
        body=11.9,
        leading=1.36,
        header=("Mrs. R. Achterberg", "Page {page}, 17 February 2011"),
        running_size=9.5,
        bare_pages=(1,),
    ),
    "fax": Look(
        LETTER,
        (60, 80, 60, 60),
        family="sans",
        body=12,
        table_fill=None,
        header=("07-MAR-2007 WED 16:42 WINDRUSH WALKING 555 0162", "P. 0{page}/03"),
        header_y=14,
        running_size=9.5,
    ),
    "receipt": Look(
        (270, 440),
        (18, 18, 18, 18),
        family="mono",
        body=10.2,
        title_align="center",
        scale=(1.45, 1, 1),
    ),
    "notice-zh": Look(
        A4,
        (76, 80, 76, 60),
        family="cjk",
        heading_family="cjk",
        body=12.6,
        leading=1.6,
        indent=25.2,
        title_gap=8,
        item_indent=3.1,
        title_align="center",
        scale=(1.55, 1.15, 1),
        title_color=(0.72, 0.08, 0.08),
    ),
    "bericht": Look(
        A4,
        (72, 84, 72, 80),
        body=10.8,
        leading=1.38,
        justify=True,
        scale=(1.6, 1.2, 1),
        header=("Sachverständigenbüro Süßkind", "Gutachten 117/20"),
        footer=("", "Seite {page} von 2"),
        rule_header=True,
    ),
    "slides": Look(
        (960, 540),
        (60, 24, 60, 44),
        family="sans",
        body=23,
        leading=1.35,
        para_gap=0.8,
        scale=(1.5, 1.2, 1.12),
        title_color=(1, 1, 1),
        title_gap=36,
        heading_color=TEAL,
        table_fill=(0.86, 0.92, 0.92),
        footer=("Fairholm Market Trust, spring review", "{page}"),
        running_size=12,
        backdrop=_slide_bands,
    ),
    "manual": Look(
        A5,
        (46, 64, 46, 54),
        body=11.3,
        leading=1.42,
        para_gap=0.6,
        justify=True,
        scale=(1.7, 1.22, 1.05),
        header=("Tidemark 300 Operating Manual", "{chapter}"),
        footer=("", "{page}"),
        rule_header=True,
        bare_pages=(1,),
    ),
    "minutes": Look(A4, (72, 80, 72, 70), body=12.4, leading=1.42, footer=("", "- {page} -")),
}
LANGUAGES = {"notice-zh": "zh", "bericht": "de"}


def compose(name: str, kind: str) -> tuple[pymupdf.Document, list[PageTruth]]:
    """Set the content file of that name."""
    source = (HERE / "content" / f"{name}.md").read_text(encoding="utf-8")
    return typeset(parse(source), LOOKS[name], picture, kind)


def save_pdf(document: pymupdf.Document, path: Path) -> None:
    """Save with fixed metadata and no file id, so that two runs write the same bytes."""
    stamp = "D:20200106090000Z"
    document.set_metadata({"creationDate": stamp, "modDate": stamp, "producer": "pagelake samples"})
    document.subset_fonts()
    document.save(path, garbage=4, deflate=True, clean=True, no_new_id=True)


def make_digital(name: str) -> None:
    """A PDF with a text layer, checked against its own truth."""
    document, truth = compose(name, "clean")
    path = OUT / f"{name}.pdf"
    save_pdf(document, path)
    if missing := missing_strings(path, truth):
        raise SystemExit("\n".join(missing))
    _record(name, path.name, truth)


def make_letter() -> None:
    """Two scanned pages, lying askew in different directions."""
    document, truth = compose("letter", "scan")
    rng = np.random.default_rng(1143)
    scans = [scan(page, 200, skew, rng) for page, skew in zip(document, (1.2, -0.8), strict=True)]
    save_pdf(image_pdf(scans, 200, 55), OUT / "letter-scan.pdf")
    _record("letter", "letter-scan.pdf", truth)


def make_minutes() -> None:
    """Three scanned pages that were fed on their side or on their head."""
    document, truth = compose("minutes", "turned")
    rng = np.random.default_rng(310)
    scans = []
    for page, note in zip(document, truth, strict=True):
        note.turn = CLOCKWISE_TO_UPRIGHT[note.page]
        upright = scan(page, 150, 0.3, rng)
        scans.append(np.ascontiguousarray(np.rot90(upright, note.turn // 90)))
    save_pdf(image_pdf(scans, 150, 55), OUT / "minutes-turned.pdf")
    _record("minutes", "minutes-turned.pdf", truth)


def make_images() -> None:
    """The fax, the photo and the Chinese notice, which are no PDFs at all."""
    fax, truth = compose("fax", "scan")
    save_fax(OUT / "fax.tiff", fax, np.random.default_rng(2007))
    _record("fax", "fax.tiff", truth)

    receipt, truth = compose("receipt", "photo")
    save_photo(OUT / "receipt-photo.jpg", receipt[0], np.random.default_rng(3391))
    _record("receipt", "receipt-photo.jpg", truth)

    notice, truth = compose("notice-zh", "clean")
    pixels = Image.fromarray(render(notice[0], (150, 150), gray=False))
    pixels.save(OUT / "notice-zh.png", dpi=(150, 150), optimize=True)
    _record("notice-zh", "notice-zh.png", truth)


def main() -> None:
    """Write every sample document."""
    for name in ("report", "invoice", "bericht", "slides", "manual"):
        make_digital(name)
    make_letter()
    make_minutes()
    make_images()
    for path in sorted(OUT.iterdir()):
        if path.is_file():
            print(f"{path.stat().st_size:>9,}  {path.name}")


def _record(name: str, file: str, truth: list[PageTruth]) -> None:
    write_truth(HERE / "truth", file, LANGUAGES.get(name, "en"), truth)


if __name__ == "__main__":
    main()
