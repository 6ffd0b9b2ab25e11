"""DeepSeek-OCR's output as blocks: the grammar, odd cases that were seen, and real outputs.

What the real outputs must become is written down in tests/golden/deepseek-ocr without their text;
after a wanted change write it anew with `python -m tests.test_grounding` and read the difference.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.records import Block
from schemas.tables import KINDS
from tasks.grounding import FLAGS, KIND_OF_LABEL, Pieces, page, pieces
from tests.realoutputs import real_outputs

WIDTH, HEIGHT = 595.0, 842.0
GOLDEN = Path(__file__).parent / "golden" / "deepseek-ocr"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))


def ref(label: str, text: str = "", det: str = "[[0, 0, 999, 999]]") -> str:
    return f"<|ref|>{label}<|/ref|><|det|>{det}<|/det|>\n{text}\n\n"


def parsed(raw: str, turn: int = 0) -> Pieces:
    return pieces(raw, WIDTH, HEIGHT, turn)


def blocks(raw: str) -> list[Block]:
    return [piece.block for piece in parsed(raw).pieces]


def told(raw: str) -> list[tuple[str, str, str]]:
    return [(block.kind, block.label, block.text) for block in blocks(raw)]


def on_grid(block: Block) -> list[float] | None:
    """A block's box as the model would have said it."""
    if block.box is None:
        return None
    x0, y0, x1, y1 = block.box
    sides = (x0 / WIDTH, y0 / HEIGHT, x1 / WIDTH, y1 / HEIGHT)
    return [round(side * 999, 3) for side in sides]


# -- labels, boxes and what stands between -------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("title", "title"),
        ("sub_title", "section_header"),
        ("text", "text"),
        ("equation", "formula"),
        ("table", "table"),
        ("image", "figure"),
        ("image_caption", "caption"),
        ("table_caption", "caption"),
        ("figure_caption", "caption"),
        ("table_footnote", "footnote"),
        ("image_footnote", "footnote"),
        ("footnote", "footnote"),
        ("header", "page_header"),
        ("footer", "page_footer"),
        ("page_number", "page_footer"),
        ("list", "list_item"),
        ("code", "code"),
        ("sidebar_note", "other"),
    ],
)
def test_a_label_has_a_kind_and_is_kept(label: str, kind: str) -> None:
    (block,) = blocks(ref(label, "words"))
    assert (block.kind, block.label) == (kind, label)
    assert "words" in block.text


def test_every_label_is_of_a_kind_that_the_lake_has() -> None:
    assert set(KIND_OF_LABEL.values()) <= set(KINDS)


def test_a_page_by_hand() -> None:
    raw = (
        "<|ref|>header<|/ref|><|det|>[[100, 10, 900, 30]]<|/det|>\nJournal  \n\n"
        "<|ref|>title<|/ref|><|det|>[[100, 50, 900, 100]]<|/det|>\n# On **Tubs**  \n\n"
        "<|ref|>text<|/ref|><|det|>[[0, 111, 333, 222]]<|/det|>\nFirst line  \nsecond line  \n\n"
        "<|ref|>image<|/ref|><|det|>[[1, 2, 3, 4]]<|/det|>\n"
        "<|ref|>image_caption<|/ref|><|det|>[[1, 5, 3, 7]]<|/det|>\n"
        "<center>Fig. 1</center>  \n\n"
        "<|ref|>equation<|/ref|><|det|>[[5, 5, 6, 6]]<|/det|>\n\\[ a < b \\tag{1} \\]"
        "<｜end▁of▁sentence｜>"
    )
    found = parsed(raw)
    assert [(each.block.kind, each.block.text) for each in found.pieces] == [
        ("page_header", "Journal"),
        ("title", "On Tubs"),
        ("text", "First line\nsecond line"),
        ("figure", ""),
        ("caption", "Fig. 1"),
        ("formula", "\\[ a < b \\tag{1} \\]"),
    ]
    assert found.flags == ()
    assert found.pieces[2].block.box == pytest.approx(
        (0, 111 / 999 * 842, 595 / 3, 222 / 999 * 842)
    )
    shown = [
        replace(each, block=replace(each.block, figure_uri="figures/d/1-4.webp"))
        if each.block.kind == "figure"
        else each
        for each in found.pieces
    ]
    whole = page(replace(found, pieces=tuple(shown)), "7")
    assert whole.parser_version == "7"
    assert whole.markdown == (
        "# On **Tubs**\n\nFirst line\nsecond line\n\n![](figures/d/1-4.webp)\n\nFig. 1\n\n"
        "\\[ a < b \\tag{1} \\]"
    )
    assert whole.text == "On Tubs\n\nFirst line\nsecond line\n\nFig. 1\n\n\\[ a < b \\tag{1} \\]"
    assert "![](" not in page(found, "7").markdown


