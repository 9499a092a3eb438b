"""The page's modules that know nothing of the page: the stream's parser, the tree, tokens, storage."""

from __future__ import annotations

import json
from typing import Any

import pytest


@pytest.fixture(scope="module")
def run(browser: Any, chat_server: str) -> Any:
    """Run a function body in the browser, with the named module as `m` and an argument as `x`."""
    page = browser.new_page()
    page.goto(chat_server)

    def evaluate(module: str, body: str, x: Any = None) -> Any:
        return page.evaluate(f"async x => {{ const m = await import('./static/{module}.js'); {body} }}", x)

    return evaluate


STREAMS = [
    ("data: one\n\ndata: two\n\n", ["one", "two"]),
    ("data: one\r\n\r\ndata:two\r\n\r\n", ["one", "two"]),
    ("data: one\r\rdata: two\r\rdata: three\r\n\r\n", ["one", "two", "three"]),
    (": a comment\n\nevent: x\nid: 3\ndata: one\ndata: two\n\n", ["one\ntwo"]),
    ("data\n\ndata:\n\ndata:  two spaces\n\n", ["", "", " two spaces"]),
    ('data: {"text": "a: b"}\n\ndata: never ended\n', ['{"text": "a: b"}']),
]


@pytest.mark.parametrize("stream, events", STREAMS)
def test_events_are_whole_wherever_the_network_cuts(run: Any, stream: str, events: list[str]) -> None:
    found = run(
        "sse",
        """const all = [];
        for (let i = 0; i <= x.length; i++) for (let j = i; j <= x.length; j++) {
            const parser = new m.EventParser();
            all.push(JSON.stringify([x.slice(0, i), x.slice(i, j), x.slice(j)].flatMap(part => parser.push(part))));
        }
        return [...new Set(all)].map(JSON.parse);""",
        stream,
    )
    assert found == [events]


def test_many_events_in_one_piece_and_one_byte_at_a_time(run: Any) -> None:
    stream = "".join(f"data: {i}\n\n" for i in range(500))
    script = "const p = new m.EventParser(); return [].concat(...x.map(part => p.push(part)));"
    for pieces in ([stream], list(stream)):
        assert run("sse", script, pieces) == [str(i) for i in range(500)]


def token(text: str | bytes, with_bytes: bool) -> dict[str, Any]:
    """A token; where the API gives no bytes of whole texts, it still does so of parts of characters."""
    raw = text if isinstance(text, bytes) else text.encode()
    known = list(raw) if with_bytes or isinstance(text, bytes) else None
    return {"token": raw.decode(errors="replace"), "logprob": -1, "bytes": known, "top": []}


FISH = "🐟".encode()


@pytest.mark.parametrize("with_bytes", [True, False])
@pytest.mark.parametrize(
    "content, tokens, pieces",
    [
        ("Hello there", ["Hello", " there"], [("Hello", 1), (" there", 1)]),
        ("a🐟b", ["a", FISH[:2], FISH[2:], "b"], [("a", 1), ("🐟", 2), ("b", 1)]),
        ("\ufeffa", ["\ufeff", "a"], [("\ufeff", 1), ("a", 1)]),
        ("Hel", ["Hello", " there"], [("Hel", 1)]),
        ("Hello there", ["Hello"], [("Hello", 1), (" there", 0)]),
        ("Hello", ["Bye", "Hello"], [("Hello", 0)]),
        ("", ["Hello"], []),
    ],
    ids=["words", "parts of a character", "byte order mark", "cut", "ahead", "another text", "empty"],
)
def test_pieces_are_the_text_whatever_the_tokens_say(
    run: Any, content: str, tokens: list[str | bytes], pieces: list[tuple[str, int]], with_bytes: bool
) -> None:
    given = {"content": content, "tokens": [token(t, with_bytes) for t in tokens]}
    found = run("tokens", "return m.pieces(x.content, x.tokens).map(p => [p.text, p.tokens.length]);", given)
    assert [tuple(p) for p in found] == pieces
    assert "".join(text for text, _ in found) == content


def test_probabilities_as_a_person_reads_them(run: Any) -> None:
    assert run("tokens", "return x.map(m.percent);", [0, 0.0004, 0.001, 0.41234, 1]) == [
        *("0.0 %", "< 0.1 %", "0.1 %", "41.2 %", "100.0 %")
    ]
    assert run("tokens", "return x.map(m.level);", [0, 0.049, 0.05, 0.2, 0.5, 0.79, 0.8, 1]) == [
        0,
        0,
        1,
        2,
        3,
        3,
        4,
        4,
    ]


