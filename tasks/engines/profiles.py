"""What pagelake must know of a model: one entry a model, and a new model is one more.

A profile says how to ask (prompts by purpose, form, sampling, tokens that must survive), how to
render, how to serve it, and how its answers are parsed. Sources: the models' own repositories and
vLLM's recipes for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.errors import UsageError
from tasks.engines.ngram import NGramArguments
from tasks.grounding import Pieces, pieces
from tasks.target import CandidateTarget, CropTarget, Target, TileTarget

LOCATE = "locate:"

Parser = Callable[[str, float, float, int], Pieces]
"""Raw answer, width and height of the page as displayed in points, turn undone: its blocks. A
module's function, since pages are parsed in other processes."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One model.

    Attributes:
        model: its name in the lake, and what a server must serve it as.
        repository: where its weights come from.
        prompts: the question by purpose; the first is the default. "{text}" in `locate` is what is
            looked for.
        targets: how pages are rendered, by mode; the first is the default.
        parser: takes an answer apart. The usual one knows `<|ref|>`, `<|det|>` and Markdown.
        chat: the whole prompt where no chat template is applied: "{images}" stands for one
            `image_mark` an image, "{question}" for the question.
        image_mark: what stands for an image in a prompt; "{n}" counts from 1.
        context: tokens of prompt and answer together.
        image_tokens: most tokens that one image takes of the context.
        ngram: arguments of the n-gram processor; None for models that need none.
        images_a_prompt: how many images a question may be about.
        engine: arguments of vLLM's engine that the model needs, by their names there.
    """

    model: str
    repository: str
    prompts: Mapping[str, str]
    targets: Mapping[str, Target]
    chat: str
    image_mark: str
    context: int
    image_tokens: int
    ngram: NGramArguments | None = None
    images_a_prompt: int = 1
    engine: Mapping[str, Any] = field(default_factory=dict)
    parser: Parser = pieces

    def target(self, mode: str | None) -> tuple[str, Target]:
        """A mode, the default if None, and how it renders.

        Raises:
            UsageError: the model has no such mode.
        """
        mode = mode or next(iter(self.targets))
        if mode not in self.targets:
            raise UsageError(f"--mode {mode}: {self.model} has the modes {', '.join(self.targets)}")
        return mode, self.targets[mode]

    def question(self, prompt: str) -> str:
        """The words that ask for `prompt`, a purpose such as `markdown` or `locate: a stamp`.

        Raises:
            UsageError: the model has no such prompt.
        """
        if prompt.startswith(LOCATE) and "locate" in self.prompts:
            return self.prompts["locate"].format(text=prompt.removeprefix(LOCATE).strip())
        if prompt not in self.prompts or prompt == "locate":
            known = ", ".join(f"{LOCATE}TEXT" if n == "locate" else n for n in self.prompts)
            raise UsageError(f"--prompt {prompt}: {self.model} has the prompts {known}")
        return self.prompts[prompt]

    def whole_prompt(self, question: str, images: int) -> str:
        """Question and marks for the images, for engines that apply no chat template."""
        marks = "".join(self.image_mark.format(n=n) + "\n" for n in range(1, images + 1))
        return self.chat.format(images=marks, question=question)

    def most_output(self, context: int | None, images: int) -> int:
        """Tokens that an answer about so many images may have, in the engine's own `context`."""
        room = min(context or self.context, self.context)
        return max(room - images * self.image_tokens - _QUESTION_TOKENS, 1)


_QUESTION_TOKENS = 96

_DEEPSEEK_OCR_PROMPTS = {
    "markdown": "<|grounding|>Convert the document to markdown.",
    "ocr": "<|grounding|>OCR this image.",
    "free": "Free OCR.",
    "figure": "Parse the figure.",
    "describe": "Describe this image in detail.",
    "locate": "Locate <|ref|>{text}<|/ref|> in the image.",
}