@pytest.mark.parametrize(
    ("det", "box", "flags"),
    [
        ("[[10, 20, 30, 40]]", [10, 20, 30, 40], []),
        ("[[10.5, 20, 30, 4e1]]", [10.5, 20, 30, 40], []),
        ("[10, 20, 30, 40]", [10, 20, 30, 40], []),
        ("10, 20, 30, 40", [10, 20, 30, 40], []),
        ("[[[10, 20, 30, 40]]]", [10, 20, 30, 40], []),
        ("[[10 20 30 40]]", [10, 20, 30, 40], []),
        ("[[10, 20, 30, 40", [10, 20, 30, 40], []),
        ("[[0, 0, 999, 1005]]", [0, 0, 999, 999], ["box_mended"]),
        ("[[-5, 3, 1e3, 4]]", [0, 3, 999, 4], ["box_mended"]),
        ("[[30, 40, 10, 20]]", [10, 20, 30, 40], ["box_mended"]),
        ("[[10, 20, 30]]", None, ["box_dropped"]),
        ("[[10, 20, 30, 40, 50]]", None, ["box_dropped"]),
        ("[[10, 20, 10, 40]]", None, ["box_dropped"]),
        ("[[1000, 20, 1200, 40]]", None, ["box_dropped"]),
        ("[[NaN, 20, 30, 40]]", None, ["box_dropped"]),
        ("[[1e999, 20, 30, 40]]", None, ["box_dropped"]),
        ("[[10, twenty, 30, 40]]", None, ["box_dropped"]),
        ("[[10, 20, 30, 40], [1, 2]]", [10, 20, 30, 40], ["box_dropped"]),
        ("[[]]", None, ["box_missing"]),
        ("", None, ["box_missing"]),
    ],
)
def test_boxes_are_mended_or_dropped(det: str, box: list[float] | None, flags: list[str]) -> None:
    found = parsed(ref("text", "words", det))
    assert [on_grid(each.block) for each in found.pieces][:1] == [box]
    assert [*found.flags] == flags
    assert "words" in found.pieces[0].block.text


def test_a_block_in_two_places_has_both_boxes_and_the_one_around_them() -> None:
    (block,) = blocks(ref("text", "words", "[[10, 20, 30, 40], [500, 5, 600, 30]]"))
    assert on_grid(block) == [10, 5, 600, 40]
    assert len(block.boxes) == 2
    assert block.boxes[0] == pytest.approx(
        (10 / 999 * 595, 20 / 999 * 842, 30 / 999 * 595, 40 / 999 * 842)
    )


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_boxes_come_back_onto_the_page_as_displayed(turn: int) -> None:
    """The top left corner of the page made upright is another corner of the page displayed."""
    raw = ref("text", "words", "[[0, 0, 333, 111]]")
    across, down = (842 / 9, 595 / 3) if turn in (90, 270) else (595 / 3, 842 / 9)
    across, down = (across, down) if turn in (0, 180) else (595 / 9, 842 / 3)
    corner = {
        0: (0, 0, across, down),
        90: (0, 842 - down, across, 842),
        180: (595 - across, 842 - down, 595, 842),
        270: (595 - across, 0, 595, down),
    }[turn]
    block = parsed(raw, turn).pieces[0].block
    assert block.box == pytest.approx(corner)
    assert block.boxes == (block.box,)


# -- output that breaks the grammar --------------------------------------------------------------


def test_text_before_the_first_ref_is_kept() -> None:
    found = parsed("Sure, here it is:\n\n" + ref("text", "words"))
    assert [(each.block.label, each.block.text) for each in found.pieces] == [
        ("stray", "Sure, here it is:"),
        ("text", "words"),
    ]
    assert found.pieces[0].block.box is None
    assert found.flags == ("stray_text",)


def test_a_ref_without_a_box() -> None:
    found = parsed("<|ref|>text<|/ref|>\nwords\n\n" + ref("text", "more"))
    assert [on_grid(each.block) is None for each in found.pieces] == [True, False]
    assert found.flags == ("box_missing",)


