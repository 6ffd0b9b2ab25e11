"""The crafted model's tokens: each place of each answer has one of its own.

Such a token is written as a number between two private characters and then its text; the decoder
takes the number away. So the same word has as many tokens as places, and no answer can be
mistaken for another. Marks and table cells have the numbers that the real model gives them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from tests.vllm.chains import Chain
from tests.vllm.shades import PROMPTS, UNKNOWN, Answer, Shade

BEGIN, END, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
VOCABULARY = 129_280
END_TOKEN = 1

_FIRST_MARK = 128_815
_MARKS = ("<image>", "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>")
_CELLS = ("<td>", "</td>", "<tr>", "</tr>")
_ROLES = ("<|User|>", "<|Assistant|>")
_QUESTIONS = tuple(prompt.removeprefix("<|grounding|>") for prompt in PROMPTS.values())
_FIXED = {text: n for n, text in enumerate((*_MARKS, *_CELLS, *_ROLES, *_QUESTIONS), _FIRST_MARK)}

_NUMBER = "\ue000[0-9]+\ue001"
_PIECES = re.compile(r"<\|/?[a-z]+\|>|</?[a-z][^>|]*>|\s*\w+|\s*[^\w\s]|\s+")
_SPOKEN = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def tokenizer_and_chains(shades: Sequence[Shade]) -> tuple[Tokenizer, list[Chain]]:
    """The tokenizer, and all answers in its tokens; shades are counted as they come."""
    vocabulary = {text: n for n, text in enumerate((BEGIN, END, PAD))}
    for letter in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[letter] = len(vocabulary)
    special: list[str] = []

    def fresh(piece: str) -> int:
        """A new token for a piece of text."""
        number = len(vocabulary)
        [(mapped, _)] = _SPOKEN.pre_tokenize_str(piece)
        text = f"\ue000{number}\ue001{mapped}"
        vocabulary[text] = number
        if piece in _MARKS:
            special.append(text)
        return number

    def tokens(text: str) -> list[int]:
        return [fresh(piece) for piece in _PIECES.findall(text)]

    def chain(shade: int | None, prompt: str, answer: Answer) -> Chain:
        question = _FIXED[PROMPTS[prompt].removeprefix("<|grounding|>")]
        cells = all(piece in _CELLS for piece in _PIECES.findall(answer.cycle))
        spared = [_FIXED[piece] for piece in _PIECES.findall(answer.cycle)] if cells else None
        return Chain(
            shade,
            question,
            text=tokens(answer.text),
            cycle=tokens(answer.cycle) if spared is None else spared,
            way_out=tokens(answer.way_out),
        )

    chains = [
        chain(number, prompt, answer)
        for number, shade in enumerate(shades)
        for prompt, answer in shade.answers.items()
    ] + [chain(None, prompt, UNKNOWN) for prompt in PROMPTS]
    # Numbers without a token would be trouble for whoever lists the vocabulary.
    vocabulary |= {f"<|unused {n}|>": n for n in range(len(vocabulary), _FIRST_MARK)}
    return _tokenizer(vocabulary | _FIXED, special), chains


def _tokenizer(vocabulary: dict[str, int], special: Sequence[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(Regex(_NUMBER), ""), decoders.ByteLevel()]
    )
    kept_out = (BEGIN, END, PAD, *_MARKS, *_ROLES, *special)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in kept_out])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in _CELLS])
    # Whatever white space a client puts after its question belongs to it.
    tokenizer.add_tokens([AddedToken(text, normalized=False, rstrip=True) for text in _QUESTIONS])
    return tokenizer
