"""Pages that an older parser made, parsed by today's out of what the engine said: nothing else is
touched, and nobody sees a page half-way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ErrorCode
from schemas.records import Block, PageResult
from tasks.collect import Standing
from tasks.compact import compact
from tasks.localstore import LocalStore
from tasks.lock import LakeLock
from tasks.parse import PARSER_VERSION, parse_page
from tasks.pool import WorkerPool
from tasks.reparse import Reparsed, reparse
from tasks.runs import new_run_id
from tasks.settle import settle
from tests.conftest import Ended
from tests.upkeep import (
    RECIPE,
    Readers,
    Seen,
    copies_of,
    expect_whole,
    frozen_at,
    killed_at,
    locked,
    new_lake,
    quick_disk,
    write_run,
    writes_of,
)

__all__ = ["quick_disk"]

SIZE = (600.0, 800.0)
PLAIN = RECIPE.model_copy(update={"layout": "none"})
CPU = {"engine": "rapidocr", "model": "PP-OCRv6-small"}


def ref(label: str, box: list[int], text: str = "") -> str:
    return f"<|ref|>{label}<|/ref|><|det|>[{box}]<|/det|>\n{text}\n\n"


FIGURE = [100, 500, 400, 700]
SAID = (
    ref("title", [100, 50, 900, 100], "# A page")
    + ref("text", [100, 150, 900, 250], "Its **words**.")
    + ref("image", FIGURE)
    + ref("image_caption", [100, 710, 400, 740], "What it shows.")
)
LINES = json.dumps(
    {
        "width": 600,
        "height": 800,
        "lines": [
            ["below", 0.9, [[50, 90], [300, 90], [300, 110], [50, 110]]],
            ["above", 0.9, [[50, 50], [300, 50], [300, 70], [50, 70]]],
        ],
    }
)


def by_model(standing: Standing, number: int) -> PageResult:
    """A page as an old parser made it: without its structure, the figure cut out a bit larger."""
    uris = [f"figures/{standing.document_id}/{number}-{n}.webp" for n in (7, 8)]
    boxes = [(55.0, 395.0, 245.0, 565.0), (1.0, 1.0, 20.0, 20.0)]
    return PageResult(
        standing.document_id,
        standing.source_uri,
        number,
        "ok",
        origin="ocr",
        width_pt=SIZE[0],
        height_pt=SIZE[1],
        markdown="old",
        text="old",
        raw_output=SAID,
        engine="server",
        model="deepseek-ocr",
        parser_version="0",
        finish_reason="stop",
        output_tokens=99,
        flags=("by_stronger_ngram", "box_mended"),
        blocks=tuple(
            Block("figure", "image", "", box, figure_uri=uri)
            for uri, box in zip(uris, boxes, strict=True)
        ),
        figures=dict.fromkeys(uris, b"picture"),
    )


LOOP = ref("text", [1, 1, 900, 900], "It begins well.\n" + "all work " * 900)

CHANGES: list[dict[str, Any]] = [
    {},
    {"raw_output": LOOP, "flags": ("loop",), "status": "failed", "error_code": ErrorCode.LOOP},
    {"flags": ("hallucinated",), "status": "empty", "markdown": "", "text": "", "blocks": ()},
    {"origin": "text_layer", "engine": "pymupdf", "raw_output": None, "model": None},
    {"status": "empty", "text": "", "rotation": 90, "blocks": (), "flags": ("turned",)},
    {"parser_version": PARSER_VERSION},
    {"model": "of-another-time"},
    {"raw_output": LINES, **CPU, "flags": ("loop", "by_rapidocr")},
    {"status": "failed", "error_code": ErrorCode.RENDER_TIMEOUT, "origin": None, "blocks": ()},
]


def page(standing: Standing, number: int) -> PageResult:
    """Page `number` of a document, with what is special about it; only `/in/a` has figures."""
    made = replace(by_model(standing, number), **CHANGES[number - 1])
    if made.error_code is ErrorCode.RENDER_TIMEOUT:
        made = replace(made, raw_output=None, parser_version=None, text=None, markdown=None)
    if not made.blocks or standing.source_uri != "/in/a.pdf":
        made = replace(made, blocks=(), figures={})
    return made


def page_by_cpu(standing: Standing, number: int) -> PageResult:
    return replace(page(standing, 1), page_number=number, raw_output=LINES, **CPU)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "lake"
    store = new_lake(folder)
    write_run(store, 1, [{"/in/a.pdf": len(CHANGES)}, {"/in/b.pdf": 1, "/in/c.pdf": 0}], page=page)
    write_run(store, 2, [{"/in/plain.pdf": 1}], page=page, recipe=PLAIN)
    write_run(store, 3, [{"/in/lines.pdf": 1}], page=page_by_cpu, recipe=PLAIN)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake in which it takes few steps: of every kind one."""
    folder = tmp_path_factory.mktemp("small") / "lake"
    write_run(new_lake(folder), 1, [{"/in/a.pdf": 5}], page=page)
    return folder


