"""Archives, honest and hostile: every document in them is given once, and nothing else happens."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import tempfile
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import DocumentError, ErrorCode
from tasks.archive import Limits, walk
from tasks.media import ARCHIVES, DOCX, GZIP, PDF, TAR, ZIP, media_type

Files = Sequence[tuple[str, bytes]]
Pack = Callable[[Files], bytes]
WIDE = Limits(members=1000, member_bytes=1 << 20, total_bytes=1 << 24)
MIB = 1 << 20
PDF_START = b"%PDF-1.7\n"
LETTERS: Files = [("a.pdf", b"first" * 900), ("b/c.pdf", b""), ("b/d.pdf", bytes(range(256)) * 9)]


def zipped(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of duplicate names
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return made.getvalue()


def tarred(files: Files, form: int = tarfile.PAX_FORMAT) -> bytes:
    return tar_of([(tarfile.TarInfo(name), content) for name, content in files], form)


def tar_of(
    members: Sequence[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT
) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


def gzipped(files: Files) -> bytes:
    return gzip.compress(tarred(files), 1, mtime=0)


each_pack = pytest.mark.parametrize("pack", [zipped, tarred, gzipped])
any_pack = st.sampled_from([zipped, tarred, gzipped])

Told = tuple[int, str, bytes | ErrorCode]


def read(
    archive: bytes, limits: Limits = WIDE, start: int = 1
) -> tuple[list[Told], DocumentError | None]:
    """Number, name and content or failure of each member, and what ended the walk."""
    told: list[Told] = []
    with tempfile.NamedTemporaryFile() as file:
        file.write(archive)
        file.flush()
        try:
            kind = media_type(file.name)
            assert kind in ARCHIVES
            with closing(walk(file.name, kind, limits, start)) as members:
                for member in members:
                    got: list[bytes] = []
                    try:
                        member.read(got.append)
                    except DocumentError as error:
                        told.append((member.number, member.name, error.code))
                    else:
                        told.append((member.number, member.name, b"".join(got)))
                    assert sum(map(len, got)) <= limits.member_bytes
        except DocumentError as error:
            return told, error
    return told, None


def whole(archive: bytes, limits: Limits = WIDE, start: int = 1) -> list[Told]:
    told, error = read(archive, limits, start)
    assert error is None, error
    return told


def names(archive: bytes) -> list[str]:
    return [name for _, name, _ in whole(archive)]


def kind_of(content: bytes, folder: Path) -> str:
    path = folder / "named.pdf"
    path.write_bytes(content)
    return media_type(str(path))


# What is an archive


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (zipped(LETTERS), ZIP),
        (zipped([]), ZIP),
        (zipped([("a.pdf", PDF_START)], zipfile.ZIP_STORED), ZIP),
        (zipped([("word/document.xml", b"<a/>")]), DOCX),
        (tarred(LETTERS, tarfile.PAX_FORMAT), TAR),
        (tarred(LETTERS, tarfile.USTAR_FORMAT), TAR),
        (tarred(LETTERS, tarfile.GNU_FORMAT), TAR),
        (tarred([]), TAR),
        (bytes(1024), TAR),
        (tarred([("a.pdf", PDF_START)]), TAR),
        (tarred([("BM.pdf", PDF_START)], tarfile.GNU_FORMAT), TAR),  # as a BMP begins
        (gzipped(LETTERS), GZIP),
        (gzipped([]), GZIP),
        (b"Mail\n" + PDF_START, PDF),
    ],
)
def test_an_archive_is_known_by_its_content(content: bytes, kind: str, tmp_path: Path) -> None:
    assert kind_of(content, tmp_path) == kind


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(b"a letter, packed"),
        gzip.compress(bytes(1 << 20)),
        b"\x1f\x8b\x08 and no gzip",
        bytes(512),
        bytes(1 << 20),  # a document that a dying disk gave back
        zipped([("mimetype", b"application/vnd.oasis.opendocument.text"), ("a.xml", b"<a/>")]),
        zipped([("[Content_Types].xml", b"<a/>"), ("visio/document.xml", b"<a/>")]),
    ],
)
def test_what_holds_no_documents_is_no_archive(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(DocumentError) as raised:
        kind_of(content, tmp_path)
    assert raised.value.code == ErrorCode.UNSUPPORTED_TYPE


def test_a_tar_older_than_posix_is_known_by_its_checksum() -> None:
    assert [content for *_, content in whole(as_v7(tarred(LETTERS, tarfile.USTAR_FORMAT)))] == [
        content for _, content in LETTERS
    ]


def as_v7(archive: bytes) -> bytes:
    old = bytearray(archive)
    for at in range(0, len(old), 512):
        if old[at + 257 : at + 262] == b"ustar":
            old[at + 257 : at + 512] = bytes(255)
            sign(old, at)
    return bytes(old)


def sign(archive: bytearray, at: int) -> None:
    """Write the checksum of the tar header that begins at `at`."""
    archive[at + 148 : at + 156] = b" " * 8
    archive[at + 148 : at + 156] = b"%06o\0 " % sum(archive[at : at + 512])


# What is in it


@each_pack
def test_members_come_in_order_with_their_bytes(pack: Pack) -> None:
    told = whole(pack(LETTERS))
    assert told == [(number, *file) for number, file in enumerate(LETTERS, start=1)]


@each_pack
def test_an_empty_archive_has_no_members(pack: Pack) -> None:
    assert whole(pack([])) == []


@each_pack
def test_a_walk_may_begin_anywhere(pack: Pack) -> None:
    archive = pack([*LETTERS, ("a.pdf", b"again")])
    for start in range(1, 7):
        assert whole(archive, start=start) == whole(archive)[start - 1 :]


@each_pack
def test_members_need_not_be_read(pack: Pack, tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(pack(LETTERS))
    kind = media_type(str(tmp_path / "archive"))
    members = walk(str(tmp_path / "archive"), kind, WIDE)
    assert [(member.name, member.size_bytes) for member in members] == [
        (name, len(content)) for name, content in LETTERS
    ]


@each_pack
def test_steps_may_be_taken_by_different_threads(pack: Pack, tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(pack(LETTERS))
    members = walk(str(tmp_path / "archive"), media_type(str(tmp_path / "archive")), WIDE)
    got: list[bytes] = []
    while True:
        with ThreadPoolExecutor(1) as thread:
            member = thread.submit(next, members, None).result()
        if member is None:
            break
        with ThreadPoolExecutor(1) as thread:
            thread.submit(member.read, got.append).result()
    assert b"".join(got) == b"".join(content for _, content in LETTERS)


@each_pack
def test_an_error_of_the_reader_is_its_own(pack: Pack, tmp_path: Path) -> None:
    def full(chunk: bytes) -> None:
        raise OSError("no room")

    (tmp_path / "archive").write_bytes(pack(LETTERS))
    kind = media_type(str(tmp_path / "archive"))
    with closing(walk(str(tmp_path / "archive"), kind, WIDE)) as members:
        with pytest.raises(OSError, match="no room"):
            next(members).read(full)
        assert [member.number for member in members] == [2, 3]


@pytest.mark.parametrize("kind", sorted(ARCHIVES))
def test_an_archive_that_vanished_is_missing(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DocumentError) as raised:
        next(walk(str(tmp_path / "gone"), kind, WIDE))
    assert raised.value.code == ErrorCode.SOURCE_MISSING


@each_pack
def test_what_a_folder_leaves_out_is_left_out(pack: Pack) -> None:
    hidden = [".a", "b/.c", ".d/e", "_f/g", "h/_i/j", "__MACOSX/._a.pdf", "./.k", "/_l/m"]
    kept = ["_n.pdf", "../o.pdf", "p_/q.pdf", "r./s.pdf", "t..pdf"]
    assert names(pack([(name, b"") for name in hidden + kept])) == kept


@each_pack
@pytest.mark.parametrize(
    ("stored", "told"),
    [
        ("/etc/passwd", "etc/passwd"),
        ("././a.pdf", "a.pdf"),
        ("a//./b.pdf", "a/b.pdf"),
        ("../../a.pdf", "../../a.pdf"),
        ("C:/docs/a.pdf", "docs/a.pdf"),
        ("/c:/a.pdf", "a.pdf"),
        ("a:b.pdf", "a:b.pdf"),
        ("back\\slash.pdf", "back\\slash.pdf"),
        ("Größe 😀\n.pdf", "Größe 😀\n.pdf"),
        ("x" * 10_000, "x" * 10_000),
        ("C:", "unnamed"),
    ],
)
def test_a_name_is_an_address_for_people(pack: Pack, stored: str, told: str) -> None:
    assert names(pack([(stored, b"")])) == [told]


@each_pack
def test_equal_names_are_kept_apart(pack: Pack) -> None:
    stored = ["a#3", "a", "/a", "./a", "a#2", "a", "b", "b"]
    told = ["a#3", "a", "a#2", "a#4", "a#2#2", "a#5", "b", "b#2"]
    assert names(pack([(name, b"") for name in stored])) == told


def test_ten_thousand_equal_names_take_no_time() -> None:
    told = read(zipped([("a", b"")] * 10_000), Limits(10_000, 1, 1))[0]
    assert told[-1][1] == "a#10000"


# What a ZIP can be


def zip_infos(infos: Sequence[zipfile.ZipInfo]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for info in infos:
            archive.writestr(info, b"content")
    return made.getvalue()


def patched(archive: bytes, field: str, form: str, value: int, which: int = 0) -> bytes:
    """The archive with a field of one member changed, in the directory and at the member."""
    places = {"flags": (8, 6), "method": (10, 8), "crc": (16, 14), "size": (24, 22), "at": (42, 0)}
    made = bytearray(archive)
    in_directory, in_header = places[field]
    at = -1
    for _ in range(which + 1):
        at = made.index(b"PK\1\2", at + 1)
    [header] = struct.unpack_from("<L", made, at + 42)
    if in_header:
        struct.pack_into(form, made, header + in_header, value)
    struct.pack_into(form, made, at + in_directory, value)
    return bytes(made)


def test_names_of_windows_have_backslashes() -> None:
    info = zipfile.ZipInfo("x")
    info.filename = info.orig_filename = "C:\\docs\\_in\\a.pdf"
    other = zipfile.ZipInfo("x")
    other.filename = other.orig_filename = "\\\\server\\share\\a.pdf"
    folder = zipfile.ZipInfo("x")
    folder.filename = folder.orig_filename = "empty\\"
    for each in (info, other, folder):
        each.create_system = 0
    assert names(zip_infos([info, other, folder])) == ["server/share/a.pdf"]


def test_names_of_a_zip_without_its_utf8_flag_are_of_dos() -> None:
    archive = zipped([("é.pdf", b"")]).replace("é".encode(), b"\x82.")
    assert names(patched(archive, "flags", "<H", 0)) == ["é..pdf"]


def test_only_regular_files_of_a_zip_are_members() -> None:
    link, fifo, file, folder = (zipfile.ZipInfo(name) for name in ("link", "fifo", "file", "d/"))
    link.external_attr = 0o120777 << 16
    fifo.external_attr = 0o010666 << 16
    file.external_attr = 0o100644 << 16
    assert names(zip_infos([link, fifo, file, folder])) == ["file"]


@pytest.mark.parametrize(
    ("field", "form", "value", "code"),
    [
        ("flags", "<H", 1, ErrorCode.ENCRYPTED),
        ("method", "<H", 99, ErrorCode.UNSUPPORTED_TYPE),
        ("method", "<H", zipfile.ZIP_BZIP2, ErrorCode.UNSUPPORTED_TYPE),
        ("crc", "<L", 1, ErrorCode.CORRUPT),
        ("size", "<L", 10, ErrorCode.CORRUPT),
        ("at", "<L", 2**32 - 2, ErrorCode.CORRUPT),
    ],
)
def test_one_bad_member_of_a_zip_fails_alone(
    field: str, form: str, value: int, code: ErrorCode
) -> None:
    files = [("a", b"a" * 99), ("b", b"b" * 99), ("c", b"c" * 99)]
    archive = patched(zipped(files), field, form, value, which=1)
    assert [content for *_, content in whole(archive)] == [b"a" * 99, code, b"c" * 99]


def test_a_zip_behind_other_bytes_is_read() -> None:
    first = zipped([("word.txt", b"first")])
    assert whole(first + zipped(LETTERS)) == whole(zipped(LETTERS))


def test_a_zip_without_its_end_is_damaged() -> None:
    told, error = read(zipped(LETTERS)[:-30])
    assert (told, error and error.code) == ([], ErrorCode.CORRUPT)


def test_a_name_that_is_not_the_utf8_it_claims_to_be_is_damage() -> None:
    told, error = read(zipped([("é", b"")]).replace("é".encode(), b"\xff\xff"))
    assert (told, error and error.code) == ([], ErrorCode.CORRUPT)


# What a tar can be


def test_only_regular_files_of_a_tar_are_members() -> None:
    kinds = [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
    odd = [(tarfile.TarInfo(f"odd{number}"), b"") for number in range(len(kinds))]
    for (info, _), kind in zip(odd, kinds, strict=True):
        info.type, info.linkname = kind, "/etc/passwd"
    assert names(tar_of([*odd, (tarfile.TarInfo("file"), b"x")])) == ["file"]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_name_of_a_tar_may_be_no_utf8(form: int) -> None:
    assert names(tarred([("caf\udce9.pdf", b""), ("x" * 300 + "\udce9", b"")], form)) == [
        "caf\udce9.pdf",
        "x" * 300 + "\udce9",
    ]


def test_a_name_without_anything_in_it_is_unnamed() -> None:
    assert names(tarred([("", b""), ("", b"")], tarfile.GNU_FORMAT)) == ["unnamed", "unnamed#2"]


def test_holes_of_a_sparse_file_are_zeros() -> None:
    archive = bytearray(tarred([("a", b"12345"), ("b", b"b")], tarfile.GNU_FORMAT))
    archive[156:157] = tarfile.GNUTYPE_SPARSE
    archive[386:410] = b"%011o\0%011o\0" % (1000, 5)
    archive[483:495] = b"%011o\0" % 2000
    sign(archive, 0)
    hole = bytes(1000) + b"12345" + bytes(995)
    assert [content for *_, content in whole(bytes(archive))] == [hole, b"b"]
    told, error = read(bytes(archive), Limits(9, 1500, 99_999))
    assert ([content for *_, content in told], error) == ([ErrorCode.TOO_LARGE, b"b"], None)


@pytest.mark.parametrize("pack", [tarred, gzipped])
def test_a_tar_that_was_cut_off_gives_what_is_before_the_cut(pack: Pack) -> None:
    contents = [Random(number).randbytes(2000) for number in range(3)]
    archive = pack([(f"{number}.pdf", content) for number, content in enumerate(contents)])
    seen = set()
    for size in (*range(600, len(archive), 61), len(archive) - 1):
        told, error = read(archive[:size])
        good = [content for *_, content in told if isinstance(content, bytes)]
        assert good == contents[: len(good)] and len(told) - len(good) in (0, 1)
        if error is None:  # after the end, before what fills up the last record
            assert pack is tarred and len(good) == 3 and size > len(archive.rstrip(b"\0"))
        else:
            assert error.code == ErrorCode.CORRUPT
            assert f"damaged after {len(told)} members" in error.message
        seen.add(len(good))
    assert seen == {0, 1, 2, 3}


def test_a_flipped_bit_that_only_the_checksum_shows_is_damage() -> None:
    archive = bytearray(gzip.compress(tarred(LETTERS), 0))
    archive[archive.index(b"firstfirst")] ^= 1
    told, error = read(bytes(archive))
    assert len(told) == 3 and error and error.code == ErrorCode.CORRUPT


def broken_second(change: Callable[[bytearray], None], form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar of two members, `.hidden` and `b`, behind a good one; the first's header is changed."""
    archive = bytearray(tarred([("a", b"a"), (".hidden", b"b"), ("b", b"c")], form))
    header = archive[1024:1536]
    change(header)
    sign(header, 0)
    archive[1024:1536] = header
    return bytes(archive)


