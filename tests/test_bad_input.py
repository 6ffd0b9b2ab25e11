"""What cannot be read: commands that make no sense, and documents that fail as rows."""

from __future__ import annotations

import os
import random
import resource
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pymupdf
import pytest
from PIL import Image, ImageDraw, ImageFont

from tests.conftest import ROOT, Ended, pagelake

FONT = ImageFont.load_default(40)
Row = dict[str, Any]
NEWLINE, EMOJI = "two\nlines.pdf", "smile 😀.pdf"
NOT_UTF8, NOT_UTF8_EITHER = os.fsdecode(b"caf\xe9.pdf"), os.fsdecode(b"caf\xe8.pdf")


def drawn(words: str) -> Image.Image:
    picture = Image.new("RGB", (640, 200), "white")
    ImageDraw.Draw(picture).text((40, 70), words, "black", FONT)
    return picture


def pdf(path: Path, words: str, **options: Any) -> None:
    with pymupdf.open() as document:
        document.new_page(width=400, height=300).insert_text((40, 100), words)
        document.save(os.fsencode(path).decode("utf-8", "surrogateescape"), **options)


def pdf_without_pages(path: Path) -> None:
    bodies = ("<< /Type /Catalog /Pages 2 0 R >>", "<< /Type /Pages /Kids [] /Count 0 >>")
    text, offsets = "%PDF-1.4\n", []
    for number, body in enumerate(bodies, start=1):
        offsets.append(len(text))
        text += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    trailer = f"trailer << /Size 3 /Root 1 0 R >>\nstartxref\n{len(text)}\n%%EOF\n"
    path.write_text(f"{text}xref\n0 3\n0000000000 65535 f \n{table}{trailer}")


def damaged_tiff(path: Path) -> None:
    """Three frames, the middle one's compressed data overwritten."""
    frames = [drawn(f"Page {number}") for number in ("one", "two", "three")]
    frames[0].save(path, "TIFF", save_all=True, append_images=frames[1:], compression="tiff_lzw")
    with Image.open(path) as picture:
        picture.seek(1)
        start, size = picture.tag_v2[273][0], picture.tag_v2[279][0]
    content = bytearray(path.read_bytes())
    content[start : start + size] = b"\xff" * size
    path.write_bytes(content)


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def make_bad(source: Path) -> None:
    (source / "empty.pdf").write_bytes(b"")
    (source / "notes.txt").write_text("Only a text.\n")
    (source / "noise.pdf").write_bytes(random.Random(1).randbytes(5000))
    drawn("The lower half is missing").save(source / "whole.png", "PNG")
    half = (source / "whole.png").read_bytes()
    (source / "cut.png").write_bytes(half[: len(half) // 2])
    (source / "cut.pdf").write_bytes(b"%PDF-1.7\n1 0 obj\n<< /Type /Cata")
    locked: dict[str, Any] = {"encryption": pymupdf.PDF_ENCRYPT_AES_256, "owner_pw": "owner"}
    pdf(source / "secret.pdf", "Nobody may read this", user_pw="user", **locked)
    pdf(source / "owned.pdf", "Everybody may read this", permissions=0, **locked)
    with zipfile.ZipFile(source / "things.docx", "w") as archive:
        archive.writestr("a.txt", "no document")
    with zipfile.ZipFile(source / "cut.docx", "w") as archive:
        archive.writestr("word/document.xml", "<a/>" * 900)
    (source / "cut.docx").write_bytes((source / "cut.docx").read_bytes()[:-60])
    (source / "vast.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">II5B", 30_000, 30_000, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
    )
    pdf_without_pages(source / "none.pdf")
    damaged_tiff(source / "damaged.tiff")
    (source / "dangling.pdf").symlink_to(source / "gone" / "elsewhere.pdf")
    (source / "inner").mkdir()
    (source / "inner" / "again").symlink_to(source)
    pdf(source / "inner" / "below.pdf", "A page below")
    for number, name in enumerate((NEWLINE, EMOJI, NOT_UTF8, NOT_UTF8_EITHER)):
        pdf(source / "plain.pdf", f"A file with an odd name, number {number}")
        (source / "plain.pdf").rename(source / name)
    (source / os.fsdecode(b"caf\xe7.txt")).write_text("A text with an odd name.\n")


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Ended]:
    """A folder of documents of which most cannot be read, the lake, and how the run ended."""
    source = tmp_path_factory.mktemp("bad")
    make_bad(source)
    lake = tmp_path_factory.mktemp("lakes") / "bad"
    return source, lake, pagelake("ingest", source, lake, "--layout", "none")


Bad = tuple[Path, Path, Ended]


def row_of(lake: Path, name: str, table: str = "documents") -> Row:
    rows = pq.read_table(lake / table).to_pylist()
    [row] = [row for row in rows if row["source_uri"].rpartition("/")[2] == name]
    return row


def test_a_run_with_failures_goes_on_and_exits_3(bad: Bad) -> None:
    _, lake, ended = bad
    assert (ended.code, "Traceback" in ended.err + ended.out) == (3, False), ended.err
    assert row_of(lake, "whole.png")["status"] == "ok"  # the last in the order of names


def test_every_file_is_one_row_of_documents(bad: Bad) -> None:
    source, lake, _ = bad
    files = [name for _, _, names in os.walk(source) for name in names]
    uris = pq.read_table(lake / "documents")["source_uri"].to_pylist()
    members = [uri for uri in uris if "!/" in uri]
    assert members == [f"{source}/things.docx!/a.txt"]
    assert len(uris) == len(set(uris)) == len(files) + len(members)
    shown = pagelake("sql", lake, "select count(*) as n from documents", "--format", "json")
    assert shown.told == {"n": len(uris)}


def test_every_page_is_one_row_of_pages(bad: Bad) -> None:
    documents = pq.read_table(bad[1] / "documents").to_pylist()
    pages = pq.read_table(bad[1] / "pages").to_pylist()
    assert sum(row["page_count"] for row in documents) == len(pages)
    for status in ("ok", "empty", "failed"):
        counted = sum(page["status"] == status for page in pages)
        assert sum(row[f"pages_{status}"] for row in documents) == counted


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("empty.pdf", "corrupt"),
        ("notes.txt", "unsupported_type"),
        ("noise.pdf", "unsupported_type"),
        ("cut.png", "corrupt"),
        ("cut.pdf", "corrupt"),
        ("cut.docx", "corrupt"),
        ("secret.pdf", "encrypted"),
        ("a.txt", "unsupported_type"),
        ("vast.png", "too_large"),
        ("none.pdf", "no_pages"),
        ("dangling.pdf", "source_missing"),
    ],
)
def test_a_document_that_cannot_be_read_says_why(bad: Bad, name: str, code: str) -> None:
    row = row_of(bad[1], name)
    assert (row["status"], row["error_code"]) == ("failed", code), row["error_message"]
    assert row["error_message"] and "\n" not in row["error_message"]
    assert (row["page_count"], row["pages_failed"]) == ((1, 1) if name == "cut.png" else (0, 0))


