"""The same question in the words of different OpenAI-compatible servers."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from schemas.records import PageImage
from tasks.engines.ask import REPETITION, SEED, Ask
from tasks.engines.ngram import NGramArguments

VLLM, SGLANG = "vllm", "sglang"
"""Servers by what `/v1/models` says of `owned_by`; any other is asked in OpenAI's words alone."""

# What SGLang's `DeepseekOCRNoRepeatNGramLogitProcessor.to_str()` gives: a pickle that only names
# the class, in hexadecimal. Written out here, so that SGLang need not be installed to say it.
_SGLANG_CLASS = (
    b"csglang.srt.sampling.custom_logit_processor\nDeepseekOCRNoRepeatNGramLogitProcessor\n."
)
SGLANG_NGRAM = json.dumps({"callable": _SGLANG_CLASS.hex()})


def chat_body(server: str, served_as: str, images: Sequence[PageImage], ask: Ask) -> bytes:
    """The body of a POST to `/v1/chat/completions` that streams the answer.

    Args:
        server: `vllm`, `sglang` or whatever `owned_by` said.
        served_as: the model's name there.
        images: JPEGs, in the order in which the question counts them.
        ask: the question.
    """
    content: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": _data_url(image)}} for image in images
    ]
    content.append({"type": "text", "text": ask.question})
    body: dict[str, Any] = {
        "model": served_as,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": ask.max_tokens,
        "temperature": ask.temperature,
        "seed": SEED,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if server == VLLM:
        # An answer that is broken off is paid for too: count as it comes.
        body["stream_options"]["continuous_usage_stats"] = True
        body |= {"skip_special_tokens": False, "repetition_detection": REPETITION}
        if ask.ngram is not None:
            body["vllm_xargs"] = ngram_fields(ask.ngram)
    elif server == SGLANG:
        body["skip_special_tokens"] = False
        if ask.ngram is not None:
            body["custom_logit_processor"] = SGLANG_NGRAM
            body["custom_params"] = ngram_fields(ask.ngram)
    return json.dumps(body).encode()


def ngram_fields(ngram: NGramArguments) -> Mapping[str, Any]:
    """The n-gram arguments by the names that vLLM's and SGLang's processors know."""
    return {
        "ngram_size": ngram.ngram_size,
        "window_size": ngram.window_size,
        "whitelist_token_ids": sorted(ngram.whitelist_token_ids),
    }


def _data_url(image: PageImage) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(image.data).decode("ascii")
