"""Both processors against vLLM's own `NGramPerReqLogitsProcessor`, over the engine's interfaces."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what torch and vLLM do while they load is their affair
    import torch
    from vllm import SamplingParams
    from vllm.config import VllmConfig
    from vllm.exceptions import VLLMValidationError
    from vllm.model_executor.models.deepseek_ocr import NGramPerReqLogitsProcessor
    from vllm.v1.sample.logits_processor import (
        BatchUpdateBuilder,
        LogitsProcessor,
        MoveDirectionality,
        validate_logits_processors_parameters,
    )
    from vllm.v1.worker.gpu.sample.logits_processor import (
        LogitsContext,
        LogitsProcRequestState,
        build_custom_logits_processors_params_validator,
    )

    from tasks.engines.ngram_v1 import NGramProcessor
    from tasks.engines.ngram_v2 import NGramProcessorV2
    from tasks.engines.runner import class_path, uses_v2_runner

CPU = torch.device("cpu")
VOCABULARY = 12
SPARE = VOCABULARY - 1  # where vLLM's own writes when it takes a placeholder for a token
PLACEHOLDER = -1

V1_PATH = class_path("0.32.0", False)
V2_PATH = class_path("0.32.0", True)

arguments = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {"ngram_size": st.integers(1, 6)},
        optional={
            "window_size": st.integers(1, 24),
            "whitelist_token_ids": st.lists(st.integers(0, 2), max_size=3),
        },
    ),
)
tokens = st.integers(0, 2)
said = st.one_of(
    st.lists(tokens, max_size=30),
    st.tuples(st.lists(tokens, min_size=1, max_size=5), st.integers(2, 8)).map(
        lambda given: given[0] * given[1]
    ),
)


def params_of(extra_args: dict[str, Any] | None) -> SamplingParams:
    return SamplingParams(temperature=0.0, extra_args=extra_args)


def masked(logits: torch.Tensor) -> set[tuple[int, int]]:
    return {(int(row), int(token)) for row, token in torch.isneginf(logits).nonzero()}


@dataclass
class Runner:
    """Model runner V1's batch: lists that grow in place, and news of who stands where."""

    processors: Sequence[LogitsProcessor]
    outputs: list[list[int]] = field(default_factory=list)
    news: BatchUpdateBuilder = field(default_factory=BatchUpdateBuilder)

    def step(self, leave: set[int], join: Sequence[tuple[Any, list[int]]], swap: bool) -> None:
        """As `InputBatch` does it: removals first, their places filled by additions or the last."""
        for row in leave:
            self.news.removed_append(row)
        for extra_args, output in join:
            row = self.news.pop_removed()
            if row is None:
                row = len(self.outputs)
                self.outputs.append(output)
            self.outputs[row] = output
            self.news.added.append((row, params_of(extra_args), [9, 9], output))
        last = len(self.outputs) - 1
        while self.news.removed:
            while last in self.news.removed:
                last -= 1
            row = self.news.peek_removed()
            if row >= last:
                break
            self.news.pop_removed()
            self.outputs[row] = self.outputs[last]
            self.news.moved.append((last, row, MoveDirectionality.UNIDIRECTIONAL))
            last -= 1
        del self.outputs[len(self.outputs) - len(self.news.removed) :]
        if swap and len(self.outputs) > 1:
            self.outputs[0], self.outputs[-1] = self.outputs[-1], self.outputs[0]
            self.news.moved.append((0, len(self.outputs) - 1, MoveDirectionality.SWAP))
        update = self.news.get_and_reset(len(self.outputs))
        for processor in self.processors:
            processor.update_state(update)

    def banned(self) -> list[set[tuple[int, int]]]:
        """What each processor masks now: (row, token)."""
        return [
            masked(processor.apply(torch.zeros(len(self.outputs), VOCABULARY)))
            for processor in self.processors
        ]


def both() -> Runner:
    return Runner([NGramProcessor(None, CPU, False), NGramPerReqLogitsProcessor(None, CPU, False)])


@settings(max_examples=300, deadline=None)
@given(arguments, said)
def test_v1_bans_what_vllm_bans(extra_args: dict[str, Any] | None, output: list[int]) -> None:
    runner, live = both(), list[int]()
    runner.step(set(), [(extra_args, live)], False)
    for token in output:
        live.append(token)
        runner.step(set(), [], False)
        ours, own = runner.banned()
        assert ours == own


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sets(st.integers(0, 3)),
            st.lists(st.tuples(arguments, said), max_size=3),
            st.booleans(),
            st.lists(tokens, min_size=8, max_size=8),
        ),
        max_size=12,
    )
)
def test_v1_follows_its_requests_through_the_batch(steps: list[Any]) -> None:
    runner = both()
    for leave, join, swap, next_tokens in steps:
        present = {row for row in leave if row < len(runner.outputs)}
        runner.step(present, [(extra, list(output)) for extra, output in join], swap)
        if runner.outputs:
            ours, own = runner.banned()
            assert ours == own
        for output, token in zip(runner.outputs, next_tokens, strict=False):
            output.append(token)


