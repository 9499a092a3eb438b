"""The chat page and the lab in a real browser, on real servers with small models."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import microgpt

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, Request

CHROMIUM = Path("/usr/bin/chromium")
WAIT_MS = 90_000


def number_of(text: str) -> float:
    """The number that a text of a page is; NaN where it has none yet."""
    digits = re.sub(r"[^0-9.e-]", "", text.replace("\u2212", "-"))
    return float(digits) if digits.strip("-") else math.nan


def wait_until(page: Page, script: str, arg: Any = None) -> None:
    """Wait until a script is true of a page; what it reads may not be drawn yet.

    Playwright's own way evaluates in the page, which the pages' CSP forbids.
    """
    from playwright.sync_api import Error

    deadline = time.monotonic() + WAIT_MS / 1000
    while True:
        missing = ""
        try:
            if page.evaluate(script, arg):
                return
        except Error as error:
            missing = str(error)
            if "Cannot read properties of" not in missing:
                raise
        assert time.monotonic() < deadline, f"this did not become true: {script} {missing}"
        page.wait_for_timeout(20)


@pytest.fixture(scope="session", autouse=True)
def _needed() -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there: no browser to test with")
    for package in ("playwright", "fastapi", "uvicorn"):
        pytest.importorskip(package, reason=f"{package} is not installed")


@pytest.fixture(scope="session")
def chat_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models of models.py."""
    folder = tmp_path_factory.mktemp("models")
    script = Path(__file__).with_name("models.py")
    subprocess.run([sys.executable, str(script), str(folder)], check=True, timeout=300)
    return folder


@contextlib.contextmanager
def serving(*options: str, log: Path, **env: str) -> Iterator[str]:
    """The address of a real server that has loaded its models; it is gone afterwards."""
    words = [sys.executable, "-m", "microgpt.cli", "serve", "--port", "0", *options]
    with open(log, "w") as file:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=file, text=True, env={**os.environ, **env})
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"(http://127\.0\.0\.1:\d+)", line)
        assert found, f"the server did not start: {line!r} {log.read_text()}"
        address = found[1] + "/"
        deadline = time.monotonic() + 120
        while not answers(address + "ready"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the models are not loaded"
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate(timeout=20)


def answers(address: str) -> bool:
    """Whether an address answers 200."""
    try:
        with urllib.request.urlopen(address, timeout=10):
            return True
    except OSError:
        return False


@pytest.fixture(scope="session")
def chat_server(chat_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with all models of models.py."""
    named = [f"--model={name}={chat_models / name}" for name in ("taught", "endless", "plain")]
    with serving(*named, log=tmp_path_factory.mktemp("server") / "log") as address:
        yield address


@pytest.fixture
def serve_at(tmp_path: Path) -> Callable[..., contextlib.AbstractContextManager[str]]:
    """A server of the test's own: `with serve_at(folder, NAME=value) as address`."""
    return lambda model, **env: serving("--model-dir", str(model), log=tmp_path / "server.log", **env)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. No longer than a module: while Playwright runs, its thread has an event loop."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield launched
        launched.close()


class Chat:
    """The page as a reader uses it.

    Attributes:
        page: Playwright's page.
        bodies: what the page asked the server for, oldest first.
        complaints: errors on the browser's console, uncaught ones, and requests to other hosts.
    """

    def __init__(self, context: BrowserContext, address: str, ready: bool = True) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.address = address
        self.bodies: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._request)
        self.open(ready)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self.address, "blob:" + self.address)):
            self.complaints.append(f"request to {request.url}")
        if request.method == "POST":
            self.bodies.append(json.loads(request.post_data or ""))

    def open(self, ready: bool = True) -> None:
        """Load the page, or load it again, and wait until it knows its models."""
        self.page.goto(self.address)
        if ready:
            self.until("document.querySelector('#model').value !== 'Loading…'")

    def until(self, script: str, arg: Any = None) -> None:
        """Wait until a script is true."""
        wait_until(self.page, script, arg)

    @property
    def box(self) -> Locator:
        return self.page.locator("#box")

    def start(self, text: str) -> None:
        """Send without waiting for the reply."""
        self.box.fill(text)
        self.box.press("Enter")

    def wait(self) -> None:
        """Until no reply is being written."""
        self.page.locator("#stop").wait_for(state="hidden")
        self.page.evaluate("new Promise(requestAnimationFrame)")

    def say(self, text: str) -> str:
        """Send and wait; the reply."""
        count = self.page.locator(".message").count()
        self.start(text)
        self.until("n => document.querySelectorAll('.message').length === n", count + 2)
        self.wait()
        return self.texts()[-1]

    def texts(self) -> list[str]:
        """What the messages say, oldest first."""
        return self.page.locator(".message .text").evaluate_all("all => all.map(one => one.textContent)")

    def message(self, index: int) -> Locator:
        return self.page.locator(".message").nth(index)

    def button(self, name: str, within: int | None = None) -> Locator:
        """A button by its name, on the whole page or within one message."""
        root = self.page if within is None else self.message(within)
        return root.get_by_role("button", name=name, exact=True)


