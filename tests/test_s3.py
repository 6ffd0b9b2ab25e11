"""Buckets in, buckets out: one lake from a folder or a bucket, and what nights after the first do.

Three lanes tell the same story of the same documents beside each other: a bucket into a bucket
(with the lake inside its own source), a bucket into a folder, a folder into a bucket. The first
goes on to documents that change, vanish and come back.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import S3FileSystem as ArrowS3
from s3fs import S3FileSystem

from schemas.errors import SourceError
from tasks.discover import below, discover
from tasks.sources import Sources
from tests.conftest import (
    QUICK,
    Ended,
    pagelake,
    pagelake_forked,
    remove,
    side_by_side,
    stored_rows,
)
from tests.documents import write_pdf
from tests.faultproxy import Proxy, Refuse, Request, gets, heads, lists, proxying, puts
from tests.s3 import KEY, REGION, SECRET, S3Server

ANYWHERE = (
    "plain.pdf",
    "with space.pdf",
    "a+b=c&d.pdf",
    "über größe.pdf",
    "per%2Fcent%20%.pdf",
    "hash#tag.pdf",
    "what?versionId=1.pdf",
    "smile 😀.pdf",
    "tab\tand\rreturn.pdf",
    "quote'\"`.pdf",
    "back\\slash.pdf",
    "[a-z]*{b}.pdf",
    "dots..and.$~!@,;().pdf",
    "deep/er/changed.pdf",
    "deep/gone.pdf",
    "gone.pdf",
    "sub/_kept.pdf",
    "/".join(letter * 178 for letter in "vwxyz") + "/x.pdf",
)
IN_BUCKETS_ONLY = ("twice//slash.pdf", "/leading.pdf")
IN_FOLDERS_ONLY = ("two\nlines.pdf",)  # moto does not take such a key
LEFT_OUT = (".hidden.pdf", "_work/x.pdf", "sub/.git/y.pdf", "folder/", "plain.pdf/", "../up.pdf")
MEMBERS = {"gone.zip!/0.pdf", "gone.zip!/dir/1.pdf"}
LAKE = "in/my lake+ü%2F#/ocr"
EXCLUDE = ("--exclude", "many/*", "--part-pages", "4")
CONTENT = ("content_sha256", "media_type", "source_bytes", "page_count", "status", "error_code")


@dataclass(frozen=True)
class Ran:
    """A command that has ended, what it asked of the store, and what the lake held then."""

    ended: Ended
    requests: list[Request]
    documents: dict[str, dict[str, Any]]
    pages: dict[tuple[str, int], str]

    @property
    def writes(self) -> list[Request]:
        return [request for request in self.requests if request.method not in ("GET", "HEAD")]


@dataclass
class Lane:
    """A source, a lake, and what was run over them."""

    s3: S3Server
    proxy: Proxy
    source: str
    lake: str
    steps: dict[str, Ran] = field(default_factory=dict)

    def run(self, step: str, *arguments: str) -> None:
        before = len(self.proxy.requests)
        reached = self.s3.environment | {"AWS_ENDPOINT_URL": self.proxy.endpoint}
        command, *options = arguments
        run = pagelake if step == "first" else pagelake_forked
        ended = run(command, self.source, self.lake, *options, "--json", **reached)
        requests = self.proxy.requests[before:]
        documents = {self._name(row): row for row in self._rows("documents")}
        pages = {(self._name(row), row["page_number"]): row["text"] for row in self._rows("pages")}
        self.steps[step] = Ran(ended, requests, documents, pages)

    def _name(self, row: dict[str, Any]) -> str:
        return str(row["source_uri"]).removeprefix(f"{self.source}/")

    def _rows(self, table: str) -> list[dict[str, Any]]:
        if self.lake.startswith("s3://"):
            return stored_rows(self.s3, self.lake.split("/")[2], table)
        return list(pq.read_table(f"{self.lake}/{table}").to_pylist())

    def objects(self) -> Counter[str]:
        """The lake's keys, without what tells one run from another."""
        bucket, _, below = self.lake.removeprefix("s3://").partition("/")
        if self.lake.startswith("s3://"):
            keys = [key.removeprefix(f"{below}/") for key in self.s3.keys(bucket, below)]
        else:
            found = (path for path in Path(self.lake).rglob("*") if path.is_file())
            keys = [path.relative_to(self.lake).as_posix() for path in found]
        return Counter(re.sub(r"\d{8}T\d{6}Z-[0-9a-f]{6}", "RUN", key) for key in keys)