_DEEPSEEK_OCR_NGRAM = NGramArguments(
    ngram_size=30,
    window_size=90,
    whitelist_token_ids=frozenset({128821, 128822}),  # <td> and </td>
)

# Pages do not repeat, so that caches of prefixes and images would only cost memory.
_NOTHING_REPEATS = {"enable_prefix_caching": False, "mm_processor_cache_gb": 0}


# For models that were not trained on questions of their own.
_FREE = "Read out all text of this page in reading order."
_FIGURE = "Give the data of this figure as a Markdown table."
_DESCRIBE = "Describe this document: what it is, from whom, for whom, and what it says."


def _deepseek_vl2(size: str, suffix: str) -> Profile:
    return Profile(
        model=f"deepseek-vl2{size}",
        repository=f"deepseek-ai/deepseek-vl2{suffix}",
        prompts={
            "markdown": "Convert this page to Markdown in reading order, tables as HTML. "
            "Give its words alone, and all of them.",
            "free": _FREE,
            "figure": _FIGURE,
            "describe": _DESCRIBE,
            "locate": "<|ref|>{text}<|/ref|>",
        },
        targets={"fit": CandidateTarget()},
        chat="<|User|>: {images}{question}\n\n<|Assistant|>: ",
        image_mark="<image>",
        context=4096,
        image_tokens=2200,
        images_a_prompt=8,
        engine={
            "hf_overrides": {"architectures": ["DeepseekVLV2ForCausalLM"]},
            "enable_chunked_prefill": True,
            **_NOTHING_REPEATS,
        },
    )


PROFILES: tuple[Profile, ...] = (
    Profile(
        model="deepseek-ocr",
        repository="deepseek-ai/DeepSeek-OCR",
        prompts=_DEEPSEEK_OCR_PROMPTS,
        targets={"gundam": TileTarget(tile=640, most=6), "global": TileTarget(tile=640, most=1)},
        chat="{images}{question}",
        image_mark="<image>",
        context=8192,
        image_tokens=940,
        ngram=_DEEPSEEK_OCR_NGRAM,
        engine=_NOTHING_REPEATS,
    ),
    Profile(
        model="deepseek-ocr-2",
        repository="deepseek-ai/DeepSeek-OCR-2",
        prompts={name: _DEEPSEEK_OCR_PROMPTS[name] for name in ("markdown", "free")},
        targets={"gundam": TileTarget(tile=768, most=6), "global": TileTarget(tile=768, most=1)},
        chat="{images}{question}",
        image_mark="<image>",
        context=8192,
        image_tokens=1130,
        ngram=NGramArguments(
            ngram_size=40,
            window_size=500,
            whitelist_token_ids=_DEEPSEEK_OCR_NGRAM.whitelist_token_ids,
        ),
        engine=_NOTHING_REPEATS,
    ),
    _deepseek_vl2("-tiny", "-tiny"),
    _deepseek_vl2("-small", "-small"),
    _deepseek_vl2("", ""),
    Profile(
        model="phi-3-vision",
        repository="microsoft/Phi-3-vision-128k-instruct",
        prompts={
            "markdown": "Convert this page to Markdown in reading order. "
            "Give its words alone, and all of them.",
            "free": _FREE,
            "figure": _FIGURE,
            "describe": _DESCRIBE,
        },
        targets={"crops": CropTarget()},
        chat="<|user|>\n{images}{question}<|end|>\n<|assistant|>\n",
        image_mark="<|image_{n}|>",
        context=16_384,
        image_tokens=2600,
        images_a_prompt=4,
        engine={"trust_remote_code": True, **_NOTHING_REPEATS},
    ),
)


def profile_of(model: str) -> Profile:
    """The profile of a model by its name.

    Raises:
        UsageError: there is none.
    """
    for profile in PROFILES:
        if profile.model == model:
            return profile
    known = ", ".join(profile.model for profile in PROFILES)
    raise UsageError(f"--model {model}: not a model that pagelake knows; there are {known}")
