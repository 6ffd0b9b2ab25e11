"""Documents out of archives, from lists of addresses, and from whatever else fsspec opens."""

from __future__ import annotations

import functools
import http.server
import io
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.ingest import run_ingest
from schemas.errors import DocumentError, LakeError
from schemas.records import PlannedDocument
from schemas.settings import IngestSettings
from tasks.fsspecsource import FsspecSource
from tasks.progress import Lines
from tasks.query import lake_status, run_query
from tests.conftest import QUICK, ROOT, Case, pagelake_forked, side_by_side
from tests.documents import write_pdf
from tests.faultproxy import Call, LostAnswer, gets, proxying, puts
from tests.s3 import S3Server

SMALL = (*QUICK, "--part-pages", "2")
Members = list[tuple[str, bytes]]
Rows = dict[str, dict[str, Any]]


def zipped(members: Members) -> bytes:
    packed = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w") as archive:
        warnings.simplefilter("ignore")  # of equal names
        for name, data in members:
            archive.writestr(name, data)
    return packed.getvalue()


def tarred(members: Members, mode: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


@pytest.fixture(scope="module")
def letter(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """Makes a PDF of so many pages that say so, and of so many bytes more."""
    folder = tmp_path_factory.mktemp("letters")

    def make(words: str, pages: int = 1, more: int = 0) -> bytes:
        data = write_pdf(folder / "letter.pdf", pages, words).read_bytes()
        return data + b"\n%" + random.Random(words).randbytes(more).replace(b"\n", b" ")

    return make


@pytest.fixture(scope="module")
def archives(letter: Callable[..., bytes]) -> dict[str, bytes]:
    mixed = [
        ("t/a.pdf", letter("First of its name", 2)),
        ("t/a.pdf", letter("Second of its name")),
        ("t/note.txt", b"Only a text."),
        ("t/inner.zip", zipped([("x.pdf", letter("Too deep"))])),
        ("t/.hidden.pdf", letter("Hidden")),
        ("t/b.pdf", letter("Another")),
    ]
    long = [(f"{n}.pdf", letter(f"Long {n}", more=200_000)) for n in range(3)]
    whole = tarred(long, "w:gz")
    return {
        "mixed.zip": zipped(mixed),
        "mixed.tar": tarred(mixed, "w:"),
        "mixed.tar.gz": tarred(mixed, "w:gz"),
        "cut.tar.gz": whole[: len(whole) // 2],
        "cut.zip": zipped(long)[:-30],
    }


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder as the web shows it; its address."""
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def killed(case: Case) -> None:
    """The run is killed as soon as its third part is in the store; another goes on."""
    reached = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "AWS_"))}
    reached |= case.s3.environment | {"AWS_ENDPOINT_URL": case.proxy.endpoint}
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "ingest", case.source, f"s3://{case.lake}/ocr", *SMALL],
        cwd=ROOT,
        env=reached,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    kill = Call(lambda _: os.killpg(process.pid, signal.SIGKILL), before=False)
    case.proxy.on(puts("/pages/.*-0002.parquet"), kill)
    assert process.wait(120) == -signal.SIGKILL
    case.keep()
    case.run(*SMALL)


def replaced(case: Case, key: str, newer: bytes) -> None:
    """A budget ends the run among the members of an archive, which is then another."""
    case.run(*SMALL, "--max-pages", "5")
    case.s3.put(case.source.split("/")[2], key, newer)
    case.run(*SMALL)


def failing_in_passing(case: Case) -> None:
    """No page is read within a tenth of a second by an engine that has to be loaded."""
    by_engine = (*SMALL, "--text-layer", "ignore")
    case.run(*by_engine, "--read-timeout", "0.1")
    for table in ("/pages/", "/documents/"):
        case.proxy.on(puts(table), LostAnswer())
    case.run(*by_engine)


def twice(case: Case) -> None:
    case.run(*SMALL)
    case.run(*SMALL)


@pytest.fixture(scope="module")
def cases(
    s3: S3Server,
    archives: dict[str, bytes],
    letter: Callable[..., bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Case]]:
    folder = tmp_path_factory.mktemp("sources")
    many = [(f"m/{n}.pdf", letter(f"Letter {n}", 2)) for n in range(6)]
    large = [(f"l/{n}.pdf", letter(f"Large {n}", more=20_000)) for n in range(4)]
    newer = [(f"m/{n}.pdf", letter(f"Newer letter {n}", 2)) for n in range(2)]
    held = {
        "archives": archives,
        "limits": {"many.zip": zipped(many), "large.tar": tarred(large, "w:")},
        "killed": {"many.tar.gz": tarred(many, "w:gz")},
        "replaced": {"many.tar.gz": tarred(many, "w:gz")},
        "passing": {"one.zip": zipped([("no.txt", b"-"), ("one.pdf", letter("One engine"))])},
        "lists": {"lists/near.pdf": letter("Near"), "far.pdf": letter("Far")},
    }
    buckets = {name: s3.bucket() for name in held}
    for name, objects in held.items():
        for key, data in objects.items():
            s3.put(buckets[name], key, data)
    for name, data in (archives | {"web.pdf": letter("Web")}).items():
        (folder / "in").mkdir(exist_ok=True)
        (folder / ("." if name == "web.pdf" else "in") / name).write_bytes(data)
    with ExitStack() as stack:
        web = stack.enter_context(served(folder))
        here = folder / "here.pdf"
        here.write_bytes(letter("Here"))
        far = f"s3://{buckets['lists']}/far.pdf"
        lines = (
            "\ufeff# letters\r\n\r\n  near.pdf\r\n"
            f"{far}\n{here}\nfile://{here}\n{far}\n{web}/web.pdf\n"
            f"s3://{buckets['lists']}/missing.pdf\n{folder}/absent.pdf\n"
        )
        s3.put(buckets["lists"], "lists/list.txt", lines.encode())
        uris = [None, far, "here.pdf", "./here.pdf", "in/../here.pdf", str(here), "absent.pdf"]
        pq.write_table(pa.table({"n": range(len(uris)), "uri": uris}), folder / "list.parquet")

        def case(source: str) -> Case:
            return Case(s3, source, s3.bucket(), stack.enter_context(proxying(s3.endpoint)))

        found = {name: case(f"s3://{bucket}/") for name, bucket in buckets.items()}
        found["local"] = case(f"{folder / 'in'}/")
        found["lists"].source += "lists/list.txt"
        found["table"] = case(str(folder / "list.parquet"))
        limits = ("--max-archive-members", "5", "--max-archive-bytes", "50000")
        changed = tarred(newer, "w:gz")
        side_by_side(
            partial(failing_in_passing, found["passing"]),
            partial(twice, found["archives"]),
            partial(killed, found["killed"]),
            partial(replaced, found["replaced"], "many.tar.gz", changed),
            partial(found["local"].run, *SMALL),
            partial(found["limits"].run, *SMALL, *limits),
            partial(twice, found["lists"]),
            partial(found["table"].run, *SMALL, "--exclude", "*/absent.pdf"),
        )
        yield found


def told(rows: Rows) -> dict[str, tuple[str, str | None, int]]:
    return {
        name: (row["status"], row["error_code"], row["page_count"]) for name, row in rows.items()
    }


@pytest.mark.parametrize("where", ["archives", "local"])
@pytest.mark.parametrize("name", ["mixed.zip", "mixed.tar", "mixed.tar.gz"])
def test_every_member_of_an_archive_is_a_document(
    cases: dict[str, Case], where: str, name: str
) -> None:
    case = cases[where]
    assert case.ended[0].code == 3, case.ended[0].err  # for the members that are no documents
    rows, pages = case.kept[0].documents, case.kept[0].pages
    assert told({key: row for key, row in rows.items() if key.startswith(name + "!")}) == {
        f"{name}!/t/a.pdf": ("ok", None, 2),
        f"{name}!/t/a.pdf#2": ("ok", None, 1),
        f"{name}!/t/b.pdf": ("ok", None, 1),
        f"{name}!/t/inner.zip": ("failed", "unsupported_type", 0),
        f"{name}!/t/note.txt": ("failed", "unsupported_type", 0),
    }
    assert told(rows)[name] == ("partial", "unsupported_type", 0)
    assert rows[name]["error_message"] == "2 of 5 members have failures"
    assert "archive inside an archive" in rows[f"{name}!/t/inner.zip"]["error_message"]
    assert pages[f"{name}!/t/a.pdf", 2].startswith("First of its name")
    assert pages[f"{name}!/t/a.pdf#2", 1].startswith("Second of its name")


@pytest.mark.parametrize("where", ["archives", "local"])
def test_a_damaged_archive_gives_what_is_before_the_damage(
    cases: dict[str, Case], where: str
) -> None:
    rows = told(cases[where].kept[0].documents)
    assert {name: row for name, row in rows.items() if name.startswith("cut")} == {
        "cut.tar.gz": ("failed", "corrupt", 0),
        "cut.tar.gz!/0.pdf": ("ok", None, 1),
        "cut.tar.gz!/1.pdf": ("failed", "corrupt", 0),
        "cut.zip": ("failed", "corrupt", 0),
    }


def test_an_archive_is_not_fetched_again(
    cases: dict[str, Case], archives: dict[str, bytes]
) -> None:
    case = cases["archives"]
    assert (case.ended[1].code, case.ended[1].told["documents"]) == (0, 0), case.ended[1].err
    fetched = [request.key for request in case.proxy.requests if gets("^(mixed|cut)")(request)]
    assert sorted(fetched) == sorted(archives)


def test_more_than_the_limits_of_an_archive_is_not_read(cases: dict[str, Case]) -> None:
    rows = cases["limits"].kept[0].documents
    assert cases["limits"].ended[0].code == 3
    assert {name for name in rows if "!" in name} == {
        *(f"many.zip!/m/{n}.pdf" for n in range(5)),
        *(f"large.tar!/l/{n}.pdf" for n in range(3)),
    }
    assert told(rows)["large.tar!/l/1.pdf"] == ("ok", None, 1)
    for name, option in (
        ("many.zip", "--max-archive-members"),
        ("large.tar", "--max-archive-bytes"),
    ):
        assert told(rows)[name] == ("failed", "too_large", 0)
        assert option in rows[name]["error_message"]


def test_an_archive_whose_run_was_killed_is_gone_on_with(cases: dict[str, Case]) -> None:
    case = cases["killed"]
    assert case.ended[0].code == 0, case.ended[0].err
    killed, finished = case.kept
    assert len(killed.pages) == 6 and killed.documents == {}
    assert finished.pages == {
        (f"many.tar.gz!/m/{n}.pdf", page): f"Letter {n} This is page {page}."
        for n in range(6)
        for page in (1, 2)
    }
    assert killed.pages.items() <= finished.pages.items()
    assert case.ended[0].told["pages"]["total"] == 6
    assert set(told(finished.documents).values()) == {("ok", None, 2), ("ok", None, 0)}
    case.check_nothing_is_left_over()


def test_an_archive_that_was_replaced_keeps_what_was_read_of_it(cases: dict[str, Case]) -> None:
    case = cases["replaced"]
    assert [ended.code for ended in case.ended] == [0, 3], case.ended[1].err
    before, after = case.kept
    assert before.documents == {} and 4 <= len(before.pages) <= 6
    newest = after.documents["many.tar.gz"]["source_version"]
    old, new = Rows(), Rows()
    for row in case.rows("documents"):
        which = new if row["source_version"] == newest else old
        which[row["source_uri"].removeprefix(case.source)] = row
    assert told(new) == {
        "many.tar.gz": ("ok", None, 0),
        "many.tar.gz!/m/0.pdf": ("ok", None, 2),
        "many.tar.gz!/m/1.pdf": ("ok", None, 2),
    }
    assert told(old)["many.tar.gz"] == ("failed", "source_changed", 0)
    members = {name: row for name, row in old.items() if "!" in name}
    assert sum(row["pages_ok"] for row in members.values()) == len(before.pages)
    assert {row["error_code"] for row in members.values()} <= {None, "source_changed"}
    assert after.pages["many.tar.gz!/m/1.pdf", 2] == "Newer letter 1 This is page 2."
    case.check_nothing_is_left_over()


def test_a_member_that_failed_in_passing_is_mended(cases: dict[str, Case]) -> None:
    case = cases["passing"]
    before, after = case.kept
    assert told(before.documents)["one.zip!/one.pdf"] == ("failed", "engine_timeout", 1)
    assert told(after.documents) == {
        "one.zip": ("partial", "unsupported_type", 0),
        "one.zip!/no.txt": ("failed", "unsupported_type", 0),
        "one.zip!/one.pdf": ("ok", None, 1),
    }
    assert "engine" in after.pages["one.zip!/one.pdf", 1]
    mended = [each for each in case.proxy.requests if puts("/pages/|/documents/")(each)]
    assert sum("If-Match" in each.headers for each in mended) == 4  # each answer was lost once
    case.check_nothing_is_left_over()


def addresses(case: Case) -> dict[str, str | None]:
    """The error of each document, by the end of its address."""
    return {
        row["source_uri"].rpartition("/")[2]: row["error_code"] for row in case.rows("documents")
    }


def test_a_list_may_name_documents_anywhere(cases: dict[str, Case]) -> None:
    case = cases["lists"]
    assert addresses(case) == {
        "near.pdf": None,
        "far.pdf": None,
        "here.pdf": None,
        "web.pdf": None,
        "missing.pdf": "source_missing",
        "absent.pdf": "source_missing",
    }
    assert case.ended[0].code == 3 and case.ended[0].told["documents"] == 6
    assert case.ended[1].told["documents"] == 2  # those that are missing are tried again
    assert sorted(case.pages().values()) == [
        f"{name} This is page 1." for name in ("Far", "Here", "Near", "Web")
    ]


def test_a_list_may_be_a_table(cases: dict[str, Case]) -> None:
    case = cases["table"]
    assert case.ended[0].code == 0, case.ended[0].err
    assert addresses(case) == {"far.pdf": None, "here.pdf": None}


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("list.txt", "--mark-deleted", "--mark-deleted compares with a listing"),
        ("absent.txt", "", "there is no {source}; give a manifest that exists"),
        ("none.txt", "", "nothing to read in {source}"),
        ("other.parquet", "", "{source} is no Parquet file with a column uri"),
        ("text.parquet", "", "{source} is no Parquet file with a column uri"),
    ],
)
def test_a_list_that_makes_no_sense_is_told(
    tmp_path: Path, name: str, options: str, words: str
) -> None:
    (tmp_path / "list.txt").write_text("a.pdf")
    (tmp_path / "none.txt").write_text("# nothing\n\n")
    (tmp_path / "text.parquet").write_text("a.pdf")
    pq.write_table(pa.table({"url": ["a.pdf"]}), tmp_path / "other.parquet")
    source, lake = tmp_path / name, tmp_path / "lake"
    ended = pagelake_forked("ingest", source, lake, *options.split())
    [line] = ended.err.strip().splitlines()
    assert ended.code == 2 and line.startswith(f"pagelake: {words.format(source=source)}")
    assert not lake.exists()


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/", recursive=True)


def in_memory(source: str, **options: Any) -> dict[str, Any]:
    settings = IngestSettings(
        source=source, dest="memory://docs/in/lake", layout="none", processes=1, **options
    )
    return run_ingest(settings, Lines()).summary


def test_any_address_of_fsspec_can_be_source_and_lake(
    memory: fsspec.AbstractFileSystem, letter: Callable[..., bytes]
) -> None:
    for name in ("a.pdf", "sub/b ü#?.pdf", "sub/_c.pdf", ".hidden.pdf", "_work/d.pdf"):
        memory.pipe(f"/docs/in/{name}", letter(f"Letter {name[0]}", 2))
    with pytest.raises(LakeError, match=r"keeps no conditional writes .*--single-writer"):
        in_memory("memory://docs/in")
    assert not memory.exists("/docs/in/lake")
    told = in_memory("memory://docs/in", single_writer=True)
    assert (told["documents"], told["pages"]["ok"], told["finished"]) == (3, 6, True)
    assert in_memory("memory://docs/in", single_writer=True)["documents"] == 0
    memory.pipe("/docs/in/a.pdf", letter("Letter that is newer"))
    assert in_memory("memory://docs/in/a.pdf", single_writer=True)["documents"] == 1
    memory.rm("/docs/in/sub/_c.pdf")
    gone = in_memory("memory://docs/in", single_writer=True, mark_deleted=True)
    assert gone["documents_deleted"] == 1
    _, rows = run_query(
        "memory://docs/in/lake",
        "SELECT source_uri, text, deleted_at IS NULL FROM pages JOIN documents USING (document_id, "
        "source_uri) WHERE page_number = 1 ORDER BY source_uri",
    )
    assert rows == [
        ("memory://docs/in/a.pdf", "Letter that is newer This is page 1.", True),
        ("memory://docs/in/sub/_c.pdf", "Letter s This is page 1.", False),
        ("memory://docs/in/sub/b ü#?.pdf", "Letter s This is page 1.", True),
    ]
    status = lake_status("memory://docs/in/lake")
    assert (status["documents"], status["writer"]) == ({"ok": 3}, None)
    left = {path.split("/")[4] for path in memory.find("/docs/in/lake/_runs")}
    assert not left & {"lock", "probe"}


def test_an_object_that_changes_after_it_was_listed_is_not_read(
    memory: fsspec.AbstractFileSystem,
) -> None:
    for name in ("changed", "gone", "sound"):
        memory.pipe(f"/docs/{name}.pdf", b"first")
    source = FsspecSource(memory, "memory")
    found = dict(source.walk("memory://docs", "memory://lake"))
    memory.pipe("/docs/changed.pdf", b"other")
    memory.rm("/docs/gone.pdf")

    def fetched(name: str) -> bytes | str:
        listed = found[f"{name}.pdf"]
        planned = PlannedDocument("", listed.uri, listed.version, listed.size_bytes)
        try:
            return b"".join(source.fetch(planned))
        except DocumentError as error:
            return error.code

    assert [fetched(name) for name in ("sound", "changed", "gone")] == [
        b"first",
        "source_changed",
        "source_missing",
    ]
