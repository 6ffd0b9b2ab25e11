"""DeepSeek-VL2 and Phi-3-vision on a real vLLM, without weights: are they asked and answered?"""

from __future__ import annotations

from pathlib import Path

from tests.vllm import phi3, vl2
from tests.vllm.serving import Served
from tests.vllm.shades import pages
from tests.vllm.test_served_checkpoint import ask, page

IMAGE = page(pages()["amber"], (300, 380))


def answered(served: Served, model: str, images: int) -> int:
    """Ask about so many images.

    Returns:
        How many tokens the prompt had.
    """
    said = ask(served.url, [IMAGE] * images, "What is this?", model=model, max_tokens=4)
    assert said["model"] == model
    assert said["usage"]["completion_tokens"] in range(1, 5)
    assert said["choices"][0]["finish_reason"] in ("length", "stop")
    tokens: int = said["usage"]["prompt_tokens"]
    return tokens


def test_deepseek_vl2(tmp_path: Path) -> None:
    """One tile of 14 x 14 tokens, and the whole page as large; a token ends each row and both."""
    image = 2 * 14 * 15 + 1
    model = vl2.write_vl2(tmp_path / "vl2")
    name = "deepseek-vl2-tiny"
    with Served.by_vllm(model, tmp_path, *vl2.ARGUMENTS, name=name) as served:
        one, two = (answered(served, name, images) for images in (1, 2))
    assert image < one < image + 30
    assert image <= two - one <= image + 2


def test_phi3_vision(tmp_path: Path) -> None:
    """Two crops across and two down of 12 x 12 tokens, and the page shrunk into one."""
    image = 24 * 25 + 1 + 12 * 13
    model = phi3.write_phi3(tmp_path / "phi3")
    name = "phi-3-vision"
    with Served.by_vllm(
        model, tmp_path, *phi3.ARGUMENTS, name=name, HF_MODULES_CACHE=str(tmp_path / "modules")
    ) as served:
        one, two = (answered(served, name, images) for images in (1, 2))
    assert image < one < image + 30
    assert image <= two - one <= image + 2
