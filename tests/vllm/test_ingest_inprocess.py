"""`pagelake ingest --engine vllm`: the engine inside, with our n-gram processor on its runner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.conftest import ROOT, pagelake
from tests.vllm.shades import ordinary, pages
from tests.vllm.test_ingest_server import PATIENT, SMALL, meant, rows, write_pages

SHADES = pages()
OPTIONS = (
    "max_model_len=4096",
    "max_num_seqs=6",
    "enforce_eager=true",
    "dtype=bfloat16",
    "async_scheduling=true",
)


def engine(checkpoint: Path, *more: str) -> list[str]:
    options = [word for option in (*OPTIONS, *more) for word in ("--engine-option", option)]
    return ["--engine", "vllm", "--weights", str(checkpoint), *options]


def test_pages_of_several_shards_by_one_engine(checkpoint: Path, tmp_path: Path) -> None:
    """Exact texts and token counts. Loops among them are broken, in a batch whose requests come
    and go, and are preempted for want of memory: there is room for two pages at a time."""
    shades = [*list(ordinary().values())[:4], SHADES["black"], SHADES["black"], SHADES["birch"]]
    for number, shade in enumerate(shades):
        write_pages(tmp_path / "in" / f"{number}.pdf", shade)
    ended = pagelake(
        "ingest", tmp_path / "in", tmp_path / "lake", *SMALL, *PATIENT,
        *engine(checkpoint, "num_gpu_blocks_override=8"), "--shard-documents", "3", "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    found = rows(tmp_path / "lake")
    assert len(found) == len(shades)
    for shade, page in zip(shades, found, strict=True):
        assert page["engine"] == "vllm"
        assert page["attempts"] == 1
        assert 273 < page["prompt_tokens"] < 300
        if shade.name == "black":
            assert page["text"].startswith("all work and no play all work")
            assert page["text"].endswith("and then the page was over.")
        else:
            assert page["text"] == meant(shade, page), shade.name
    assert ended.err.count("vLLM is ready") == 1


def test_ctrl_c_leaves_nothing_behind(checkpoint: Path, tmp_path: Path) -> None:
    shades = list(ordinary().values())
    write_pages(tmp_path / "in" / "a.pdf", *shades)
    log = (tmp_path / "log").open("w")
    run = subprocess.Popen(
        [
            sys.executable, "-m", "flows.cli", "ingest", tmp_path / "in", tmp_path / "lake",
            *SMALL, *PATIENT, *engine(checkpoint), "--part-pages", "1",
        ],
        cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
    )  # fmt: skip
    family: list[psutil.Process] = []
    try:
        until = time.monotonic() + 240
        while not list(tmp_path.glob("lake/pages/*/*")) and time.monotonic() < until:
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
    found = rows(tmp_path / "lake")
    assert 1 <= len(found) <= len(shades)
    assert [page["text"] for page in found] == [
        meant(shade, page) for shade, page in zip(shades, found, strict=False)
    ]