def backwards(header: bytearray) -> None:
    header[124:136] = b"\xff" * 10 + b"\xfc\0"  # -1024 bytes: the same header again, for ever


def far(header: bytearray) -> None:
    header[124:136] = b"\x80" + b"\x7f" * 11


def no_number(header: bytearray) -> None:
    header[124:136] = b"not a number"


def endless_extension(header: bytearray) -> None:
    header[156:157], header[124:136] = tarfile.XHDTYPE, b"\xff" * 10 + b"\xfc\0"


def large_extension(header: bytearray) -> None:
    header[156:157], header[124:136] = tarfile.GNUTYPE_LONGNAME, b"%011o\0" % (1 << 30)


@pytest.mark.parametrize("change", [backwards, no_number, endless_extension, large_extension, far])
def test_a_header_that_makes_no_sense_ends_the_walk(change: Callable[[bytearray], None]) -> None:
    told, error = read(broken_second(change))
    assert told == [(1, "a", b"a")]
    assert error and error.code == (ErrorCode.TOO_LARGE if change is far else ErrorCode.CORRUPT)


def test_a_thousand_extensions_in_a_row_end_the_walk() -> None:
    extension = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    extension[156:157] = tarfile.XHDTYPE
    sign(extension, 0)
    told, error = read(bytes(extension) * 2000 + tarred(LETTERS))
    assert (told, error and error.code) == ([], ErrorCode.CORRUPT)