@dataclass(frozen=True)
class Lanes:
    inside: Lane
    outwards: Lane
    inwards: Lane


def letter(folder: Path, name: str, pages: int = 1) -> bytes:
    return write_pdf(folder / "made.pdf", pages, f"A letter named {name[:40]!a}.").read_bytes()


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("made")
    names = (*ANYWHERE, *IN_BUCKETS_ONLY, *IN_FOLDERS_ONLY)
    made = {name: letter(folder, name) for name in names}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in sorted(MEMBERS):
            archive.writestr(name.partition("!/")[2], letter(folder, name))
    return made | {"plain.pdf": letter(folder, "plain.pdf", 9), "gone.zip": packed.getvalue()}


@pytest.fixture(scope="module")
def lanes(
    s3: S3Server, documents: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lanes]:
    folder = tmp_path_factory.mktemp("lanes")
    bucket, other = s3.bucket(), s3.bucket()
    for name, data in documents.items():
        if name not in IN_FOLDERS_ONLY:
            s3.put(bucket, f"in/{name}", data)
        if name not in IN_BUCKETS_ONLY:
            (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "in" / name).write_bytes(data)
    s3.put(bucket, "in2.pdf", documents["gone.pdf"])
    for name in LEFT_OUT:
        s3.put(bucket, f"in/{name}", documents["plain.pdf"])
    for number in range(100):  # excluded by all runs: they make the listing three pages long
        s3.put(bucket, f"in/many/{number}", b"")
    with (
        proxying(s3.endpoint) as first,
        proxying(s3.endpoint) as second,
        proxying(s3.endpoint) as third,
    ):
        lanes = Lanes(
            Lane(s3, first, f"s3://{bucket}/in", f"s3://{bucket}/{LAKE}"),
            Lane(s3, second, f"s3://{bucket}/in", str(folder / "lake")),
            Lane(s3, third, str(folder / "in"), f"s3://{other}/ocr"),
        )

        def nightly() -> None:
            two_nights(lanes.inside)
            many_nights(lanes.inside, bucket, documents, letter(folder, "new version", 2))

        side_by_side(
            nightly,
            lambda: two_nights(lanes.outwards, "--exclude", "my lake*"),
            lambda: two_nights(lanes.inwards),
        )
        yield lanes


def two_nights(lane: Lane, *options: str) -> None:
    lane.run("first", "ingest", *QUICK, *EXCLUDE, *options)
    lane.run("again", "ingest", *QUICK, *EXCLUDE, *options)


def many_nights(lane: Lane, bucket: str, documents: dict[str, bytes], newer: bytes) -> None:
    beside = Lane(lane.s3, lane.proxy, f"s3://{bucket}/in2.pdf", lane.lake)
    beside.run("only", "ingest", *QUICK, *EXCLUDE)
    lane.steps["beside"] = beside.steps["only"]
    vanishing = ("deep/gone.pdf", "gone.pdf", "gone.zip")
    lane.s3.put(bucket, "in/deep/er/changed.pdf", newer)
    remove(lane.s3, bucket, *(f"in/{name}" for name in vanishing))
    marking = (*QUICK, *EXCLUDE, "--mark-deleted")
    lane.run("plan", "plan", *QUICK[:2], *EXCLUDE[:2])
    lane.run("changed", "ingest", *marking, "--include", "deep/*")
    lane.proxy.on(second_page, Refuse(400, "ExpiredToken", "The provided token has expired."))
    lane.run("broken", "ingest", *marking)
    lane.run("marked", "ingest", *marking)
    for name in vanishing:
        lane.s3.put(bucket, f"in/{name}", documents[name])
    lane.run("back", "ingest", *marking)


def second_page(request: Request) -> bool:
    return lists("^in/$")(request) and "continuation-token" in request.query


def test_a_bucket_gives_the_same_rows_to_a_bucket_and_to_a_folder(lanes: Lanes) -> None:
    inside, outwards = lanes.inside.steps["first"], lanes.outwards.steps["first"]
    assert (inside.ended.code, outwards.ended.code) == (0, 0), inside.ended.err
    assert set(inside.documents) == {*ANYWHERE, *IN_BUCKETS_ONLY, "gone.zip", *MEMBERS}
    for name, row in inside.documents.items():
        for column in (*CONTENT, "document_id", "source_version", "metadata"):
            assert row[column] == outwards.documents[name][column], (name, column)
    assert inside.pages == outwards.pages


