"""The n-gram processor against vLLM's own: `python -m tests.bench_ngram`, where vLLM is installed.

Both processors see the same 256 growing outputs and the same logits, in one process and one thread.
A step is what vLLM's model runner V1 does for each decoded token: `update_state`, then `apply` on
the logits of the whole batch. The last line is one JSON object: vLLM's time over ours.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Iterator
from itertools import islice

import torch
from vllm import SamplingParams
from vllm.model_executor.models.deepseek_ocr import NGramPerReqLogitsProcessor
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor

from tasks.engines.ngram_v1 import NGramProcessor

BATCH = 256
VOCABULARY = 129_280  # DeepSeek-OCR's
BEFORE = (600, 1400)  # tokens that a request has written when the measurement begins
STEPS = 120
ROUNDS = 5

CELL, CELL_END = 128_821, 128_822
ROW, ROW_END = 90, 91

SETTINGS = {"30_90": (30, 90), "40_500": (40, 500)}
TARGETS = {"30_90": 30, "40_500": 300}


def text(chance: random.Random) -> Iterator[int]:
    """Words as often as they are in a language (Zipf), now and then a phrase said before."""
    said: list[int] = []
    while True:
        if len(said) > 50 and chance.random() < 0.02:
            start = chance.randrange(len(said) - 20)
            phrase = said[start : start + chance.randint(3, 20)]
        else:
            phrase = [min(int(chance.paretovariate(0.8)), 60_000)]
        said += phrase
        yield from phrase


def table(chance: random.Random) -> Iterator[int]:
    """Rows of six cells: empty ones, the same few words, and numbers of a few digits."""
    words = [[chance.randrange(1000, 60_000) for _ in range(chance.randint(1, 3))] for _ in "12345"]
    while True:
        yield ROW
        for column in range(6):
            yield CELL
            if column == 0:
                yield from chance.choice(words)
            elif chance.random() < 0.8:
                yield from (200 + chance.randrange(10) for _ in range(chance.randint(1, 4)))
            yield CELL_END
        yield ROW_END


def loop(chance: random.Random) -> Iterator[int]:
    """A model that is stuck: the same tokens again and again, with a counter in between."""
    cycle = [chance.randrange(60_000) for _ in range(chance.randint(4, 45))]
    while True:
        yield from cycle
        if chance.random() < 0.2:
            yield chance.randrange(60_000)


def streams() -> list[Iterator[int]]:
    """The batch: seven in ten pages text, a quarter tables, one in twenty stuck."""
    kinds = [text] * 70 + [table] * 25 + [loop] * 5
    return [
        kind(random.Random(row))
        for row, kind in enumerate(random.Random(1).choices(kinds, k=BATCH))
    ]


def seconds_a_token(
    processor: LogitsProcessor, size: int, window: int, logits: torch.Tensor
) -> float:
    """Mean time of a step, over the requests of the batch."""
    batch = streams()
    lengths = random.Random(2)
    outputs = [list(islice(stream, lengths.randint(*BEFORE))) for stream in batch]
    extra_args = {
        "ngram_size": size,
        "window_size": window,
        "whitelist_token_ids": [CELL, CELL_END],
    }
    params = SamplingParams(temperature=0.0, extra_args=extra_args)
    processor.update_state(
        BatchUpdate(
            batch_size=BATCH,
            removed=[],
            added=[(row, params, [1, 2], output) for row, output in enumerate(outputs)],
            moved=[],
        )
    )
    processor.apply(logits)
    spent = 0.0
    for _ in range(STEPS):
        for output, stream in zip(outputs, batch, strict=True):
            output.append(next(stream))
        began = time.thread_time()
        processor.update_state(None)
        processor.apply(logits)
        spent += time.thread_time() - began
    return spent / STEPS / BATCH


def main() -> None:
    """Measure both at both settings, in turns, and print the medians."""
    torch.set_num_threads(1)
    logits = torch.zeros(BATCH, VOCABULARY)
    device = torch.device("cpu")
    factors = {}
    print(f"{BATCH} sequences, {STEPS} steps, median of {ROUNDS} rounds, microseconds a token")
    print(f"{'setting':>8} {'vLLM':>8} {'ours':>8} {'factor':>8} {'target':>8}")
    for name, (size, window) in SETTINGS.items():
        theirs, ours = [], []
        for _ in range(ROUNDS):
            own = NGramPerReqLogitsProcessor(None, device, False)
            theirs.append(seconds_a_token(own, size, window, logits))
            processor = NGramProcessor(None, device, False)
            ours.append(seconds_a_token(processor, size, window, logits))
        before, after = statistics.median(theirs), statistics.median(ours)
        factors[f"factor_{name}"] = round(before / after, 1)
        print(
            f"{name.replace('_', '/'):>8} {before * 1e6:8.2f} {after * 1e6:8.3f} "
            f"{before / after:8.0f} {TARGETS[name]:>8}"
        )
    print(json.dumps(factors))


if __name__ == "__main__":
    main()
