"""Engine `vllm`: vLLM's asynchronous engine in this process, pages handed over as bare pixels.

Starting it takes minutes, so it starts with the first page that needs it and serves all shards of a
run. Its core runs in a process of its own; if that dies the engine is lost, and the run with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.sampling_params import RepetitionDetectionParams, RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from schemas.errors import DocumentError, EngineLost, ErrorCode
from schemas.records import PageImage, Reading
from tasks.engines.ask import REPETITION, SEED, Ask
from tasks.engines.dialects import ngram_fields
from tasks.engines.profiles import Profile
from tasks.loops import LoopWatch
from tasks.render import decode

log = logging.getLogger("pagelake")

ENGINE = "vllm"


class VllmEngine:
    """A running engine. Use `start` to have one, and `stop` to be rid of it."""

    def __init__(self, core: AsyncLLM, profile: Profile, total: float) -> None:
        self._core = core
        self._profile = profile
        self._total = total
        self.context: int | None = core.model_config.max_model_len
        self.slots: int = core.vllm_config.scheduler_config.max_num_seqs

    @classmethod
    async def start(cls, profile: Profile, arguments: dict[str, Any], total: float) -> VllmEngine:
        """Load the model; `arguments` are vLLM's engine arguments, `total` seconds a page.

        Raises:
            EngineLost: vLLM could not start.
        """
        began = time.monotonic()
        log.info("starting vLLM with %s; this takes minutes", arguments["model"])
        try:
            core = await asyncio.to_thread(
                AsyncLLM.from_engine_args, AsyncEngineArgs(**arguments, enable_log_requests=False)
            )
        except (RuntimeError, ValueError, OSError, TypeError) as error:
            raise EngineLost(f"vLLM cannot start with {arguments['model']}: {error}") from error
        log.info("vLLM is ready after %.0f s", time.monotonic() - began)
        return cls(core, profile, total)

    async def ask(self, images: Sequence[PageImage], ask: Ask) -> Reading:
        """See `Engine.ask`."""
        began = time.perf_counter()
        pictures = [decode(image) for image in images]
        prompt = {
            "prompt": self._profile.whole_prompt(ask.question, len(images)),
            "multi_modal_data": {"image": pictures if len(pictures) > 1 else pictures[0]},
        }
        watch, pieces = LoopWatch(), list[str]()
        prompt_tokens = output_tokens = 0
        finish_reason = ""
        try:
            async with (
                asyncio.timeout(self._total),
                aclosing(self._core.generate(prompt, _sampling(ask), uuid.uuid4().hex)) as answers,
            ):
                async for answer in answers:
                    told = answer.outputs[0]
                    pieces.append(told.text)
                    prompt_tokens = len(answer.prompt_token_ids or ())
                    output_tokens += len(told.token_ids)
                    finish_reason = told.finish_reason or finish_reason
                    if told.text and watch.feed(told.text):
                        finish_reason = "repetition"
                        break
        except EngineDeadError as error:
            raise EngineLost(
                "vLLM's core died: what was read is in the lake, the same command goes on from "
                "there; the reason is in vLLM's own lines above"
            ) from error
        except TimeoutError:
            raise DocumentError(
                ErrorCode.ENGINE_TIMEOUT, f"vLLM did not finish within {self._total:g} s"
            ) from None
        except ValueError as error:
            raise DocumentError(ErrorCode.ENGINE_ERROR, f"vLLM refuses: {error}") from None
        return Reading(
            raw="".join(pieces),
            finish_reason=finish_reason,
            engine=ENGINE,
            model=self._profile.model,
            engine_ms=(time.perf_counter() - began) * 1000,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
        )

    async def stop(self) -> None:
        """End the engine's processes."""
        if self._core.output_handler is not None:
            self._core.output_handler.cancel()  # else it reports the end as an error
        await asyncio.to_thread(self._core.shutdown, 10.0)


def _sampling(ask: Ask) -> SamplingParams:
    return SamplingParams(
        temperature=ask.temperature,
        seed=SEED,
        max_tokens=ask.max_tokens,
        skip_special_tokens=False,
        repetition_detection=RepetitionDetectionParams(**REPETITION),
        output_kind=RequestOutputKind.DELTA,
        extra_args=dict(ngram_fields(ask.ngram)) if ask.ngram else None,
    )
