"""`pagelake serve`: vLLM's server with the flags that a model's profile asks for."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

import click

from schemas.errors import UsageError
from schemas.settings import ServeSettings
from tasks.engines.arguments import (
    api_servers,
    engine_arguments,
    serve_flags,
    vllm_version,
)
from tasks.engines.choice import DEFAULT_MODEL
from tasks.engines.profiles import profile_of
from tasks.engines.runner import uses_v2_runner


def serve_command(settings: ServeSettings) -> list[str]:
    """The command line of `vllm serve` for a model.

    Raises:
        UsageError: the model is not known, or vLLM is not installed.
    """
    profile = profile_of(settings.model or DEFAULT_MODEL)
    arguments = engine_arguments(profile, settings)
    count = settings.api_servers or api_servers(settings.data_parallel)
    return [
        _vllm(),
        "serve",
        *serve_flags(arguments),
        *("--served-model-name", profile.model),
        *("--host", settings.host, "--port", str(settings.port)),
        *("--api-server-count", str(count)),
    ]


def run_serve(settings: ServeSettings) -> None:
    """Become that server. Does not return.

    Raises:
        UsageError: see `serve_command`.
    """
    command = serve_command(settings)
    runner = "V2" if uses_v2_runner() else "V1"
    click.echo(f"vLLM {vllm_version()}, model runner {runner}: {shlex.join(command)}", err=True)
    sys.stderr.flush()
    os.execv(command[0], command)


def _vllm() -> str:
    beside = Path(sys.executable).with_name("vllm")
    found = str(beside) if beside.exists() else shutil.which("vllm")
    if found is None:
        raise UsageError(
            "vLLM is not installed here: pip install 'vllm>=0.24,<0.34' where the GPU is"
        )
    return found
