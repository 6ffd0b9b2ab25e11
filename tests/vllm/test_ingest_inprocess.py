"""The engine inside the process: `pagelake ingest --engine vllm`, and a batch under stress."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pymupdf
import pytest
from prometheus_client import REGISTRY

from schemas.records import PageImage, Reading
from schemas.settings import EngineSettings
from tasks.engines.arguments import engine_arguments
from tasks.engines.choice import Asked
from tasks.engines.inprocess import VllmEngine
from tasks.engines.profiles import profile_of
from tasks.ladder import first_try
from tasks.render import render_page
from tasks.target import Rendering
from tests.conftest import ROOT
from tests.vllm.shades import Shade, ordinary, pages
from tests.vllm.test_ingest_server import PATIENT, SMALL, meant, rows, write_pages

SHADES = pages()
ASKED = Asked(profile_of("deepseek-ocr"), "global", "markdown")
OPTIONS = ("enforce_eager=true", "dtype=bfloat16", "async_scheduling=true")


def test_shards_by_one_engine_until_ctrl_c(checkpoint: Path, tmp_path: Path) -> None:
    """Every page its text; interrupted, it is gone within 25 s, and nothing is left behind."""
    shades = list(ordinary().values())
    for number, shade in enumerate(shades):
        write_pages(tmp_path / "in" / f"{number:02}.pdf", shade)
    options = [
        word
        for option in (*OPTIONS, "max_model_len=4096", "max_num_seqs=3")
        for word in ("--engine-option", option)
    ]
    log = (tmp_path / "log").open("w")
    run = subprocess.Popen(
        [
            sys.executable, "-m", "flows.cli", "ingest", tmp_path / "in", tmp_path / "lake",
            *SMALL, *PATIENT, "--engine", "vllm", "--weights", checkpoint, *options,
            "--shard-documents", "2",
        ],
        cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
    )  # fmt: skip
    family: list[psutil.Process] = []
    try:
        until = time.monotonic() + 240
        while len(list(tmp_path.glob("lake/pages/*/*"))) < 3 and time.monotonic() < until:
            time.sleep(0.2)
            assert run.poll() is None, (tmp_path / "log").read_text()
        family = psutil.Process(run.pid).children(recursive=True)
        began = time.monotonic()
        os.killpg(run.pid, signal.SIGINT)
        run.wait(timeout=30)
        assert time.monotonic() - began < 25
        assert run.returncode == 130
        _, alive = psutil.wait_procs(family, timeout=5)
        assert not alive
    finally:
        for process in (process for process in family if process.is_running()):
            process.kill()
        if run.poll() is None:
            run.kill()
        log.close()
    assert (tmp_path / "log").read_text().count("vLLM is ready") == 1
    found = rows(tmp_path / "lake")
    assert len(found) >= 3
    for page in found:
        shade = shades[int(Path(page["source_uri"]).stem)]
        assert page["text"] == meant(shade, page), shade.name
        assert (page["engine"], page["attempts"], page["finish_reason"]) == ("vllm", 1, "stop")
        assert 273 < page["prompt_tokens"] < 300


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # vLLM's sockets
def test_loops_are_broken_in_a_batch_that_is_preempted(checkpoint: Path, tmp_path: Path) -> None:
    """There is room for five questions and not for their answers: some are put back and taken up
    again, with asynchronous scheduling, and the n-gram processor keeps its place in each."""
    room = ("max_model_len=1504", "max_num_seqs=6", "block_size=32", "num_gpu_blocks_override=48")
    settings = EngineSettings(weights=str(checkpoint), engine_option=(*OPTIONS, *room))
    profile = profile_of("deepseek-ocr")
    names = ["black", "amber", "black", "birch", "black", "delta"]

    async def read() -> list[Reading]:
        engine = await VllmEngine.start(profile, engine_arguments(profile, settings), 600)
        try:
            ask = first_try(ASKED, profile.most_output(engine.context, 1)).ask
            images = [image_of(SHADES[name], tmp_path) for name in names]
            return await asyncio.gather(*(engine.ask([image], ask) for image in images))
        finally:
            preempted.append(counted("vllm:num_preemptions_total"))
            await engine.stop()

    preempted: list[float] = []
    readings = asyncio.run(read())
    assert preempted[0] > 0
    for name, reading in zip(names, readings, strict=True):
        answer = SHADES[name].answers["markdown"]
        if name == "black":
            assert reading.raw.startswith(answer.cycle * 4)
            assert reading.raw.endswith(answer.way_out)
        else:
            assert reading.raw == answer.text, name
    assert len({reading.raw for reading in readings if reading.raw.startswith("all")}) == 1


def image_of(shade: Shade, folder: Path) -> PageImage:
    """A small page of this shade, as bare pixels."""
    with pymupdf.open(write_pages(folder / f"{shade.name}.pdf", shade)) as document:
        return render_page(document[0], Rendering(ASKED.target, "rgb"))


def counted(name: str) -> float:
    """A counter of vLLM's, over all its labels."""
    samples = (sample for metric in REGISTRY.collect() for sample in metric.samples)
    return sum(sample.value for sample in samples if sample.name == name)
