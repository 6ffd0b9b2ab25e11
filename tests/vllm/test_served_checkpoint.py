"""The crafted checkpoint with vLLM's own n-gram processor, asked as any client asks."""

from __future__ import annotations

import base64
import io
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from tests.vllm.serving import Served
from tests.vllm.shades import PROMPTS, Shade, pages

SHADES = pages()
SMALL, TILED = (500, 640), (1280, 1656)
IMAGE_TOKENS = {SMALL: 273, TILED: 903}


@pytest.fixture(scope="module")
def served(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with Served.by_pagelake(checkpoint, folder, "--ngram-processor", "vllm") as served:
        yield served


def page(shade: Shade, size: tuple[int, int]) -> str:
    """A page of this shade with lines of coloured text on it, as a data URL."""
    image = Image.new("RGB", size, (shade.grey,) * 3)
    draw = ImageDraw.Draw(image)
    for line, colour in enumerate(("red", "black", "blue", "white", "green")):
        place = (size[0] // 10, size[1] // 10 + line * size[1] // 14)
        draw.text(place, "Words that nobody reads " * 2, fill=colour, font_size=size[1] // 40)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def ask(url: str, images: list[str], question: str, **more: Any) -> dict[str, Any]:
    content = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    asked = {
        "model": "deepseek-ocr",
        "messages": [{"role": "user", "content": [*content, {"type": "text", "text": question}]}],
        "temperature": 0,
        "max_tokens": 300,
        "skip_special_tokens": False,
    } | more
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(asked).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=240) as answer:
        said: dict[str, Any] = json.load(answer)
    return said


def ngram(size: int, window: int, *spared: int) -> dict[str, Any]:
    arguments = {"ngram_size": size, "window_size": window, "whitelist_token_ids": list(spared)}
    return {"vllm_xargs": arguments}


CASES = [
    *((name, "markdown", SMALL) for name in ("amber", "delta", "heron", "empty")),
    *((name, "free", SMALL) for name in ("ivory", "stubborn", "cells")),
    ("cedar", "markdown", TILED),
]


@pytest.mark.parametrize(("name", "prompt", "size"), CASES)
def test_a_shade_says_its_text(
    served: Served, name: str, prompt: str, size: tuple[int, int]
) -> None:
    said = ask(served.url, [page(SHADES[name], size)], PROMPTS[prompt])
    (choice,) = said["choices"]
    assert (choice["message"]["content"] or "") == SHADES[name].answers[prompt].text
    assert choice["finish_reason"] == "stop"
    assert 0 < said["usage"]["prompt_tokens"] - IMAGE_TOKENS[size] < 20


@pytest.mark.parametrize("name", ["black", "march", "cells"])
def test_a_loop_has_no_end(served: Served, name: str) -> None:
    said = ask(served.url, [page(SHADES[name], SMALL)], PROMPTS["markdown"], max_tokens=600)
    (choice,) = said["choices"]
    answer = SHADES[name].answers["markdown"]
    whole = answer.text + answer.cycle * 400
    assert whole.startswith(choice["message"]["content"])
    assert (choice["finish_reason"], said["usage"]["completion_tokens"]) == ("length", 600)


def test_ngrams_break_a_loop(served: Served) -> None:
    image, answer = page(SHADES["black"], SMALL), SHADES["black"].answers["free"]
    (choice,) = ask(served.url, [image], PROMPTS["free"], **ngram(8, 90))["choices"]
    text = choice["message"]["content"]
    assert text.startswith(answer.cycle)
    assert text.endswith(answer.way_out)
    assert len(text) < 4 * len(answer.cycle) + len(answer.way_out)
    assert choice["finish_reason"] == "stop"


def test_spared_cells_run_on(served: Served) -> None:
    """The marks have the numbers that DeepSeek-OCR's whitelist knows them by."""
    image, answer = page(SHADES["cells"], SMALL), SHADES["cells"].answers["markdown"]
    spared = ngram(30, 90, 128821, 128822)
    (choice,) = ask(served.url, [image], PROMPTS["markdown"], **spared)["choices"]
    assert choice["finish_reason"] == "length"
    (choice,) = ask(served.url, [image], PROMPTS["markdown"], **ngram(30, 90))["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"].endswith(answer.way_out)
