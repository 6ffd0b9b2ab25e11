"""What vLLM spends on the CPU for a page before the GPU sees it: `make bench-vllm`.

Decoding, resizing, tiling and normalising, in one thread, of sample pages as pagelake renders them
and as 300-dpi PNGs, which is what people send. How many pages a second one API server process can
take in follows from it.
"""

from __future__ import annotations

import io
import json
import statistics
import time
from collections.abc import Callable

import pymupdf
import torch
from PIL import Image
from transformers import AutoTokenizer
from vllm.transformers_utils.processors.deepseek_ocr import DeepseekOCRProcessor

from tasks.engines.profiles import profile_of
from tasks.render import render_page
from tasks.target import Rendering
from tests.bench import machine
from tests.conftest import SAMPLES
from tests.vllm.checkpoint import build

ROUNDS = 3
PROMPT = "<image>\nFree OCR."


def main() -> None:
    """Measure, print a table, and one JSON object last."""
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(build())
    processor = DeepseekOCRProcessor(tokenizer=tokenizer)
    figures: dict[str, float] = {}
    for kind, name in (("printed", "report.pdf"), ("scanned", "letter-scan.pdf")):
        figures |= measured(processor, kind, list(pymupdf.open(SAMPLES / name)))
    print(json.dumps({"machine": machine(), **figures}))


def measured(
    processor: DeepseekOCRProcessor, kind: str, pages: list[pymupdf.Page]
) -> dict[str, float]:
    """CPU milliseconds of both forms of these pages, and ours as a share of the other."""
    _, target = profile_of("deepseek-ocr").target("gundam")
    forms: dict[str, Callable[[pymupdf.Page], bytes]] = {
        "ours": lambda page: render_page(page, Rendering(target)).data,
        "png_300dpi": lambda page: page.get_pixmap(dpi=300, alpha=False).tobytes("png"),
    }
    spent = {}
    for name, form in forms.items():
        sent = [form(page) for page in pages]
        prepare(processor, sent)
        spent[name] = statistics.median(prepare(processor, sent) for _ in range(ROUNDS))
        print(
            f"{kind} {name:12} {spent[name] * 1000:6.0f} ms a page, {1 / spent[name]:5.1f} pages/s "
            f"an API server process, {sum(map(len, sent)) / len(sent) / 1024:5.0f} KiB a page"
        )
    figures = {f"{kind}_{name}_ms": round(took * 1000, 1) for name, took in spent.items()}
    return figures | {f"{kind}_ours_over_png": round(spent["ours"] / spent["png_300dpi"], 3)}


def prepare(processor: DeepseekOCRProcessor, sent: list[bytes]) -> float:
    """CPU seconds an image, from the bytes to the model's tensors."""
    began = time.process_time()
    for data in sent:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        processor(prompt=PROMPT, images=[picture])
    return (time.process_time() - began) / len(sent)


if __name__ == "__main__":
    main()