def test_a_zip_that_calls_itself_a_letter_is_an_archive_with_failures(bad: Bad) -> None:
    row, member = row_of(bad[1], "things.docx"), row_of(bad[1], "a.txt")
    assert (row["media_type"], row["page_count"]) == ("application/zip", 0)
    assert (row["status"], row["error_code"]) == ("partial", "unsupported_type")
    assert "1 of 1 members" in row["error_message"]
    assert member["source_uri"] == f"{row['source_uri']}!/a.txt"
    assert member["source_version"] == row["source_version"]


def test_a_pdf_locked_against_changes_is_read(bad: Bad) -> None:
    assert row_of(bad[1], "owned.pdf")["status"] == "ok"
    assert "Everybody may read this" in row_of(bad[1], "owned.pdf", "pages")["text"]


@pytest.mark.parametrize("name", [NEWLINE, EMOJI, "below.pdf"])
def test_a_file_is_found_by_its_name_whatever_is_in_it(bad: Bad, name: str) -> None:
    row = row_of(bad[1], name)
    assert row["status"] == "ok" and Path(row["source_uri"]).is_file()


def test_files_whose_names_are_no_utf8_are_read_and_told_apart(bad: Bad) -> None:
    rows = pq.read_table(bad[1] / "documents").to_pylist()
    odd = [row for row in rows if "/caf" in row["source_uri"]]
    assert sorted(row["status"] for row in odd) == ["failed", "ok", "ok"]
    assert len({row["source_uri"] for row in odd} | {row["document_id"] for row in odd}) == 6


def test_a_damaged_frame_of_a_tiff_fails_alone(bad: Bad) -> None:
    document = row_of(bad[1], "damaged.tiff")
    pages = [
        (page["page_number"], page["status"], page["error_code"], page["text"])
        for page in pq.read_table(bad[1] / "pages").to_pylist()
        if page["document_id"] == document["document_id"]
    ]
    assert (document["status"], document["page_count"], document["pages_ok"]) == ("partial", 3, 2)
    assert sorted(pages) == [
        (1, "ok", None, "Page one"),
        (2, "failed", "corrupt", None),
        (3, "ok", None, "Page three"),
    ]


def test_the_table_of_failures_names_each_with_its_code(bad: Bad) -> None:
    lines = bad[2].out.splitlines()
    for name, code in {"empty.pdf": "corrupt", "secret.pdf": "encrypted"}.items():
        assert [line for line in lines if name in line and code in line], bad[2].out


