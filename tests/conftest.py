"""What the tests share: the command as a user types it, and lakes read once a session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "sample_docs"


@dataclass(frozen=True)
class Ended:
    """How a command ended. `told` is the JSON object it printed last, if any."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> dict[str, Any]:
        return json.loads(self.out.strip().splitlines()[-1])


def pagelake(*arguments: str | Path, timeout: float = 600, **environment: str) -> Ended:
    """Run the command in a process of its own, without a Prefect server."""
    surroundings = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env=surroundings | environment,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture(name="pagelake")
def pagelake_command() -> Callable[..., Ended]:
    return pagelake


@pytest.fixture(scope="session")
def sample_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sample_docs, read as a user would read it."""
    lake = tmp_path_factory.mktemp("lakes") / "samples"
    ended = pagelake("ingest", SAMPLES, lake, "--json")
    assert ended.code == 0, ended.err
    return lake


@pytest.fixture(scope="session")
def sample_lake_by_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sample_docs with every page read by the CPU engine."""
    lake = tmp_path_factory.mktemp("lakes") / "samples-by-engine"
    ended = pagelake("ingest", SAMPLES, lake, "--text-layer", "ignore", "--json")
    assert ended.code == 0, ended.err
    return lake