@pytest.mark.parametrize("cut", ["[[10, 20, 30", "[[10, 2", "[[", "", "[[10, 20, 30, 40"])
def test_an_output_that_ends_in_a_box(cut: str) -> None:
    found = parsed(ref("text", "words") + f"<|ref|>image<|/ref|><|det|>{cut}")
    assert [(each.block.kind, each.block.text) for each in found.pieces] == [
        ("text", "words"),
        ("figure", ""),
    ]
    assert found.pieces[1].block.box is None
    assert "unclosed_det" in found.flags


@pytest.mark.parametrize("cut", ["<|ref|>", "<|ref|>te", "<|ref|>text"])
def test_an_output_that_ends_in_a_label(cut: str) -> None:
    found = parsed(ref("text", "words") + cut)
    assert [each.block.text for each in found.pieces] == ["words"]
    assert "unclosed_ref" in found.flags


def test_a_box_that_was_not_closed_does_not_swallow_the_text() -> None:
    found = parsed(
        "<|ref|>text<|/ref|><|det|>[[10, 20, 30, 40]]\n2150 mm\n\n" + ref("text", "more")
    )
    assert [each.block.text for each in found.pieces] == ["2150 mm", "more"]
    assert on_grid(found.pieces[0].block) == [10, 20, 30, 40]
    assert found.flags == ("unclosed_det",)


def test_a_label_that_was_not_closed() -> None:
    found = parsed("<|ref|>title<|det|>[[10, 20, 30, 40]]<|/det|>\n# Tubs\n\n<|ref|>text\nwords\n")
    assert [(each.block.kind, each.block.text) for each in found.pieces] == [
        ("title", "Tubs"),
        ("text", "words"),
    ]
    assert found.flags == ("box_missing", "unclosed_ref")


def test_streams_that_speak_into_each_other() -> None:
    raw = (
        "<|ref|>title<|/ref|><|ref|>text<|/ref|>"
        "<|det|>[[1, 2, 3, 4]]<|/det|><|det|>[[5, 6, 7, 8]]<|/det|>\n# Tubs\n\nwords\n\n"
        "<|ref|>text<|/ref|><|det|>[[10, 20,<|ref|>text<|/ref|> 30, 40]]<|/det|>\nmore"
    )
    found = parsed(raw)
    assert [(each.block.text, on_grid(each.block)) for each in found.pieces] == [
        ("Tubs", [1, 2, 3, 4]),
        ("words", [5, 6, 7, 8]),
        ("more", None),
    ]
    assert "unclosed_det" in found.flags


def test_refs_back_to_back_share_their_texts_in_order() -> None:
    raw = (
        ref("sub_title", det="[[1, 1, 2, 2]]").strip()
        + ref("image", det="[[3, 3, 4, 4]]").strip()
        + ref("text", "## Tubs\n\nwords", det="[[5, 5, 6, 6]]")
    )
    found = parsed(raw)
    assert [(b.kind, b.text, on_grid(b)) for b in (each.block for each in found.pieces)] == [
        ("section_header", "Tubs", [1, 1, 2, 2]),
        ("figure", "", [3, 3, 4, 4]),
        ("text", "words", [5, 5, 6, 6]),
    ]
    assert found.flags == ()


def test_texts_that_cannot_be_told_apart_go_to_the_last_ref() -> None:
    raw = ref("text").strip() + ref("text").strip() + ref("text", "one\n\ntwo")
    found = parsed(raw)
    assert [each.block.text for each in found.pieces] == ["one\n\ntwo"]
    assert found.flags == ("unmatched_refs", "empty_block")


def test_a_loop_of_marching_boxes() -> None:
    raw = "".join(ref("text", "again", f"[[{x}, 10, {x + 5}, 20]]") for x in range(0, 900, 3))
    assert len(blocks(raw)) == 300
    raw = "".join(ref("image", "", f"[[{x}, 10, {x + 5}, 20]]") for x in range(0, 900, 3))
    assert len(blocks(raw + "<|ref|>image<|/ref|><|det|>[[900, 1")) == 301


def test_refs_that_hold_the_text_itself() -> None:
    """As for "OCR this image": even a word that is a label elsewhere is text."""
    raw = "".join(
        f"<|ref|>{text}<|/ref|><|det|>[[1, 2, 3, 4]]<|/det|>\n"
        for text in ("Price list", "# 12 of table", "table", "2 < 3 & <b>", "4 kg")
    )
    assert told(raw) == [
        ("text", "ocr", "Price list"),
        ("text", "ocr", "# 12 of table"),
        ("text", "ocr", "table"),
        ("text", "ocr", "2 < 3 & <b>"),
        ("text", "ocr", "4 kg"),
    ]
    markdown = page(parsed(raw), "1").markdown
    assert "\\# 12" in markdown
    assert "<b>" not in markdown