@settings(max_examples=300, deadline=None)
@given(
    arguments,
    st.lists(st.tuples(st.sampled_from(["late", "in time", "discard"]), tokens), max_size=60),
)
def test_v1_sees_through_asynchronous_scheduling(
    extra_args: dict[str, Any] | None, steps: list[tuple[str, int]]
) -> None:
    runner, live = both(), list[int]()
    runner.step(set(), [(extra_args, live)], False)
    for how, token in steps:
        live.append(PLACEHOLDER)
        runner.step(set(), [], False)
        if how == "late":
            ours, _ = runner.banned()
            assert not ours, "nothing is known of what comes before the next token"
        elif how == "discard":
            del live[-4:]
        if live and live[-1] == PLACEHOLDER:
            live[-1] = token
        ours, own = runner.banned()
        assert ours == own


def test_v1_leaves_the_last_token_of_the_vocabulary_alone() -> None:
    """vLLM's own takes two placeholders for a repetition and bans token -1, which is the last."""
    runner = both()
    runner.step(set(), [({"ngram_size": 2}, [5, PLACEHOLDER, PLACEHOLDER])], False)
    assert runner.banned() == [set(), {(0, SPARE)}]


def test_v1_writes_into_the_logits_it_is_given() -> None:
    processor = NGramProcessor(None, CPU, False)
    Runner([processor]).step(set(), [({"ngram_size": 2}, [1, 2, 1])], False)
    for dtype in (torch.float32, torch.bfloat16):
        logits = torch.zeros(1, VOCABULARY, dtype=dtype)
        assert processor.apply(logits) is logits
        assert masked(logits) == {(0, 2)}
    assert not processor.is_argmax_invariant()


@dataclass
class Slots:
    """Model runner V2's side: tokens by slot, on the CPU."""

    slots: int
    length: int = 64

    def __post_init__(self) -> None:
        self.tokens = torch.full((self.slots, self.length), 1, dtype=torch.int32)
        self.prompt = np.zeros(self.slots, dtype=np.int32)
        self.total = torch.zeros(self.slots, dtype=torch.int32)
        self.state = LogitsProcRequestState(
            device=CPU,
            max_num_reqs=self.slots,
            vocab_size=VOCABULARY,
            all_token_ids=SimpleNamespace(gpu=self.tokens),
            prompt_len=SimpleNamespace(np=self.prompt, gpu=torch.from_numpy(self.prompt)),
            prefill_len=SimpleNamespace(np=self.prompt, gpu=torch.from_numpy(self.prompt)),
            total_len=SimpleNamespace(gpu=self.total),
        )

    def fill(self, slot: int, prompt: list[int], output: list[int]) -> None:
        both_ = [*prompt, *output]
        self.tokens[slot, : len(both_)] = torch.tensor(both_, dtype=torch.int32)
        self.prompt[slot] = len(prompt)
        self.total[slot] = len(both_)

    def context(self, order: Sequence[int], drafts: dict[int, list[int]]) -> LogitsContext:
        """A step over the slots in `order`, each with its draft tokens."""
        rows = [(slot, at) for slot in order for at in range(len(drafts.get(slot, ())) + 1)]
        totals = self.total.tolist()
        return LogitsContext(
            expanded_idx_mapping=torch.tensor([slot for slot, _ in rows], dtype=torch.int32),
            idx_mapping=torch.tensor(list(order), dtype=torch.int32),
            idx_mapping_np=np.array(order, dtype=np.intp),
            expanded_local_pos=torch.tensor([at for _, at in rows], dtype=torch.int32),
            input_ids=torch.tensor(
                [
                    drafts[slot][at - 1] if at else int(self.tokens[slot, totals[slot] - 1])
                    for slot, at in rows
                ],
                dtype=torch.int32,
            ),
            pos=torch.tensor([totals[slot] + at - 1 for slot, at in rows]),
            seq_lens_upper_bound_np=np.array(
                [totals[slot] + len(drafts.get(slot, ())) for slot in order], dtype=np.int32
            ),
        )


def own_bans(outputs: list[list[int]], given_: list[dict[str, Any] | None]) -> set[tuple[int, int]]:
    runner = Runner([NGramPerReqLogitsProcessor(None, CPU, False)])
    runner.step(set(), list(zip(given_, outputs, strict=True)), False)
    return runner.banned()[0]


