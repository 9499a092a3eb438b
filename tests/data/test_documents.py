"""Files become documents byte for byte, and whatever cannot is named by file, line and byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microgpt.config.schema import DataConfig
from microgpt.data import documents
from microgpt.data.documents import BadRows, Document, read_documents
from microgpt.data.sources import find_sources
from microgpt.errors import DataError

BOM = b"\xef\xbb\xbf"
FIELDS = DataConfig(format="jsonl")
FILE = DataConfig(document="file")
PARTED = DataConfig(document="separator", separator="<|sep|>")


def read(path: Path, data: DataConfig | None = None) -> tuple[list[Document], BadRows]:
    data = data or DataConfig()
    data = DataConfig(**{**vars(data), "path": [str(path)]})
    bad = BadRows()
    return list(read_documents(find_sources(data), data, bad)), bad


def texts(path: Path, content: bytes, data: DataConfig | None = None) -> list[str]:
    path.write_bytes(content)
    found, bad = read(path, data)
    assert not bad.total, bad.shown
    return [d.text for d in found]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.txt"


# D5: line ends, byte order marks and control characters


@pytest.mark.parametrize(
    "content, wanted",
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\rb\n", ["a\rb"]),
        (b"a\r\r\nb", ["a\r", "b"]),
        (b"\x00a\x00\n\x00", ["\x00a\x00", "\x00"]),
        (BOM + b"a\nb", ["a", "b"]),
        (b"a\n" + BOM + b"b", ["a", "\ufeffb"]),
        (b"\n \na\n\t\n\n", ["a"]),
        ("\u2028 a\x85b\x0cc\n".encode(), ["\u2028 a\x85b\x0cc"]),
        (b"  a  \n", ["  a  "]),
    ],
)
def test_lines_keep_every_character_but_their_end(content: bytes, wanted: list[str], file: Path) -> None:
    assert texts(file, content) == wanted


@pytest.mark.parametrize("content", [b"a\r\nb\rc\x00\n\n", BOM + b"a\n", "é\n".encode() * 3, b" \n"])
def test_a_file_document_is_the_whole_file_but_for_its_mark(content: bytes, file: Path) -> None:
    assert "".join(texts(file, content, FILE)).encode() == content.removeprefix(BOM)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_one_line_end_on_each_side_of_a_separator_goes(end: str, file: Path) -> None:
    content = f"{end}one{end}<|sep|>{end}{end}two{end}more{end}{end}<|sep|>{end}<|sep|>three"
    wanted = ["one", f"{end}two{end}more{end}", "three"]
    assert texts(file, content.encode(), PARTED) == wanted


# D1: what is not UTF-8


@pytest.mark.parametrize("mark", [b"", BOM])
@pytest.mark.parametrize(
    "content, line, byte", [(b"ab\xffc\n", 1, 2), (b"ab\ncd\n\xc3\n", 3, 6), (b"a\xed\xa0\x80b", 1, 1)]
)
@pytest.mark.parametrize("data", [DataConfig(), FILE, PARTED], ids=["line", "file", "separator"])
def test_invalid_utf8_is_named_by_line_and_byte_of_the_file(
    data: DataConfig, content: bytes, line: int, byte: int, mark: bytes, file: Path
) -> None:
    file.write_bytes(mark + content)
    _, bad = read(file, data)
    wanted = line if data.document != "separator" else 1  # of separated documents the line where they begin
    assert bad.shown == [f"{file}:{wanted}: invalid UTF-8 at byte {byte + len(mark)}"]


def test_invalid_utf8_far_into_a_file_document_is_named_by_line_and_byte(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "PIECE", 7)
    for lead in range(5, 16):
        file.write_bytes("é\n".encode() * lead + b"\xe2\x82" + b"xyz" * 9)
        _, bad = read(file, FILE)
        assert bad.shown == [f"{file}:{lead + 1}: invalid UTF-8 at byte {3 * lead}"]
        file.write_bytes("é\n".encode() * lead + b"\xe2\x82")  # cut within its last character
        assert read(file, FILE)[1].shown == [f"{file}:{lead + 1}: invalid UTF-8 at byte {3 * lead}"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_with_its_mark_is_refused_by_name(encoding: str, file: Path) -> None:
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    file.write_bytes(mark + "hello\n".encode(encoding))
    with pytest.raises(DataError, match="UTF-16") as caught:
        read(file)
    assert f"{file}:1" in caught.value.what
    assert "byte 0" in caught.value.what


@pytest.mark.parametrize("escape", [r"\ud800", r"\udc00", r"\ud83dx", r"\udc00\ud800"])
def test_a_lone_surrogate_in_json_is_named_by_line_and_byte(escape: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [r'{"text": "whole \ud83d\ude00"}', r'{"text": "\ud83d\ude00 ab' + escape + '"}']
    path.write_text("\n".join(rows))
    found, bad = read(path)
    assert [d.text for d in found] == ["whole 😀"]
    assert "lone surrogate" in bad.shown[0]
    assert bad.shown[0].startswith(f"{path}:2: ")
    assert f"byte {len(rows[0]) + 1 + rows[1].index('ab') + 2}" in bad.shown[0]


def test_what_is_said_of_a_row_can_always_be_written_as_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(r'{"other\ud800": "x"}')
    _, bad = read(path)
    "".join(bad.shown).encode("utf-8")  # it goes into report.json


# D2: long lines


@pytest.mark.parametrize("data", [DataConfig(), FIELDS, PARTED], ids=["line", "jsonl", "separator"])
def test_a_line_over_the_limit_is_a_bad_row_and_those_after_it_are_read(data: DataConfig, tmp_path: Path) -> None:
    path = tmp_path / ("a.jsonl" if data is FIELDS else "a.txt")
    rows = [json.dumps({"text": t}) if data is FIELDS else t for t in ("one", "x" * 3_000_000, "y" * 900_000, "two")]
    path.write_text(("<|sep|>" if data is PARTED else "\n").join(rows))
    found, bad = read(path, DataConfig(**{**vars(data), "max_line_mb": 0.5}))
    assert [d.text for d in found] == ["one", "two"]
    assert bad.total == 2
    assert "data.max_line_mb" in bad.shown[0]


MEASURE = """
import resource, sys
from microgpt.config.schema import DataConfig
from microgpt.data.documents import BadRows, read_documents
from microgpt.data.sources import Source
data = DataConfig(document=sys.argv[2], max_line_mb=4)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
bad = BadRows()
size = sum(len(d.text) for d in read_documents([Source(sys.argv[1], "text", "0", 1)], data, bad))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(bad.total, size, (after - before) // 1024)
"""


@pytest.mark.parametrize("document, wanted", [("line", (1, 3)), ("separator", (1, 0)), ("file", (0, 200_000_004))])
def test_one_line_of_200_megabytes_takes_little_memory(
    document: str, wanted: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / "huge.txt"
    with path.open("wb") as out:
        out.truncate(200_000_000)  # NULs, which are text
        out.seek(0, os.SEEK_END)
        out.write(b"\nend")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), document], capture_output=True, text=True, timeout=240
    )
    bad, size, grown = map(int, done.stdout.split())
    assert (bad, size) == wanted
    assert grown < 60, f"{grown} MB"


# D4, D7: rows that are not what they should be


def test_deep_json_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    deep = "[" * 100_000 + "]" * 100_000
    path.write_text('{"text": "one"}\n' + deep + "\n" + '{"text": ' + deep + '}\n{"text": "two"}\n')
    found, bad = read(path)
    assert [d.text for d in found] == ["one", "two"]
    assert bad.counts == {"JSON nested too deeply": 2}


def test_all_bad_rows_are_counted_and_the_first_five_shown_with_line_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = ['{"text": "good"}', "", '{"body": "x"}', '{"text": 5}', "{broken", "[1]", '{"text": "  "}',
            '{"text": null}', "NaN", '{"text": "also good"}', '{"text": ["x"]}']  # fmt: skip
    path.write_text("\n".join(rows) + "\n")
    found, bad = read(path)
    assert [d.text for d in found] == ["good", "also good"]
    assert bad.total == 9
    assert len(bad.shown) == 5
    for line, reason in ((2, "blank row"), (3, "no field 'text'"), (4, "'text' is not a text"), (5, "not JSON"),
                         (6, "not a JSON object")):  # fmt: skip
        assert any(s.startswith(f"{path}:{line}: {reason}") for s in bad.shown)
    assert "data.text_field" in bad.shown[1], "which fields there are is told"
    with pytest.raises(DataError, match="9 bad rows") as caught:
        bad.refuse()
    assert "and 4 more" in caught.value.what
    assert "data.on_bad_rows=skip" in caught.value.mend


def test_another_field_is_read_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "x", "text": "y"}\n')
    assert [d.text for d in read(path, DataConfig(text_field="body"))[0]] == ["x"]


@given(st.lists(st.text().filter(str.strip), min_size=1, max_size=5), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_text_comes_back_from_json(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], ascii: bool
) -> None:
    path = tmp_path_factory.mktemp("j") / "a.jsonl"
    path.write_bytes("\n".join(json.dumps({"text": r}, ensure_ascii=ascii) for r in rows).encode())
    assert [d.text for d in read(path)[0]] == rows


# D9: what is no file


def test_what_could_hang_a_reader_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    (tmp_path / "dangling.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "only-pipe").mkdir()
    os.mkfifo(tmp_path / "only-pipe" / "a.txt")
    (tmp_path / "zero.txt").write_bytes(b"")
    cases = {
        "pipe.txt": "neither a file", "loop.txt": "loop", "dangling.txt": "does not exist",
        "empty": "holds no file", "only-pipe": "holds no file",
        "zero.txt": "is empty", "none.txt": "does not exist", "*.csv": "does not exist", "pip*.txt": "neither",
        "/dev/zero": "neither", "/dev/stdin/x": "does not exist|cannot be read", "x" * 300: "cannot be read",
    }  # fmt: skip
    start = time.monotonic()
    for name, reason in cases.items():
        with pytest.raises(DataError, match=reason):
            find_sources(DataConfig(path=[str(tmp_path / name)]))
    assert time.monotonic() - start < 2


GLOB = """
import sys
from microgpt.config.schema import DataConfig
from microgpt.data.sources import find_sources
print(len({s.sha256 for s in find_sources(DataConfig(path=[sys.argv[1]]))}))
"""


@pytest.mark.parametrize("pattern", ["**/*.txt", "."])
def test_folders_that_link_to_themselves_do_not_hang(pattern: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    for name in "xyz":
        (tmp_path / name).symlink_to(tmp_path, target_is_directory=True)
    done = subprocess.run(
        [sys.executable, "-c", GLOB, str(tmp_path / pattern)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "1"


def test_a_file_with_a_name_that_is_not_utf8_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from microgpt.config.schema import TokenizerConfig
    from microgpt.data.prepare import prepare

    monkeypatch.setenv("MICROGPT_CACHE_DIR", str(tmp_path / "cache"))
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")
    Path(path).write_text("one\ntwo\nthree\n")
    shards, _ = prepare(DataConfig(path=[path]), TokenizerConfig(kind="char"))
    assert shards.train.documents + shards.val.documents == 3


def test_files_of_two_formats_are_not_mixed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x\n")
    (tmp_path / "b.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(DataError, match="mixes"):
        find_sources(DataConfig(path=[str(tmp_path)]))
    sources = find_sources(DataConfig(path=[str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl")], format="text"))
    assert [s.format for s in sources] == ["text", "text"]


# pieces of large files


@given(
    st.lists(st.sampled_from(["a", "é", "😀", "\n", "<", "<|", "<|sep|>", "|>", " ", "\x00"]), max_size=40),
    st.integers(1, 9),
)
@settings(max_examples=150, deadline=None)
def test_separated_documents_are_those_of_split_wherever_blocks_end(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], piece: int
) -> None:
    content = "".join(parts)
    path = tmp_path_factory.mktemp("s") / "a.txt"
    path.write_bytes(content.encode() or b" ")
    wanted = [p.removeprefix("\n").removesuffix("\n") for p in content.split("<|sep|>") if p.strip()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "PIECE", piece)
        found, bad = read(path, PARTED)
    assert [d.text for d in found] == wanted
    assert not bad.total


@given(st.text(alphabet=st.sampled_from("aé€😀\n\r\x00"), min_size=1, max_size=60), st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_a_file_in_pieces_is_the_file_wherever_blocks_end(
    tmp_path_factory: pytest.TempPathFactory, content: str, piece: int
) -> None:
    path = tmp_path_factory.mktemp("f") / "a.txt"
    path.write_bytes(content.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "PIECE", piece)
        found, bad = read(path, FILE)
    assert "".join(d.text for d in found) == content
    assert [d.continues for d in found] == [False] + [True] * (len(found) - 1)
    assert len({d.content for d in found}) == 1
    assert not bad.total


def test_an_empty_separator_is_refused(file: Path) -> None:
    file.write_text("a\n")
    with pytest.raises(DataError, match="separator"):
        read(file, DataConfig(document="separator", separator=""))


# Parquet


def test_parquet_is_read_through_datasets_with_its_bad_rows(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["one", None, "  ", "zwei\n\x00é"], "n": [1, 2, 3, 4]}), path)
    found, bad = read(path)
    assert [d.text for d in found] == ["one", "zwei\n\x00é"]
    assert bad.shown == [f"{path}:2: 'text' is null", f"{path}:3: 'text' is blank"]
    _, bad = read(path, DataConfig(text_field="body"))
    assert bad.total == 4
    assert "text" in bad.shown[0]
    assert "not a text" in read(path, DataConfig(text_field="n"))[1].shown[0]


def test_what_is_no_parquet_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 this is not parquet PAR1")
    with pytest.raises(DataError, match="cannot be read") as caught:
        read(path)
    assert "\n" not in str(caught.value)
