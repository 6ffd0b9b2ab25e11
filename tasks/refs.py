"""The grounding grammar of DeepSeek-OCR's output taken apart, however broken it is.

    <|ref|>NAME<|/ref|><|det|>[[x1, y1, x2, y2], ...]<|/det|>
    text of what stands there, up to the next ref

Nothing here knows what names and numbers mean. Every function takes time linear in its text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Numbers = tuple[float, ...]
"""What stood in one pair of brackets; empty where it was not numbers alone."""


@dataclass(frozen=True, slots=True)
class Ref:
    """One ref and the lists of numbers of its dets; none if it has no det."""

    name: str
    numbers: tuple[Numbers, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """Refs that follow each other with nothing said between, and what is said after them."""

    refs: tuple[Ref, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Spoken:
    """A whole output: what stands before the first ref, then the runs.

    `flags` are `unclosed_ref` and `unclosed_det` where that was seen; `cut_ref` says whether the
    output ends inside the name of its last ref.
    """

    before: str
    runs: tuple[Run, ...]
    flags: frozenset[str] = frozenset()
    cut_ref: bool = False


def read(raw: str) -> Spoken:
    """An output by its refs, dets and texts; all other special tokens are left out."""
    before, *rest = _REF_OR_DET.split(_OTHER_TOKENS.sub(" ", raw))
    listener = _Listener()
    for number in range(0, len(rest), 2):
        tag, text = rest[number], rest[number + 1]
        listener.hear(tag, text, rest[number + 2] if number + 2 < len(rest) else "")
    return Spoken(
        before=before,
        runs=tuple(run.finished() for run in listener.runs),
        flags=frozenset(listener.flags),
        cut_ref=len(rest) > 0 and rest[-2] == "ref",
    )


_REF_OR_DET = re.compile(r"<\|(/?(?:ref|det))\|>")
_OTHER_TOKENS = re.compile(
    r"<\|(?:grounding|User|Assistant|user|assistant|system|end|endoftext)\|>|<｜[^｜<>\n]{1,40}｜>"
)
_WORD = r"(?:nan|infinity|inf|null|none)(?![A-Za-z])"
_COORDINATES = re.compile(rf"(?:[\[\](){{}},;:\s0-9.+\-]+|(?<=[0-9.])e(?=[-+0-9])|{_WORD})*+", re.I)
_END_OF_LIST = re.compile(r"\]\s*+\][\]\s]*+")
_INNERMOST = re.compile(r"\[([^\[\]]*+)")
_SEPARATORS = re.compile(r"[,;\s]+")
_LONGEST_LIST = 400  # characters: longer ones are no box


class _OpenRun:
    """A run that is still being heard."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.dets: list[tuple[int, list[Numbers]]] = []  # after which ref, what
        self.texts: list[str] = []

    def finished(self) -> Run:
        found: list[list[Numbers]] = [[] for _ in self.names]
        # As many dets as refs belong together in their order, even if all refs came first;
        # otherwise a det belongs to the ref before it.
        in_order = len(self.dets) == len(self.names)
        for number, (after, numbers) in enumerate(self.dets):
            ref = number if in_order else after
            found[ref].extend(numbers)
        refs = zip(self.names, found, strict=True)
        return Run(
            tuple(Ref(name, tuple(numbers)) for name, numbers in refs), "\n".join(self.texts)
        )


class _Listener:
    """Hears an output token by token."""

    def __init__(self) -> None:
        self.runs: list[_OpenRun] = []
        self.flags: set[str] = set()

    def hear(self, tag: str, text: str, following: str) -> None:
        """One token, the text up to the next one, and that next one (empty at the end)."""
        if tag == "ref":
            self._ref(text, closed=following == "/ref")
        elif tag == "det":
            self._det(text, closed=following == "/det")
        elif following == "/det":  # the end of a det into which another stream has spoken
            self.flags.add("unclosed_det")
            self._say(coordinates(text, True)[1])
        else:
            self._say(text)

    def _ref(self, text: str, closed: bool) -> None:
        if not self.runs or self.runs[-1].texts:
            self.runs.append(_OpenRun())
        if closed:
            self.runs[-1].names.append(text.strip())
            return
        self.flags.add("unclosed_ref")
        name, _, said = text.strip().partition("\n")
        self.runs[-1].names.append(name.strip())
        self._say(said)

    def _det(self, text: str, closed: bool) -> None:
        numbers, said = coordinates(text, closed)
        if not closed:
            self.flags.add("unclosed_det")
        if not self.runs or self.runs[-1].texts:
            # Text stands between this det and the last ref: it is of something without a name.
            self.runs.append(_OpenRun())
            self.runs[-1].names.append("")
        run = self.runs[-1]
        run.dets.append((len(run.names) - 1, numbers))
        self._say(said)

    def _say(self, text: str) -> None:
        if not text.strip():
            return
        if not self.runs:
            self.runs.append(_OpenRun())
            self.runs[-1].names.append("")
        self.runs[-1].texts.append(text)


def coordinates(text: str, closed: bool) -> tuple[list[Numbers], str]:
    """The lists of numbers that a det begins with, and what is said after them.

    A det that was not `closed` ends with its brackets, or at the latest with the last thing that
    can be part of a list; a list cut off in the middle is dropped.
    """
    end = len(_COORDINATES.match(text)[0])  # type: ignore[index]  # it matches the empty string
    if end < len(text) or not closed:
        whole = _END_OF_LIST.search(text, 0, end)
        last = text.rfind("]", 0, end)
        if whole:
            end = whole.end()
        elif last >= 0:
            end = last + 1
    area = text[:end]
    lists = _INNERMOST.findall(area)
    if not lists and closed:
        lists = [area]
    elif not closed and area.rfind("[") > area.rfind("]"):
        lists.pop()
    return [_numbers(inner) for inner in lists if inner.strip()], text[end:].strip()


def _numbers(inner: str) -> Numbers:
    if len(inner) > _LONGEST_LIST:
        return ()
    try:
        return tuple(float(number) for number in _SEPARATORS.split(inner.strip(" ,;\t\n")))
    except ValueError:
        return ()
