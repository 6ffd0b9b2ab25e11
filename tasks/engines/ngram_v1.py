"""The n-gram processor for vLLM's model runner V1: `tasks.engines.ngram_v1:NGramProcessor`.

    vllm serve deepseek-ai/DeepSeek-OCR --logits-processors tasks.engines.ngram_v1:NGramProcessor

It takes the arguments of vLLM's own (`ngram_size`, `window_size`, `whitelist_token_ids` in
`extra_args`, over HTTP `vllm_xargs`), bans the same tokens, and writes to the logits once a step,
if at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from tasks.engines.ngram import NGramArguments, NGramState

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig


class NGramProcessor(LogitsProcessor):
    """vLLM's interface around one `NGramState` a request."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._device = device
        self._pin_memory = is_pin_memory
        self._impossible = torch.tensor(float("-inf"), dtype=torch.float32, device=device)
        self._states: dict[int, NGramState] = {}

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse wrong arguments when the request comes in.

        Raises:
            ValueError: see `NGramArguments`.
        """
        NGramArguments.from_extra_args(sampling_params.extra_args)

    def is_argmax_invariant(self) -> bool:
        """A banned token may be the likeliest, so greedy sampling needs this too."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow requests as they come, go and change places in the batch."""
        process_dict_updates(self._states, batch_update, _state_of)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Make the banned tokens impossible.

        Args:
            logits: [requests, vocabulary], changed in place.
        """
        rows: list[int] = []
        tokens: list[int] = []
        for row, state in self._states.items():
            # Here and not in a method: this is all that most requests cost in most steps.
            if state.quiet_from <= len(state.output_ids) < state.quiet_until:
                continue
            banned = state.banned()
            if banned:
                rows += [row] * len(banned)
                tokens += banned
        if rows:
            where = torch.tensor([rows, tokens], dtype=torch.int64, pin_memory=self._pin_memory)
            where = where.to(self._device, non_blocking=True)
            logits.index_put_((where[0], where[1]), self._impossible.to(logits.dtype))
        return logits


def _state_of(
    params: SamplingParams, prompt_ids: list[int] | None, output_ids: list[int]
) -> NGramState | None:
    arguments = NGramArguments.from_extra_args(params.extra_args)
    if arguments is None or not arguments.can_ban:
        return None
    return NGramState(arguments, output_ids)