OpenChat = Callable[..., Chat]


@pytest.fixture
def open_chat(browser: Browser) -> Iterator[OpenChat]:
    """Open the page of a server in a browser that knows nothing yet; at the end, nobody may have complained.

    Options are those of Playwright's `new_context`; a test that provokes complaints clears `complaints`.
    """
    with contextlib.ExitStack() as stack:
        chats: list[Chat] = []

        def start(address: str, model: str = "taught", ready: bool = True, **options: Any) -> Chat:
            context = browser.new_context(**{"viewport": {"width": 1100, "height": 800}, **options})
            stack.callback(context.close)
            chats.append(Chat(context, address, ready))
            if model and ready:
                chats[-1].page.get_by_label("Model").select_option(model)
            return chats[-1]

        yield start
        assert [complaint for chat in chats for complaint in chat.complaints] == []


@pytest.fixture
def chat(open_chat: OpenChat, chat_server: str) -> Chat:
    """The page with the model that knows a few conversations."""
    return open_chat(chat_server)


Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask() -> Ask:
    """Ask the API itself: the same request without the page."""

    def post(address: str, body: dict[str, Any]) -> dict[str, Any]:
        whole = {key: value for key, value in body.items() if key not in ("stream", "stream_options")}
        request = urllib.request.Request(
            address + "v1/chat/completions",
            json.dumps(whole).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    return post


@contextlib.contextmanager
def lab_serving(folder: Path) -> Iterator[str]:
    """The address of a real `microgpt lab` whose runs go into a folder; it is gone afterwards."""
    words = [sys.executable, "-m", "microgpt.cli", "lab", "--port", "0", "--no-browser", "--tracking", "off"]
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"(http://127\.0\.0\.1:\d+)", line)
        assert found, f"the lab did not start: {line!r} {(folder / 'server.log').read_text()}"
        yield found[1] + "/"
    finally:
        process.terminate()
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate(timeout=20)


@pytest.fixture(scope="session")
def lab_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a lab without sessions; the page's libraries must be installed."""
    page = Path(microgpt.__file__).parent / "lab" / "static" / "vendor" / "preact.js"
    if not page.is_file():
        pytest.skip("the lab's page has no libraries: make setup installs them where npm is")
    with lab_serving(tmp_path_factory.mktemp("lab")) as address:
        yield address


