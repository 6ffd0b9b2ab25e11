"""What is read of sample_docs against what is printed in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from rapidfuzz.distance import Levenshtein

from tests.truth import Compared, compared, one_line

MOST_ERRORS = {"clean": 0.015, "scan": 0.04, "photo": 0.04, "turned": 0.04}


@pytest.fixture(scope="module")
def by_engine(sample_lake_by_engine: Path) -> list[Compared]:
    return list(compared(sample_lake_by_engine))


@pytest.fixture(scope="module")
def by_default(sample_lake: Path) -> list[Compared]:
    return list(compared(sample_lake))


@pytest.mark.parametrize("kind", MOST_ERRORS)
def test_character_errors_of_the_engine(by_engine: list[Compared], kind: str) -> None:
    pages = [page for page in by_engine if page.printed["class"] == kind]
    assert pages
    errors = sum(page.distance for page in pages) / sum(len(page.wanted) for page in pages)
    worst = sorted(pages, key=lambda page: -page.distance)[:3]
    print(f"{kind}: {errors:.4f} over {len(pages)} pages")
    assert errors <= MOST_ERRORS[kind], [(p.file, p.page["page_number"], p.got) for p in worst]


def test_no_page_is_much_worse_than_its_kind(by_engine: list[Compared]) -> None:
    bad = [p for p in by_engine if p.distance > 3 * MOST_ERRORS[p.printed["class"]] * len(p.wanted)]
    assert not bad, [(p.file, p.page["page_number"], p.got, p.wanted) for p in bad]


def test_embedded_text_is_read_without_errors(by_default: list[Compared]) -> None:
    digital = [page for page in by_default if page.page["origin"] == "text_layer"]
    assert len(digital) == 52
    wrong = {(p.file, p.page["page_number"]): p.distance for p in digital if p.distance > 15}
    assert not wrong
    assert sum(page.distance for page in digital) < 0.002 * sum(len(p.wanted) for p in digital)


@pytest.mark.parametrize("lake", ["by_engine", "by_default"])
def test_paragraphs_of_two_columns_are_in_order(lake: str, request: pytest.FixtureRequest) -> None:
    pages: list[Compared] = request.getfixturevalue(lake)
    two_columns = [page for page in pages if page.printed["columns"] == 2]
    assert len(two_columns) == 3
    for page in two_columns:
        starts = [_place(one_line(paragraph), page.got) for paragraph in page.printed["body"]]
        assert starts == sorted(starts), (page.page["page_number"], starts)


def _place(paragraph: str, text: str) -> int:
    """Where a paragraph begins in a text that may have a wrong letter here and there."""
    head = paragraph[:40]
    return min(
        range(max(len(text) - len(head), 1)),
        key=lambda start: Levenshtein.distance(head, text[start : start + len(head)]),
    )


@pytest.mark.parametrize(("lake", "alike"), [("by_engine", 0.9), ("by_default", 1.0)])
def test_the_cells_of_a_table_are_all_in_their_rows(
    lake: str, alike: float, request: pytest.FixtureRequest
) -> None:
    pages: list[Compared] = request.getfixturevalue(lake)
    seen = 0
    for page in pages:
        for table in page.printed["tables"]:
            for row in table["rows"]:
                seen += 1
                cells = [one_line(cell) for cell in row if cell]
                best = max(
                    (_similarity(cells, found) for t in page.tables for found in t), default=0
                )
                assert best >= alike, (page.file, page.page["page_number"], cells, page.tables)
    assert seen > 100


def _similarity(wanted: list[str], found: list[str]) -> float:
    """How alike two rows are by their filled cells, as words in order; 1.0 if the same."""
    found = [cell for cell in found if cell]
    if wanted == found:
        return 1.0
    joined = " ".join(wanted), " ".join(found)
    return min(0.99, Levenshtein.normalized_similarity(*joined))


def test_running_heads_are_marked_and_left_out_of_the_markdown(by_default: list[Compared]) -> None:
    marked = printed = 0
    for page in by_default:
        heads = [
            one_line(b["text"]) for b in page.blocks if b["kind"] in ("page_header", "page_footer")
        ]
        for head in page.printed["header"] + page.printed["footer"]:
            printed += 1
            marked += any(one_line(head) in found for found in heads)
    assert printed > 80
    assert marked >= 0.95 * printed
    (report,) = [p for p in by_default if p.file == "report.pdf" and p.page["page_number"] == 2]
    for head in report.printed["header"]:
        assert head not in report.page["markdown"]
        assert head not in report.page["text"]


def test_turned_pages_are_found_and_turned(by_engine: list[Compared]) -> None:
    turned = [page for page in by_engine if page.printed["class"] == "turned"]
    assert [page.page["rotation"] for page in turned] == [page.printed["turn"] for page in turned]
    assert {page.page["rotation"] for page in turned} == {90, 180, 270}
    others = [page for page in by_engine if page.printed["class"] != "turned"]
    assert not [page for page in others if page.page["rotation"]]


def test_figures_are_cropped_and_linked(by_default: list[Compared], sample_lake: Path) -> None:
    with_figures = [p for p in by_default if p.printed["figures"] and p.printed["class"] == "clean"]
    assert len(with_figures) >= 4
    for page in with_figures:
        figures = [block for block in page.blocks if block["kind"] == "figure"]
        assert len(figures) == page.printed["figures"], (page.file, page.page["page_number"])
        for figure in figures:
            assert f"![]({figure['figure_uri']})" in page.page["markdown"]
            assert (sample_lake / figure["figure_uri"]).read_bytes()[8:12] == b"WEBP"