prompts = st.lists(tokens, min_size=1, max_size=6)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 4), arguments, prompts, said), max_size=4),
        min_size=1,
        max_size=4,
    ),
    st.randoms(use_true_random=False),
)
def test_v2_bans_what_vllm_bans(waves: list[list[Any]], chance: Any) -> None:
    device = Slots(5)
    processor = NGramProcessorV2(None, device.state)
    present: dict[int, tuple[Any, list[int]]] = {}
    for wave in waves:
        for slot, extra_args, prompt, output in wave:
            wanted = processor.add_request(slot, params_of(extra_args))
            assert not (wanted and extra_args is None)
            device.fill(slot, prompt, output)
            present[slot] = extra_args, output
        processor.apply_staged_writes()
        order = list(present)
        chance.shuffle(order)
        if not order:
            continue
        logits = torch.zeros(len(order), VOCABULARY)
        result = processor.apply(logits, device.context(order, {}))
        expected = own_bans([present[s][1] for s in order], [present[s][0] for s in order])
        assert masked(result) == expected
        assert set(result.unique().tolist()) <= {0.0, float("-inf")}


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(arguments, prompts, said, st.lists(tokens, max_size=4)), min_size=1, max_size=4
    )
)
def test_v2_counts_draft_tokens_as_said(requests: list[Any]) -> None:
    device = Slots(len(requests))
    processor = NGramProcessorV2(None, device.state)
    expected_outputs, expected_args = [], []
    for slot, (extra_args, prompt, output, draft) in enumerate(requests):
        processor.add_request(slot, params_of(extra_args))
        device.fill(slot, prompt, output)
        for at in range(len(draft) + 1):
            expected_outputs.append(output + draft[:at])
            expected_args.append(extra_args)
    processor.apply_staged_writes()
    drafts = {slot: request[3] for slot, request in enumerate(requests)}
    ctx = device.context(range(len(requests)), drafts)
    logits = torch.zeros(len(expected_outputs), VOCABULARY)
    assert masked(processor.apply(logits, ctx)) == own_bans(expected_outputs, expected_args)


def test_v2_costs_nothing_where_nobody_asks() -> None:
    device = Slots(2)
    processor = NGramProcessorV2(None, device.state)
    assert processor.add_request(0, params_of({"ngram_size": 2}))
    assert not processor.add_request(1, params_of(None))
    assert not processor.add_request(1, params_of({"ngram_size": 1}))
    processor.apply_staged_writes()
    device.fill(0, [1], [1, 2, 1])
    device.fill(1, [1], [1, 2, 1])
    logits = torch.zeros(1, VOCABULARY)
    assert not masked(processor.apply(logits, device.context([1], {})))
    assert masked(processor.apply(logits, device.context([0], {}))) == {(0, 2)}


def test_v2_keeps_whitelists_apart() -> None:
    """A slot's list grows the table of all; the others spare nothing more for it."""
    device = Slots(3)
    processor = NGramProcessorV2(None, device.state)
    for slot, spared in enumerate(([], [0], [3, 0, 2])):
        device.fill(slot, [1], [1, 0, 1, 2, 1, 3, 1])
        processor.add_request(slot, params_of({"ngram_size": 2, "whitelist_token_ids": spared}))
        processor.apply_staged_writes()
    logits = torch.zeros(3, VOCABULARY)
    bans = masked(processor.apply(logits, device.context([0, 1, 2], {})))
    assert bans == {(0, 0), (0, 2), (0, 3), (1, 2), (1, 3)}


WRONG = [
    {"ngram_size": 0},
    {"ngram_size": "30"},
    {"ngram_size": 30, "window_size": 0},
    {"ngram_size": 30, "whitelist_token_ids": "128821"},
    {"ngram_size": 30, "whitelist_token_ids": ["128821"]},
]


@pytest.mark.parametrize("extra_args", WRONG)
def test_wrong_arguments_end_at_the_door_of_both_runners(extra_args: dict[str, Any]) -> None:
    params = params_of(extra_args)
    with pytest.raises(VLLMValidationError, match=" must be "):
        validate_logits_processors_parameters([V1_PATH], params)
    with pytest.raises(VLLMValidationError, match=" must be "):
        build_custom_logits_processors_params_validator([V2_PATH])(params)


def test_the_class_paths_load_where_they_belong_and_nowhere_else() -> None:
    good = params_of({"ngram_size": 30, "window_size": 90, "whitelist_token_ids": [1, 2]})
    validate_logits_processors_parameters([V1_PATH], good)
    build_custom_logits_processors_params_validator([V2_PATH])(good)
    with pytest.raises(ValueError, match="not a subclass"):
        build_custom_logits_processors_params_validator([V1_PATH])
    with pytest.raises(ValueError, match="must be a subclass"):
        validate_logits_processors_parameters([V2_PATH], good)


def test_the_runner_is_the_one_that_vllm_would_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_USE_V2_MODEL_RUNNER", raising=False)
    assert uses_v2_runner() == VllmConfig().use_v2_model_runner
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
    assert uses_v2_runner()
