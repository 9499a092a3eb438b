"""The chat page for everyone: keyboard, screen readers, small screens, dark rooms, and those whom motion disturbs."""

from __future__ import annotations

from typing import Any

import pytest

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 3


def focused(chat: Any) -> str:
    return chat.page.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label') || ''")


def test_a_conversation_with_the_keyboard_alone(chat: Any) -> None:
    keyboard = chat.page.keyboard
    assert focused(chat) == "box"
    keyboard.type("Hello!")
    keyboard.press("Shift+Enter")
    keyboard.type("Again")
    assert chat.box.input_value() == "Hello!\nAgain"
    keyboard.press("ControlOrMeta+a")
    keyboard.type("Hello!")
    keyboard.press("Enter")
    chat.page.locator(".assistant .facts").wait_for()
    assert chat.bodies[0]["messages"][0]["content"] == "Hello!"
    keyboard.press("ArrowUp")
    assert focused(chat) == "Edit the message"
    keyboard.press("End")
    keyboard.type(" ")
    keyboard.press("Enter")
    chat.until("document.querySelector('.user').textContent.includes('2\u2009/\u20092')")
    chat.wait()
    assert focused(chat) == "box"
    keyboard.press("Tab")
    assert focused(chat) != "box"
    keyboard.press("?")
    assert chat.page.get_by_role("dialog", name="Keys").is_visible()
    keyboard.press("Escape")
    assert not chat.page.locator("#help").is_visible()
    keyboard.press("/")
    assert (focused(chat), chat.box.input_value()) == ("box", "")
    keyboard.press("/")
    assert chat.box.input_value() == "/", "in the box it is a character like others"
    chat.page.locator("#settings-button").focus()
    keyboard.press("Control+k")
    assert focused(chat) == "box"


def test_tokens_with_the_keyboard(chat: Any) -> None:
    chat.say("Hello!")
    chat.button("Probabilities").focus()
    chat.page.keyboard.press("Enter")
    chat.page.locator(".token[tabindex]").wait_for()
    for _ in range(20):
        chat.page.keyboard.press("Tab")
        if chat.page.evaluate("document.activeElement.matches('.token')"):
            break
    tokens = chat.page.locator(".token").all_text_contents()
    tip = chat.page.get_by_role("tooltip")
    for token in tokens[:3]:
        assert chat.page.evaluate("document.activeElement.textContent") == token
        assert tip.locator(".tip-token").text_content() == token.replace(" ", "␣")
        assert chat.page.evaluate("document.activeElement.getAttribute('aria-describedby')") == "tip"
        assert chat.page.locator(".token[tabindex]").count() == 1, "one stop of the Tab key"
        chat.page.keyboard.press("ArrowRight")
    chat.page.keyboard.press("Escape")
    assert not tip.is_visible()


def test_what_a_screen_reader_hears(chat: Any) -> None:
    chat.page.evaluate(
        """() => {
            window.heard = [];
            const status = document.querySelector('#status');
            new MutationObserver(() => window.heard.push(status.textContent)).observe(status, {childList: true});
        }"""
    )
    said = chat.say("Tell me a story.")
    heard = chat.page.evaluate("window.heard")
    assert len(heard) == 2, "not every token"
    assert heard[0] == "Reply started"
    assert heard[1].startswith("Reply finished, ")
    chat.button("Probabilities").click()
    tree = chat.page.locator(".assistant").aria_snapshot()
    assert said in tree.replace("\n", " "), "the text reads as one, tokens or not"


@pytest.mark.parametrize("width", [360, 320])
def test_no_sideways_scrolling_on_a_small_screen(open_chat: Any, chat_server: str, width: int) -> None:
    chat = open_chat(chat_server, viewport={"width": width, "height": 700}, has_touch=True)

    def fits() -> bool:
        return chat.page.evaluate(
            """() => {
                const wide = document.documentElement.clientWidth;
                const out = [...document.querySelectorAll('body :is(button, select, textarea, input, .text, .tip)')]
                    .filter(e => e.checkVisibility() && !e.closest('.unseen'))
                    .filter(e => e.getBoundingClientRect().right > wide + 1);
                return document.documentElement.scrollWidth <= wide && out.length === 0;
            }"""
        )

    assert fits()
    chat.say(LONG)
    chat.say("Tell me a story.")
    chat.button("Probabilities").click()
    assert fits()
    chat.page.locator(".token").last.tap()
    chat.page.get_by_role("tooltip").wait_for()
    assert fits()
    chat.button("Regenerate", within=3).click()
    chat.until("document.querySelector('.message:last-child').textContent.includes('2\u2009/\u20092')")
    chat.wait()
    assert fits()
    chat.button("Settings").click()
    assert fits()
    chat.button("Close settings").click()
    chat.button("Keys").click()
    assert fits()


def brightness(chat: Any) -> float:
    return chat.page.evaluate(
        """() => {
            const colour = getComputedStyle(document.documentElement).backgroundColor;
            return colour.match(/[\\d.]+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) / 765;
        }"""
    )


def test_light_and_dark(open_chat: Any, chat_server: str) -> None:
    chat = open_chat(chat_server, color_scheme="dark")
    assert brightness(chat) < 0.2
    chat.button("Light colours").click()
    assert brightness(chat) > 0.8
    chat.open()
    assert brightness(chat) > 0.8, "the choice is remembered"
    chat.button("Dark colours").click()
    assert brightness(chat) < 0.2
    chat.page.emulate_media(color_scheme="light")
    assert brightness(chat) > 0.8, "back at the system's choice, the page follows the system"


def test_nothing_moves_where_motion_is_not_wanted(open_chat: Any, chat_server: str) -> None:
    for wanted in ("no-preference", "reduce"):
        chat = open_chat(chat_server, "endless", reduced_motion=wanted)
        chat.start("Hello!")
        chat.until("document.querySelector('.running .text')?.textContent.length > 20")
        moving = chat.page.evaluate("document.getAnimations().length")
        assert (moving > 0) == (wanted == "no-preference")
        chat.page.keyboard.press("Escape")
        chat.wait()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(open_chat: Any, chat_server: str, scheme: str) -> None:
    chat = open_chat(chat_server, color_scheme=scheme, reduced_motion="reduce")
    checker = axe.Axe()

    def check(what: str) -> None:
        found = checker.run(chat.page)
        assert found.violations_count == 0, f"{what}: {found.generate_report()}"

    check("welcome")
    chat.say("Hello!")
    chat.say("Tell me a story.")
    chat.button("Regenerate", within=3).click()
    chat.until("document.querySelector('.message:last-child').textContent.includes('2\u2009/\u20092')")
    chat.wait()
    check("conversation")
    chat.button("Probabilities").click()
    chat.page.locator(".token").nth(1).focus()
    chat.page.locator(".token").nth(1).hover()
    chat.page.get_by_role("tooltip").wait_for()
    check("probabilities")
    chat.button("Settings").click()
    check("settings")
    chat.button("Close settings").click()
    chat.box.press("ArrowUp")
    check("edit")
    chat.page.keyboard.press("Escape")
    chat.button("Keys").click()
    check("help")
    chat.page.keyboard.press("Escape")
    chat.page.route(
        "**/v1/chat/completions", lambda route: route.fulfill(status=503, json={"error": {"message": "busy"}})
    )
    chat.start("Hello!")
    chat.page.locator(".error:visible").wait_for()
    check("error")
    chat.button("Clear").click()
    check("cleared")
    chat.complaints.clear()
