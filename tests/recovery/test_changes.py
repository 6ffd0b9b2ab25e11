"""Documents that shrink, grow or go between a death and the resume: what was read of them stays,
and what they are now is read besides."""

from __future__ import annotations

from collections import Counter
from contextlib import closing

import pytest

from tests.faultproxy import puts
from tests.recovery.conftest import NewScene
from tests.recovery.contents import Contents
from tests.recovery.letters import pdf, tar_gz
from tests.recovery.scene import PART_PAGES, filled
from tests.recovery.test_clocks import shown
from tests.s3 import S3Server

NEWEST = "SELECT page_number, text FROM pages WHERE source_uri LIKE '%letter%' ORDER BY ALL"


def in_order(contents: Contents) -> Counter[tuple[str, str | None]]:
    """How many pages of letters have which status, in a lake where nothing is twice or too many."""
    assert contents.not_accounted_for() == set()
    keys = Counter((row[2], row[1]) for row in contents.pages)
    keys.update(row[:3] for row in contents.blocks)
    keys.update((row[1],) for row in contents.documents)
    assert set(keys.values()) == {1}
    return Counter((row[3], row[4]) for row in contents.pages if "letter" in row[0])


def written(numbers: range) -> list[tuple[int, str]]:
    return [(page, f"Shade\n\nletter {number}") for page, number in enumerate(numbers, start=1)]


@pytest.mark.parametrize("committed", [0, PART_PAGES], ids=["nothing read", "a part read"])
@pytest.mark.parametrize(("was", "becomes"), [(12, 4), (7, 12)], ids=["shrinks", "grows"])
def test_a_document_is_written_again(
    was: int, becomes: int, committed: int, new_scene: NewScene, s3: S3Server
) -> None:
    with new_scene() as scene:
        scene.source = filled(s3, {"letter.pdf": pdf(range(was)), "other.pdf": pdf([30])})
        assert scene.kill_at(puts("/pages/"), committed == 0, scene.start)
        now = range(13, 13 + becomes)
        s3.put(scene.source.split("/")[2], "letter.pdf", pdf(now))
        ended = scene.ingest()
        assert ended.code == 3, ended.err
        assert shown(scene, NEWEST) == written(now)
        told = in_order(scene.contents())
    lost = was - committed if committed else 0
    assert told == Counter({("ok", None): committed + becomes, ("failed", "source_changed"): lost})


def test_a_document_goes(new_scene: NewScene, s3: S3Server) -> None:
    with new_scene() as scene:
        scene.source = filled(s3, {"letter.pdf": pdf(range(12)), "other.pdf": pdf([30])})
        assert scene.kill_at(puts("/pages/"), False, scene.start)
        with closing(s3.client()) as client:
            client.delete_object(Bucket=scene.source.split("/")[2], Key="letter.pdf")
        ended = scene.ingest()
        assert ended.code == 3, ended.err
        told = in_order(scene.contents())
    assert told == {("ok", None): PART_PAGES, ("failed", "source_missing"): 12 - PART_PAGES}


def test_an_archive_is_written_again(new_scene: NewScene, s3: S3Server) -> None:
    members = {"letter1.pdf": pdf(range(4)), "letter2.pdf": pdf(range(4, 10))}
    with new_scene() as scene:
        scene.source = filled(s3, {"a.tar.gz": tar_gz(members), "other.pdf": pdf([30])})
        assert scene.kill_at(puts("/pages/"), False, scene.start)
        members["letter2.pdf"] = pdf(range(13, 15))
        s3.put(scene.source.split("/")[2], "a.tar.gz", tar_gz(members))
        ended = scene.ingest()
        assert ended.code == 3, ended.err
        assert shown(scene, NEWEST) == sorted(written(range(4)) + written(range(13, 15)))
        told = in_order(scene.contents())
        copied = shown(scene, "SELECT count(*) FROM pages WHERE list_contains(flags, 'copied')")
    assert told == {("ok", None): PART_PAGES + 4 + 2, ("failed", "source_changed"): 5}
    assert copied == [(4,)], "the member that has stayed the same is not read again"
