"""Object stores on a bad day: what passes is not noticed, what stays is told in one line.

Each case has a proxy of its own that plays its fault. The cases run beside each other.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import pytest

from tests.conftest import QUICK, SAMPLES, Case, Ended, pagelake_forked, remove, side_by_side
from tests.documents import write_pdf
from tests.faultproxy import (
    Call,
    CutBody,
    LostAnswer,
    Match,
    Refuse,
    Request,
    Reset,
    Slow,
    Without,
    deletes,
    gets,
    lists,
    proxying,
    puts,
)
from tests.s3 import S3Server

SMALL = (*QUICK, "--part-pages", "4")
BAD_DAY = (Reset(), Refuse(503, "SlowDown"), LostAnswer(), CutBody(200), Slow(0.005, 4096))
# What of a lake is written, and so may be done without the writer being told.
WRITES: dict[str, Match] = {
    "probe": puts("_runs/probe"),
    "mark": puts("lake.json"),
    "lock": lambda r: puts("_runs/lock$")(r) and "If-None-Match" in r.headers,
    "lock renewed": lambda r: puts("_runs/lock$")(r) and "If-Match" in r.headers,
    "lock given back": deletes("_runs/lock$"),
    "plan": puts("/plan-"),
    "claim": lambda r: puts("/claims/")(r) and "If-None-Match" in r.headers,
    "claim renewed": lambda r: puts("/claims/")(r) and "If-Match" in r.headers,
    "claim given back": deletes("/claims/"),
    "figure": puts("/figures/"),
    "blocks": puts("/blocks/"),
    "pages": puts("/pages/"),
    "documents": puts("/documents/"),
    "done": puts("/done/"),
    "summary": puts("/summaries/"),
}


def bad_day(case: Case, seed: int) -> None:
    case.proxy.chaos(seed, 0.3, BAD_DAY)
    case.run(*SMALL)
    case.run(*SMALL)


def lost_answers(case: Case) -> None:
    """Of the layout too, for its blocks and figures; the lock is renewed every second."""
    for match in WRITES.values():
        case.proxy.on(match, LostAnswer())
    case.run("--processes", "1", "--part-pages", "2", "--take-over-after", "5")


def bad_bodies(case: Case) -> None:
    """The large document breaks off three times, and is slow once."""
    for after in (1_000_000, 300_000, 5_000):
        case.proxy.on(gets("large.pdf"), CutBody(after))
    case.proxy.on(gets("large.pdf"), Slow(0.01, 65_536))
    case.run(*SMALL)


def broken_listing(case: Case) -> None:
    """For good on the first night, in passing on the second."""
    small = (*SMALL, "--exclude", "m/*", "--shard-documents", "2")
    case.proxy.on(second_page, Refuse(400, "ExpiredToken", "The provided token has expired."))
    case.run(*small)
    case.proxy.on(second_page, Reset())
    case.proxy.on(second_page, Refuse(500, "InternalError"))
    case.run(*small)


def second_page(request: Request) -> bool:
    return lists("^$")(request) and "continuation-token" in request.query


def bad_objects(case: Case) -> None:
    """Some objects fail between the listing and the download; the next run mends what it can."""
    s3, source, proxy = case.s3, case.source.split("/")[2], case.proxy
    proxy.on(gets("denied.pdf"), Refuse(403, "AccessDenied"), None)
    proxy.on(gets("glacier.pdf"), Refuse(403, "InvalidObjectState"), None)
    proxy.on(gets("gone.pdf"), Call(lambda _: remove(s3, source, "gone.pdf"), before=True))
    newer = s3.get(source, "sound.pdf") + b"%"
    changed = Call(lambda _: s3.put(source, "changed.pdf", newer), before=True)
    proxy.on(gets("changed.pdf"), changed)
    case.run(*SMALL)
    proxy.clear()
    for match in (WRITES["documents"], WRITES["pages"]):
        proxy.on(match, LostAnswer())
    case.run(*SMALL)


def without_conditions(case: Case) -> None:
    for header in ("If-None-Match", "If-Match"):
        case.proxy.on(lambda _: True, Without(header), None)
    case.run(*SMALL)
    case.run(*SMALL, "--single-writer")
    case.run(*SMALL, "--single-writer")


ELSEWHERE = "the bucket is in another region; set AWS_DEFAULT_REGION or the right endpoint"
DENIED = "access is denied; check the credentials and the bucket's policy"
CLOCK = "this machine's clock is more than 15 minutes off; set it"
NO_KEY = "the access key is not known to the store; check the credentials"
NO_SECRET = "the secret key does not fit the access key; check the credentials"
NO_CREDENTIALS = "there are no credentials; set AWS_PROFILE or AWS_ACCESS_KEY_ID and its secret"
INGEST = "ingest s3://{source}/ s3://{lake}/ocr --layout none"


@dataclass(frozen=True)
class Wrong:
    """A command that cannot work, and what it says: `{source}`, `{lake}` and `{calm}` are buckets.

    Requests to the bucket `at` that have one of the `methods` are refused with `status`.
    """

    command: str
    code: int
    told: str
    at: str = ""
    refused: tuple[int, str] = (0, "")
    methods: str = "GET HEAD PUT DELETE POST"
    environment: tuple[tuple[str, str], ...] = ()


def refused(at: str, status: int, name: str, told: str) -> Wrong:
    """All requests to the source or to the lake are refused."""
    code, place = (2, "{source}/") if at == "source" else (1, "{lake}/ocr/_runs/lake.json")
    return Wrong(INGEST, code, f"cannot list s3://{place}: {told}", at, (status, name))


WRONG = {
    "source denied": refused("source", 403, "AccessDenied", DENIED),
    "lake denied": refused("lake", 403, "AccessDenied", DENIED),
    "source moved": refused("source", 301, "PermanentRedirect", ELSEWHERE),
    "lake moved": refused("lake", 301, "PermanentRedirect", ELSEWHERE),
    "source elsewhere": refused("source", 400, "AuthorizationHeaderMalformed", ELSEWHERE),
    "lake elsewhere": refused("lake", 400, "AuthorizationHeaderMalformed", ELSEWHERE),
    "clock at the source": refused("source", 403, "RequestTimeTooSkewed", CLOCK),
    "clock at the lake": refused("lake", 403, "RequestTimeTooSkewed", CLOCK),
    "access key": refused("source", 403, "InvalidAccessKeyId", NO_KEY),
    "access key of the lake": refused("lake", 403, "InvalidAccessKeyId", NO_KEY),
    "secret key": refused("source", 403, "SignatureDoesNotMatch", NO_SECRET),
    "secret key of the lake": refused("lake", 403, "SignatureDoesNotMatch", NO_SECRET),
    "no such source": Wrong(
        "ingest s3://not-there/x s3://{lake}/ocr",
        2,
        "cannot list s3://not-there/x: there is no such bucket",
    ),
    "no such lake": Wrong(
        "ingest s3://{source}/ s3://not-there/ocr",
        1,
        "cannot list s3://not-there/ocr/_runs/lake.json: there is no such bucket",
    ),
    "no such lake to plan for": Wrong(
        "plan s3://{source}/ s3://not-there/ocr",
        1,
        "cannot list s3://not-there/ocr/_runs/lake.json: there is no such bucket",
    ),
    "empty prefix": Wrong(
        "ingest s3://{source}/nothing s3://{lake}/ocr",
        2,
        "nothing to read in s3://{source}/nothing: no file matches",
    ),
    "no bucket": Wrong("ingest s3:// s3://{lake}/ocr", 2, "s3:// names no bucket"),
    "no writing": Wrong(
        INGEST,
        1,
        f"cannot write s3://{{lake}}/ocr/_runs/probe-.*: {DENIED}",
        "lake",
        (403, "AccessDenied"),
        "PUT",
    ),
    "no reading of what is there": Wrong(
        "ingest s3://{source}/ s3://{calm}/ocr --layout none",
        1,
        f"cannot read s3://{{calm}}/ocr/_runs/lake.json: {DENIED}",
        "calm",
        (403, "AccessDenied"),
        "READ",
    ),
    "a newer lake": Wrong(
        "ingest s3://{source}/ s3://{newer}/ocr",
        1,
        "s3://{newer}/ocr was written by a newer pagelake .lake schema 99, .* upgrade pagelake",
    ),
    "status of a newer lake": Wrong(
        "status s3://{newer}/ocr", 1, "s3://{newer}/ocr was written by a newer pagelake"
    ),
    "another recipe": Wrong(
        "ingest s3://{source}/ s3://{calm}/ocr --layout none --text-layer ignore",
        2,
        "the lake was read by recipe .* pass --new-recipe",
    ),
    "no lake": Wrong("sql s3://{lake}/ocr select", 1, "s3://{lake}/ocr is no lake"),
    "no credentials": Wrong(
        INGEST,
        2,
        f"cannot list s3://{{source}}/: {NO_CREDENTIALS}",
        environment=(("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")),
    ),
    "no such profile": Wrong(
        INGEST,
        2,
        "s3:// cannot be opened: ProfileNotFound: The config profile .nobody. could not be found",
        environment=(("AWS_PROFILE", "nobody"),),
    ),
    "no address": Wrong(
        INGEST,
        2,
        "s3:// cannot be opened: ValueError: Invalid endpoint: nowhere:1",
        environment=(("AWS_ENDPOINT_URL", "nowhere:1"),),
    ),
    "nobody there": Wrong(
        INGEST,
        2,
        "cannot list s3://{source}/: http://127.0.0.1:9 cannot be reached",
        environment=(("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),),
    ),
}


@dataclass(frozen=True)
class Told:
    """How a wrong command ended, what it should have said, and its lake before and after."""

    ended: Ended
    line: str
    seconds: float
    before: list[str]
    after: list[str]


@dataclass(frozen=True)
class Stories:
    calm: Case
    cases: dict[str, Case]
    wrong: dict[str, Told]


def go_wrong(s3: S3Server, source: str, calm: str, wrong: Wrong) -> Told:
    places = {name: s3.bucket() for name in ("lake", "calm", "newer")} | {"source": source}
    s3.put(places["newer"], "ocr/_runs/lake.json", b'{"schema_version": "99"}')
    for key in s3.keys(calm):
        s3.put(places["calm"], key, s3.get(calm, key))

    def hit(request: Request) -> bool:
        reading = wrong.methods == "READ" and request.method == "GET" and request.key != ""
        return request.bucket == places[wrong.at] and (reading or request.method in wrong.methods)

    def keys() -> list[str]:
        return [key for name in ("calm", "lake", "newer") for key in s3.keys(places[name])]

    before = keys()
    with proxying(s3.endpoint) as proxy:
        if wrong.at:
            proxy.on(hit, Refuse(*wrong.refused), None)
        environment = s3.environment | {"AWS_ENDPOINT_URL": proxy.endpoint}
        environment = {k: v for k, v in {**environment, **dict(wrong.environment)}.items() if v}
        began = time.monotonic()
        ended = pagelake_forked(*wrong.command.format(**places).split(), **environment)
    line = wrong.told.format(**places)
    return Told(ended, line, time.monotonic() - began, before, keys())


@pytest.fixture(scope="module")
def stories(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stories]:
    folder = tmp_path_factory.mktemp("made")
    letters = {
        name: write_pdf(folder / name, 3, f"A {name} letter.").read_bytes()
        for name in ("changed", "denied", "glacier", "gone", "large", "newer", "sound")
    }
    noise = b"".join(zlib.crc32(bytes([n % 256])).to_bytes(4, "big") for n in range(600_000))
    sources = {name: s3.bucket() for name in ("plain", "rich", "large", "long", "bad")}
    for name in ("changed", "denied", "gone", "sound"):
        s3.put(sources["plain"], f"{name}.pdf", letters[name])
    for name in ("changed", "denied", "glacier", "gone", "sound"):
        s3.put(sources["bad"], f"{name}.pdf", letters[name])
    s3.put(sources["rich"], "report.pdf", (SAMPLES / "report.pdf").read_bytes())
    s3.put(sources["large"], "large.pdf", letters["large"] + b"\n%" + noise.replace(b"\n", b" "))
    for number, name in enumerate(letters):
        s3.put(sources["long"], f"{'a' if number < 3 else 'z'}/{name}.pdf", letters[name])
    for number in range(60):
        s3.put(sources["long"], f"m/{number}", b"")
    with ExitStack() as stack:

        def case(source: str) -> Case:
            proxy = stack.enter_context(proxying(s3.endpoint))
            return Case(s3, f"s3://{sources[source]}/", s3.bucket(), proxy)

        quiet = case("plain")
        quiet.run(*SMALL)
        cases = {
            "bad day 1": case("plain"),
            "bad day 2": case("plain"),
            "lost answers": case("rich"),
            "bad bodies": case("large"),
            "broken listing": case("long"),
            "bad objects": case("bad"),
            "no conditions": case("plain"),
        }
        told: dict[str, Told] = {}

        def wrong(name: str) -> None:
            told[name] = go_wrong(s3, sources["plain"], quiet.lake, WRONG[name])

        side_by_side(
            partial(wrong, "nobody there"),
            partial(bad_day, cases["bad day 1"], 1),
            partial(bad_day, cases["bad day 2"], 2),
            partial(lost_answers, cases["lost answers"]),
            partial(bad_bodies, cases["bad bodies"]),
            partial(broken_listing, cases["broken listing"]),
            partial(bad_objects, cases["bad objects"]),
            partial(without_conditions, cases["no conditions"]),
            *(partial(wrong, name) for name in WRONG if name != "nobody there"),
        )
        yield Stories(quiet, cases, told)


def test_a_calm_run_leaves_nothing_over(stories: Stories) -> None:
    assert stories.calm.ended[0].code == 0, stories.calm.ended[0].err
    assert len(stories.calm.pages()) == 12
    stories.calm.check_nothing_is_left_over()


@pytest.mark.parametrize("name", ["bad day 1", "bad day 2"])
def test_a_bad_day_leaves_the_lake_of_a_calm_one(stories: Stories, name: str) -> None:
    case = stories.cases[name]
    assert [ended.code for ended in case.ended] == [0, 0], [ended.err for ended in case.ended]
    assert case.kept[0] == case.kept[1] == stories.calm.kept[0]
    assert case.ended[1].told["documents"] == 0
    case.check_nothing_is_left_over()
    tries = [request.headers["amz-sdk-request"] for request in case.proxy.requests]
    assert sum("attempt=1" not in each for each in tries) >= 5  # it was a bad day


@pytest.mark.parametrize("write", WRITES)
def test_a_write_whose_answer_was_lost_counts_once(stories: Stories, write: str) -> None:
    case = stories.cases["lost answers"]
    assert case.ended[0].code == 0, case.ended[0].err
    asked = [request for request in case.proxy.requests if WRITES[write](request)]
    assert len(asked) >= 2, "it was not written, or not written again"
    assert len(case.pages()) == 3 and len(case.documents()) == 1
    assert {row["figure_uri"] for row in case.rows("blocks")} != {None}
    case.check_nothing_is_left_over()


def test_a_body_that_breaks_off_goes_on_where_it_was(stories: Stories) -> None:
    case = stories.cases["bad bodies"]
    assert case.ended[0].code == 0, case.ended[0].err
    asked = [request for request in case.proxy.requests if gets("large.pdf")(request)]
    assert len(asked) == 4
    assert len({request.headers["If-Match"] for request in asked}) == 1
    starts = [int(each.headers["Range"].split("=")[1].strip("-")) for each in asked[1:]]
    assert 0 < starts[0] <= 1_000_000 and starts == sorted(starts)
    assert case.documents()["large.pdf"]["page_count"] == 3


def test_a_listing_that_breaks_off_is_told_and_the_next_run_goes_on(stories: Stories) -> None:
    case = stories.cases["broken listing"]
    first, second = case.ended
    [line] = first.err.strip().splitlines()
    assert first.code == 1
    assert re.fullmatch(
        "pagelake: the listing of s3://.*/ broke off after 50 objects: the session token has "
        "expired; renew it; run the same command again to go on",
        line,
    )
    assert second.code == 0, second.err
    assert len(case.kept[0].pages) in (0, 6) and len(case.pages()) == 21
    assert second.told["pages"]["total"] == 21 - len(case.kept[0].pages)
    assert sum(second_page(request) for request in case.proxy.requests) >= 4
    case.check_nothing_is_left_over()


def test_an_object_that_cannot_be_read_says_so_in_its_row(stories: Stories) -> None:
    case = stories.cases["bad objects"]
    assert case.ended[0].code == 3, case.ended[0].err
    codes = {name: row["error_code"] for name, row in case.kept[0].documents.items()}
    assert codes == {
        "changed.pdf": "source_changed",
        "denied.pdf": "source_denied",
        "glacier.pdf": "source_denied",
        "gone.pdf": "source_missing",
        "sound.pdf": None,
    }
    assert DENIED in case.kept[0].documents["denied.pdf"]["error_message"]
    assert "Glacier" in case.kept[0].documents["glacier.pdf"]["error_message"]


def test_the_next_run_mends_what_can_be_mended(stories: Stories) -> None:
    case = stories.cases["bad objects"]
    assert case.ended[1].code == 0, case.ended[1].err
    assert case.ended[1].told["documents"] == 3
    newest = {name: row["status"] for name, row in case.documents().items()}
    assert newest.pop("gone.pdf") == "failed"
    assert newest == dict.fromkeys(("changed.pdf", "denied.pdf", "glacier.pdf", "sound.pdf"), "ok")
    assert len(case.pages()) == 12
    case.check_nothing_is_left_over()


def test_a_store_without_conditions_is_for_a_single_writer(stories: Stories) -> None:
    case = stories.cases["no conditions"]
    refused, first, second = case.ended
    [line] = refused.err.strip().splitlines()
    assert refused.code == 1
    assert line.startswith(f"pagelake: the store of s3://{case.lake}/ocr keeps no conditional")
    assert "--single-writer" in line
    assert case.kept[0].keys == []
    assert (first.code, second.code) == (0, 0), first.err
    assert case.pages() == stories.calm.pages() and second.told["documents"] == 0
    assert case.keys() == stories.calm.keys()


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_work_is_told_in_one_line_and_nothing_is_written(
    stories: Stories, name: str
) -> None:
    told = stories.wrong[name]
    assert told.ended.code == WRONG[name].code, told.ended.err
    lines = told.ended.err.strip().splitlines()
    assert len(lines) == 1 and re.match(f"pagelake: {told.line}", lines[0]), told.ended.err
    assert told.ended.out == ""
    assert told.after == told.before


def test_a_store_that_is_not_there_is_not_waited_for_long(stories: Stories) -> None:
    assert stories.wrong["nobody there"].seconds < 60
