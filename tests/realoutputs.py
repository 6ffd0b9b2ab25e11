"""Twenty real outputs of DeepSeek-OCR, which lie outside the project because they are not ours.

They are looked for in the folder that PAGELAKE_SHARED names, where they must be; without it in
`../shared`, and tests that need them are skipped, saying so, where that is not there either.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("PAGELAKE_SHARED") or Path(__file__).parents[2] / "shared")
FOLDER = SHARED / "corpus" / "deepseek-ocr-raw"


def real_outputs() -> dict[str, str]:
    """The outputs by name."""
    files = sorted(FOLDER.glob("*.txt"))
    if not files and "PAGELAKE_SHARED" not in os.environ:
        pytest.skip(f"no real outputs in {FOLDER}: set PAGELAKE_SHARED to where they are")
    assert len(files) == 20, f"{FOLDER} does not hold the 20 real outputs: check PAGELAKE_SHARED"
    return {file.stem: file.read_text("utf-8") for file in files}
