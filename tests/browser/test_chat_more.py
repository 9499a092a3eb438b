"""The rest of the chat page: copy, export, clear, several tabs, the key, plain models, a server that is gone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


def test_a_reply_is_copied(chat: Any) -> None:
    chat.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    said = chat.say("Tell me a story.")
    chat.button("Copy", within=1).click()
    chat.until("document.querySelector('#status').textContent === 'Copied'")
    assert chat.page.evaluate("navigator.clipboard.readText()") == said


def test_the_export_holds_the_conversation(chat: Any, tmp_path: Path) -> None:
    chat.button("Settings").click()
    chat.page.get_by_label("System message").fill("Be kind.")
    said = chat.say("Hello!")
    with chat.page.expect_download() as waiting:
        chat.button("Export").click()
    waiting.value.save_as(tmp_path / "talk.json")
    content = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))
    assert content["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": said},
    ]
    assert content["model"] == chat.bodies[0]["model"]
    assert content["branches"]["nodes"][1]["reply"]["seed"] == chat.bodies[0]["seed"]


def test_clearing_can_be_undone(chat: Any) -> None:
    chat.say("Hello!")
    before = chat.texts()
    chat.button("Clear").click()
    assert chat.texts() == []
    assert chat.page.locator("#welcome").is_visible()
    chat.button("Undo").click()
    assert chat.texts() == before
    chat.open()
    assert chat.texts() == before
    chat.button("Clear").click()
    chat.open()
    assert chat.texts() == []


def test_tabs_show_the_same_conversation(chat: Any, chat_server: str) -> None:
    other = chat.page.context.new_page()
    other.goto(chat_server)
    said = chat.say("Hello!")
    other.locator(".assistant .text").get_by_text(said).wait_for()
    assert other.locator(".message .text").all_text_contents() == ["Hello!", said]


def test_a_beginning_is_offered(chat: Any) -> None:
    chat.page.get_by_role("list", name="Ways to begin").get_by_role("button").first.click()
    chat.page.locator(".assistant .facts").wait_for()
    chat.wait()
    assert len(chat.texts()) == 2


def test_the_page_says_what_no_longer_fits(chat: Any) -> None:
    note = chat.page.locator(".note:visible")
    chat.say("Hello!")
    assert note.count() == 0
    chat.say("The cat sat on the wall and waited. " * 8)
    chat.say("The cat sat on the wall and waited. " * 8)
    assert re.fullmatch(r"The oldest \d+ tokens no longer fit into the context\.", note.text_content())


def test_a_plain_model_goes_on_with_a_text(open_chat: Any, chat_server: str) -> None:
    chat = open_chat(chat_server, "plain")
    chat.page.get_by_text("This model was not trained for conversations").wait_for()
    chat.button("Settings").click()
    assert not chat.page.get_by_label("System message").is_visible()
    chat.page.get_by_label("Most tokens, as a number").fill("8")
    chat.page.get_by_label("Most tokens, as a number").press("Enter")
    chat.button("Probabilities").click()
    text = chat.say("A grey cat")
    assert chat.bodies[0]["prompt"] == "A grey cat"
    assert text.startswith("A grey cat")
    assert len(text) > len("A grey cat")
    assert chat.page.locator(".assistant .token").count() > 0
    chat.button("Go on").click()
    chat.until("n => document.querySelector('.assistant .text').textContent.length > n", len(text))
    chat.wait()
    assert chat.bodies[1]["prompt"] == text
    assert chat.texts()[1].startswith(text)


def test_a_server_that_is_gone(chat_models: Path, tmp_path: Path, open_chat: Any, serve_at: Any) -> None:
    with serve_at(chat_models / "taught") as address:
        chat = open_chat(address, model="")
        said = chat.say("Hello!")
    chat.start("Who are you?")
    error = chat.page.locator(".error:visible")
    error.wait_for()
    assert "does not answer" in error.text_content()
    assert chat.texts()[:3] == ["Hello!", said, "Who are you?"]
    assert all("Failed to load resource" in complaint for complaint in chat.complaints)
    chat.complaints.clear()


def test_a_server_with_a_key(chat_models: Path, open_chat: Any, serve_at: Any) -> None:
    with serve_at(chat_models / "taught", MICROGPT_API_KEY="open-sesame") as address:
        chat = open_chat(address, ready=False)
        dialog = chat.page.get_by_role("dialog", name="This server asks for a key")
        dialog.wait_for()
        dialog.get_by_label("API key").fill("wrong")
        chat.button("Use it").click()
        dialog.get_by_text("It refused the one that it got.").wait_for()
        dialog.get_by_label("API key").fill("open-sesame")
        chat.button("Use it").click()
        chat.page.locator("#welcome").wait_for()
        assert chat.say("Hello!")
        assert chat.page.evaluate("JSON.stringify(localStorage)").count("open-sesame") == 0
        chat.open()
        assert chat.say("Who are you?"), "the tab remembers the key"
    assert all("401" in complaint for complaint in chat.complaints)
    chat.complaints.clear()


def test_the_model_is_chosen_and_remembered(open_chat: Any, chat_server: str) -> None:
    chat = open_chat(chat_server, model="")
    picker = chat.page.get_by_label("Model")
    assert sorted(picker.locator("option").all_text_contents()) == ["endless", "plain", "taught"]
    picker.select_option("plain")
    chat.page.get_by_role("heading", name="plain").wait_for()
    assert "context of 64 tokens" in chat.page.locator("#welcome-facts").text_content()
    assert chat.page.get_by_label("Most tokens", exact=True).get_attribute("max") == "64"
    chat.open()
    assert picker.input_value() == "plain"
    picker.select_option("taught")
    chat.say("Hello!")
    assert chat.bodies[0]["model"] == "taught"


def test_the_page_waits_until_the_models_are_loaded(open_chat: Any, chat_server: str) -> None:
    chat = open_chat(chat_server)
    chat.page.route("**/v1/models", lambda route: route.fulfill(json={"object": "list", "data": []}))
    chat.open(ready=False)
    chat.page.get_by_text("The server is still loading its models.").first.wait_for()
    assert chat.page.locator("#model").is_disabled()
    chat.page.unroute("**/v1/models")
    chat.page.locator("#welcome").wait_for()
    assert not chat.page.locator("#notice").is_visible()
    assert chat.say("Hello!")
