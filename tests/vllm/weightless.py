"""What folders of models without weights share: a tokenizer of bytes, and how files are written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers


def write_json(folder: Path, contents: Mapping[str, Mapping[str, Any]]) -> None:
    """Write files of JSON, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False))


def write_tokenizer(
    folder: Path, begin: str, end: str, pad: str, marks: Mapping[str, int] | Sequence[str]
) -> int:
    """A tokenizer to which each byte is a token, besides these special ones.

    `begin` and `end` are numbers 0 and 1, whatever a model's configuration has to say; `marks` have
    given numbers, or the next ones.

    Returns:
        How many tokens there are, numbers that are not used included.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    numbers = {token: n for n, token in enumerate([begin, end, pad, *alphabet])}
    if not isinstance(marks, Mapping):
        marks = {mark: len(numbers) + n for n, mark in enumerate(marks)}
    size = max(marks.values()) + 1
    numbers |= marks
    taken = set(numbers.values())
    # A number without a token would be trouble for whoever lists the vocabulary.
    numbers |= {f"<|unused {n}|>": n for n in range(size) if n not in taken}
    tokenizer = Tokenizer(models.BPE(vocab=numbers, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(mark, normalized=False) for mark in (begin, end, pad, *marks)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": begin,
        "eos_token": end,
        "pad_token": pad,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 8192,
    }
    write_json(folder, {"tokenizer_config.json": config})
    return size
