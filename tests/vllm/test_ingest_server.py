"""`pagelake ingest` through `pagelake serve`: a real vLLM, the crafted checkpoint, a lake."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pymupdf
import pytest
from PIL import Image

from schemas.errors import DocumentError, ErrorCode
from schemas.records import PageImage
from tasks.engines.ask import Ask
from tasks.engines.endpoint import Limits
from tasks.engines.profiles import profile_of
from tasks.engines.server import ServerEngine, serving
from tasks.parse import parse_page
from tests.conftest import ROOT, pagelake
from tests.standin import fill
from tests.vllm.serving import Served
from tests.vllm.shades import Shade, ordinary, pages

T = TypeVar("T")

SHADES = pages()
OCR = profile_of("deepseek-ocr")
SMALL = ("--text-layer", "ignore", "--mode", "global", "--part-pages", "4")
PATIENT = ("--silence-timeout", "600", "--read-timeout", "900", "--engine-wait", "180")


@pytest.fixture(scope="module")
def served(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served.by_pagelake(checkpoint, tmp_path_factory.mktemp("serve")) as served:
        yield served


def rows(lake: Path) -> list[dict[str, Any]]:
    found = duckdb.sql(f"SELECT * FROM '{lake}/pages/*/*.parquet' ORDER BY source_uri, page_number")
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def write_pages(path: Path, *shades: Shade, size: tuple[int, int] = (300, 400)) -> Path:
    """A PDF of these shades, with enough words on each page to be seen as one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = pymupdf.open()
    for shade in shades:
        page = document.new_page(width=size[0], height=size[1])
        fill(page, shade.grey, [f"Line {n} of a page of {shade.name}." for n in range(6)])
    document.save(path)
    return path


def meant(shade: Shade, page: dict[str, Any], purpose: str = "markdown") -> str:
    """The text that a row must have for a shade's answer."""
    raw = shade.answers[purpose].text
    return parse_page(raw, OCR, page["width_pt"], page["height_pt"]).text


def use(engine_url: str, use: Callable[[ServerEngine], Awaitable[T]]) -> T:
    async def run() -> T:
        limits = Limits(in_flight=8, connect=10, silence=300, total=300)
        async with serving([engine_url], OCR, limits, 60) as engine:
            return await use(engine)

    return asyncio.run(run())


