"""vLLM's engine arguments for a model, as Python takes them and as `vllm serve` does."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from schemas.errors import UsageError
from schemas.settings import EngineSettings
from tasks.engines.profiles import Profile
from tasks.engines.runner import class_path, uses_v2_runner

VLLM_NGRAM = "vllm.model_executor.models.deepseek_ocr:NGramPerReqLogitsProcessor"

_STREAM_INTERVAL = 32
"""Tokens a piece of a streamed answer: a page of 1,000 tokens costs 32 messages, not 1,000."""

_PAGES_A_SECOND_A_GPU = 10.0  # three times what is reported of an H100 with DeepSeek-OCR
_PAGES_A_SECOND_AN_API_SERVER = 14.0  # as `make bench-vllm` prints for pages of ours


def engine_arguments(profile: Profile, settings: EngineSettings) -> dict[str, Any]:
    """The arguments of vLLM's engine, by their names in Python.

    Raises:
        UsageError: an `--engine-option` is not `NAME=VALUE`.
    """
    arguments: dict[str, Any] = {
        "model": settings.weights or profile.repository,
        "revision": settings.revision,
        "max_model_len": profile.context,
        "limit_mm_per_prompt": {"image": profile.images_a_prompt},
        "stream_interval": _STREAM_INTERVAL,
        "tensor_parallel_size": settings.tensor_parallel,
        "data_parallel_size": settings.data_parallel,
        **profile.engine,
    }
    if settings.prefill_chunk is not None:
        arguments |= {
            "enable_chunked_prefill": True,
            "max_num_batched_tokens": settings.prefill_chunk,
        }
    if profile.ngram is not None:
        arguments["logits_processors"] = [ngram_processor(settings)]
    arguments |= dict(_option(given) for given in settings.engine_option)
    return {name: value for name, value in arguments.items() if value is not None}


def ngram_processor(settings: EngineSettings) -> str:
    """The class path of the n-gram processor for the installed vLLM and its model runner."""
    if settings.ngram_processor == "vllm":
        return VLLM_NGRAM
    return class_path(vllm_version(), uses_v2_runner())


def vllm_version() -> str:
    """The version of vLLM that is installed.

    Raises:
        UsageError: none is.
    """
    try:
        return version("vllm")
    except PackageNotFoundError:
        raise UsageError(
            "vLLM is not installed here: pip install 'vllm>=0.24,<0.34', or use --engine-url"
        ) from None


def has_gpu_and_vllm() -> bool:
    """Whether vLLM could run on a GPU of this machine; judged without importing anything heavy."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    devices = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()
    return devices and not hidden and find_spec("vllm") is not None


def serve_flags(arguments: Mapping[str, Any]) -> list[str]:
    """The same arguments as `vllm serve` takes them, the model first."""
    flags = [str(arguments["model"])]
    for name, value in arguments.items():
        flag = "--" + name.replace("_", "-")
        if name == "model":
            continue
        if value is True:
            flags.append(flag)
        elif value is False:
            flags.append("--no-" + flag.removeprefix("--"))
        elif isinstance(value, list):
            flags += [flag, *map(str, value)]
        else:
            flags += [flag, json.dumps(value) if isinstance(value, dict) else str(value)]
    return flags


def api_servers(gpus: int) -> int:
    """How many API server processes keep so many GPUs fed: each prepares images on one core."""
    return math.ceil(gpus * _PAGES_A_SECOND_A_GPU / _PAGES_A_SECOND_AN_API_SERVER)


def _option(given: str) -> tuple[str, Any]:
    name, equals, value = given.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"--engine-option {given}: must be NAME=VALUE, e.g. max_num_seqs=256")
    try:
        meant = json.loads(value)
    except ValueError:
        meant = value
    return name.strip().removeprefix("--").replace("-", "_"), meant