@pytest.mark.parametrize("target", ["loop.pdf", "pipe", "/dev/zero"])
def test_a_link_to_itself_or_to_no_file_fails_alone(tmp_path: Path, target: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    os.mkfifo(source / "pipe")
    (source / "loop.pdf").symlink_to(target)
    pdf(source / "sound.pdf", "A sound page")
    ended = pagelake("ingest", source, tmp_path / "lake", "--layout", "none", timeout=20)
    assert (ended.code, "Traceback" in ended.err) == (3, False), ended.err[-300:]
    assert row_of(tmp_path / "lake", "sound.pdf")["status"] == "ok"
    assert row_of(tmp_path / "lake", "loop.pdf")["status"] == "failed"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`one.pdf` read into `lake` without layout, an `empty` folder and a file `taken`."""
    place = tmp_path_factory.mktemp("place")
    (place / "empty").mkdir()
    (place / "taken").write_text("a file")
    pdf(place / "one.pdf", "A single page")
    ended = pagelake("ingest", place / "one.pdf", place / "lake", "--layout", "none")
    assert ended.code == 0, ended.err
    return place


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        ("ingest nowhere new", 2, "nowhere"),
        ("ingest empty new", 2, "empty"),
        ("ingest . new --include *.xyz", 2, "--include"),
        ("ingest one.pdf taken", 1, "taken"),
        ("ingest one.pdf taken/below", 1, "taken/below"),
        ("ingest one.pdf /proc/lake", 1, "/proc/lake"),
        ("ingest one.pdf new --engine crystal-ball", 2, "crystal-ball"),
        ("ingest one.pdf new --colour", 2, "--colour"),
        ("ingest one.pdf", 2, "DEST"),
        ("ingest one.pdf new --processes 0", 2, "--processes"),
        ("ingest one.pdf new --processes many", 2, "--processes"),
        ("ingest one.pdf new --limit 0", 2, "--limit"),
        ("ingest one.pdf new --part-pages -3", 2, "--part-pages"),
        ("ingest one.pdf new --page-timeout nan", 2, "--page-timeout"),
        ("plan nowhere new", 2, "nowhere"),
        ("harvest one.pdf new", 2, "harvest"),
        ("sql empty select+1", 1, "empty"),
        ("sql nowhere select+1", 1, "nowhere"),
        ("sql lake selekt", 2, "selekt"),
        ("sql lake select+colour+from+pages", 2, "colour"),
        ("status empty", 1, "empty"),
        ("status taken", 1, "taken"),
        ("ingest one.pdf lake --layout full", 2, "--new-recipe"),
        ("plan one.pdf lake --layout full", 2, "--new-recipe"),
    ],
)
def test_a_command_that_cannot_work_says_why(
    place: Path, command: str, code: int, told: str
) -> None:
    names = {name: str(place / name) for name in ("nowhere", "empty", "taken", "lake", "new")}
    names |= {"one.pdf": str(place / "one.pdf"), ".": str(place), "taken/below": f"{place}/taken/b"}
    ended = pagelake(*(names.get(part, part).replace("+", " ") for part in command.split()))
    lines = ended.err.strip().splitlines()
    assert (ended.code, "Traceback" in ended.err) == (code, False), ended.err
    assert names.get(told, told) in ended.err
    # click shows the usage above its line, DuckDB the place in the query below.
    if not lines[0].startswith("Usage:") and not command.startswith("sql lake"):
        assert len(lines) == 1 and lines[0].startswith("pagelake: "), ended.err
    assert not (place / "new").exists(), "a command that cannot work must leave nothing behind"


def test_another_recipe_says_how_many_pages_it_would_read_and_reads_them_if_told_to(
    place: Path,
) -> None:
    again = ("ingest", place / "one.pdf", place / "lake", "--text-layer", "ignore")
    refused = pagelake(*again, "--layout", "none")
    assert refused.code == 2 and "read 1 pages again" in refused.err
    done = pagelake(*again, "--layout", "none", "--new-recipe", "--json")
    assert done.code == 0 and done.told["pages"]["ok"] == 1, done.err
    shown = pagelake("sql", place / "lake", "select origin from pages", "--format", "json")
    assert shown.told == {"origin": "ocr"}


def test_help_takes_less_than_half_a_second_of_the_processor() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = pagelake("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.code == 0 and "ingest" in ended.out
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_help_imports_no_engine_and_no_server() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "flows.cli", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.split("\n")
    }
    assert "click" in imported
    assert not imported & {"prefect", "pymupdf", "onnxruntime", "rapidocr", "vllm", "pyarrow"}