def test_a_place_that_was_asked_for() -> None:
    raw = "<|ref|>the red button<|/ref|><|det|>[[1, 2, 3, 4], [5, 6, 7, 8]]<|/det|>"
    assert told(raw) == [("text", "ocr", "the red button")]
    assert told(raw.replace("the red button", "button")) == [("text", "ocr", "button")]
    assert len(blocks(raw)[0].boxes) == 2


def test_known_labels_first_then_words_with_text_then_text() -> None:
    raw = ref("image") + ref("sidebar", "words") + ref("Big words") + ref("nothing")
    assert told(raw) == [
        ("figure", "image", ""),
        ("other", "sidebar", "words"),
        ("text", "ocr", "Big words"),
        ("text", "ocr", "nothing"),
    ]


def test_other_special_tokens_and_unstorable_characters_are_left_out() -> None:
    raw = "<|User|>a\0b\ud800<|grounding|>\r\nc<｜end▁of▁sentence｜><｜▁pad▁｜>"
    assert told(raw) == [("text", "paragraph", "ab?\nc")]


@pytest.mark.parametrize("raw", ["", " \n", "<|grounding|>", "<|/ref|>", "<|/det|>", "<|ref|>"])
def test_nothing_said_is_no_block(raw: str) -> None:
    found = parsed(raw)
    assert found.pieces == ()
    assert page(found, "1").markdown == page(found, "1").text == ""


@pytest.mark.parametrize(
    "size", [(0.0, 0.0), (-1.0, 5.0), (float("nan"), 5.0), (float("inf"), 5.0)]
)
def test_a_page_without_a_size_has_no_boxes(size: tuple[float, float]) -> None:
    found = pieces(ref("text", "words"), *size)
    assert found.pieces[0].block.box is None
    assert found.flags == ("box_dropped",)


def test_the_parser_does_without_pymupdf() -> None:
    code = "import sys, tasks.grounding; sys.exit('pymupdf' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0
    )


# -- real outputs --------------------------------------------------------------------------------


def real_output(name: str) -> str:
    return real_outputs()[name]


def digest(raw: str) -> dict[str, object]:
    """What must not change unnoticed, without the text itself; boxes in points."""
    found = parsed(raw)
    whole = page(found, "")
    lines = [
        " ".join([each.kind, *(f"{side:.1f}" for side in each.box or ())]) for each in whole.blocks
    ]
    return {
        "blocks": lines,
        "flags": [*found.flags],
        "markdown": hashlib.sha256(whole.markdown.encode()).hexdigest(),
        "text": hashlib.sha256(whole.text.encode()).hexdigest(),
        "html": [
            hashlib.sha256(each.html.encode()).hexdigest() for each in whole.blocks if each.html
        ],
    }


@pytest.mark.parametrize("name", NAMES)
def test_real_outputs_are_read_as_they_were_when_a_person_checked(name: str) -> None:
    golden = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    assert digest(real_output(name)) == golden


def test_there_is_a_golden_file_for_every_real_output() -> None:
    assert sorted(real_outputs()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_real_outputs_lose_nothing(name: str) -> None:
    """Against a reading by hand of what well-formed output says."""
    raw = real_output(name)
    well_formed = re.findall(r"<\|ref\|>(\w+)<\|/ref\|><\|det\|>\[\[([^\]]+)\]\]<\|/det\|>", raw)
    found = blocks(raw)
    assert [block.label for block in found] == [label for label, _ in well_formed]
    for block, (_, det) in zip(found, well_formed, strict=True):
        assert on_grid(block) == [min(int(number), 999) for number in det.split(",")]
        assert (block.html is not None) == (block.label == "table")
    said = re.sub(r"<\|ref\|>.*?<\|/det\|>|<[^<>]*>", " ", raw)
    shown = "\n".join([page(parsed(raw), "").markdown, *(block.text for block in found)])
    words = re.findall(r"\w+", said)
    assert words or name == "photo-1"
    assert re.findall(r"\w+", " ".join(block.text for block in found)) == words
    assert all(word in shown for word in words)


def test_flags_of_real_outputs_are_documented() -> None:
    seen = {flag for name in NAMES for flag in parsed(real_output(name)).flags}
    assert seen == {"box_mended"}
    assert seen <= set(FLAGS)


def main() -> None:
    """Write the golden files anew."""
    for name, raw in real_outputs().items():
        text = json.dumps(digest(raw), indent=1)
        (GOLDEN / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
