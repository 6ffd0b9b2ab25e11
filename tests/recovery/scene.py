"""A lake in S3 with a proxy before it and a model's stand-in beside it, and runs that die there."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.conftest import Ended
from tests.faultproxy import Call, Match, Proxy, Request, Reset, proxying
from tests.recovery.command import Command, Launcher
from tests.recovery.contents import Contents
from tests.recovery.letters import page_of, read
from tests.s3 import S3Server
from tests.standin import StandIn, standing_in

PART_PAGES = 5
IN_FLIGHT = 4
SHARDS_AT_ONCE = 2

OPTIONS = (
    *("--text-layer", "ignore", "--mode", "global", "--processes", "1"),
    *("--part-pages", str(PART_PAGES), "--shard-documents", "4"),
    *("--max-in-flight", str(IN_FLIGHT), "--take-over-after", "5", "--json"),
)

READ_AGAIN = SHARDS_AT_ONCE * (IN_FLIGHT + PART_PAGES)
"""What a death may cost at most: of each shard being read the pages in flight and one part."""


@dataclass
class Scene:
    """One lake, `s3://BUCKET/ocr`, and what its runs meet."""

    launcher: Launcher
    server: S3Server
    source: str
    proxy: Proxy
    stand_in: StandIn
    bucket: str
    commands: list[Command] = field(default_factory=list)

    @property
    def lake(self) -> str:
        return f"s3://{self.bucket}/ocr"

    def start(self, *options: str, elsewhere: tuple[str, float] | None = None) -> Command:
        """`ingest`; `elsewhere` is another machine's name, and how far ahead its clock is."""
        arguments = ["ingest", self.source, self.lake, "--engine-url", self.stand_in.url]
        module = "flows.cli"
        if elsewhere is not None:
            module = "tests.recovery.elsewhere"
            arguments = [*map(str, elsewhere), *arguments]
        return self.start_module(module, *arguments, *OPTIONS, *options)

    def start_module(self, module: str, *arguments: str) -> Command:
        environment = self.server.environment | {"AWS_ENDPOINT_URL": self.proxy.endpoint}
        command = self.launcher.start(module, arguments, environment)
        self.commands.append(command)
        return command

    def ingest(self, *options: str, elsewhere: tuple[str, float] | None = None) -> Ended:
        return self.start(*options, elsewhere=elsewhere).wait()

    def kill_at(
        self, match: Match, before: bool, command: Callable[[], Command], number: int = 1
    ) -> bool:
        """Start a command and kill it at the first request that matches, or the so manieth, before
        or after the store has done it; whether there was one."""
        reached = threading.Event()
        started = threading.Event()

        def kill(_: Request) -> None:
            started.wait(60)
            running.kill()
            reached.set()

        self.proxy.on(nth(match, number), Call(kill, before))
        if before:  # the store never hears of it
            self.proxy.on(nth(match, number), Reset())
        running = command()
        started.set()
        ended = running.wait()
        self.proxy.clear()
        assert ended.code == -signal.SIGKILL or not reached.is_set(), ended
        return reached.is_set()

    def freeze_at(
        self, match: Match, start: Callable[[], Command], number: int = 1
    ) -> tuple[Command, Callable[[], None]]:
        """Start a command and stop all of it at such a request; what wakes it again.

        The request reaches the store only then.
        """
        started, frozen, awake = threading.Event(), threading.Event(), threading.Event()

        def freeze(_: Request) -> None:
            started.wait(60)
            command.send(signal.SIGSTOP)
            frozen.set()
            awake.wait(120)

        def wake() -> None:
            command.send(signal.SIGCONT)
            awake.set()

        self.proxy.on(nth(match, number), Call(freeze, before=True))
        command = start()
        started.set()
        assert frozen.wait(60), command.wait()
        return command, wake

    def asked(self) -> Counter[int]:
        """How often each page was asked about."""
        return Counter(page_of(question) for question in self.stand_in.asked)

    def read_again(self) -> int:
        return sum(count - 1 for count in self.asked().values())

    def fill(self, contents: Contents) -> None:
        """Make a lake that was read elsewhere this scene's."""
        for key, data in contents.objects.items():
            self.server.put(self.bucket, f"ocr/{key}", data)

    def contents(self) -> Contents:
        keys = self.server.keys(self.bucket, "ocr/")
        return Contents({key[4:]: self.server.get(self.bucket, key) for key in keys})


@contextmanager
def scene_of(launcher: Launcher, server: S3Server, source: str) -> Iterator[Scene]:
    """A new scene with an empty lake; whatever still runs at its end is killed."""
    with proxying(server.endpoint) as proxy, standing_in(StandIn(answer=read, slots=1)) as stand_in:
        scene = Scene(launcher, server, source, proxy, stand_in, server.bucket())
        try:
            yield scene
        finally:
            for command in scene.commands:
                if command.running:
                    command.kill()
                    command.wait()


def first(match: Match) -> Match:
    """Those that make an object which must not be there yet."""
    return lambda request: match(request) and "If-None-Match" in request.headers


def renewing(match: Match) -> Match:
    """Those that replace an object in the state in which it is known."""
    return lambda request: match(request) and "If-Match" in request.headers


def nth(match: Match, number: int) -> Match:
    """The request that matches for the so manieth time, counted from 1, and those after it."""
    seen = 0

    def counted(request: Request) -> bool:
        nonlocal seen
        matches = match(request)
        seen += matches
        return matches and seen >= number

    return counted


def filled(server: S3Server, objects: Mapping[str, bytes]) -> str:
    """A new bucket with these objects: its address."""
    bucket = server.bucket()
    for key, data in objects.items():
        server.put(bucket, key, data)
    return f"s3://{bucket}/"
