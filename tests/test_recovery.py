"""Runs that are killed, interrupted or stopped by a budget; documents that failed in passing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pytest

from tests.conftest import ROOT
from tests.documents import write_pdf

QUICK = ("--layout", "none", "--part-pages", "7", "--shard-documents", "5")
KEYS = "SELECT source_uri, page_number, text FROM '{lake}/pages/*/*.parquet' ORDER BY ALL"


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """The command in a process group of its own, as a terminal would start it."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
    )


def pages(lake: Path) -> list[tuple[Any, ...]]:
    return duckdb.sql(KEYS.format(lake=lake)).fetchall()


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def ended_or_committed(process: subprocess.Popen[str], lake: Path, parts: int) -> bool:
    return process.poll() is not None or len(list(lake.glob("pages/*/*"))) >= parts


def wait_for(happened: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number in range(20):
        write_pdf(tmp_path / "source" / f"{number:02}.pdf", 12, f"Letter {number} from the pier.")
    return tmp_path / "source"


def test_a_killed_run_goes_on_where_it_stopped(
    source: Path, tmp_path: Path, pagelake: Callable[..., Any]
) -> None:
    calm, lake = tmp_path / "calm", tmp_path / "lake"
    assert pagelake("ingest", source, calm, *QUICK).code == 0
    kills = 0
    for parts in (1, 6, 12, 20):
        process = start("ingest", source, lake, *QUICK)
        wait_for(partial(ended_or_committed, process, lake, parts))
        if process.poll() is None:
            workers = descendants(process)
            process.kill()
            process.wait()
            kills += 1
            _, alive = psutil.wait_procs(workers, timeout=5)
            assert not alive
        process.communicate()
    assert kills >= 2
    committed = len(pages(lake))
    ended = pagelake("ingest", source, lake, *QUICK, "--json")
    assert ended.code == 0, ended.err
    assert pages(lake) == pages(calm)
    assert ended.told["pages"]["total"] == len(pages(calm)) - committed
    assert pagelake("status", lake, "--json").told["unfinished_runs"] == []
    named = {path.name for path in lake.glob("blocks/*/*")}
    assert named == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_soon_and_keeps_what_is_finished(
    number: signal.Signals, source: Path, tmp_path: Path, pagelake: Callable[..., Any]
) -> None:
    lake = tmp_path / "lake"
    process = start("ingest", source, lake, *QUICK)
    wait_for(lambda: list(lake.glob("pages/*/*")))
    workers = descendants(process)
    if number is signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: to the workers too
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert err.strip().splitlines()[-1].startswith(f"pagelake: stopped by {number.name}")
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive
    assert 0 < len(pages(lake)) < 240
    ended = pagelake("ingest", source, lake, *QUICK, "--json")
    assert ended.code == 0, ended.err
    assert len(pages(lake)) == len(set(pages(lake))) == 240


def test_a_budget_stops_the_run_cleanly(
    source: Path, tmp_path: Path, pagelake: Callable[..., Any]
) -> None:
    lake = tmp_path / "lake"
    seen = 0
    for _ in range(3):
        ended = pagelake("ingest", source, lake, *QUICK, "--max-pages", "100", "--json")
        assert ended.code == 0, ended.err
        assert ended.told["pages"]["total"] <= 100
        seen += ended.told["pages"]["total"]
    assert seen == len(pages(lake)) == 240


def test_a_resume_follows_the_plan_and_not_the_command_line(
    source: Path, tmp_path: Path, pagelake: Callable[..., Any]
) -> None:
    lake = tmp_path / "lake"
    assert pagelake("ingest", source, lake, *QUICK, "--max-pages", "20").code == 0
    ended = pagelake("ingest", source, lake, "--layout", "full")
    assert ended.code == 2
    assert "--new-recipe" in ended.err
    assert len(pages(lake)) == 240
    assert list(lake.glob("blocks/*/*")) == []


def test_a_document_that_changes_before_the_resume_keeps_what_was_read(
    tmp_path: Path, pagelake: Callable[..., Any]
) -> None:
    lake, source = tmp_path / "lake", tmp_path / "source"
    path = write_pdf(source / "long.pdf", 40, "Before the change.")
    assert pagelake("ingest", source, lake, *QUICK, "--max-pages", "14").code == 0
    write_pdf(path, 6, "After the change.")
    ended = pagelake("ingest", source, lake, *QUICK, "--json")
    assert ended.code == 3
    told = duckdb.sql(
        f"SELECT source_version, page_count, pages_ok, pages_failed, error_code "
        f"FROM '{lake}/documents/*/*.parquet' ORDER BY page_count DESC"
    ).fetchall()
    assert [row[1:] for row in told] == [(40, 14, 26, "source_changed"), (6, 6, 0, None)]


BY_ENGINE = (*QUICK, "--text-layer", "ignore")


def failing(pagelake: Callable[..., Any], source: Path, lake: Path) -> dict[str, Any]:
    """A run in which every page fails in passing: a tenth of a second does not load the models."""
    ended = pagelake("ingest", source, lake, *BY_ENGINE, "--read-timeout", "0.1", "--json")
    return ended.told | {"code": ended.code}


def test_a_passing_failure_is_tried_in_three_runs_and_mended_in_place(
    tmp_path: Path, pagelake: Callable[..., Any]
) -> None:
    lake, source = tmp_path / "lake", tmp_path / "source"
    write_pdf(source / "one.pdf", 2)
    (source / "bad.pdf").write_bytes(b"%PDF-1.7 and then nothing")
    told = failing(pagelake, source, lake)
    assert (told["code"], told["documents"], told["pages"]["failed"]) == (3, 2, 2)
    files = sorted(lake.glob("pages/*/*"))
    told = failing(pagelake, source, lake)
    assert (told["code"], told["documents"], told["pages"]["failed"]) == (3, 1, 2)
    ended = pagelake("ingest", source, lake, *BY_ENGINE, "--json")
    assert (ended.code, ended.told["documents"], ended.told["pages"]["ok"]) == (0, 1, 2)
    assert sorted(lake.glob("pages/*/*")) == files
    told = duckdb.sql(
        "SELECT regexp_extract(source_uri, '[a-z]+.pdf'), status, pages_ok, pages_failed, runs, "
        f"error_code FROM '{lake}/documents/*/*.parquet' ORDER BY 1"
    ).fetchall()
    assert told == [("bad.pdf", "failed", 0, 0, 1, "corrupt"), ("one.pdf", "ok", 2, 0, 3, None)]
    assert ["page" in text for _, _, text in pages(lake)] == [True, True]


def test_after_three_runs_only_retry_failed_tries_again(
    tmp_path: Path, pagelake: Callable[..., Any]
) -> None:
    lake, source = tmp_path / "lake", tmp_path / "source"
    write_pdf(source / "one.pdf", 1)
    assert [failing(pagelake, source, lake)["documents"] for _ in range(4)] == [1, 1, 1, 0]
    ended = pagelake("ingest", source, lake, *BY_ENGINE, "--retry-failed", "--json")
    assert (ended.code, ended.told["pages"]["ok"]) == (0, 1)


def test_retry_failed_reads_a_document_that_could_not_be_opened(
    tmp_path: Path, pagelake: Callable[..., Any]
) -> None:
    lake, source = tmp_path / "lake", tmp_path / "source"
    write_pdf(source / "good.pdf", 2)
    path = write_pdf(source / "large.pdf", 30)
    small = ("--max-document-bytes", str(path.stat().st_size - 1))
    assert pagelake("ingest", source, lake, *QUICK, *small).code == 3
    assert pagelake("ingest", source, lake, *QUICK, "--json").told["documents"] == 0
    ended = pagelake("ingest", source, lake, *QUICK, "--retry-failed", "--json")
    assert (ended.code, ended.told["documents"], ended.told["pages"]["ok"]) == (0, 1, 30)
    told = duckdb.sql(
        f"SELECT page_count, pages_ok, status FROM '{lake}/documents/*/*.parquet' ORDER BY 1"
    ).fetchall()
    assert told == [(2, 2, "ok"), (30, 30, "ok")]
    assert len(pages(lake)) == 32


def members(lake: Path) -> dict[str, tuple[Any, ...]]:
    """Status, pages, and pages in the tables, of each document by its name in the archive."""
    found = duckdb.sql(
        "SELECT regexp_extract(d.source_uri, '[^/]+$'), status, error_code, page_count, "
        f"(SELECT count(*) FROM '{lake}/pages/*/*.parquet' p WHERE p.document_id = d.document_id) "
        f"FROM '{lake}/documents/*/*.parquet' d"
    ).fetchall()
    assert len({name for name, *_ in found}) == len(found)
    return {name: tuple(told) for name, *told in found}


@pytest.fixture
def half_an_archive(tmp_path: Path, pagelake: Callable[..., Any]) -> tuple[Path, Path]:
    """An archive of six letters of four pages, read up to somewhere in the third; and the lake."""
    archive, lake = tmp_path / "source" / "all.zip", tmp_path / "lake"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as made:
        for number in range(6):
            made.write(write_pdf(tmp_path / "letter.pdf", 4, f"Letter {number}."), f"{number}.pdf")
    write_pdf(archive.parent / "other.pdf", 1)
    ended = pagelake("ingest", archive.parent, lake, *QUICK, "--max-pages", "10", "--json")
    assert (ended.code, ended.told["finished"], ended.told["pages"]["ok"]) == (0, False, 10)
    return archive, lake


def test_an_archive_that_is_away_for_a_while_loses_no_member_unsaid(
    half_an_archive: tuple[Path, Path], tmp_path: Path, pagelake: Callable[..., Any]
) -> None:
    archive, lake = half_an_archive
    archive.rename(tmp_path / "away.zip")
    assert pagelake("ingest", archive.parent, lake, *QUICK).code == 3
    assert members(lake)["all.zip"][:2] == ("failed", "source_missing")
    (tmp_path / "away.zip").rename(archive)
    for _ in range(3):
        pagelake("ingest", archive.parent, lake, *QUICK)
        found = members(lake)
        assert found["2.pdf"] == ("ok", None, 4, 4)
        assert all(pages == rows for _, _, pages, rows in found.values())
        assert found["all.zip"][0] != "ok" or len(found) == 8, "who misses 3.pdf to 5.pdf?"


def test_a_member_that_kills_three_workers_is_given_up_alone(
    half_an_archive: tuple[Path, Path], pagelake: Callable[..., Any]
) -> None:
    archive, lake = half_an_archive
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    told = {"host": socket.gethostname(), "boot": boot, "pid": 1, "pid_started": "then"}
    told |= {"writer": "dead", "since": "then", "epoch": 4, "place": [0, 2], "tries": 2}
    (run,) = (path.parent for path in lake.glob("_runs/*/plan-00001.json"))
    (run / "claims" / f"{run.name}-00001").write_text(json.dumps(told))
    ended = pagelake("ingest", archive.parent, lake, *QUICK, "--json")
    assert (ended.code, ended.told["pages"]["failed"]) == (3, 2)
    found = members(lake)  # by the same command, tried again and mended
    assert {told[:2] for told in found.values()} == {("ok", None)} and len(found) == 8
