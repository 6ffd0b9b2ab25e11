"""`ingest` with a model behind a server: profiles, checks, the ladder, deaths, whole documents."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from PIL import Image

from schemas.errors import UsageError
from schemas.records import Block
from schemas.settings import EngineSettings
from tasks.engines import profiles
from tasks.engines.arguments import api_servers, engine_arguments, serve_flags
from tasks.engines.profiles import PROFILES, Profile, profile_of
from tasks.grounding import Piece, Pieces
from tests.conftest import ROOT, Ended
from tests.standin import Question, Said, StandIn, by_shade, grounded, standing_in, write_shades

Command = Callable[..., Ended]

ENGINE = ("--text-layer", "ignore", "--part-pages", "5")


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with standing_in(StandIn()) as stand_in:
        yield stand_in


def pages(lake: Path, *columns: str) -> list[tuple[Any, ...]]:
    chosen = ", ".join(columns)
    return duckdb.sql(
        f"SELECT {chosen} FROM '{lake}/pages/*/*.parquet' ORDER BY source_uri, page_number"
    ).fetchall()


def only(rows: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    [row] = rows
    return row


# -- profiles ------------------------------------------------------------------------------------


def test_the_models_that_are_known() -> None:
    assert [profile.model for profile in PROFILES] == [
        "deepseek-ocr",
        "deepseek-ocr-2",
        "deepseek-vl2-tiny",
        "deepseek-vl2-small",
        "deepseek-vl2",
        "phi-3-vision",
    ]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.model)
def test_a_profile_is_whole(profile: Profile) -> None:
    assert profile.question("markdown")
    assert profile.whole_prompt("Q?", 1).count(profile.image_mark.format(n=1)) == 1
    assert "Q?" in profile.whole_prompt("Q?", 1)
    assert profile.most_output(None, profile.images_a_prompt) >= 1
    assert profile.most_output(4096, 1) > 1000


def test_deepseek_ocrs_own_words() -> None:
    profile = profile_of("deepseek-ocr")
    asked = {name: profile.whole_prompt(profile.question(name), 1) for name in ("markdown", "free")}
    assert asked == {
        "markdown": "<image>\n<|grounding|>Convert the document to markdown.",
        "free": "<image>\nFree OCR.",
    }
    assert profile.question("locate: the red stamp") == (
        "Locate <|ref|>the red stamp<|/ref|> in the image."
    )


def test_several_images_in_one_prompt() -> None:
    vl2, phi = profile_of("deepseek-vl2"), profile_of("phi-3-vision")
    assert vl2.whole_prompt("Q?", 2) == "<|User|>: <image>\n<image>\nQ?\n\n<|Assistant|>: "
    assert phi.whole_prompt("Q?", 2) == (
        "<|user|>\n<|image_1|>\n<|image_2|>\nQ?<|end|>\n<|assistant|>\n"
    )


def test_flags_of_vllm_serve() -> None:
    chunked = EngineSettings(prefill_chunk=512, engine_option=("max-num-seqs=32", "dtype=half"))
    flags = serve_flags(engine_arguments(profile_of("deepseek-vl2-tiny"), chunked))
    told = dict(itertools.pairwise(flags))
    assert flags[0] == "deepseek-ai/deepseek-vl2-tiny"
    assert json.loads(told["--hf-overrides"]) == {"architectures": ["DeepseekVLV2ForCausalLM"]}
    assert told["--max-num-batched-tokens"] == "512"
    assert told["--max-num-seqs"] == "32"
    assert told["--dtype"] == "half"
    assert "--enable-chunked-prefill" in flags
    assert "--no-enable-prefix-caching" in flags
    phi = serve_flags(engine_arguments(profile_of("phi-3-vision"), EngineSettings()))
    assert "--trust-remote-code" in phi


def test_api_servers_for_gpus() -> None:
    assert [api_servers(gpus) for gpus in (1, 2, 8)] == [1, 2, 6]


def shouting(raw: str, width_pt: float, height_pt: float, turn: int) -> Pieces:
    """The parser of a model that the next test adds."""
    return Pieces((Piece(Block("text", "shout", raw.upper(), None), raw.upper()),))


def test_a_new_model_is_one_entry(
    monkeypatch: pytest.MonkeyPatch, stand_in: StandIn, tmp_path: Path
) -> None:
    """Added here, in this process: asked for, rendered and parsed as its entry says."""
    from flows.ingest import run_ingest
    from schemas.settings import IngestSettings
    from tasks.progress import Lines
    from tasks.target import TileTarget

    entry = Profile(
        model="shouter",
        repository="someone/shouter",
        prompts={"markdown": "SHOUT!"},
        targets={"tiny": TileTarget(tile=320, most=1)},
        chat="{images}{question}",
        image_mark="<image>",
        context=4096,
        image_tokens=100,
        parser=shouting,
    )
    monkeypatch.setattr(profiles, "PROFILES", (*PROFILES, entry))
    stand_in.models = ("shouter",)
    stand_in.answer = lambda question: Said(f"seen at {question.pictures[0].size}")
    write_shades(tmp_path / "in" / "a.pdf", [180])
    settings = IngestSettings(
        source=str(tmp_path / "in"),
        dest=str(tmp_path / "lake"),
        engine_url=(stand_in.url,),
        model="shouter",
        text_layer="ignore",
    )
    assert not run_ingest(settings, Lines()).any_failed
    assert stand_in.asked[0].words == "SHOUT!"
    assert only(pages(tmp_path / "lake", "text", "model")) == ("SEEN AT (240, 320)", "shouter")


def test_unknown_models_modes_and_prompts_are_refused(
    pagelake: Command, stand_in: StandIn, tmp_path: Path
) -> None:
    write_shades(tmp_path / "in" / "a.pdf", [180])
    for options, word in (
        (("--model", "gpt-7"), "phi-3-vision"),
        (("--mode", "huge"), "gundam, global"),
        (("--prompt", "sing"), "locate:TEXT"),
        (("--prompt", "locate"), "locate:TEXT"),
        (("--prompt", "describe", "--pages-per-prompt", "4"), "takes 1 at most"),
        (("--pages-per-prompt", "4"), "--prompt describe"),
    ):
        ended = pagelake(
            "ingest", tmp_path / "in", tmp_path / "lake", "--engine-url", stand_in.url, *options
        )
        assert ended.code == 2
        assert word in ended.err
        assert len(ended.err.strip().splitlines()) == 1
    ended = pagelake("ingest", tmp_path / "in", tmp_path / "lake", "--engine", "server")
    assert (ended.code, "--engine-url" in ended.err) == (2, True)
    ended = pagelake("ingest", tmp_path / "in", tmp_path / "lake", "--engine", "vllm")
    assert (ended.code, "not installed" in ended.err) == (2, True)
    assert not stand_in.asked
    assert not list((tmp_path / "lake").glob("pages/**/*.parquet"))


# -- whole runs ----------------------------------------------------------------------------------


def test_every_page_gets_its_own_text(pagelake: Command, stand_in: StandIn, tmp_path: Path) -> None:
    for number in range(4):
        write_shades(tmp_path / "in" / f"{number}.pdf", list(range(number, 250, 12)))
    stand_in.answer = lambda question: Said(by_shade(question).text, seconds=0.2)
    second = StandIn(answer=stand_in.answer)
    with standing_in(second):
        ended = pagelake(
            "ingest", tmp_path / "in", tmp_path / "lake", *ENGINE, "--json",
            "--engine-url", stand_in.url, "--engine-url", second.url,
        )  # fmt: skip
    assert ended.code == 0, ended.err
    wanted = [
        (f"{number}.pdf", page, f"Shade\n\npage of shade {shade}", "ok", "server")
        for number in range(4)
        for page, shade in enumerate(range(number, 250, 12), start=1)
    ]
    found = pages(tmp_path / "lake", "source_uri", "page_number", "text", "status", "engine")
    assert [(Path(uri).name, *rest) for uri, *rest in found] == wanted
    assert ended.told["output_tokens"] > 0
    assert ended.told["prompt_tokens"] == 900 * len(wanted)
    assert min(len(stand_in.asked), len(second.asked)) > len(wanted) / 4
    # A second run asks nobody anything.
    asked = len(stand_in.asked)
    again = pagelake(
        "ingest", tmp_path / "in", tmp_path / "lake", *ENGINE, "--engine-url", stand_in.url
    )
    assert again.code == 0, again.err
    assert len(stand_in.asked) == asked


def test_a_wrong_model_would_poison_the_lake(pagelake: Command, tmp_path: Path) -> None:
    write_shades(tmp_path / "in" / "a.pdf", [180])
    with standing_in(StandIn(models=("other",))) as stand_in:
        ended = pagelake("ingest", tmp_path / "in", tmp_path / "lake", "--engine-url", stand_in.url)
    assert ended.code == 2
    assert "serves other, not deepseek-ocr" in ended.err
    assert not list((tmp_path / "lake").rglob("*.parquet"))
    assert not list((tmp_path / "lake" / "_runs").rglob("plan*"))


def test_an_engine_that_dies_loses_nothing(
    pagelake: Command, stand_in: StandIn, tmp_path: Path
) -> None:
    """It dies half-way: what was read is there, and nothing else; the next run reads the rest."""
    write_shades(tmp_path / "in" / "a.pdf", list(range(0, 240, 6)))
    died = threading.Event()

    def answer(question: Question) -> Said:
        if len(stand_in.asked) > 25 and not died.is_set():
            died.set()
            threading.Thread(target=stand_in.down).start()
            time.sleep(0.5)
        return Said(by_shade(question).text, seconds=0.05)

    stand_in.answer = answer
    command = ("ingest", tmp_path / "in", tmp_path / "lake", *ENGINE, "--engine-url", stand_in.url)
    ended = pagelake(*command, "--engine-wait", "1", "--max-in-flight", "4", "--processes", "1")
    assert ended.code == 1
    assert "no engine has answered" in ended.err
    before = pages(tmp_path / "lake", "page_number", "status")
    assert 10 <= len(before) < 40
    assert {status for _, status in before} == {"ok"}
    stand_in.up()
    asked = len(stand_in.asked)
    assert pagelake(*command).code == 0
    assert pages(tmp_path / "lake", "text") == [
        (f"Shade\n\npage of shade {shade}",) for shade in range(0, 240, 6)
    ]
    assert len(stand_in.asked) - asked == 40 - len(before)


def test_ctrl_c_leaves_with_what_was_read(stand_in: StandIn, tmp_path: Path) -> None:
    write_shades(tmp_path / "in" / "a.pdf", list(range(0, 240, 6)))
    stand_in.answer = lambda q: Said(by_shade(q).text, seconds=0.0 if q.shade < 100 else 600)
    process = subprocess.Popen(
        [
            sys.executable, "-m", "flows.cli", "ingest", tmp_path / "in", tmp_path / "lake",
            *ENGINE, "--engine-url", stand_in.url, "--max-in-flight", "8",
        ],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
    )  # fmt: skip
    until = time.monotonic() + 60
    while stand_in.running < 8 and time.monotonic() < until:
        time.sleep(0.1)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - began < 25
    assert process.returncode == 130
    assert "goes on from there" in err
    assert {text for (text,) in pages(tmp_path / "lake", "text")} == {
        f"Shade\n\npage of shade {shade}" for shade in range(0, 100, 6)
    }


# -- checks and the ladder -----------------------------------------------------------------------

LOOP = "<|ref|>text<|/ref|><|det|>[[1, 1, 900, 900]]<|/det|>\nIt begins well.\n" + "all work " * 900


def read_one(
    pagelake: Command, stand_in: StandIn, tmp_path: Path, *options: str
) -> tuple[Ended, dict[str, Any]]:
    write_shades(tmp_path / "in" / "a.pdf", [200])
    ended = pagelake(
        "ingest",
        tmp_path / "in",
        tmp_path / "lake",
        *ENGINE,
        "--engine-url",
        stand_in.url,
        *options,
    )
    found = duckdb.sql(f"SELECT * FROM '{tmp_path}/lake/pages/*/*.parquet'")
    return ended, dict(zip(found.columns, only(found.fetchall()), strict=True))


def test_a_loop_is_broken_by_a_stronger_setting(
    pagelake: Command, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.answer = lambda q: (
        Said(LOOP, "length") if q.body["vllm_xargs"]["ngram_size"] == 30 else by_shade(q)
    )
    ended, page = read_one(pagelake, stand_in, tmp_path)
    assert ended.code == 0, ended.err
    assert (page["status"], page["attempts"], page["text"]) == (
        "ok",
        2,
        "Shade\n\npage of shade 200",
    )
    assert page["flags"] == ["by_stronger_ngram", "not_at_first_loop"]
    assert page["prompt_tokens"] == 1800  # both answers were paid for


def test_another_mode_and_then_another_prompt(
    pagelake: Command, stand_in: StandIn, tmp_path: Path
) -> None:
    def answer(question: Question) -> Said:
        if question.words == "Free OCR.":
            return Said("Plain words alone.")
        return Said(LOOP, "length")

    stand_in.answer = answer
    _, page = read_one(pagelake, stand_in, tmp_path)
    sizes = [max(question.pictures[0].size) for question in stand_in.asked]
    assert sizes == [1667, 1667, 640, 1667]
    assert (page["status"], page["attempts"], page["text"]) == ("ok", 4, "Plain words alone.")
    assert "by_other_prompt" in page["flags"]


def test_if_nothing_helps_the_page_has_failed_and_keeps_its_text(
    pagelake: Command, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.answer = lambda _: Said(LOOP, "length")
    ended, page = read_one(pagelake, stand_in, tmp_path)
    assert ended.code == 3
    assert (page["status"], page["error_code"], page["origin"]) == ("failed", "loop", "ocr")
    assert "It begins well." in page["text"]
    assert page["text"].count("all work") < 10
    assert page["raw_output"].startswith(LOOP[:100])
    assert page["attempts"] == len(stand_in.asked) >= 4
    assert {question.body["temperature"] for question in stand_in.asked} == {0.0, 0.3}


def test_a_try_that_fails_does_not_lose_the_answers_before_it(
    pagelake: Command, stand_in: StandIn, tmp_path: Path
) -> None:
    said = iter([Said(LOOP, "length")])
    stand_in.answer = lambda _: next(said, Said("no more of this", status=400))
    ended, page = read_one(pagelake, stand_in, tmp_path)
    assert ended.code == 3
    assert (page["error_code"], page["attempts"]) == ("loop", 1)
    assert "It begins well." in page["text"]
    assert len(stand_in.asked) >= 4


def test_fewer_attempts_if_asked_for(pagelake: Command, stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.answer = lambda _: Said(LOOP, "length")
    read_one(pagelake, stand_in, tmp_path, "--attempts", "2")
    assert len(stand_in.asked) == 2


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (Said("Words that go on until there is no more room", "length"), "truncated"),
        (Said(""), "empty_output"),
    ],
)
def test_other_failures(
    pagelake: Command, stand_in: StandIn, tmp_path: Path, said: Said, code: str
) -> None:
    stand_in.answer = lambda _: said
    ended, page = read_one(pagelake, stand_in, tmp_path, "--attempts", "2")
    assert (ended.code, page["status"], page["error_code"]) == (3, "failed", code)


@pytest.mark.parametrize("fallback", ["text_layer", "rapidocr"])
def test_a_fallback_reads_what_the_model_cannot(
    pagelake: Command, stand_in: StandIn, tmp_path: Path, fallback: str
) -> None:
    stand_in.answer = lambda _: Said(LOOP, "length")
    ended, page = read_one(pagelake, stand_in, tmp_path, "--attempts", "1", "--fallback", fallback)
    assert ended.code == 0, ended.err
    assert page["text"].strip() == "These words lie on shade 200."
    assert page["engine"] == {"text_layer": "pymupdf", "rapidocr": "rapidocr"}[fallback]
    assert f"by_{fallback}" in page["flags"]


def test_a_blank_page_costs_nothing(pagelake: Command, stand_in: StandIn, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (1200, 1600), (250, 248, 240)).save(tmp_path / "in" / "blank.png")
    ended = pagelake("ingest", tmp_path / "in", tmp_path / "lake", "--engine-url", stand_in.url)
    assert ended.code == 0, ended.err
    assert not stand_in.asked
    assert only(pages(tmp_path / "lake", "status", "attempts", "flags")) == ("empty", 0, ["blank"])


def test_a_page_on_its_side_is_turned_for_the_model(
    pagelake: Command, stand_in: StandIn, tmp_path: Path
) -> None:
    """The model makes nothing of the page as it lies, and reads it turned; the box comes back."""
    from tests.makers import drawn

    (tmp_path / "in").mkdir()
    lying = drawn("The minutes of the society were read and signed by all", (1400, 900))
    lying.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "in" / "lying.png", dpi=(96, 96))
    said = "<|ref|>text<|/ref|><|det|>[[0, 0, 499.5, 999]]<|/det|>\nThe minutes"
    stand_in.answer = lambda q: (
        Said(said) if q.pictures[0].width > q.pictures[0].height else Said("")
    )
    ended = pagelake("ingest", tmp_path / "in", tmp_path / "lake", "--engine-url", stand_in.url)
    assert ended.code == 0, ended.err
    status, rotation, width, height = only(
        pages(tmp_path / "lake", "status", "rotation", "width_pt", "height_pt")
    )
    assert (status, rotation) == ("ok", 90)
    assert (width, height) == pytest.approx((675, 1050), abs=0.2)
    box = duckdb.sql(f"SELECT x0, y0, x1, y1 FROM '{tmp_path}/lake/blocks/*/*.parquet'").fetchall()
    assert only(box) == pytest.approx((0, 525, 675, 1050), abs=0.2)


# -- figures, layout, whole documents ------------------------------------------------------------


def test_figures_are_cut_out(pagelake: Command, stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.answer = lambda _: Said(
        "<|ref|>image<|/ref|><|det|>[[100, 500, 600, 900]]<|/det|>\n"
        "<|ref|>image_caption<|/ref|><|det|>[[100, 910, 600, 950]]<|/det|>\n<center>Fig. 1</center>"
    )
    ended, page = read_one(pagelake, stand_in, tmp_path)
    assert ended.code == 0, ended.err
    [(uri,)] = duckdb.sql(
        f"SELECT figure_uri FROM '{tmp_path}/lake/blocks/*/*.parquet' WHERE kind = 'figure'"
    ).fetchall()
    picture = Image.open(io.BytesIO((tmp_path / "lake" / uri).read_bytes()))
    assert picture.size == pytest.approx((1250 * 0.5, 1667 * 0.4), abs=2)
    assert page["markdown"] == f"![]({uri})\n\nFig. 1"


def test_layout_none_gives_text_alone(pagelake: Command, stand_in: StandIn, tmp_path: Path) -> None:
    _, page = read_one(pagelake, stand_in, tmp_path, "--layout", "none")
    assert page["text"] == "Shade\n\npage of shade 200"
    assert not list((tmp_path / "lake").glob("blocks/*/*.parquet"))


def test_a_document_is_described_by_several_pages_at_once(
    pagelake: Command, tmp_path: Path
) -> None:
    write_shades(tmp_path / "in" / "a.pdf", [50, 100, 150, 200, 250])
    with standing_in(StandIn(models=("deepseek-vl2",))) as stand_in:
        stand_in.answer = lambda question: Said(f"{len(question.pictures)} pages of grey")
        ended = pagelake(
            "ingest", tmp_path / "in", tmp_path / "lake", "--engine-url", stand_in.url,
            "--model", "deepseek-vl2", "--prompt", "describe", "--pages-per-prompt", "3",
            "--text-layer", "ignore",
        )  # fmt: skip
    assert ended.code == 0, ended.err
    [(metadata,)] = duckdb.sql(
        f"SELECT metadata['description'] FROM '{tmp_path}/lake/documents/*/*.parquet'"
    ).fetchall()
    described = metadata if isinstance(metadata, str) else metadata[0]
    assert described == ("Pages 1 to 3:\n3 pages of grey\n\nPages 4 to 5:\n2 pages of grey")


def test_a_recipe_knows_model_mode_and_prompt(
    pagelake: Command, stand_in: StandIn, tmp_path: Path
) -> None:
    write_shades(tmp_path / "in" / "a.pdf", [200])
    command = ("ingest", tmp_path / "in", tmp_path / "lake", *ENGINE, "--engine-url", stand_in.url)
    assert pagelake(*command).code == 0
    for other in (("--mode", "global"), ("--prompt", "free"), ("--revision", "v2")):
        ended = pagelake(*command, *other)
        assert (ended.code, "1 pages again" in ended.err) == (2, True)
    assert pagelake(*command, "--attempts", "3", "--max-in-flight", "3").code == 0


def test_a_mode_that_does_not_exist_names_those_that_do() -> None:
    with pytest.raises(UsageError, match="gundam, global"):
        profile_of("deepseek-ocr").target("tiny")


def test_grounded_answers_are_what_the_stand_in_says() -> None:
    assert grounded("x").count("<|ref|>") == 2