def test_a_folder_gives_the_same_rows_as_a_bucket(lanes: Lanes) -> None:
    inside, inwards = lanes.inside.steps["first"], lanes.inwards.steps["first"]
    assert inwards.ended.code == 0, inwards.ended.err
    both = set(inside.documents) - set(IN_BUCKETS_ONLY)
    assert set(inwards.documents) == both | set(IN_FOLDERS_ONLY)
    for name in both:
        for column in CONTENT:
            assert inside.documents[name][column] == inwards.documents[name][column], (name, column)

    def pages(ran: Ran) -> dict[tuple[str, int], str]:
        return {key: text for key, text in ran.pages.items() if key[0] in both}

    assert pages(inside) == pages(inwards)


@pytest.mark.parametrize("name", [*ANYWHERE, *IN_BUCKETS_ONLY, *sorted(MEMBERS)])
def test_a_document_is_read_whatever_its_key_is(lanes: Lanes, name: str) -> None:
    first = lanes.inside.steps["first"]
    assert first.documents[name]["status"] == "ok"
    # A line of the page is broken where it is full, in a long word too.
    said = "".join(first.pages[name, 1].split())
    assert said.startswith("".join(f"A letter named {name[:40]!a}.".split()))


def test_a_lake_has_the_same_objects_in_a_bucket_as_in_a_folder(lanes: Lanes) -> None:
    in_folder = lanes.outwards.objects() - Counter(["_runs/swap"])
    assert in_folder and in_folder <= lanes.inside.objects()
    assert sum(key.startswith("pages/") for key in in_folder) > 5


@pytest.mark.parametrize("lane", ["inside", "outwards", "inwards"])
def test_a_second_run_reads_and_writes_nothing(lanes: Lanes, lane: str) -> None:
    steps = getattr(lanes, lane).steps
    again = steps["again"]
    assert again.ended.code == 0, again.ended.err
    assert (again.ended.told["documents"], again.ended.told["pages"]["total"]) == (0, 0)
    assert (again.documents, again.pages) == (steps["first"].documents, steps["first"].pages)
    assert not [each for each in again.requests if gets(r"\.(pdf|zip)$")(each)]
    kept = {each.key.rpartition("/")[2].partition("-")[0] for each in again.writes}
    assert kept <= {"lock", "probe", "lake.json"}


def test_a_run_with_nothing_to_do_lists_once_and_asks_little_more(lanes: Lanes) -> None:
    again = lanes.inside.steps["again"].requests
    pages_of_listing = [each for each in again if lists("^in/$")(each)]
    assert len(pages_of_listing) == 3
    assert ["continuation-token" in each.query for each in pages_of_listing] == [False, True, True]
    # For its one `documents` object; one more costs three more.
    assert len(again) - len(pages_of_listing) <= 27


def test_every_part_plan_lock_and_claim_is_written_on_a_condition(lanes: Lanes) -> None:
    first = lanes.inside.steps["first"].requests
    for name in ("/pages/", "/documents/", "/plan-", "/lock$", "/claims/", "/lake.json"):
        new, *later = [each for each in first if puts(name)(each)]
        assert new.headers["If-None-Match"] == "*", name
        assert all({"If-None-Match", "If-Match"} & set(each.headers) for each in later), name
    given_back = [each for each in first if each.method == "DELETE" and "probe" not in each.key]
    assert len(given_back) == 2 and all("If-Match" in each.headers for each in given_back)


def test_documents_are_read_in_the_state_that_was_listed(lanes: Lanes) -> None:
    first = lanes.inside.steps["first"]
    read = [each for each in first.requests if gets(r"\.(pdf|zip)$")(each)]
    assert len(read) == len(ANYWHERE) + len(IN_BUCKETS_ONLY) + 1
    for each in read:
        row = first.documents[each.key.removeprefix("in/")]
        assert each.headers["If-Match"].strip('"') == row["source_version"]


def test_plan_counts_what_is_new_and_what_it_costs_and_writes_nothing(
    lanes: Lanes, documents: dict[str, bytes]
) -> None:
    planned = lanes.inside.steps["plan"]
    told = planned.ended.told
    assert (told["listed"], told["new"], told["again"]) == (len(documents) - 4, 1, 0)
    assert told["bytes"] > 0 and told["cost"]["pages"] >= 1 and told["cost"]["seconds"] > 0
    assert planned.writes == []