def test_branches(run: Any) -> None:
    found = run(
        "tree",
        """const t = m.newTree(), said = () => m.path(t).map(n => n.content).join(' ');
        const a = m.add(t, m.ROOT, 'user', 'a'), b = m.add(t, a.id, 'assistant', 'b');
        const first = said();
        const c = m.add(t, a.id, 'assistant', 'c'), d = m.add(t, c.id, 'user', 'd');
        const second = said(), place = m.place(t, c.id);
        m.step(t, c.id, -1);
        const third = said();
        m.step(t, b.id, -1);
        const fourth = said();
        m.step(t, b.id, 1);
        const fifth = said(), messages = m.messages(t, d.id);
        const empty = m.add(t, d.id, 'assistant', ''), e = m.add(t, empty.id, 'user', 'e');
        messages.push(...m.messages(t, e.id).slice(-2));
        m.drop(t, e.id);
        m.drop(t, empty.id);
        m.drop(t, d.id);
        let refused = false;
        try { m.drop(t, a.id) } catch { refused = true }
        return [first, second, place, third, fourth, fifth, messages, said(), refused];""",
    )
    assert found == [
        *("a b", "a c d", {"index": 1, "count": 2}, "a b", "a b", "a c d"),
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "c"},
            {"role": "user", "content": "d"},
            {"role": "user", "content": "d"},
            {"role": "user", "content": "e"},
        ],
        *("a c", True),
    ]


def test_what_is_stored_comes_back(run: Any) -> None:
    dumped, again = run(
        "storage",
        """const t = await import('./static/tree.js'), tree = t.newTree();
        const a = t.add(tree, t.ROOT, 'user', 'a'), b = t.add(tree, a.id, 'assistant', 'b');
        t.add(tree, a.id, 'assistant', '');
        t.step(tree, tree.nodes.get(a.id).chosen, -1);
        b.reply.tokens = [{token: 'b', logprob: -0.12345678, bytes: [98], top: [{token: 'b', logprob: -0.5}]}];
        Object.assign(b.reply, {finish: 'length', seed: 7, model: 'm', dropped: 2, used: 9, seconds: 1.5});
        const dumped = m.dump(tree);
        return [dumped, m.dump(m.restore(JSON.parse(JSON.stringify(dumped))))];""",
    )
    unfinished = dumped["nodes"][2]["reply"]
    assert unfinished["finish"] == ""
    unfinished["finish"] = "stopped"  # the page was left while it was written
    assert again == dumped
    assert dumped["nodes"][1]["reply"]["tokens"] == [["b", -0.1235, [98], [["b", -0.5]]]]
    assert dumped["chosen"] == {"root": "n1", "n1": "n2"}


def test_a_conversation_that_is_too_large_is_kept_without_its_probabilities(run: Any) -> None:
    kept = run(
        "storage",
        """const t = await import('./static/tree.js'), tree = t.newTree();
        const a = t.add(tree, t.ROOT, 'user', 'a'), b = t.add(tree, a.id, 'assistant', 'b');
        const top = Array.from({length: 5}, () => ({token: 'x'.repeat(50), logprob: -1}));
        b.reply.tokens = Array.from({length: 30000}, () => ({token: 'b', logprob: -1, bytes: null, top}));
        const saved = m.saveTree(tree), found = localStorage.getItem(m.CONVERSATION);
        b.content = 'x'.repeat(2 ** 23);
        return [saved, JSON.parse(found), m.saveTree(tree)];""",
    )
    assert kept[0] is True
    assert [node["content"] for node in kept[1]["nodes"]] == ["a", "b"]
    assert kept[1]["nodes"][1]["reply"]["tokens"] == []
    assert kept[2] is False


def test_settings_survive_any_storage(run: Any) -> None:
    usual = run("settings", "return m.restoreSettings(null);")
    for spoilt in (7, "x", [], {"sampling": 3}, {"sampling": {"temperature": "1"}}, {"system": {}}, {"seed": "a"}):
        assert run("settings", "return m.restoreSettings(x);", spoilt) == usual
    kept = {
        **usual,
        "sampling": {**usual["sampling"], "temperature": 1.25},
        "seed": 3,
        "randomSeed": False,
        "system": "Be kind.",
        "probabilities": True,
    }
    assert run("settings", "return m.restoreSettings(x);", json.loads(json.dumps(kept))) == kept
    assert run("settings", "return [0, 1, 2].map(i => m.seedFor(x, i));", kept) == [3, 4, 5]
