"""The lane `test-vllm`: only where a vLLM is, which `make test` has not."""

from __future__ import annotations

import os
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.vllm.serving import ENVIRONMENT

HAS_VLLM = find_spec("vllm") is not None
collect_ignore_glob = [] if HAS_VLLM else ["test_*.py"]

if HAS_VLLM:
    os.environ |= ENVIRONMENT  # for engines within processes that tests start
    with warnings.catch_warnings():  # torch and vLLM warn while they load
        warnings.simplefilter("ignore")
        import tasks.engines.inprocess  # noqa: F401


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """The crafted DeepSeek-OCR, see `tests.vllm.shades`."""
    from tests.vllm.checkpoint import build

    return build()