@pytest.fixture
def lake(made: Path, tmp_path: Path) -> Path:
    return next(copies_of(made, tmp_path, 1))[1]


Run = Callable[[LocalStore, LakeLock], Reparsed]


def running() -> Iterator[Run]:
    """Reparsing with worker processes that live as long as the tests."""
    with WorkerPool(1) as pool, asyncio.Runner() as runner:
        yield lambda store, lock: runner.run(reparse(store, lock, pool, 60))


run = pytest.fixture(running, scope="module", name="run")
run_meanwhile = pytest.fixture(running, scope="module", name="run_meanwhile")


def alone(lake: Path, run: Run) -> Reparsed:
    with locked(lake) as lock:
        return run(LocalStore(lake), lock)


def merge(lake: Path) -> None:
    store = LocalStore(lake)
    with locked(lake) as lock:
        settle(store, lock)
        compact(store, lock, new_run_id(store), 1 << 20, datetime(2026, 3, 9, tzinfo=UTC))


PARSED = Reparsed(PARSER_VERSION, parsed=7, kept=2)


def pages_of(seen: Seen, name: str) -> dict[int, dict[str, Any]]:
    rows = (row for row in seen.pages.values() if row["source_uri"] == f"/in/{name}.pdf")
    return {row["page_number"]: row for row in rows}


def blocks_of(seen: Seen, page: dict[str, Any]) -> list[dict[str, Any]]:
    key = page["document_id"], page["page_number"]
    return [row for of, row in sorted(seen.blocks.items()) if of[:2] == key]


@pytest.mark.parametrize("merged", [False, True])
def test_pages_become_what_todays_parser_makes_of_them(lake: Path, run: Run, merged: bool) -> None:
    if merged:
        merge(lake)
    before = Readers(LocalStore(lake)).look()
    assert alone(lake, run) == PARSED
    after = Readers(LocalStore(lake)).look()
    old, new = pages_of(before, "a"), pages_of(after, "a")

    expected = parse_page(SAID, "deepseek-ocr", *SIZE)
    figure = f"figures/{new[1]['document_id']}/1-7.webp"
    assert new[1]["text"] == expected.text == "A page\n\nIts words.\n\nWhat it shows."
    assert new[1]["markdown"] == (f"# A page\n\nIts **words**.\n\n![]({figure})\n\nWhat it shows.")
    assert (new[1]["status"], new[1]["parser_version"]) == ("ok", PARSER_VERSION)
    assert new[1]["flags"] == ["by_stronger_ngram"], "of the old parser's flags none holds any more"
    blocks = blocks_of(after, new[1])
    assert [row["kind"] for row in blocks] == ["title", "text", "figure", "caption"]
    assert [row["figure_uri"] for row in blocks] == [None, None, figure, None]
    assert (blocks[1]["x0"], blocks[1]["y1"]) == pytest.approx((100 * 600 / 999, 250 * 800 / 999))
    untouched = {"markdown", "text", "parser_version", "flags", "status"}
    for number, row in new.items():
        for name, value in row.items():
            assert name in untouched or value == old[number][name]

    assert (new[2]["status"], new[2]["error_code"], new[2]["flags"]) == ("failed", "loop", ["loop"])
    assert new[2]["text"].startswith("It begins well.") and len(new[2]["text"]) < len(LOOP) / 4
    assert (new[3]["status"], new[3]["text"], blocks_of(after, new[3])) == ("empty", "", [])
    assert new[3]["parser_version"] == PARSER_VERSION
    turned = parse_page(SAID, "deepseek-ocr", *SIZE, turn=90)
    assert (new[5]["status"], new[5]["text"]) == ("ok", turned.text)
    assert [row["x0"] for row in blocks_of(after, new[5])] == pytest.approx(
        [block.box[0] for block in turned.blocks if block.box]
    )
    for number in (4, 6, 7, 8, 9):
        assert new[number] == old[number]
        assert blocks_of(after, new[number]) == blocks_of(before, old[number])

    (plain,) = pages_of(after, "plain").values()
    assert (plain["text"], plain["markdown"]) == (expected.text, expected.markdown)
    assert blocks_of(after, plain) == []
    (lines,) = pages_of(after, "lines").values()
    assert (lines["text"], lines["parser_version"]) == ("above\nbelow", PARSER_VERSION)


def test_documents_stay_but_for_pages_that_have_text_now(lake: Path, run: Run) -> None:
    before = Readers(LocalStore(lake)).look().documents
    alone(lake, run)
    after = Readers(LocalStore(lake)).look().documents
    assert after.keys() == before.keys()
    for key, row in before.items():
        gained = 1 if row["source_uri"] == "/in/a.pdf" else 0
        assert after[key] == row | {
            "pages_ok": row["pages_ok"] + gained,
            "pages_empty": row["pages_empty"] - gained,
        }
    seen = Readers(LocalStore(lake)).look()
    states = [row["status"] for row in pages_of(seen, "a").values()]
    (told,) = [row for row in after.values() if row["source_uri"] == "/in/a.pdf"]
    counts = {f"pages_{name}": states.count(name) for name in ("ok", "empty", "failed")}
    assert {name: told[name] for name in counts} == counts


