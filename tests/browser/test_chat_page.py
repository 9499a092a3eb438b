"""The chat page does what it offers, on a real server."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

CONVERSATION = "microgpt.conversation"
ORPHAN = {"id": "n9", "parent": "n8", "role": "user", "content": "Whose?"}


def test_a_reply_is_what_the_api_says(chat: Any, chat_server: str, ask: Any) -> None:
    said = chat.say("Tell me a story.")
    assert said == ask(chat_server, chat.bodies[0])["choices"][0]["message"]["content"]
    assert said.startswith("A grey cat")
    assert chat.texts() == ["Tell me a story.", said]


def test_the_text_grows_while_it_is_written(open_chat: Any, chat_server: str) -> None:
    chat = open_chat(chat_server, "endless")
    chat.start("Hello!")
    lengths = [0]
    for _ in range(5):
        chat.until("n => (document.querySelector('.running .text')?.textContent.length ?? 0) > n", lengths[-1])
        lengths.append(len(chat.texts()[-1]))
    assert chat.page.locator("#stop").is_visible()
    chat.page.keyboard.press("Escape")
    chat.wait()


def test_a_reply_can_be_stopped(open_chat: Any, chat_server: str) -> None:
    chat = open_chat(chat_server, "endless")
    for how in ("Escape", "button"):
        chat.start("Hello!")
        chat.until("document.querySelector('.running .text')?.textContent.length > 20")
        if how == "Escape":
            chat.page.keyboard.press("Escape")
        else:
            chat.button("Stop").click()
        chat.wait()
        assert chat.page.locator("#status").text_content() == "Reply stopped"
        assert "stopped" in chat.page.locator(".facts").last.text_content()
        text = chat.texts()[-1]
        chat.page.wait_for_timeout(300)
        assert chat.texts()[-1] == text, "nothing comes after a stop"
        assert chat.page.evaluate("document.activeElement.id") == "box"


def test_an_edit_makes_a_branch_and_keeps_the_other(chat: Any) -> None:
    story = chat.say("Tell me a story.")
    who = chat.say("Who are you?")
    chat.message(0).hover()
    chat.button("Edit", within=0).click()
    edit = chat.page.get_by_role("textbox", name="Edit the message")
    assert edit.input_value() == "Tell me a story."
    edit.fill("Hello!")
    edit.press("Enter")
    chat.until("document.querySelectorAll('.message').length === 2")
    chat.wait()
    assert chat.bodies[-1]["messages"] == [{"role": "user", "content": "Hello!"}]
    hello = chat.texts()
    assert hello[0] == "Hello!"
    assert "2\u2009/\u20092" in chat.message(0).text_content()
    chat.button("Version before", within=0).click()
    assert chat.texts() == ["Tell me a story.", story, "Who are you?", who]
    assert chat.page.evaluate("document.activeElement.getAttribute('aria-label')") == "Version after"
    chat.page.keyboard.press("Enter")
    assert chat.texts() == hello


def test_an_edit_can_be_left(chat: Any) -> None:
    chat.say("Hello!")
    before = chat.texts()
    chat.box.press("ArrowUp")
    edit = chat.page.get_by_role("textbox", name="Edit the message")
    edit.fill("Something else")
    edit.press("Escape")
    assert chat.texts() == before
    assert len(chat.bodies) == 1
    assert chat.page.evaluate("document.activeElement.id") == "box"


def test_regenerating_takes_a_new_seed_and_keeps_the_first_reply(chat: Any) -> None:
    first = chat.say("Hello!")
    chat.button("Regenerate", within=1).click()
    chat.until("document.querySelector('.assistant')?.textContent.includes('2\u2009/\u20092')")
    chat.wait()
    second = chat.texts()[1]
    assert chat.bodies[0]["messages"] == chat.bodies[1]["messages"]
    assert chat.bodies[0]["seed"] != chat.bodies[1]["seed"]
    chat.button("Version before", within=1).click()
    assert chat.texts() == ["Hello!", first]
    chat.say("Who are you?")
    assert [m["content"] for m in chat.bodies[-1]["messages"]] == ["Hello!", first, "Who are you?"]
    chat.button("Version after", within=1).click()
    assert chat.texts() == ["Hello!", second], "what followed one reply does not follow the other"


def test_the_settings_reach_the_request_and_are_remembered(chat: Any) -> None:
    page = chat.page
    chat.button("Settings").click()
    page.get_by_label("Temperature", exact=True).press("ArrowRight")
    page.get_by_label("Top-p", exact=True).press("Home")
    for name, value in (("Top-k", "7"), ("Min-p", "0.02"), ("Repetition penalty", "1.1"), ("Most tokens", "5")):
        page.get_by_label(f"{name}, as a number").fill(value)
        page.get_by_label(f"{name}, as a number").press("Enter")
    page.get_by_label("Random").uncheck()
    page.get_by_label("Seed", exact=True).fill("11")
    page.get_by_label("Seed", exact=True).press("Enter")
    page.get_by_label("System message").fill("Be brief.")
    wanted = {
        "temperature": 0.75,
        "top_p": 0.05,
        "top_k": 7,
        "min_p": 0.02,
        "repetition_penalty": 1.1,
        "max_tokens": 5,
        "seed": 11,
    }
    for _ in range(2):
        chat.say("Tell me a story.")
        body = chat.bodies[-1]
        assert {key: body[key] for key in wanted} == wanted
        assert body["messages"][0] == {"role": "system", "content": "Be brief."}
        assert (body["stream"], body["logprobs"], body["top_logprobs"]) == (True, True, 5)
        assert "cut at the limit" in page.locator(".facts").last.text_content()
        chat.open()
    assert page.get_by_label("Most tokens", exact=True).input_value() == "5"
    chat.button("Back to the usual values").click()
    assert page.get_by_label("Temperature, as a number").input_value() == "0.7"


def test_a_number_out_of_range_comes_back_into_it(chat: Any) -> None:
    chat.button("Settings").click()
    for text, kept in (("99", "2"), ("-1", "0"), ("", "0.7")):
        number = chat.page.get_by_label("Temperature, as a number")
        number.fill(text)
        number.press("Enter")
        assert number.input_value() == kept
        assert chat.page.get_by_label("Temperature", exact=True).input_value() == kept


def test_the_tooltip_shows_the_numbers_of_the_api(chat: Any, chat_server: str, ask: Any) -> None:
    said = chat.say("Hello!")
    api = ask(chat_server, chat.bodies[0])["choices"][0]["logprobs"]["content"]
    chat.button("Probabilities").click()
    tokens = chat.page.locator(".assistant .token")
    assert "".join(tokens.all_text_contents()) == said
    assert tokens.all_text_contents() == [t["token"] for t in api]
    tip = chat.page.get_by_role("tooltip")
    for i, known in enumerate(api):
        tokens.nth(i).hover()
        tip.locator(".tip-token").get_by_text(known["token"].replace(" ", "␣"), exact=True).wait_for()
        assert near(tip.locator("strong").text_content(), known["logprob"])
        rows = tip.locator("li").evaluate_all(
            "all => all.map(li => [li.querySelector('.choice-token').firstChild.data,"
            " li.querySelector('.number').textContent])"
        )
        for row, top in zip(rows, known["top_logprobs"]):
            assert row[0] == top["token"].replace(" ", "␣").replace("\n", "↵")
            assert near(row[1], top["logprob"])
        assert len(known["top_logprobs"]) == 5
        assert tip.locator(".own").count() == 1
    chat.page.mouse.move(5, 5)
    tip.wait_for(state="hidden")


def near(shown: str, logprob: float) -> bool:
    """Whether a percentage is that of a log-probability, but for the last digit."""
    if shown.startswith("<"):
        return math.exp(logprob) < 0.00101
    return abs(float(shown.removesuffix(" %")) - math.exp(logprob) * 100) < 0.11


def test_a_character_of_several_tokens_is_one_piece(chat: Any) -> None:
    assert chat.say("Who are you?").endswith("🐟")
    chat.button("Probabilities").click()
    fish = chat.page.locator(".assistant .token").last
    assert fish.text_content() == "🐟" or fish.text_content() == " 🐟"
    fish.hover()
    assert "One character of" in chat.page.get_by_role("tooltip").text_content()


def test_markup_stays_text(chat: Any) -> None:
    hostile = '<img src="x" onerror="alert(1)"><b>bold</b><script>alert(2)</script>'
    chat.page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    said = chat.say("Show some HTML.")
    assert "<script>" in said
    chat.say(hostile)
    assert chat.texts()[1:3] == [said, hostile]
    chat.button("Probabilities").click()
    chat.open()
    assert chat.texts()[1:3] == [said, hostile]
    assert chat.page.locator("#conversation :is(img, b, script)").count() == 0


def test_a_reload_keeps_everything(chat: Any) -> None:
    chat.button("Probabilities").click()
    chat.say("Hello!")
    chat.button("Regenerate", within=1).click()
    chat.until("document.querySelector('.assistant')?.textContent.includes('2\u2009/\u20092')")
    chat.wait()
    chat.say("Who are you?")
    before = chat.texts()
    html = chat.page.locator(".text").evaluate_all("all => all.map(one => one.innerHTML)")
    chat.open()
    assert chat.texts() == before
    assert chat.page.locator(".text").evaluate_all("all => all.map(one => one.innerHTML)") == html
    chat.button("Version before", within=1).click()
    assert len(chat.texts()) == 2


@pytest.mark.parametrize(
    "spoil, left",
    [
        (lambda kept: "{", 0),
        (lambda kept: "null", 0),
        (lambda kept: json.dumps({**kept, "version": 99}), 0),
        (lambda kept: json.dumps({**kept, "nodes": 7}), 0),
        (lambda kept: json.dumps({**kept, "nodes": [None, 3, {"id": "__proto__"}, ORPHAN, *kept["nodes"]]}), 2),
        (lambda kept: json.dumps({**kept, "nodes": [{**kept["nodes"][0], "parent": "n1"}, kept["nodes"][1]]}), 0),
        (lambda kept: json.dumps({**kept, "nodes": [kept["nodes"][0], {**kept["nodes"][1], "reply": [1]}]}), 2),
        (lambda kept: json.dumps({**kept, "chosen": {"root": "n999"}}), 2),
    ],
    ids=["no JSON", "null", "version", "no list", "foreign entries", "circle", "reply", "choice"],
)
def test_damaged_storage_does_no_harm(chat: Any, spoil: Callable[[dict[str, Any]], str], left: int) -> None:
    chat.say("Hello!")
    kept = json.loads(chat.page.evaluate(f"localStorage.getItem('{CONVERSATION}')"))
    # the page saves when it is left: write the damage when that is done
    chat.page.evaluate(
        "([key, text]) => addEventListener('pagehide', () => localStorage.setItem(key, text))",
        [CONVERSATION, spoil(kept)],
    )
    chat.open()
    assert len(chat.texts()) == left
    spoilt = json.dumps({"sampling": {"temperature": "hot"}, "seed": -4})
    chat.page.evaluate("text => localStorage.setItem('microgpt.settings', text)", spoilt)
    assert chat.say("Who are you?")


def test_a_refusal_leaves_the_conversation_and_can_be_retried(chat: Any) -> None:
    before = [*("Hello!",), chat.say("Hello!")]
    busy = {"status": 503, "headers": {"Retry-After": "2"}, "json": {"error": {"message": "all places are taken"}}}
    chat.page.route("**/v1/chat/completions", lambda route: route.fulfill(**busy))
    chat.start("Who are you?")
    error = chat.page.locator(".error:visible")
    error.wait_for()
    assert error.locator("p").text_content() == "all places are taken. Try again in 2 seconds."
    assert chat.texts()[:3] == [*before, "Who are you?"]
    chat.open()
    error.wait_for()
    chat.page.unroute("**/v1/chat/completions")
    chat.button("Retry").click()
    chat.until("document.querySelector('.message:last-child .text').textContent !== ''")
    chat.wait()
    assert error.count() == 0
    assert chat.page.get_by_role("group", name="Versions").count() == 0, "a reply without text is no version"
    assert chat.texts()[:3] == [*before, "Who are you?"]
    assert [m["content"] for m in chat.bodies[-1]["messages"]] == [*before, "Who are you?"]
    assert chat.complaints == [
        "Failed to load resource: the server responded with a status of 503 (Service Unavailable)"
    ]
    chat.complaints.clear()


def test_a_broken_stream_keeps_what_came(chat: Any) -> None:
    chunk = json.dumps({"choices": [{"delta": {"content": "<b>Half</b> a "}, "finish_reason": None}]})
    cut = {"status": 200, "content_type": "text/event-stream", "body": f"data: {chunk}\n\ndata: {{"}
    chat.page.route("**/v1/chat/completions", lambda route: route.fulfill(**cut))
    chat.start("Hello!")
    chat.page.locator(".error:visible").wait_for()
    assert chat.texts() == ["Hello!", "<b>Half</b> a "]
    assert chat.page.locator("#conversation b").count() == 0
    chat.page.unroute("**/v1/chat/completions")
    chat.button("Retry").click()
    chat.until("document.querySelector('.assistant')?.textContent.includes('2\u2009/\u20092')")
    chat.wait()
    assert chat.page.locator(".error:visible").count() == 0
    chat.button("Version before", within=1).click()
    assert chat.texts() == ["Hello!", "<b>Half</b> a "]
