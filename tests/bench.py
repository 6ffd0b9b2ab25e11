"""What pagelake costs over the bare work that it contains: `make bench`, `make bench-memory`.

Each figure is a ratio within one run, on the same pages, with as many processes on both sides; CPU
is user and system time of the whole process tree. Start-up is stated apart.
"""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import pymupdf

from tests.conftest import ROOT, SAMPLES
from tests.documents import write_pdf

PROCESSES = 2
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def main(names: Sequence[str]) -> None:
    """Run the benchmarks named, and print one JSON object last."""
    figures: dict[str, Any] = {"machine": machine()}
    for name in names:
        figures |= BENCHMARKS[name]()
    print(json.dumps(figures))


def machine() -> str:
    model = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    return f"{len(os.sched_getaffinity(0))} cores of {model}"


def bench_engine() -> dict[str, Any]:
    """CPU a page of `ingest --text-layer ignore` over a bare RapidOCR loop on the same images."""
    with folder() as tmp:
        source = tmp / "source"
        write_book(
            source / "book.pdf", ("report.pdf", "invoice.pdf", "bericht.pdf", "slides.pdf"), 4
        )
        write_book(source / "page.pdf", ("invoice.pdf",), 1)
        pages = pymupdf.open(source / "book.pdf").page_count
        one = cpu_of(lambda: ingest(source / "page.pdf", tmp / "one", "--text-layer", "ignore"))
        all_ = cpu_of(lambda: ingest(source / "book.pdf", tmp / "all", "--text-layer", "ignore"))
        whole = bare_cpu(bare_engine_whole, source / "book.pdf", pages)
        bare = bare_cpu(bare_engine, source / "book.pdf", pages)
    ours = (all_ - one) / (pages - 1)
    report("CPU-s a page through the engine, bare detection at full size", ours, whole)
    report("CPU-s a page through the engine, bare detection as ours", ours, bare)
    print(f"  start-up and first page: {one:.2f} CPU-s")
    return {
        "engine_over_bare": round(ours / whole, 3),
        "engine_over_bare_same_settings": round(ours / bare, 3),
        "engine_cpu_s_a_page": round(ours, 3),
    }


def bench_text() -> dict[str, Any]:
    """CPU a page with a text layer over bare `get_text("dict")` and a layout call."""
    digital = ("report.pdf", "invoice.pdf", "bericht.pdf", "slides.pdf", "manual.pdf")
    with folder() as tmp:
        source = tmp / "source"
        write_book(source / "long.pdf", digital, 4)
        write_book(source / "short.pdf", digital, 1)
        pages = [pymupdf.open(source / name).page_count for name in ("short.pdf", "long.pdf")]
        short = cpu_of(lambda: ingest(source / "short.pdf", tmp / "short"))
        long = cpu_of(lambda: ingest(source / "long.pdf", tmp / "long"))
        bare = bare_cpu(bare_layout, source / "long.pdf", pages[1])
    ours = (long - short) / (pages[1] - pages[0])
    report("CPU-s a page with a text layer", ours, bare)
    print(f"  start-up: {short - pages[0] * ours:.2f} CPU-s")
    return {"text_over_bare": round(ours / bare, 3), "text_cpu_s_a_page": round(ours, 3)}


def bench_help() -> dict[str, Any]:
    """CPU of `pagelake --help`."""
    spent = min(cpu_of(lambda: command("--help")) for _ in range(3))
    print(f"pagelake --help: {spent:.2f} CPU-s")
    return {"help_cpu_s": round(spent, 3)}


def bench_memory() -> dict[str, Any]:
    """Peak memory of the process tree over 2,000 light pages, in one document and in 2,000."""
    figures = {}
    with folder() as tmp:
        write_pdf(tmp / "one" / "book.pdf", 2000)
        for number in range(2000):
            write_pdf(tmp / "many" / f"{number:04}.pdf", 1, f"Letter {number} from the pier.")
        for name in ("one", "many"):
            thirds = memory_of(
                lambda name=name: ingest(tmp / name, tmp / f"lake-{name}", "--text-layer", "ignore")
            )
            print(f"2,000 light pages, {name}: peak MB in each third of the run {thirds}")
            figures[f"memory_mb_{name}"] = thirds
    return figures


