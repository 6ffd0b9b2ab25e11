"""The n-gram processor for vLLM's model runner V2: `tasks.engines.ngram_v2:NGramProcessorV2`.

    vllm serve deepseek-ai/DeepSeek-OCR --logits-processors tasks.engines.ngram_v2:NGramProcessorV2

Model runner V2 keeps the tokens on the device and hands out no lists, so nothing is kept from step
to step: the last n-1 tokens of all rows are laid over every place of their windows at once. The
host knows enough to leave out what cannot matter, and never waits for the device.

vLLM's front end imports this file too, only to validate: torch is imported where it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor

from tasks.engines.ngram import NGramArguments

if TYPE_CHECKING:
    import torch
    from vllm import SamplingParams
    from vllm.config import VllmConfig
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState

_OFF = [0, 0]  # a prefix of no tokens, a window of none
_SPARED = len(_OFF)  # column at which the spared tokens of a slot begin, in ascending order
_NO_TOKEN = 2**31 - 1  # fills them up, and leaves them in order


class NGramProcessorV2(LogitsProcessor):
    """vLLM's interface: settings by slot; of the tokens it keeps nothing but reads vLLM's own."""

    def __init__(self, vllm_config: VllmConfig, req_states: LogitsProcRequestState) -> None:
        import torch

        slots = req_states.max_num_reqs
        self._requests = req_states
        self._prefixes = np.zeros(slots, dtype=np.int64)  # n-1 a slot, 0 for slots to leave alone
        self._windows = np.zeros(slots, dtype=np.int64)
        self._settings = torch.zeros(slots, _SPARED, dtype=torch.int64, device=req_states.device)
        self._staged: dict[int, list[int]] = {}

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse wrong arguments when the request comes in.

        Raises:
            ValueError: see `NGramArguments`.
        """
        NGramArguments.from_extra_args(sampling_params.extra_args)

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """Take a request into a slot; False if it needs no bans."""
        arguments = NGramArguments.from_extra_args(sampling_params.extra_args)
        if arguments is None or not arguments.can_ban:
            if self._prefixes[req_idx]:
                self._prefixes[req_idx], self._windows[req_idx] = _OFF
                self._staged[req_idx] = _OFF
            return False
        prefix, window = arguments.ngram_size - 1, arguments.window_size
        self._prefixes[req_idx], self._windows[req_idx] = prefix, window
        self._staged[req_idx] = [prefix, window, *sorted(arguments.whitelist_token_ids)]
        return True

    def apply_staged_writes(self) -> None:
        """Bring the settings of new requests onto the device."""
        if not self._staged:
            return
        import torch

        device = self._settings.device
        lacking = max(map(len, self._staged.values())) - self._settings.shape[1]
        if lacking > 0:
            self._settings = torch.nn.functional.pad(self._settings, (0, lacking), value=_NO_TOKEN)
        width = self._settings.shape[1]
        # Slots travel in the first column, so that one copy does for both.
        rows = [
            [slot, *row] + [_NO_TOKEN] * (width - len(row)) for slot, row in self._staged.items()
        ]
        staged = torch.tensor(rows, dtype=torch.int64, pin_memory=device.type == "cuda")
        staged = staged.to(device, non_blocking=True)
        self._settings.index_copy_(0, staged[:, 0], staged[:, 1:])
        self._staged.clear()

    def apply(self, logits: torch.Tensor, ctx: LogitsContext) -> torch.Tensor:
        """Make the banned tokens impossible.

        Args:
            logits: [rows, vocabulary], changed in place.
            ctx: which row is whose.
        """
        prefix, lags = self._most(ctx)
        if lags < 1:
            return logits
        import torch

        settings = self._settings[ctx.expanded_idx_mapping]
        prefixes, windows = settings[:, :1], settings[:, 1:2]
        tokens, written = self._last_tokens(prefix + lags, ctx)

        # [rows, lags, prefix]: the tail against what stands lags to 1 tokens before it
        same = tokens[:, :-1].unfold(1, prefix, 1) == tokens[:, None, lags:]
        column = torch.arange(prefix, device=logits.device)
        shorter = column < prefix - prefixes  # rows whose own n is smaller than the batch's largest
        lag = torch.arange(lags, 0, -1, device=logits.device)
        within = lag <= torch.minimum(windows, written) - prefixes
        banned = (same | shorter[:, None]).all(-1) & within

        followers = tokens[:, prefix:].long().clamp(0, logits.shape[1] - 1)
        if settings.shape[1] > _SPARED:
            spared = settings[:, _SPARED:].contiguous()
            place = torch.searchsorted(spared, followers).clamp_(max=spared.shape[1] - 1)
            banned &= spared.gather(1, place) != followers
        # The least of several writes counts: one token may follow here banned and there not.
        ceiling = torch.full_like(followers, float("inf"), dtype=logits.dtype)
        ceiling.masked_fill_(banned, float("-inf"))
        return logits.scatter_reduce_(1, followers, ceiling, "amin")

    def _most(self, ctx: LogitsContext) -> tuple[int, int]:
        """The longest prefix in the batch, and how far back at most one can have a copy."""
        slots = ctx.idx_mapping_np
        prefixes = self._prefixes[slots]
        written = ctx.seq_lens_upper_bound_np - self._requests.prompt_len.np[slots]
        lags = np.where(prefixes > 0, np.minimum(self._windows[slots], written) - prefixes, 0)
        return int(prefixes.max(initial=0)), int(lags.max(initial=0))

    def _last_tokens(self, count: int, ctx: LogitsContext) -> tuple[torch.Tensor, torch.Tensor]:
        """The last tokens before each row's next, and how long its output is.

        Returns:
            [rows, count] tokens, any token where the request has fewer; [rows, 1] lengths.
        """
        import torch

        slots = ctx.expanded_idx_mapping[:, None]
        known = self._requests.all_token_ids.gpu
        total = self._requests.total_len.gpu[slots]
        drafted = ctx.expanded_local_pos[:, None]
        end = total + drafted
        at = end - count + torch.arange(count, device=known.device)
        tokens = known[slots, at.clamp(0, known.shape[1] - 1)]
        rows = len(ctx.expanded_idx_mapping)
        if rows != len(ctx.idx_mapping_np):
            # A row's drafts are the inputs of its request's rows, the first of which is no draft.
            first = torch.arange(rows, device=known.device)[:, None] - drafted
            draft = ctx.input_ids[(first + 1 + at - total).clamp(0, rows - 1)]
            tokens = torch.where(at < total, tokens, draft)
        return tokens, end - self._requests.prompt_len.gpu[slots]
