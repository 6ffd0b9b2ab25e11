"""Which next tokens would repeat an n-gram of the output: the arguments, and one request's state.

Models that read pages fall into loops; forbidding an n-gram to come twice within a window breaks
them. vLLM's `NGramPerReqLogitsProcessor` (vllm/model_executor/models/deepseek_ocr.py) cuts every
n-gram of the window anew for each token. Here the same tokens are banned at a cost that does not
depend on the window. Two thoughts make it cheap:

- A banned token follows an earlier copy of the last n-1 tokens. Where even the last m of them have
  no earlier copy within reach, nothing can be banned for n-m tokens, whatever they are: one search
  with a small m pays for most of an n-gram.
- Where all n-1 have one, n-grams are looked up in a dictionary that takes up what was written since
  it was last needed: each token at most once.

The classes for vLLM are in `ngram_v1` and `ngram_v2`; `runner.py` says which one a vLLM takes.
Nothing here imports torch or vLLM.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

_WINDOW = 100  # where a request names none; vLLM's own default
_BYTES = array("i").itemsize
_FIRST_BLOCK = 4  # the search begins with this part of the n-1 tokens


@dataclass(frozen=True, slots=True)
class NGramArguments:
    """What a request asks of the n-gram processor.

    Attributes:
        ngram_size: how many tokens may not come again in the same order. vLLM's processor bans
            nothing at 1, and so does this one.
        window_size: how many of the last tokens are looked at; fewer than `ngram_size` ban nothing.
        whitelist_token_ids: tokens that are never banned.

    Raises:
        ValueError: an argument is not what it should be.
    """

    ngram_size: int
    window_size: int = _WINDOW
    whitelist_token_ids: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        for name in ("ngram_size", "window_size"):
            value = getattr(self, name)
            if not _is_whole(value) or value < 1:
                raise ValueError(f"{name} must be a whole number from 1, not {value!r}")
        given = self.whitelist_token_ids
        if not isinstance(given, frozenset) or not all(_is_whole(t) and t >= 0 for t in given):
            raise ValueError(f"whitelist_token_ids must be a frozenset of token ids, not {given!r}")

    @classmethod
    def from_extra_args(cls, extra_args: Mapping[str, Any] | None) -> NGramArguments | None:
        """The arguments of a request from vLLM's `SamplingParams.extra_args` (`vllm_xargs`).

        Returns:
            None for a request that does not name `ngram_size`: it is left alone.

        Raises:
            ValueError: an argument is wrong; the message names it.
        """
        if not extra_args or extra_args.get("ngram_size") is None:
            return None
        spared = extra_args.get("whitelist_token_ids")
        if spared is None:
            spared = ()
        if not isinstance(spared, list | tuple | set | frozenset) or not all(
            _is_whole(token) and token >= 0 for token in spared
        ):
            raise ValueError(f"whitelist_token_ids must be a list of token ids, not {spared!r}")
        return cls(
            ngram_size=extra_args["ngram_size"],
            window_size=extra_args.get("window_size", _WINDOW),
            whitelist_token_ids=frozenset(spared),
        )

    @property
    def can_ban(self) -> bool:
        """Whether these arguments can ever ban a token."""
        return 2 <= self.ngram_size <= self.window_size


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class NGramState:
    """What one request may not say next.

    It looks at the engine's own list of output tokens, which the engine changes between two looks:
    tokens come to its end, or are taken from it (discarded), but not both. Negative tokens at the
    end are placeholders of asynchronous scheduling: nothing is banned while they stand there, and
    what later stands in their place is read then.

    Attributes:
        output_ids: the live list; never changed here.
        quiet_from: first length of the output at which surely nothing is banned ...
        quiet_until: ... and the first at which `banned` must be asked again.
    """

    def __init__(self, arguments: NGramArguments, output_ids: list[int]) -> None:
        """`arguments` must be such that they `can_ban`."""
        self._prefix = arguments.ngram_size - 1
        self._first_block = max(self._prefix // _FIRST_BLOCK, 1)
        self._window = arguments.window_size
        self._reach = (arguments.window_size - self._prefix) * _BYTES
        self._spared = arguments.whitelist_token_ids
        self.output_ids = output_ids
        self._start_anew()

    def _start_anew(self) -> None:
        self.quiet_from = 0
        self.quiet_until = self._prefix + 1
        self._seen = 0
        self._codes = bytearray()
        self._looping = False
        self._gram = b""
        self._indexed = 0
        self._turn_at = 0
        self._young: dict[bytes, dict[int, int]] = {}
        self._old: dict[bytes, dict[int, int]] = {}

    def banned(self) -> Collection[int]:
        """The tokens that may not come next."""
        output_ids = self.output_ids
        length = len(output_ids)
        while length and output_ids[length - 1] < 0:
            length -= 1
        if self.quiet_from <= length < self.quiet_until:
            return ()
        waiting = length < len(output_ids)
        if length < self._seen:
            self._start_anew()
        if waiting or length <= self._prefix:
            return ()
        self._codes += array("i", output_ids[self._seen : length]).tobytes()
        self._seen = self.quiet_from = length
        if not self._looping:
            self.quiet_until = length + self._quiet_tokens()
            if self.quiet_until > length:
                return ()
        self._take_up()
        return self._followers()

    def _quiet_tokens(self) -> int:
        """For how many tokens from here nothing can be banned; 0 if something may be now."""
        prefix = self._prefix
        length = self._first_block
        while self._recurs(length):
            if length == prefix:
                return 0
            length += (prefix - length + 1) // 2
        return prefix - length + 1

    def _recurs(self, length: int) -> bool:
        """Whether the last so many tokens have an earlier copy that could lead to a ban."""
        codes = self._codes
        end = len(codes)
        tail = end - length * _BYTES
        block = codes[tail:]
        # Bytes of two neighbours may look like a token: then the dictionary is asked for nothing.
        return codes.find(block, max(tail - self._reach, 0), end - _BYTES) >= 0

    def _take_up(self) -> None:
        """Bring the dictionaries up to date: n-1 tokens -> what followed -> where, at the latest.

        Of a spared token they only hold that something followed. `_gram` becomes the next key.
        """
        codes, length, prefix = self._codes, self._prefix * _BYTES, self._prefix
        output_ids, spared, young = self.output_ids, self._spared, self._young
        end = self._seen - prefix
        for start in range(max(self._indexed, self._seen - self._window), end):
            if start >= self._turn_at:  # all that the old one holds is out of the window by now
                self._old, self._young = young, {}
                young = self._young
                self._turn_at = start + self._window
            if start == self._indexed and self._gram:
                gram = self._gram
            else:
                at = start * _BYTES
                gram = bytes(codes[at : at + length])
            followers = young.get(gram)
            if followers is None:
                followers = young[gram] = {}
            follower = output_ids[start + prefix]
            if follower not in spared:
                followers[follower] = start
        self._indexed = end
        self._gram = bytes(codes[-length:])

    def _followers(self) -> Collection[int]:
        young, old = self._young.get(self._gram), self._old.get(self._gram)
        self._looping = young is not None or old is not None
        oldest = self._seen - self._window
        found = []
        for followers in (young, old):
            if followers:
                for token, start in followers.items():
                    if start >= oldest:
                        found.append(token)
        return found
