"""Engine `server` against stand-ins that answer, refuse, fall over and come back."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import pytest
from PIL import Image

from schemas.errors import DocumentError, EngineLost, ErrorCode, WrongModel
from schemas.records import PageImage, Reading
from tasks.engines.ask import Ask
from tasks.engines.endpoint import Limits
from tasks.engines.ngram import NGramArguments
from tasks.engines.profiles import profile_of
from tasks.engines.server import ServerEngine, serving
from tests.standin import Question, Said, StandIn, by_shade, grounded, standing_in

T = TypeVar("T")

OCR = profile_of("deepseek-ocr")
ASK = Ask("Free OCR.", 1000, ngram=OCR.ngram)


def image(shade: int = 200) -> PageImage:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (shade,) * 3).save(buffer, "JPEG", quality=95)
    return PageImage(buffer.getvalue(), 64, 64, 64.0, 64.0, 1.0, 0.5)


def limits(**changed: float) -> Limits:
    told: dict[str, Any] = {"in_flight": 50, "connect": 2.0, "silence": 5.0, "total": 10.0}
    return Limits(**told | changed)


def with_engine(
    use: Callable[[ServerEngine], Awaitable[T]],
    *stand_ins: StandIn,
    wait: float = 3.0,
    within: Limits | None = None,
) -> T:
    async def run() -> T:
        urls = [each.url for each in stand_ins]
        async with serving(urls, OCR, within or limits(), wait) as engine:
            return await use(engine)

    return asyncio.run(run())


def asking(shade: int = 200, ask: Ask = ASK) -> Callable[[ServerEngine], Awaitable[Reading]]:
    return lambda engine: engine.ask([image(shade)], ask)


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with standing_in(StandIn()) as stand_in:
        yield stand_in


@pytest.fixture
def three() -> Iterator[list[StandIn]]:
    with ExitStack() as stack:
        yield [stack.enter_context(standing_in(StandIn())) for _ in range(3)]


# -- one question --------------------------------------------------------------------------------


def test_an_answer_with_its_tokens(stand_in: StandIn) -> None:
    reading = with_engine(asking(77), stand_in)
    assert reading.raw == grounded("page of shade 77")
    assert (reading.finish_reason, reading.engine, reading.model) == (
        "stop",
        "server",
        "deepseek-ocr",
    )
    assert reading.prompt_tokens == 900
    assert reading.output_tokens == len(reading.raw.split())


def test_what_a_vllm_is_asked(stand_in: StandIn) -> None:
    with_engine(asking(), stand_in)
    [question] = stand_in.asked
    body = question.body
    assert question.words == "Free OCR."
    assert question.pictures[0].size == (64, 64)
    assert body["vllm_xargs"] == {
        "ngram_size": 30,
        "window_size": 90,
        "whitelist_token_ids": [128821, 128822],
    }
    assert (body["temperature"], body["max_tokens"]) == (0.0, 1000)
    assert body["skip_special_tokens"] is False
    assert body["repetition_detection"]["min_count"] > 1


def test_what_an_sglang_is_asked() -> None:
    with standing_in(StandIn(owned_by="sglang")) as stand_in:
        with_engine(asking(), stand_in)
    body = stand_in.asked[0].body
    assert body["custom_params"]["ngram_size"] == 30
    assert body["skip_special_tokens"] is False
    assert "vllm_xargs" not in body
    # SGLang unpickles the class by its name, which is all that the pickle holds.
    pickled = bytes.fromhex(json.loads(body["custom_logit_processor"])["callable"])
    import pickletools

    names = [argument for _, argument, _ in pickletools.genops(pickled) if argument]
    assert names == [
        "sglang.srt.sampling.custom_logit_processor DeepseekOCRNoRepeatNGramLogitProcessor"
    ]


def test_any_other_server_is_asked_in_plain_words() -> None:
    with standing_in(StandIn(owned_by="someone")) as stand_in:
        with_engine(asking(), stand_in)
    assert set(stand_in.asked[0].body) == {
        "model",
        "messages",
        "max_tokens",
        "temperature",
        "seed",
        "stream",
        "stream_options",
    }


def test_an_api_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with standing_in(StandIn(key="secret-7")) as stand_in:
        with pytest.raises(WrongModel, match="PAGELAKE_API_KEY") as refused:
            with_engine(asking(), stand_in)
        assert "secret-7" not in str(refused.value)
        monkeypatch.setenv("PAGELAKE_API_KEY", "secret-7")
        assert with_engine(asking(), stand_in).finish_reason == "stop"
    assert stand_in.asked[0].headers["Authorization"] == "Bearer secret-7"


def test_an_address_with_v1_at_its_end_is_the_same(stand_in: StandIn) -> None:
    async def run() -> Reading:
        async with serving([stand_in.url + "/v1/"], OCR, limits(), 1.0) as engine:
            return await engine.ask([image()], ASK)

    assert asyncio.run(run()).finish_reason == "stop"


# -- loops ---------------------------------------------------------------------------------------


def test_a_marching_loop_is_left_early(stand_in: StandIn) -> None:
    boxes = "".join(
        f"<|ref|>image<|/ref|><|det|>[[10, {n}, 30, {n + 7}]]<|/det|>\n"
        for n in range(0, 40_000, 7)
    )
    stand_in.answer = lambda _: Said(boxes, finish_reason="length")
    reading = with_engine(asking(), stand_in)
    assert reading.finish_reason == "repetition"
    assert boxes.startswith(reading.raw)
    assert len(reading.raw) < len(boxes) / 10
    assert reading.output_tokens  # what was paid for is known all the same


def test_a_loop_that_the_server_saw_itself(stand_in: StandIn) -> None:
    stand_in.answer = lambda _: Said("a a a a", stop_reason="repetition_detected")
    assert with_engine(asking(), stand_in).finish_reason == "repetition"


# -- what asking again can mend, and what it cannot ----------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_passing_failure_is_asked_again(stand_in: StandIn, status: int) -> None:
    said = iter([Said("busy", status=status), Said("busy", status=status)])
    stand_in.answer = lambda question: next(said, by_shade(question))
    assert with_engine(asking(9), stand_in).raw == grounded("page of shade 9")
    assert len(stand_in.asked) == 3


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_refusal_is_not_asked_again(stand_in: StandIn, status: int) -> None:
    stand_in.answer = lambda _: Said("prompt too long", status=status)
    with pytest.raises(DocumentError, match="prompt too long") as error:
        with_engine(asking(), stand_in)
    assert error.value.code is ErrorCode.ENGINE_ERROR
    assert len(stand_in.asked) == 1


def test_an_answer_that_breaks_off_is_asked_again(stand_in: StandIn) -> None:
    said = iter([Said("half an ans", breaks_off=True)])
    stand_in.answer = lambda question: next(said, by_shade(question))
    assert with_engine(asking(9), stand_in).raw == grounded("page of shade 9")


def test_a_slow_answer_times_out_and_the_next_page_is_read(stand_in: StandIn) -> None:
    stand_in.answer = lambda q: Said("x", seconds=30) if q.shade < 50 else by_shade(q)

    async def use(engine: ServerEngine) -> tuple[ErrorCode, Reading]:
        with pytest.raises(DocumentError) as slow:
            await engine.ask([image(10)], ASK)
        return slow.value.code, await engine.ask([image(99)], ASK)

    code, reading = with_engine(use, stand_in, within=limits(total=1.0))
    assert code is ErrorCode.ENGINE_TIMEOUT
    assert reading.raw == grounded("page of shade 99")


# -- before anything is asked --------------------------------------------------------------------


def test_a_wrong_model_is_refused() -> None:
    with (
        standing_in(StandIn(models=("llama-3", "qwen"))) as stand_in,
        pytest.raises(WrongModel, match="llama-3, qwen, not deepseek-ocr"),
    ):
        with_engine(asking(), stand_in)


def test_the_models_own_repository_is_its_name_too() -> None:
    with standing_in(StandIn(models=("deepseek-ai/DeepSeek-OCR",))) as stand_in:
        assert with_engine(asking(), stand_in).finish_reason == "stop"
    assert stand_in.asked[0].body["model"] == "deepseek-ai/DeepSeek-OCR"


def test_an_engine_that_starts_late_is_awaited(
    stand_in: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    stand_in.down()
    threading.Timer(1.5, stand_in.up).start()
    assert with_engine(asking(), stand_in, wait=20).finish_reason == "stop"
    assert "waiting for the engine" in caplog.text


def test_no_engine_at_all_ends_the_wait(stand_in: StandIn) -> None:
    stand_in.down()
    with pytest.raises(EngineLost, match="--engine-url"):
        with_engine(asking(), stand_in, wait=1.0)


# -- several engines, and engines that die -------------------------------------------------------


def test_the_least_loaded_is_asked(three: list[StandIn]) -> None:
    async def use(engine: ServerEngine) -> None:
        await asyncio.gather(*(engine.ask([image()], ASK) for _ in range(60)))

    for each in three:
        each.answer = lambda _: Said(grounded("x"), seconds=0.1)
    with_engine(use, *three)
    assert [len(each.asked) for each in three] == [20, 20, 20]


def test_no_more_in_flight_than_allowed(stand_in: StandIn) -> None:
    stand_in.answer = lambda _: Said(grounded("x"), seconds=0.02)

    async def use(engine: ServerEngine) -> None:
        await asyncio.gather(*(engine.ask([image()], ASK) for _ in range(40)))

    with_engine(use, stand_in, within=limits(in_flight=7))
    assert stand_in.most_running == 7


def test_in_flight_follows_what_the_engine_can_run() -> None:
    """Of 200 waiting questions the engine that runs 8 at once is given little more than 8."""
    with standing_in(StandIn(slots=8)) as stand_in:
        stand_in.answer = lambda _: Said(grounded("x"), seconds=0.1)
        running: list[int] = []

        async def use(engine: ServerEngine) -> None:
            asked = [asyncio.create_task(engine.ask([image()], ASK)) for _ in range(350)]
            while sum(not each.done() for each in asked) > 30:
                await asyncio.sleep(0.1)
                running.append(stand_in.running)
            await asyncio.gather(*asked)

        with_engine(use, stand_in, within=limits(in_flight=200))
    assert running[0] > 30
    assert min(running) <= 16


def test_a_dead_engine_is_set_aside_and_taken_back(three: list[StandIn]) -> None:
    for each in three:
        each.answer = lambda q: Said(by_shade(q).text, seconds=0.2)

    async def use(engine: ServerEngine) -> list[Reading]:
        asked = [asyncio.create_task(engine.ask([image(n)], ASK)) for n in range(0, 250, 5)]
        await asyncio.sleep(0.1)
        await asyncio.to_thread(three[0].down)
        readings = await asyncio.gather(*asked)
        before = len(three[0].asked)
        await asyncio.to_thread(three[0].up)
        for _ in range(100):
            await asyncio.gather(*(engine.ask([image()], ASK) for _ in range(6)))
            if len(three[0].asked) > before:
                return readings
        raise AssertionError("it was not taken back")

    readings = with_engine(use, *three)
    assert [reading.raw for reading in readings] == [
        grounded(f"page of shade {n}") for n in range(0, 250, 5)
    ]


def test_when_all_have_died_the_run_is_lost(stand_in: StandIn) -> None:
    stand_in.answer = lambda _: Said("x", seconds=30)

    async def use(engine: ServerEngine) -> float:
        asked = [asyncio.create_task(engine.ask([image()], ASK)) for _ in range(5)]
        await asyncio.sleep(0.3)
        await asyncio.to_thread(stand_in.down)
        began = time.monotonic()
        ended = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(error, EngineLost) for error in ended)
        return time.monotonic() - began

    assert 0.5 <= with_engine(use, stand_in, wait=1.0) < 8


def test_a_page_that_kills_engines_runs_alone_and_then_fails(stand_in: StandIn) -> None:
    """The killer takes others down with it twice; the third time it is alone, and is given up."""
    together: list[int] = []
    restarts: list[threading.Thread] = []

    def answer(question: Question) -> Said:
        if question.shade < 50:
            together.append(stand_in.running)
            restarts.append(threading.Thread(target=restart))
            restarts[-1].start()
            time.sleep(0.5)
        return Said(by_shade(question).text, seconds=0.3)

    def restart() -> None:
        stand_in.down()
        time.sleep(0.2)
        stand_in.up()

    stand_in.answer = answer

    async def use(engine: ServerEngine) -> list[Reading | BaseException]:
        pages = [engine.ask([image(shade)], ASK) for shade in (10, 100, 150, 200)]
        return await asyncio.gather(*pages, return_exceptions=True)

    killer, *others = with_engine(use, stand_in, wait=20)
    for each in restarts:
        each.join()
    assert isinstance(killer, DocumentError)
    assert killer.code is ErrorCode.ENGINE_ERROR
    assert len(together) == 3
    assert together[2] == 1
    assert [each.raw for each in others if isinstance(each, Reading)] == [
        grounded(f"page of shade {shade}") for shade in (100, 150, 200)
    ]


def test_a_stronger_ngram_setting_travels(stand_in: StandIn) -> None:
    ngram = NGramArguments(ngram_size=5, window_size=700, whitelist_token_ids=frozenset())
    with_engine(asking(ask=Ask("x", 10, temperature=0.3, ngram=ngram)), stand_in)
    body = stand_in.asked[0].body
    assert body["vllm_xargs"] == {"ngram_size": 5, "window_size": 700, "whitelist_token_ids": []}
    assert body["temperature"] == 0.3