def write_book(path: Path, names: Sequence[str], copies: int) -> None:
    """One PDF of the samples' pages, again and again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    book = pymupdf.open()
    for _ in range(copies):
        for name in names:
            book.insert_pdf(pymupdf.open(SAMPLES / name))
    book.save(path)


def bare_engine(path: str, numbers: Sequence[int]) -> float:
    """CPU seconds of RapidOCR alone on these pages, with pagelake's settings."""
    from tasks.engines.rapidocr import PARAMS

    return rapidocr_alone(path, numbers, PARAMS)


def bare_engine_whole(path: str, numbers: Sequence[int]) -> float:
    """The same, with detection on the whole image as RapidOCR has it."""
    from tasks.engines.rapidocr import PARAMS

    own = {name: value for name, value in PARAMS.items() if not name.startswith("Det.")}
    return rapidocr_alone(path, numbers, own)


def rapidocr_alone(path: str, numbers: Sequence[int], params: dict[str, Any]) -> float:
    """CPU seconds of a loop over these pages, rendered as pagelake renders them."""
    import cv2
    import numpy as np
    from PIL import Image
    from rapidocr import RapidOCR

    from tasks.render import render_page
    from tasks.target import CpuTarget, Rendering

    cv2.setNumThreads(1)
    engine = RapidOCR(params=params)
    document = pymupdf.open(path)
    rendering = Rendering(CpuTarget())
    images = [Image.open(io.BytesIO(render_page(document[n], rendering).data)) for n in numbers]
    pixels = [np.ascontiguousarray(np.asarray(image)[:, :, ::-1]) for image in images]
    engine(pixels[0][:200])
    began = time.process_time()
    for page in pixels:
        engine(page)
    return time.process_time() - began


def bare_layout(path: str, numbers: Sequence[int]) -> float:
    """CPU seconds of `get_text("dict")` and the layout network alone on these pages."""
    document = pymupdf.open(path)
    document[0].get_layout()
    began = time.process_time()
    for number in numbers:
        page = document[number]
        page.get_text("dict")
        page.get_layout()
    return time.process_time() - began


def bare_cpu(work: Callable[[str, Sequence[int]], float], path: Path, pages: int) -> float:
    """CPU seconds a page of bare work, in as many processes at once as pagelake has."""
    os.environ |= ONE_THREAD
    shares = [(str(path), range(start, pages, PROCESSES)) for start in range(PROCESSES)]
    with get_context("spawn").Pool(PROCESSES) as pool:
        return sum(pool.starmap(work, shares)) / pages


def ingest(source: Path, lake: Path, *options: str) -> None:
    command("ingest", source, lake, "--processes", PROCESSES, *options)


def command(*arguments: object) -> None:
    subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, arguments)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def cpu_of(run: Callable[[], object]) -> float:
    """CPU seconds of the processes that `run` starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def memory_of(run: Callable[[], object]) -> list[int]:
    """Peak memory of all our descendants (PSS, MB) in each third of a run."""
    samples: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            total = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            samples.append(total >> 20)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run()
    finally:
        done.set()
        watcher.join()
    third = len(samples) // 3
    return [max(samples[i * third : (i + 1) * third]) for i in range(3)]


def report(what: str, ours: float, bare: float) -> None:
    print(f"{what}: {ours:.3f}, bare {bare:.3f}, ratio {ours / bare:.3f}")


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pagelake-bench-") as name:
        yield Path(name)


BENCHMARKS: dict[str, Callable[[], dict[str, Any]]] = {
    "help": bench_help,
    "text": bench_text,
    "engine": bench_engine,
    "memory": bench_memory,
}

if __name__ == "__main__":
    main(sys.argv[1:] or ["help", "text", "engine"])