def test_one_object_can_be_the_source(lanes: Lanes) -> None:
    beside, bucket = lanes.inside.steps["beside"], lanes.inside.source.split("/")[2]
    assert (beside.ended.code, beside.ended.told["documents"]) == (0, 1), beside.ended.err
    assert beside.documents[f"s3://{bucket}/in2.pdf"]["status"] == "ok"
    assert not [each for each in beside.requests if lists("^in(2|/$)")(each)]


def test_a_changed_object_is_a_new_version(lanes: Lanes) -> None:
    before, after = lanes.inside.steps["again"], lanes.inside.steps["changed"]
    assert after.ended.code == 0, after.ended.err
    assert (after.ended.told["documents"], after.ended.told["pages"]["ok"]) == (1, 2)
    old, new = (run.documents["deep/er/changed.pdf"] for run in (before, after))
    assert old["source_version"] != new["source_version"] and new["page_count"] == 2
    shown = pagelake(
        "sql",
        lanes.inside.lake,
        "SELECT count(*) AS n, count(*) FILTER (text LIKE '%new version%') AS fresh FROM pages "
        "WHERE source_uri LIKE '%changed.pdf'",
        "--format",
        "json",
        **lanes.inside.s3.environment,
    )
    assert shown.told == {"n": 2, "fresh": 2}


def deleted(run: Ran) -> set[str]:
    return {name for name, row in run.documents.items() if row["deleted_at"] is not None}


def test_only_what_the_globs_would_have_shown_is_noted_as_deleted(lanes: Lanes) -> None:
    changed = lanes.inside.steps["changed"]
    assert deleted(changed) == {"deep/gone.pdf"}
    assert changed.ended.told["documents_deleted"] == 1


def test_nothing_is_noted_as_deleted_when_the_listing_broke(lanes: Lanes) -> None:
    broken = lanes.inside.steps["broken"]
    assert broken.ended.code == 1
    [line] = broken.ended.err.strip().splitlines()
    assert line.startswith("pagelake: the listing of s3://") and "token has expired" in line
    assert broken.documents == lanes.inside.steps["changed"].documents


def test_what_vanished_is_noted_with_the_members_of_archives(lanes: Lanes) -> None:
    marked = lanes.inside.steps["marked"]
    assert marked.ended.code == 0, marked.ended.err
    assert deleted(marked) == {"deep/gone.pdf", "gone.pdf", "gone.zip", *MEMBERS}
    assert marked.ended.told["documents_deleted"] == 4  # one was noted before
    assert marked.pages == lanes.inside.steps["changed"].pages


def test_what_is_back_is_noted_no_more_and_not_read_again(lanes: Lanes) -> None:
    back = lanes.inside.steps["back"]
    assert (back.ended.code, deleted(back)) == (0, set()), back.ended.err
    assert (back.ended.told["documents"], back.ended.told["documents_deleted"]) == (0, 0)


def test_a_lake_in_a_bucket_is_read_by_everyone(lanes: Lanes) -> None:
    lane = lanes.inwards
    pages, bucket_and_key = len(lane.steps["again"].pages), lane.lake.removeprefix("s3://")
    fs = S3FileSystem(key=KEY, secret=SECRET, endpoint_url=lane.s3.endpoint)
    with duckdb.connect() as db:
        db.register_filesystem(fs)
        query = f"SELECT count(*) FROM read_parquet('{lane.lake}/pages/*/*.parquet')"
        assert db.execute(query).fetchone() == (pages,)
    one = fs.glob(f"{bucket_and_key}/pages/*/*.parquet")[0]
    options = {"key": KEY, "secret": SECRET, "client_kwargs": {"endpoint_url": lane.s3.endpoint}}
    rows = pd.read_parquet(f"s3://{one}", storage_options=options)
    assert 0 < len(rows) <= 4 and set(rows["status"]) == {"ok"}
    arrow = ArrowS3(
        access_key=KEY, secret_key=SECRET, region=REGION, endpoint_override=lane.s3.endpoint
    )
    assert ds.dataset(f"{bucket_and_key}/pages", filesystem=arrow).count_rows() == pages
    lazily = pl.scan_parquet(
        f"{lane.lake}/pages/*/*.parquet",
        storage_options={
            "aws_access_key_id": KEY,
            "aws_secret_access_key": SECRET,
            "aws_region": REGION,
            "aws_endpoint_url": lane.s3.endpoint,
            "aws_allow_http": "true",
        },
    )
    assert lazily.select(pl.len()).collect().item() == pages