# Limits


@each_pack
def test_limits_that_are_just_met_are_kept(pack: Pack) -> None:
    files = [("a", b"a" * 700), ("b", b"b" * 300)]
    total = 1000 if pack is zipped else len(tarred(files))
    assert len(whole(pack(files), Limits(2, 700, total))) == 2


@each_pack
def test_too_many_members_end_the_walk(pack: Pack) -> None:
    archive = pack([(f"{number}.pdf", b"x") for number in range(9)])
    told, error = read(archive, Limits(4, 100, 1 << 20))
    assert [number for number, *_ in told] == [1, 2, 3, 4]
    assert error and error.code == ErrorCode.TOO_LARGE and "--max-archive-members 4" in str(error)


@each_pack
def test_a_member_that_is_too_large_fails_alone(pack: Pack) -> None:
    archive = pack([("a", b"a"), ("b", b"b" * 101), ("c", b"c" * 100)])
    told = whole(archive, Limits(9, 100, 1 << 20))
    assert [content for *_, content in told] == [b"a", ErrorCode.TOO_LARGE, b"c" * 100]


@each_pack
@pytest.mark.parametrize("start", [1, 3])
def test_the_total_ends_the_walk(pack: Pack, start: int) -> None:
    archive = pack([(f"{number}.pdf", bytes(10_000)) for number in range(9)])
    told, error = read(archive, Limits(9, 10_000, 45_000), start)
    assert [number for number, *_ in told] == list(range(start, len(told) + start))
    assert {content for *_, content in told} <= {bytes(10_000), ErrorCode.TOO_LARGE}
    assert sum(content == bytes(10_000) for *_, content in told) == 5 - start
    assert error and error.code == ErrorCode.TOO_LARGE and "--max-archive-bytes" in str(error)