def test_a_second_time_there_is_nothing(lake: Path, run: Run) -> None:
    alone(lake, run)
    before = list(LocalStore(lake).objects("pages/"))
    assert alone(lake, run) == Reparsed(PARSER_VERSION, kept=2)
    assert list(LocalStore(lake).objects("pages/")) == before


def test_the_command_says_what_it_did(pagelake: Callable[..., Ended], lake: Path) -> None:
    ended = pagelake("reparse", lake, "--processes", "1")
    assert (ended.code, ended.out.splitlines()) == (
        0,
        [
            f"7 pages parsed anew by parser {PARSER_VERSION}",
            "2 pages kept: to parse them takes the page's image",
        ],
    )
    expect_whole(LocalStore(lake))


def test_an_answer_that_the_parser_does_not_survive_costs_its_own_page(tmp_path: Path) -> None:
    endless = ref("text", [1, 2, 3, 4], "word **a** <b>x</b> $y$") * 400_000
    answers = {1: SAID, 2: endless, 3: SAID}
    broken = {1: LINES, 2: '{"width": 0, "height": 0, "lines": []}', 3: LINES}

    def hostile(standing: Standing, number: int) -> PageResult:
        made = replace(page(standing, 1), page_number=number, figures={}, blocks=())
        if standing.source_uri == "/in/lines.pdf":
            return replace(made, raw_output=broken[number], **CPU)
        return replace(made, raw_output=answers[number])

    store = new_lake(tmp_path)
    contents = [{"/in/endless.pdf": 3, "/in/lines.pdf": 3}]
    write_run(store, 1, contents, page=hostile, recipe=PLAIN)
    old = Readers(store).look()
    with WorkerPool(2) as pool, locked(tmp_path) as lock:
        done = asyncio.run(reparse(store, lock, pool, 6))
    assert done == Reparsed(PARSER_VERSION, parsed=4, failed=2)
    new = Readers(store).look()
    for name, text in (
        ("endless", "A page\n\nIts words.\n\nWhat it shows."),
        ("lines", "above\nbelow"),
    ):
        found = pages_of(new, name)
        assert [found[1]["text"], found[3]["text"]] == [text, text]
        assert found[2] == pages_of(old, name)[2]


def test_readers_never_see_half_a_page(lake: Path, run: Run) -> None:
    readers = Readers(LocalStore(lake))
    before = readers.look()
    after = Readers(LocalStore(next(copies_of(lake, lake.parent / "other", 1))[1]))
    alone(after.store.root, run)
    writes = writes_of(lake, run, lambda: expect_old_or_new(readers.look(), before, after.look()))
    assert writes > 10


def expect_old_or_new(now: Seen, before: Seen, after: Seen) -> None:
    """Every page is as it was or as it will be, with just the blocks that belong to that."""
    assert now.pages.keys() == before.pages.keys() == after.pages.keys()
    for key, row in now.pages.items():
        then = before if row == before.pages[key] else after
        assert row == then.pages[key]
        assert blocks_of(now, row) == blocks_of(then, row)


def test_killed_anywhere_it_goes_on(small: Path, tmp_path: Path, run: Run) -> None:
    before = Readers(LocalStore(small)).look()
    calm = next(copies_of(small, tmp_path, 1))[1]
    writes = writes_of(calm, run)
    after = Readers(LocalStore(calm)).look()
    for number, lake in copies_of(small, tmp_path / "killed", writes):
        readers = Readers(LocalStore(lake))
        killed_at(lake, run, number)
        expect_old_or_new(readers.look(), before, after)
        alone(lake, run)
        assert readers.look() == after
        expect_whole(LocalStore(lake))


def test_a_zombie_does_no_harm_whenever_it_wakes(
    small: Path, tmp_path: Path, run: Run, run_meanwhile: Run
) -> None:
    calm = next(copies_of(small, tmp_path, 1))[1]
    writes = writes_of(calm, run)
    after = Readers(LocalStore(calm)).look()

    def others(store: LocalStore, lock: LakeLock) -> None:
        run_meanwhile(store, lock)
        settle(store, lock)
        compact(store, lock, new_run_id(store), 1 << 20, datetime(2026, 3, 9, tzinfo=UTC))

    for number, lake in copies_of(small, tmp_path / "frozen", writes):
        readers = Readers(LocalStore(lake))

        def look(readers: Readers = readers) -> None:
            assert readers.look() == after

        frozen_at(lake, run, number, others, look)
        alone(lake, run)
        look()
        expect_whole(LocalStore(lake))
