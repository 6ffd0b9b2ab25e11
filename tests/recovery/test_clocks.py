"""Clocks that are wrong by an hour or a day: they decide neither who writes nor what is new."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from tasks.query import run_query
from tests.faultproxy import Call, Request, puts
from tests.recovery.conftest import Calm, NewScene
from tests.recovery.cycle import expect_recovery
from tests.recovery.letters import pdf
from tests.recovery.scene import Scene, filled
from tests.s3 import KEY, SECRET, S3Server

HOUR = 3600


def shown(scene: Scene, query: str) -> list[tuple[Any, ...]]:
    """What the views show."""
    options = (f"key={KEY}", f"secret={SECRET}", f"endpoint_url={scene.server.endpoint}")
    return run_query(scene.lake, query, options)[1]


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_the_newest_version_is_shown_whatever_the_clocks_say(
    ahead: int, new_scene: NewScene, s3: S3Server
) -> None:
    """Each time the document is written, the next run is on a machine with another clock."""
    with new_scene() as scene:
        scene.source = filled(s3, {})
        bucket = scene.source.split("/")[2]
        for number, clock in enumerate([0, ahead, -ahead]):
            s3.put(bucket, "letter.pdf", pdf([number]))
            assert scene.ingest(elsewhere=(f"host-{number}", clock)).code == 0
            assert shown(scene, "SELECT text FROM pages") == [(f"Shade\n\nletter {number}",)]
        assert shown(scene, "SELECT count(*) FROM documents_all") == [(3,)]


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_resumed_by_a_clock_an_hour_off(ahead: int, new_scene: NewScene, calm: Calm) -> None:
    with new_scene() as scene:
        assert scene.kill_at(puts("/pages/"), False, scene.start, 2)
        resume = partial(scene.ingest, elsewhere=("far-away", ahead))
        expect_recovery(scene, calm.contents, resume)


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_a_writer_with_another_clock_is_left_alone(ahead: int, new_scene: NewScene) -> None:
    """It shows life, though by our clock it has been silent for an hour, or lives in the future."""
    reached, over = threading.Event(), threading.Event()

    def hold(_: Request) -> None:
        reached.set()
        over.wait(60)

    with new_scene() as scene:
        scene.proxy.on(puts("/pages/"), Call(hold, before=True))
        writer = scene.start(elsewhere=("far-away", ahead))
        assert reached.wait(60)
        refused = scene.ingest()
        assert refused.code == 1
        assert "on far-away (pid" in refused.err and "pass --wait" in refused.err
        over.set()
        assert writer.wait().code == 3


def test_resumed_after_midnight(new_scene: NewScene, calm: Calm) -> None:
    """The date in the paths is the plan's, whenever a part is written."""
    now = datetime.now(UTC)
    late = now.replace(hour=23, minute=50) - timedelta(days=1)
    with new_scene() as scene:
        yesterday = partial(scene.start, elsewhere=("yesterday", (late - now).total_seconds()))
        assert scene.kill_at(puts("/documents/"), True, yesterday)
        assert any("/plan-00002" in key for key in scene.server.keys(scene.bucket))
        expect_recovery(scene, calm.contents, scene.ingest)
        tables = [key for key in scene.contents().objects if key.endswith(".parquet")]
    assert {key.split("/")[1] for key in tables} == {f"ingest_date={late:%Y-%m-%d}"}