class Lab:
    """The lab's page as a reader uses it, and the API beside it.

    Attributes:
        page: Playwright's page.
        address: of the server.
        session: id of the session that the tests look into.
        complaints: errors on the browser's console, uncaught ones, and requests to other hosts.
        ended: sessions that the test ends: a question on its way then has no answer, and that is no complaint.
    """

    def __init__(self, context: BrowserContext, address: str, session: str) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.address, self.session = address, session
        self.complaints: list[str] = []
        self.ended: set[str] = set()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        place = message.location.get("url", "")
        if message.type in ("error", "warning") and not any(f"{id}/inspect" in place for id in self.ended):
            self.complaints.append(f"{message.text} {place}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self.address, "blob:" + self.address, "data:")):
            self.complaints.append(f"request to {request.url}")

    def open(self, words: str = "") -> None:
        """The page of the session; `words` are further ones of the address, such as `&step=3`."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.address}#session={self.session}{words}")
        self.page.locator("#loss canvas").first.wait_for()

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The API's answer: GET, or POST with a body."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address + "api/" + path, data, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def sessions(self) -> set[str]:
        """Ids of all sessions of the server."""
        return {row["session_id"] for row in self.ask("sessions")["sessions"]}

    def close(self, session: str) -> None:
        """End a session on the server."""
        request = urllib.request.Request(f"{self.address}api/session/{session}", method="DELETE")
        urllib.request.urlopen(request, timeout=60).close()

    def look(
        self, panel: str, step: int | None = None, **params: Any
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What the engine says of a panel: data, and tensors by name."""
        body = {"panel": panel, "step": step, "params": params}
        told = self.ask(f"session/{self.session}/inspect", body)
        tensors = {
            name: np.frombuffer(base64.b64decode(one["f32"]), "<f4").reshape(one["shape"])
            for name, one in told["tensors"].items()
        }
        return told["data"], tensors

    def fact(self, name: str) -> str:
        """A number or words that the page names, once they are there."""
        return self.page.locator(f"[data-fact={name}]").first.text_content() or ""

    def shows(self, name: str, value: float, abs: float = 0, rel: float = 0) -> None:
        """Wait until a number that the page names is this one, or near it; older ones may stand there before."""
        deadline = time.monotonic() + WAIT_MS / 1000
        while (shown := number_of(self.fact(name))) != pytest.approx(value, abs=abs, rel=rel):
            assert time.monotonic() < deadline, f"{name} is {shown} and not {value}"
            self.page.wait_for_timeout(20)

    def says(self, name: str, words: str) -> None:
        """Wait until a text that the page names has these words."""
        self.until(
            "([name, words]) => document.querySelector(`[data-fact=${name}]`)?.textContent.includes(words)",
            [name, words],
        )

    def until(self, script: str, arg: Any = None) -> None:
        """Wait until a script is true."""
        wait_until(self.page, script, arg)

    def state(self, script: str) -> Any:
        """A value of the page's own state: `script` is an expression of `state`."""
        return self.page.evaluate(f"import('/static/store.js').then(({{ state }}) => {script})")

    def show(self, panel: str) -> Locator:
        """A panel, scrolled to."""
        found = self.page.locator(f"#{panel}")
        found.scroll_into_view_if_needed()
        return found


OpenLab = Callable[..., Lab]


@pytest.fixture
def open_lab(browser: Browser) -> Iterator[OpenLab]:
    """The lab's page in a browser that has seen the tour; at the end, nobody may have complained."""
    with contextlib.ExitStack() as stack:
        labs: list[Lab] = []
        before: dict[str, set[str]] = {}

        def start(address: str, session: str = "", **options: Any) -> Lab:
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
            context.add_init_script("try { localStorage.setItem('microgpt.lab.tour', '1') } catch {}")
            stack.callback(context.close)
            labs.append(Lab(context, address, session))
            if address.startswith("http") and address not in before:
                before[address] = labs[-1].sessions()
                stack.callback(lambda one: [one.close(id) for id in one.sessions() - before[address]], labs[-1])
            return labs[-1]

        yield start
        assert [complaint for one in labs for complaint in one.complaints] == []


@pytest.fixture(scope="module")
def trained(lab_server: str) -> str:
    """A session of 40 steps, the first 30 of them done."""

    def ask(path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(lab_server + "api/" + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    session = ask("session/start", {"num_steps": 40, "name": "known"})["session_id"]
    ask(f"session/{session}/run", {"steps": 30, "delay_ms": 0})
    deadline = time.monotonic() + 180
    while ask(f"session/{session}")["running"]:
        assert time.monotonic() < deadline, "30 steps take too long"
        time.sleep(0.1)
    return session


@pytest.fixture
def lab(open_lab: OpenLab, lab_server: str, trained: str) -> Lab:
    """The page of the trained session."""
    opened = open_lab(lab_server, trained)
    opened.open()
    return opened
