"""What the recovery tests share: a source in S3, and what an undisturbed run makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import pytest

from tests.recovery.command import Launcher, launching
from tests.recovery.contents import Contents
from tests.recovery.letters import DOCUMENTS, PAGES, ROWS, letters
from tests.recovery.scene import Scene, filled, scene_of
from tests.s3 import S3Server

NewScene = Callable[[], AbstractContextManager[Scene]]


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    with launching(tmp_path_factory.mktemp("commands")) as launcher:
        yield launcher


@pytest.fixture(scope="session")
def new_scene(launcher: Launcher, s3: S3Server) -> NewScene:
    """Makes scenes of one source, so that what is in their lakes can be compared."""
    return partial(scene_of, launcher, s3, filled(s3, letters()))


@dataclass(frozen=True)
class Calm:
    """The lake of a run that nothing disturbs, and how many requests that took."""

    contents: Contents
    requests: int


@pytest.fixture(scope="session")
def calm(new_scene: NewScene) -> Calm:
    with new_scene() as scene:
        ended = scene.ingest()
        assert ended.code == 3, ended.err
        contents = scene.contents()
        assert (len(contents.documents), len(contents.pages)) == (DOCUMENTS, ROWS)
        assert scene.asked() == dict.fromkeys(range(PAGES), 1)
        requests = len(scene.proxy.requests)
    assert contents.not_accounted_for() == set()
    assert contents.twice() == []
    return Calm(contents, requests)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the deaths have cost."""
    told = [
        value
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == "read_again"
    ]
    if told:
        terminalreporter.write_line(
            f"{len(told)} deaths: {max(told)} of {PAGES} pages read again at most, "
            f"{sum(told) / len(told):.1f} on average"
        )