BOMB = bytes(64 * MIB)
SMALL = Limits(members=9, member_bytes=MIB, total_bytes=4 * MIB)


def overlapping() -> bytes:
    """Eight members that are the same megabyte of the file."""
    archive = bytearray(zipped([("a", bytes(MIB))]))
    directory, end = archive.index(b"PK\1\2"), archive.index(b"PK\5\6")
    entry = archive[directory:end]
    struct.pack_into("<L", archive, end + 12, 8 * len(entry))
    return bytes(archive[:end] + entry * 7 + archive[end:])


def large_names() -> bytes:
    extension = tarfile.TarInfo("././@LongLink")
    extension.type = tarfile.GNUTYPE_LONGNAME
    return gzip.compress(tar_of([(extension, BOMB)], tarfile.GNU_FORMAT), 1)


BOMBS = {
    "zip": lambda: zipped([("a", BOMB), ("b", b"b")]),
    "lying zip": lambda: patched(zipped([("a", BOMB), ("b", b"b")]), "size", "<L", 10),
    "overlapping zip": overlapping,
    "tar.gz": lambda: gzipped([("a", BOMB), ("b", b"b")]),
    "left out of a tar.gz": lambda: gzipped([(".a", BOMB), ("b", b"b")]),
    "name in a tar.gz": large_names,
    "after a tar.gz": lambda: gzip.compress(tarred(LETTERS) + BOMB, 1),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_never_unpacked(bomb: str) -> None:
    archive = BOMBS[bomb]()
    tracemalloc.start()
    try:
        told, error = read(archive, SMALL)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB
    assert error is not None or ErrorCode in {type(content) for *_, content in told}


def test_a_table_of_contents_that_fills_the_memory_is_not_read() -> None:
    entry = zipped([("a", b"")])
    entry = entry[entry.index(b"PK\1\2") : entry.index(b"PK\5\6")]
    table = entry * (33 * MIB // len(entry))
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0, 0, len(table), 0, 0)
    told, error = read(b"PK\3\4" + table + end)
    assert (told, error and error.code) == ([], ErrorCode.TOO_LARGE)


# Whatever the bytes

some_names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
odd_names = st.sampled_from(
    ["a", "a#2", "/a", "b/", "../a", "_", ".x", "C:/a", "a/_b/c", "\\", "/"]
)
files = st.lists(st.tuples(some_names | odd_names, st.binary(max_size=2000)), max_size=6)


@settings(max_examples=150, deadline=None)
@given(any_pack, files)
def test_every_document_is_given_once_under_a_name_of_its_own(pack: Pack, made: Files) -> None:
    told = whole(pack(made))
    contents = [content for name, content in made if is_member(name, pack)]
    assert [content for *_, content in told] == contents
    assert [number for number, *_ in told] == list(range(1, len(contents) + 1))
    assert len({name for _, name, _ in told}) == len(contents)
    assert told == whole(pack(made))
    for _, name, _ in told:
        assert name and not name.startswith(("/", "./")) and "\0" not in name


def is_member(name: str, pack: Pack) -> bool:
    if pack is zipped and name.partition("\0")[0].endswith("/"):
        return False
    *folders, last = name.partition("\0")[0].split("/")
    shown = not any(part.startswith((".", "_")) and part not in (".", "..") for part in folders)
    return shown and (last == ".." or not last.startswith("."))


TIGHT = Limits(members=4, member_bytes=1500, total_bytes=20_000)


@settings(max_examples=400, deadline=None)
@given(any_pack, files, st.data())
def test_a_damaged_archive_does_nothing_but_fail(
    pack: Pack, made: Files, data: st.DataObject
) -> None:
    archive = bytearray(pack(made))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(archive) - 1))
        archive[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    told, _ = read_anything(bytes(archive[: data.draw(st.integers(0, len(archive)))]))
    assert len(told) <= 4
    assert sum(len(content) for *_, content in told if isinstance(content, bytes)) <= 20_000


def read_anything(content: bytes) -> tuple[list[Told], DocumentError | None]:
    try:
        return read(content, TIGHT)
    except AssertionError:  # it has become a document of some other type
        return [], None