@pytest.fixture(scope="module")
def tree(s3: S3Server) -> str:
    """A bucket of small objects; some keys are the beginning of others."""
    bucket = s3.bucket()
    keys = ("a.pdf", "b", "b/c.pdf", "b/_d/e.pdf", "b/f/g.PNG", "b/f/h.pdf", "b2/i.pdf", "b/lake/j")
    for key in keys:
        s3.put(bucket, key, key.encode())
    for number in range(120):
        s3.put(bucket, f"long/{number:03}", b"")
    return bucket


def listed(s3: S3Server, bucket: str, source: str, *globs: str) -> list[str]:
    include = [glob for glob in globs if not glob.startswith("!")]
    exclude = [glob[1:] for glob in globs if glob.startswith("!")]
    reached = Sources((f"key={KEY}", f"secret={SECRET}", f"endpoint={s3.endpoint}"))
    lake = f"s3://{bucket}/b/lake"
    found = discover(f"s3://{bucket}/{source}", include, exclude, lake, reached)
    return [each.uri.removeprefix(f"s3://{bucket}/") for each in found]


@pytest.mark.parametrize(
    ("source", "globs", "expected"),
    [
        ("b/", (), "b/c.pdf b/f/g.PNG b/f/h.pdf"),
        ("b", (), "b"),
        ("b2", (), "b2/i.pdf"),
        ("b/f/h.pdf", (), "b/f/h.pdf"),
        ("b/f/h", (), ""),
        ("b/_d", (), "b/_d/e.pdf"),
        ("", ("!long/*",), "a.pdf b b/c.pdf b/f/g.PNG b/f/h.pdf b2/i.pdf"),
        ("", ("*.pdf", "!a.*", "!b/f/*"), "b/c.pdf b2/i.pdf"),
        ("", ("f/*", "[ab].pdf"), "a.pdf"),
        ("b/", ("**/*.pdf",), "b/c.pdf b/f/h.pdf"),
        ("b/", ("f/*",), "b/f/g.PNG b/f/h.pdf"),
    ],
)
def test_a_source_is_an_object_or_what_is_below_a_prefix(
    s3: S3Server, tree: str, source: str, globs: tuple[str, ...], expected: str
) -> None:
    assert listed(s3, tree, source, *globs) == expected.split()


def test_an_address_of_hadoop_is_one_of_s3(s3: S3Server, tree: str) -> None:
    reached = Sources((f"key={KEY}", f"secret={SECRET}", f"endpoint={s3.endpoint}"))
    for source, uri in (("b2", "b2/i.pdf"), ("a.pdf", "a.pdf")):
        found = discover(f"s3a://{tree}/{source}", (), (), "lake", reached)
        assert [each.uri for each in found] == [f"s3://{tree}/{uri}"]
    assert below(f"s3a://{tree}/b2") == f"s3://{tree}/b2"


def test_a_listing_goes_by_as_it_comes(s3: S3Server, tree: str) -> None:
    with proxying(s3.endpoint) as proxy:
        reached = Sources((f"key={KEY}", f"secret={SECRET}", f"endpoint={proxy.endpoint}"))
        found = discover(f"s3://{tree}/long/", (), (), "lake", reached)
        numbers = [next(found).uri[-3:] for _ in range(50)]
        assert len(proxy.requests) == 1
        numbers += [each.uri[-3:] for each in found]
        assert numbers == [f"{number:03}" for number in range(120)]
        assert len(proxy.requests) == 3


def test_an_object_that_may_not_be_looked_at_is_told(s3: S3Server, tree: str) -> None:
    with proxying(s3.endpoint) as proxy:
        proxy.on(heads("a.pdf"), Refuse(403, "AccessDenied"))
        reached = Sources((f"key={KEY}", f"secret={SECRET}", f"endpoint={proxy.endpoint}"))
        with pytest.raises(SourceError, match=r"cannot look at s3://.*/a\.pdf: access is denied"):
            list(discover(f"s3://{tree}/a.pdf", (), (), "lake", reached))


def test_status_of_a_lake_in_a_bucket(lanes: Lanes) -> None:
    ended = pagelake("status", lanes.inwards.lake, "--json", **lanes.inwards.s3.environment)
    held = lanes.inwards.steps["again"]
    assert ended.told["documents"] == {"ok": len(held.documents)}
    assert ended.told["pages"] == {"ok": len(held.pages)}
    assert (ended.told["unfinished_runs"], ended.told["writer"]) == ([], None)
