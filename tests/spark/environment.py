"""An environment with Spark and what its tests need, for the lane `test-spark`.

    python3 -m tests.spark.environment

builds it unless it is there, and prints the path of its Python as the last line. It lies where
vLLM's does (see tests/vllm/environment.py), under a name that holds a hash of all that decides what
is inside. pagelake itself is not in it: the lake is written by the command in `.venv`, and Spark
shall need nothing of pagelake to read it.

Spark wants Java 17 or later, which pip cannot install. Standard library only: this runs before
anything is installed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from tests.vllm.environment import alone, cache_folder

_CONSTRAINTS = Path(__file__).resolve().parent.parent.parent / "constraints.txt"

_SPARK = ("pyspark==4.3.0", "py4j==0.10.9.9")
# The rest in pagelake's tested versions. The last four are what pytest needs.
_AS_TESTED = ("pyarrow", "pytest", "iniconfig", "packaging", "pluggy", "pygments")

_BUILT = "built.json"  # written last: a folder without it is a build that was cut short


def environment_folder() -> Path:
    """Where the environment of this revision lies or will lie."""
    decides = [
        Path(__file__).read_text(),
        "\n".join(_packages()),
        f"{sys.implementation.cache_tag} {sysconfig.get_platform()}",
    ]
    name = hashlib.sha256("\0".join(decides).encode()).hexdigest()[:12]
    return cache_folder() / f"spark-environment-{name}"


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
    _say(f"building {folder}")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    # No cache: the archive of pyspark is 0.5 GB, and what is built of it lies here already.
    flags = ("-qq", "--no-input", "--disable-pip-version-check", "--no-cache-dir", "--use-pep517")
    # Standard output is this command's own: its last line is read by others.
    subprocess.run([python, "-m", "pip", "install", *flags, *_packages()], check=True, stdout=2)
    subprocess.run([python, "-c", "import pyarrow, pyspark.sql, pytest"], check=True)


def _packages() -> list[str]:
    """All packages, each pinned."""
    pins = (line.partition("==") for line in _CONSTRAINTS.read_text().splitlines())
    tested = {name.lower(): version for name, _, version in pins}
    return [*_SPARK, *(f"{name}=={tested[name]}" for name in _AS_TESTED)]


def _java() -> str | None:
    """The `java` that pyspark will start."""
    home = os.environ.get("JAVA_HOME")
    return shutil.which("java", path=f"{home}/bin" if home else None)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    if _java() is None:
        sys.exit("Spark needs Java 17 or later: apt-get install default-jre-headless")
    print(build())
