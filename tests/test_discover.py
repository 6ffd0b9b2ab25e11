"""Which files of a source are read, and in which order."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT, pagelake

# In the order in which they are to be read: by name, folder by folder. The number of bytes of each
# is a power of two, so that the bytes that `plan` counts say which files it has seen.
VISIBLE = (
    "B.PNG",
    "a.pdf",
    "linked/g.pdf",
    "sub/_kept.pdf",
    "sub/b.pdf",
    "sub/deep/c.tiff",
    "sub/to-outside.pdf",
    "sub.d/f.pdf",
    "z",
    "ä.pdf",
)
HIDDEN = (".hidden.pdf", ".git/d.pdf", "_work/e.pdf", "sub/.cache/h.pdf")
SIZES = {name: 1 << bit for bit, name in enumerate((*VISIBLE, *HIDDEN))}
PDFS = {name for name in VISIBLE if name.endswith(".pdf")}
SUB = {name for name in VISIBLE if name.startswith("sub/")}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all the files; `linked` and `sub/to-outside.pdf` are links to beside it."""
    place = tmp_path_factory.mktemp("tree")
    tree, outside = place / "tree", place / "outside"
    outside.mkdir()
    (tree / "sub").mkdir(parents=True)
    (tree / "linked").symlink_to(outside)
    (tree / "sub" / "to-outside.pdf").symlink_to(place / "other.pdf")
    for name, size in SIZES.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(b"." * size)
    (tree / "empty").mkdir()
    return tree


def listed(source: Path | str, lake: Path, *options: str) -> set[str]:
    """The files that `plan` says would be read."""
    ended = pagelake("plan", source, lake, "--json", *options)
    assert ended.code == 0, ended.err
    names = {name for name, size in SIZES.items() if ended.told["bytes"] & size}
    assert sum(SIZES[name] for name in names) == ended.told["bytes"]
    assert ended.told["new"] == len(names)
    return names


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", set(VISIBLE)),
        ("--include *.pdf", PDFS),
        ("--include **/*.pdf", PDFS),
        ("--include sub/*", SUB),
        ("--include z --include B.*", {"z", "B.PNG"}),
        ("--include [ab].pdf", {"a.pdf", "sub/b.pdf"}),
        ("--exclude sub/*", set(VISIBLE) - SUB),
        ("--exclude a.pdf --exclude z", set(VISIBLE) - {"a.pdf", "z"}),
        ("--include *.pdf --exclude sub/*", PDFS - SUB),
        ("--limit 3", set(VISIBLE[:3])),
    ],
)
def test_globs_choose_by_path_or_name(
    tree: Path, tmp_path: Path, options: str, expected: set[str]
) -> None:
    assert listed(tree, tmp_path / "lake", *options.split()) == expected


def test_a_file_can_be_the_source(tree: Path, tmp_path: Path) -> None:
    assert listed(tree / "sub" / "b.pdf", tmp_path / "lake") == {"sub/b.pdf"}


def test_a_hidden_file_or_folder_is_read_if_it_is_the_source(tree: Path, tmp_path: Path) -> None:
    assert listed(tree / ".hidden.pdf", tmp_path / "lake") == {".hidden.pdf"}
    assert listed(tree / "_work", tmp_path / "lake") == {"_work/e.pdf"}


def test_what_is_no_folder_and_no_file_is_refused(tmp_path: Path) -> None:
    ended = pagelake("plan", os.devnull, tmp_path / "lake")
    assert ended.code == 2 and os.devnull in ended.err and "Traceback" not in ended.err


def test_planning_writes_nothing(tree: Path, tmp_path: Path) -> None:
    listed(tree, tmp_path / "lake")
    assert not (tmp_path / "lake").exists()


@pytest.fixture(scope="module")
def lake(tree: Path) -> Path:
    """A lake inside its own source, by a run that could read none of the documents."""
    lake = tree / "my-lake"
    assert pagelake("ingest", tree, lake, "--layout", "none").code == 3
    return lake


def test_documents_are_read_in_the_order_of_names(tree: Path, lake: Path) -> None:
    uris = pq.read_table(lake / "documents")["source_uri"].to_pylist()
    assert uris == [str(tree / name) for name in VISIBLE]


def test_a_file_is_told_apart_by_its_size_and_time(tree: Path, lake: Path) -> None:
    rows = pq.read_table(lake / "documents").to_pylist()
    for row in rows:
        name = os.path.relpath(row["source_uri"], tree)
        assert row["source_bytes"] == SIZES[name]
        assert row["source_version"] == f"{SIZES[name]}-{(tree / name).stat().st_mtime_ns}"


def test_a_touched_file_alone_is_listed_again(tree: Path, lake: Path) -> None:
    before = (tree / "z").stat()
    os.utime(tree / "z", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    try:
        assert listed(tree, lake, "--layout", "none") == {"z"}
    finally:
        os.utime(tree / "z", ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("spelling", ["{tree}/", "{tree}/sub/..", "{relative}"])
def test_a_source_is_the_same_however_it_is_spelled(tree: Path, lake: Path, spelling: str) -> None:
    """Neither the lake inside it nor what was read from it is listed."""
    source = spelling.format(tree=tree, relative=os.path.relpath(tree, ROOT))
    ended = pagelake("plan", source, lake, "--layout", "none", "--json")
    assert (ended.told["listed"], ended.told["new"]) == (len(VISIBLE), 0)


@pytest.mark.parametrize("spelling", ["{lake}", "{lake}/../my-lake", "{alias}"])
def test_the_lake_in_its_source_is_left_out_however_it_is_spelled(
    tree: Path, lake: Path, tmp_path: Path, spelling: str
) -> None:
    (tmp_path / "alias").symlink_to(tree)
    dest = spelling.format(lake=lake, alias=tmp_path / "alias" / lake.name)
    ended = pagelake("plan", tree, dest, "--layout", "none", "--json")
    assert (ended.told["listed"], ended.told["new"]) == (len(VISIBLE), 0)