def test_every_page_gets_its_own_text(served: Served, tmp_path: Path) -> None:
    shades = list(ordinary().values())
    for number in range(3):
        write_pages(tmp_path / "in" / f"{number}.pdf", *shades[number::3])
    ended = pagelake(
        "ingest", tmp_path / "in", tmp_path / "lake", *SMALL, *PATIENT, "--engine-url", served.url,
        "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    found = rows(tmp_path / "lake")
    wanted = [shade for number in range(3) for shade in shades[number::3]]
    assert len(found) == len(wanted)
    for shade, page in zip(wanted, found, strict=True):
        assert page["text"] == meant(shade, page), shade.name
        assert page["raw_output"] == shade.answers["markdown"].text
        assert (page["finish_reason"], page["attempts"], page["engine"]) == ("stop", 1, "server")
        assert (page["image_width"], page["image_height"]) == (480, 640)
        assert 273 < page["prompt_tokens"] < 300
        assert page["output_tokens"] > 40
    boxes = duckdb.sql(
        f"SELECT count(*), min(x0), min(y0), max(x1), max(y1), count(figure_uri) "
        f"FROM '{tmp_path}/lake/blocks/*/*.parquet'"
    ).fetchall()[0]
    assert boxes[0] >= 3 * len(wanted)
    assert min(boxes[1:3]) >= 0
    assert (boxes[3] <= 300, boxes[4] <= 400, boxes[5]) == (True, True, len(wanted))
    assert ended.told["output_tokens"] == sum(page["output_tokens"] for page in found)


def test_tiled_pages(served: Served, tmp_path: Path) -> None:
    amber, cedar = SHADES["amber"], SHADES["cedar"]
    write_pages(tmp_path / "in" / "a.pdf", amber, cedar)
    ended = pagelake(
        "ingest", tmp_path / "in", tmp_path / "lake", *PATIENT, "--text-layer", "ignore",
        "--engine-url", served.url,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    first, second = rows(tmp_path / "lake")
    assert (first["text"], second["text"]) == (meant(amber, first), meant(cedar, second))
    assert (first["image_width"], first["image_height"]) == (1250, 1667)
    assert first["prompt_tokens"] > 900
    assert "| crate | price |" in second["markdown"]


def ingested(served: Served, tmp_path: Path, attempts: int, *names: str) -> dict[str, Any]:
    """The rows of pages of these shades, one a document, by name."""
    for name in names:
        write_pages(tmp_path / "in" / f"{name}.pdf", SHADES[name])
    ended = pagelake(
        "ingest", tmp_path / "in", tmp_path / "lake", *SMALL, *PATIENT, "--engine-url", served.url,
        "--attempts", attempts,
    )  # fmt: skip
    assert ended.code in (0, 3), ended.err
    return {Path(page["source_uri"]).stem: page for page in rows(tmp_path / "lake")}


def test_what_goes_wrong_is_noticed_and_mended(served: Served, tmp_path: Path) -> None:
    found = ingested(served, tmp_path, 4, "black", "stubborn", "cells")
    # The n-gram processor breaks this loop before anything has to be tried again.
    assert found["black"]["status"] == "ok"
    assert found["black"]["attempts"] == 1
    assert found["black"]["text"].endswith("and then the page was over.")
    assert found["stubborn"]["status"] == "ok"
    assert found["stubborn"]["raw_output"] == SHADES["stubborn"].answers["free"].text
    assert "by_other_prompt" in found["stubborn"]["flags"]
    assert found["cells"]["status"] == "empty"  # a table without a word in it
    assert "by_stronger_ngram" in found["cells"]["flags"]


def test_what_cannot_be_mended_has_failed(served: Served, tmp_path: Path) -> None:
    found = ingested(served, tmp_path, 2, "march", "empty")
    assert (found["march"]["status"], found["march"]["error_code"]) == ("failed", "loop")
    assert (found["empty"]["status"], found["empty"]["error_code"]) == ("failed", "empty_output")
    assert {page["attempts"] for page in found.values()} == {2}
    # The loop was left long before the answer was full, at 3,060 tokens.
    assert found["march"]["output_tokens"] < 2 * 2000


def test_bad_questions_are_refused_once(served: Served) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(picture, "JPEG")
    good = PageImage(picture.getvalue(), 64, 64, 64, 64, 0, 1)
    cut_off = PageImage(picture.getvalue()[:200], 64, 64, 64, 64, 0, 1)
    too_long = Ask("Free OCR. " * 5000, 100)

    async def ask(engine: ServerEngine) -> list[Any]:
        questions = [([cut_off], Ask("Free OCR.", 100)), ([good], too_long)]
        asked = (engine.ask(images, ask) for images, ask in questions)
        return await asyncio.gather(*asked, return_exceptions=True)

    began = time.monotonic()
    for error in use(served.url, ask):
        assert isinstance(error, DocumentError)
        assert error.code is ErrorCode.ENGINE_ERROR
    assert time.monotonic() - began < 30


def test_a_server_killed_in_mid_run(served: Served, tmp_path: Path) -> None:
    """It is killed while it reads, started again, and every page is read once in the end."""
    shades = list(ordinary().values())[:8]
    write_pages(tmp_path / "in" / "a.pdf", *shades)
    run = subprocess.Popen(
        [
            sys.executable, "-m", "flows.cli", "ingest", tmp_path / "in", tmp_path / "lake",
            *SMALL, *PATIENT, "--engine-url", served.url, "--max-in-flight", "4", "--json",
        ],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
    )  # fmt: skip
    try:
        until = time.monotonic() + 120
        while not list(tmp_path.glob("lake/pages/*/*")) and time.monotonic() < until:
            time.sleep(0.2)
        served.kill()
        served.start()
        _, err = run.communicate(timeout=300)
    finally:
        run.kill()
    assert run.returncode == 0, err
    assert "set aside" in err
    assert "taken back" in err
    found = rows(tmp_path / "lake")
    assert [page["text"] for page in found] == [
        meant(shade, page) for shade, page in zip(shades, found, strict=True)
    ]
