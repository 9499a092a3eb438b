"""Rows of conversations and records: one reader a schema, chosen by the first rows; every fault named by line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from microgpt.config.schema import DataConfig, TokenizerConfig
from microgpt.data.documents import BadRows, Document, read_documents
from microgpt.data.prepare import prepare, scan
from microgpt.data.sources import find_sources
from microgpt.errors import DataError

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
TURNS = (("user", "Hi"), ("assistant", "Hello!"))
FIRST_ROWS: dict[str, Any] = {
    "messages": {"messages": TALK},
    "sharegpt": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]},
    "records": {"id": "r1", "record_type": "chat", "input": "Hi", "output": "Hello!"},
    "dolly": {"instruction": "Hi", "context": "", "response": "Hello!", "category": "open_qa"},
    "alpaca": {"instruction": "Hi", "input": "", "output": "Hello!"},
    "text": {"text": "Hello!"},
}


def read(path: Path, **data: Any) -> tuple[list[Document], BadRows]:
    config = DataConfig(path=[str(path)], **data)
    bad = BadRows()
    return list(read_documents(find_sources(config), config, bad)), bad


def said(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in turns]


# ---- each schema


@pytest.mark.parametrize("row", [TALK, {"messages": TALK}], ids=["array", "object"])
def test_messages_are_read_as_array_and_as_object(write_rows: Any, row: Any) -> None:
    documents, bad = read(write_rows(row))
    assert [d.turns for d in documents] == [TURNS]
    assert documents[0].text == "User: Hi\nAssistant: Hello!"
    assert not bad.total


def test_arrays_and_objects_of_messages_may_stand_in_one_file(write_rows: Any) -> None:
    documents, bad = read(write_rows(TALK, {"messages": TALK}, TALK))
    assert len(documents) == 3
    assert not bad.total


def test_sharegpt_names_become_our_roles(write_rows: Any) -> None:
    row = {
        "conversations": [
            {"from": "system", "value": "Be kind."},
            {"from": "human", "value": "Hi"},
            {"from": "gpt", "value": "Hello!"},
        ]
    }
    (document,), _ = read(write_rows(row))
    assert document.turns == (("system", "Be kind."), *TURNS)


RECORDS = [
    ({"record_type": "knowledge", "text": "Water boils."}, "Water boils.", ()),
    ({"record_type": "memory", "text": "I met Ann."}, "I met Ann.", ()),
    (
        {"record_type": "qa", "question": "Why?", "answer": "So."},
        "Question: Why?\nAnswer: So.",
        (("user", "Why?"), ("assistant", "So.")),
    ),
    ({"record_type": "chat", "input": "Hi", "output": "Hello!"}, "User: Hi\nAssistant: Hello!", TURNS),
    (
        {"record_type": "trajectory", "task": "Tea", "actions": ["boil", "pour"], "result": "done"},
        "Task: Tea\nActions: boil | pour\nResult: done",
        (),
    ),
    ({"record_type": "trajectory", "task": "Tea", "result": "done"}, "Task: Tea\nResult: done", ()),
    (
        {"record_type": "preference", "prompt": "Say hi", "chosen": "Hi!", "rejected": "No."},
        "Prompt: Say hi\nPreferred: Hi!",
        (),
    ),
]


def test_records_become_the_training_texts_of_prior_art(write_rows: Any) -> None:
    documents, bad = read(write_rows(*({"id": f"r{i}", **row} for i, (row, _, _) in enumerate(RECORDS))))
    assert not bad.total
    assert [(d.kind, d.text, d.turns) for d in documents] == [
        (row["record_type"], text, turns) for row, text, turns in RECORDS
    ]


@pytest.mark.parametrize(
    ("kind", "field"),
    [(row["record_type"], name) for row, _, _ in RECORDS for name in row if name not in ("record_type", "actions")],
)
def test_a_record_without_a_required_field_is_a_bad_row(write_rows: Any, kind: str, field: str) -> None:
    row = next(dict(r) for r, _, _ in RECORDS if r["record_type"] == kind)
    del row[field]
    documents, bad = read(write_rows({"id": 0, "record_type": "memory", "text": "first"}, {"id": 1, **row}))
    assert len(documents) == 1
    assert bad.total == 1
    assert ":2: " in bad.shown[0]
    assert repr(field) in bad.shown[0]


@pytest.mark.parametrize("wrong", ["poem", None, 7, [], {}], ids=str)
def test_an_unknown_record_type_is_a_bad_row_whatever_its_kind(write_rows: Any, wrong: Any) -> None:
    good = {"id": "a", "record_type": "memory", "text": "x"}
    documents, bad = read(write_rows(good, {"id": "b", "record_type": wrong, "text": "y"}))
    assert (len(documents), bad.total) == (1, 1)
    assert ":2: record_type" in bad.shown[0]


@pytest.mark.parametrize("identity", [None, "", "  ", [], True], ids=str)
def test_a_record_needs_an_id(write_rows: Any, identity: Any) -> None:
    _, bad = read(write_rows({"id": identity, "record_type": "memory", "text": "x"}))
    assert bad.counts == {"no field 'id'": 1}


def test_actions_are_a_list_of_texts(write_rows: Any) -> None:
    row = {"id": 1, "record_type": "trajectory", "task": "t", "result": "r"}
    _, bad = read(write_rows(row | {"actions": "walk"}, row | {"id": 2, "actions": [1]}))
    assert bad.counts == {"'actions' is not a list of texts": 2}


def test_dolly_rows_are_chats_with_context_below_the_instruction(write_rows: Any) -> None:
    rows = [
        {"instruction": "Who?", "context": "Ann sang.", "response": "Ann.", "category": "closed_qa"},
        {"instruction": "Hi", "context": "  ", "response": "Hello!", "category": "chat"},
    ]
    documents, bad = read(write_rows(*rows))
    assert not bad.total
    assert [d.kind for d in documents] == ["chat", "chat"]
    assert documents[0].turns == (("user", "Who?\nContext: Ann sang."), ("assistant", "Ann."))
    assert documents[0].text == "User: Who?\nContext: Ann sang.\nAssistant: Ann."
    assert documents[1].turns == TURNS


def test_dolly_rows_get_the_line_as_their_id() -> None:
    from microgpt.data.schemas import read_dolly

    assert read_dolly({"instruction": "a", "context": "", "response": "b"}, 17).identity == "dolly-auto-17"


def test_equal_dolly_rows_are_not_duplicate_ids(write_rows: Any) -> None:
    documents, bad = read(write_rows(FIRST_ROWS["dolly"], FIRST_ROWS["dolly"]))
    assert (len(documents), bad.total) == (2, 0)


def test_alpaca_input_stands_below_the_instruction(write_rows: Any) -> None:
    rows = [{"instruction": "Add", "input": "1 2", "output": "3"}, {"instruction": "Hi", "output": "Hello!"}]
    documents, bad = read(write_rows(*rows))
    assert not bad.total
    assert [d.turns for d in documents] == [(("user", "Add\n1 2"), ("assistant", "3")), TURNS]


# ---- which schema


@pytest.mark.parametrize("schema", FIRST_ROWS)
def test_a_schema_is_recognised_by_the_first_row(write_rows: Any, schema: str) -> None:
    (document,), bad = read(write_rows(FIRST_ROWS[schema]))
    assert not bad.total
    assert document.turns == (() if schema == "text" else TURNS)


@pytest.mark.parametrize(
    "first", ["not json", '{"foo": 1}', "", "[]"], ids=["no-json", "no-schema", "blank", "empty"]
)
def test_a_bad_first_row_does_not_decide_the_schema(write_rows: Any, first: str) -> None:
    documents, bad = read(write_rows(first, {"messages": TALK}, {"messages": TALK}))
    assert [d.turns for d in documents] == [TURNS, TURNS]
    assert bad.total == 1
    assert ":1: " in bad.shown[0]


@pytest.mark.parametrize("other", FIRST_ROWS)
@pytest.mark.parametrize("first", FIRST_ROWS)
def test_a_mixed_file_is_a_bad_row_that_names_the_line(write_rows: Any, first: str, other: str) -> None:
    path = write_rows(FIRST_ROWS[first], {**FIRST_ROWS[first], **({"id": "r2"} if first == "records" else {})})
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**FIRST_ROWS[other], **({"id": "r3"} if other == "records" else {})}) + "\n")
    documents, bad = read(path)
    if first == other:
        assert (len(documents), bad.total) == (3, 0)
    else:
        assert (len(documents), bad.total) == (2, 1)
        assert bad.shown[0].startswith(f"{path}:3: ")


def test_a_knowledge_record_in_a_file_of_texts_is_not_taken_for_text(write_rows: Any) -> None:
    documents, bad = read(write_rows({"text": "a"}, {"id": 1, "record_type": "knowledge", "text": "b"}))
    assert (len(documents), bad.total) == (1, 1)
    assert ":2: " in bad.shown[0]


def test_each_file_has_a_schema_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(FIRST_ROWS["dolly"]) + "\n")
    (tmp_path / "b.jsonl").write_text(json.dumps(FIRST_ROWS["sharegpt"]) + "\n")
    documents, bad = read(tmp_path)
    assert [d.turns for d in documents] == [TURNS, TURNS]
    assert not bad.total


def test_the_schema_can_be_given(write_rows: Any) -> None:
    both = {"instruction": "Hi", "response": "dolly's", "output": "alpaca's"}
    assert read(write_rows(both))[0][0].turns[1][1] == "dolly's"
    assert read(write_rows(both), schema="alpaca")[0][0].turns[1][1] == "alpaca's"
    talk_and_text = {"messages": TALK, "text": "plain"}
    assert read(write_rows(talk_and_text))[0][0].turns == TURNS
    (document,), _ = read(write_rows(talk_and_text), schema="text")
    assert (document.text, document.turns) == ("plain", ())


def test_a_given_schema_refuses_rows_of_another(write_rows: Any) -> None:
    documents, bad = read(write_rows(FIRST_ROWS["dolly"], TALK), schema="sharegpt")
    assert (len(documents), bad.total) == (0, 2)


# ---- turns


def test_a_system_turn_is_kept_at_the_beginning(write_rows: Any) -> None:
    (document,), bad = read(write_rows(said(("system", "Be kind."), *TURNS)))
    assert document.turns == (("system", "Be kind."), *TURNS)
    assert not bad.total


def test_a_system_turn_further_on_is_a_bad_row(write_rows: Any) -> None:
    _, bad = read(write_rows(said(*TURNS, ("system", "Be kind."), *TURNS)))
    assert bad.counts == {"turn 3 is a system turn; only the first can be": 1}


def test_turns_after_the_last_reply_are_trimmed_and_counted(write_rows: Any) -> None:
    more = [("user", "And?"), ("user", "Hello?")]
    documents, bad = read(write_rows(said(*TURNS, *more), said(*TURNS, more[0]), said(*TURNS)))
    assert [d.turns for d in documents] == [TURNS] * 3
    assert (bad.trimmed, bad.dropped, bad.total) == (3, 0, 0)


def test_conversations_without_a_reply_are_dropped_and_counted(write_rows: Any) -> None:
    alone = said(("user", "Anybody?"))
    documents, bad = read(write_rows(alone, said(*TURNS), said(("system", "s"), ("user", "u")), alone))
    assert len(documents) == 1
    assert (bad.dropped, bad.trimmed, bad.total) == (3, 0, 0)


def test_the_counts_of_the_clean_up_are_kept_with_the_tokens(write_rows: Any) -> None:
    rows = [said(("user", f"question {i}"), ("assistant", f"answer {i}"), ("user", "and?")) for i in range(12)]
    path = write_rows(*rows, said(("user", "Anybody?")))
    shards, tokenizer = prepare(DataConfig(path=[str(path)]), TokenizerConfig(kind="char"), show_progress=False)
    assert tokenizer.is_chat
    counted = shards.meta["conversations"]
    assert (counted["dropped"], counted["trimmed_turns"]) == (1, 12)
    assert shards.meta["train"]["documents"] + shards.meta["val"]["documents"] == 12


def test_a_file_of_conversations_without_replies_says_so(write_rows: Any) -> None:
    config = DataConfig(path=[str(write_rows(said(("user", "Anybody?"))))])
    with pytest.raises(DataError, match=r"1 conversations? without a reply"):
        scan(find_sources(config), config)


# ---- faults


def test_an_id_that_stands_twice_is_a_bad_row(write_rows: Any) -> None:
    row = {"record_type": "memory", "text": "x"}
    documents, bad = read(write_rows({"id": "a", **row}, {"id": "b", **row}, {"id": "a", **row}, {"id": "a", **row}))
    assert len(documents) == 2
    assert bad.counts == {"its id stands twice": 2}
    assert ":3: " in bad.shown[0]
    assert ":4: " in bad.shown[1]


def test_the_id_of_a_bad_row_is_not_taken(write_rows: Any) -> None:
    documents, bad = read(
        write_rows({"id": "a", "record_type": "memory"}, {"id": "a", "record_type": "memory", "text": "x"})
    )
    assert (len(documents), bad.total) == (1, 1)


def test_all_bad_rows_are_counted_and_the_first_shown(write_rows: Any) -> None:
    wrong = said(("robot", "beep"))
    path = write_rows(TALK, *[wrong] * 100, TALK, "{", TALK)
    documents, bad = read(path)
    assert len(documents) == 3
    assert bad.total == 101
    config = DataConfig(path=[str(path)])
    with pytest.raises(DataError, match=r"101 bad rows: .*talks\.jsonl:2: .*and 96 more") as caught:
        scan(find_sources(config), config)
    assert "data.on_bad_rows=skip" in caught.value.mend


def test_a_line_may_be_of_any_length(write_rows: Any) -> None:
    long = "word " * 40_000
    (document,), bad = read(write_rows(said(("user", long), ("assistant", long))))
    assert document.turns == (("user", long), ("assistant", long))
    assert not bad.total


FAULTS: list[tuple[str, Any, str]] = [
    ("role", said(("tool", "x"), ("assistant", "y")), "turn 1 has the role 'tool'"),
    ("capital", said(("User", "x"), ("assistant", "y")), "turn 1 has the role 'User'"),
    ("no role", [{"content": "x"}], "turn 1 has the role None"),
    ("list as role", [{"role": [], "content": "x"}], "turn 1 has the role []"),
    ("text as turn", ["x"], "turn 1 is not an object"),
    ("no turns", {"messages": []}, "no turns"),
    ("object as turns", {"messages": {"role": "user"}}, "no turns"),
    ("blank", said(("user", " \n\t"), ("assistant", "y")), "'content' is blank"),
    ("blank reply", said(("user", "x"), ("assistant", "")), "'content' is blank"),
    ("number", [{"role": "user", "content": 7}], "'content' is not a text"),
    ("null", [{"role": "user", "content": None}], "'content' is null"),
    ("parts", [{"role": "user", "content": [{"type": "text"}]}], "'content' is not a text"),
    ("no content", [{"role": "user"}], "no field 'content'"),
    ("scalar", 7, "not a JSON object"),
]


@pytest.mark.parametrize(("row", "reason"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_faulty_row_is_named_by_line_and_reason(write_rows: Any, row: Any, reason: str) -> None:
    path = write_rows(TALK, row, TALK)
    documents, bad = read(path)
    assert len(documents) == 2
    assert bad.shown == [f"{path}:2: {reason}"]


@pytest.mark.parametrize("half", [r"\ud83d", r"\ude00", r"\ud83d x", r"a\uDE00\ud83d"])
def test_half_a_surrogate_pair_is_a_bad_row(write_rows: Any, half: str) -> None:
    line = '[{"role": "user", "content": "hi HALF"}, {"role": "assistant", "content": "yo"}]'
    documents, bad = read(write_rows(TALK, line.replace("HALF", half)))
    assert len(documents) == 1
    assert bad.counts == {"lone surrogate": 1}


def test_a_whole_surrogate_pair_and_a_spelled_escape_are_text(write_rows: Any) -> None:
    line = r'[{"role": "user", "content": "\ud83d\ude00 \\ud83d"}, {"role": "assistant", "content": "yo"}]'
    (document,), bad = read(write_rows(line))
    assert document.turns[0][1] == "\U0001f600 \\ud83d"
    assert not bad.total


def test_chat_off_reads_conversations_as_plain_text(write_rows: Any) -> None:
    (document,), _ = read(write_rows(TALK), chat=False)
    assert document.turns == ()
    assert document.text == "User: Hi\nAssistant: Hello!"


def test_bad_rows_of_a_validated_file_are_all_in_the_report(write_rows: Any, microgpt: Callable[..., Any]) -> None:
    good = [said(("user", f"question {i}"), ("assistant", "Hello!")) for i in range(3)]
    path = write_rows(*good, *[said(("robot", "x"))] * 7)
    done = microgpt("validate-dataset", str(path), "tracking=off", code=3)
    assert "7 bad rows" in done.stderr
    assert f"{path.name}:4: turn 1 has the role 'robot'" in " ".join(done.stderr.split())
