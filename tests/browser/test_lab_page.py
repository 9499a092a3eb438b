"""The lab's page as a whole: its journey, its keys, time travel, forks, a lost connection; for everyone."""

from __future__ import annotations

from typing import Any

import pytest

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

SEEN = ("loss", "samples", "tokens", "attention", "probabilities", "lens", "graph")
PANELS = (*SEEN, "parameters", "embeddings", "knockout", "compare", "trace")


def test_the_journey_with_the_keyboard_alone(open_lab: Any, lab_server: str) -> None:
    lab = open_lab(lab_server)
    keys = lab.page.keyboard
    lab.page.goto(lab_server)
    lab.page.locator(".bar").wait_for()
    keys.press("n")
    form = lab.page.get_by_role("dialog", name="A new session")
    form.wait_for()
    lab.until("document.activeElement.textContent.startsWith('Start')")  # it is given the focus once it is drawn
    lab.page.get_by_label("steps", exact=True).focus()
    keys.press("ControlOrMeta+a")
    keys.type("30")
    keys.press("Enter")
    lab.until("import('/static/store.js').then(({ state }) => state.metadata?.num_steps === 30)")
    lab.page.locator("#loss canvas").first.wait_for()
    form.wait_for(state="hidden")  # it closes last, and keys are its own until then
    keys.press("s")
    lab.until("document.querySelector('[data-fact=step]').textContent === 'step 1 of 30'")
    keys.press("c")
    lab.page.locator("#samples section").first.wait_for()
    lab.page.get_by_label("Speed").select_option("5 a second")
    lab.page.evaluate("document.activeElement.blur()")
    keys.press("r")
    lab.page.get_by_role("button", name="Pause").wait_for()
    lab.until("import('/static/store.js').then(({ state }) => state.newest >= 3)")
    keys.press("p")
    lab.page.get_by_role("button", name="Run").wait_for()
    keys.press("[")
    lab.until("/^step [0-9]+ of [0-9]+$/.test(document.querySelector('[data-fact=step].past').textContent)")
    keys.press("l")
    lab.until("!document.querySelector('[data-fact=step].past')")
    keys.press("?")
    sheet = lab.page.get_by_role("dialog", name="Keys")
    sheet.wait_for()
    for key in "NSRPC":
        assert sheet.locator("kbd", has_text=key).count() >= 1
    keys.press("Escape")
    sheet.wait_for(state="hidden")
    for panel, choices in (("tokens", ".token"), ("attention", ".head-button"), ("graph", ".node")):
        last = lab.show(panel).locator(choices).last
        last.focus()
        keys.press("Enter")
        lab.until("choice => choice.ariaPressed === 'true'", last.element_handle())


def test_every_panel_goes_back_in_time(lab: Any) -> None:
    lab.page.get_by_label("Time travel").fill("7")
    lab.until("document.querySelector('[data-fact=step]').textContent === 'step 7 of 30'")
    tokens, _ = lab.look("tokens", 7)
    lab.show("tokens")
    lab.shows("batch-loss", tokens["loss"], abs=1e-3)
    graph, _ = lab.look("graph", 7)
    lab.show("graph")
    lab.shows("graph-loss", graph["loss"], abs=1e-3)
    knockout, _ = lab.look("knockout", 7)
    lab.show("knockout")
    lab.shows("whole", knockout["whole"], abs=1e-3)
    lab.show("parameters")
    lab.until("document.querySelector('#parameters .readout').textContent.startsWith('Over update 7.')")
    lab.page.get_by_role("button", name="Newest").click()
    lab.until("document.querySelector('#parameters .readout').textContent.startsWith('Over update 30.')")


def test_the_address_holds_what_is_looked_at(lab: Any) -> None:
    lab.page.get_by_label("Time travel").fill("11")
    lab.show("attention").get_by_role("button", name="layer 0, head 3").click()
    lab.page.locator("#attention .tokens .token").nth(1).click()
    lab.until("['step=11', 'head=3', 'pos=1'].every((word) => location.hash.includes(word))")
    address = lab.page.url
    lab.page.goto("about:blank")
    lab.page.goto(address)
    lab.until("document.querySelector('[data-fact=step]')?.textContent === 'step 11 of 30'")
    lab.show("attention")
    lab.until("document.querySelector('[data-fact=attention]')?.textContent.endsWith('at place 1, layer 0, head 3')")


def test_a_fork_goes_on_alone_and_lies_beside_its_origin(lab: Any) -> None:
    lab.page.get_by_label("Time travel").fill("20")
    lab.page.get_by_role("button", name="Fork", exact=True).click()
    form = lab.page.get_by_role("dialog", name="Fork")
    form.get_by_label("learning rate").fill("0.05")
    form.get_by_label("called").fill("hotter")
    form.get_by_role("button", name="Fork").click()
    lab.until("import('/static/store.js').then(({ state }) => state.metadata?.name === 'hotter')")
    assert lab.state("state.metadata.parent") == {"session_id": lab.session, "step": 20}
    assert lab.state("state.newest") == 20
    lab.until("import('/static/store.js').then(({ state }) => state.busy === '')")
    lab.page.keyboard.press("s")
    lab.until("import('/static/store.js').then(({ state }) => state.newest === 21)")
    assert lab.state("state.branches.map(({ row }) => row.session_id)") == [lab.session]
    assert lab.page.get_by_text("the other branch").is_visible()
    own = lab.state("state.points.at(-1)")
    told = lab.ask(f"session/{lab.session}/scalars")
    before = dict(zip(told["columns"], told["rows"][20]))
    assert own["loss"] == before["loss"], "the loss of update 21 is measured before it is made"
    assert own["learning_rate"] == pytest.approx(5 * before["learning_rate"])


def test_a_lost_connection_comes_back_without_a_gap(open_lab: Any, lab_server: str, trained: str) -> None:
    lab = open_lab(lab_server, trained)
    connections: list[Any] = []

    def through(socket: Any) -> None:
        socket.connect_to_server()
        connections.append(socket)

    lab.page.route_web_socket("**/ws/**", through)
    session = lab.ask("session/start", {"num_steps": 12, "seed": 7})["session_id"]
    lab.session = session
    lab.open()
    lab.page.get_by_text("connected").wait_for()
    lab.ask(f"session/{session}/step", {})
    lab.until("import('/static/store.js').then(({ state }) => state.points.length === 1)")
    connections[0].close()
    for _ in range(3):
        lab.ask(f"session/{session}/step", {})
    lab.until("import('/static/store.js').then(({ state }) => state.points.length === 4)")
    assert len(connections) == 2
    lab.ask(f"session/{session}/step", {})
    lab.until("import('/static/store.js').then(({ state }) => state.points.length === 5)")
    assert lab.state("state.points.map((point) => point.step)") == [1, 2, 3, 4, 5]
    told = lab.ask(f"session/{session}/scalars")
    assert lab.state("state.points.map((point) => point.loss)") == [row[1] for row in told["rows"]]


def test_running_streams_what_is_seen(open_lab: Any, lab_server: str) -> None:
    lab = open_lab(lab_server)
    lab.session = lab.ask("session/start", {"num_steps": 40, "seed": 3})["session_id"]
    lab.open()
    posts: list[str] = []
    lab.page.locator("#tokens .token").first.wait_for()
    lab.page.wait_for_timeout(300)
    lab.page.on(
        "request", lambda request: posts.append(request.post_data or "") if "inspect" in request.url else None
    )
    lab.page.get_by_label("Speed").select_option("20 a second")
    lab.page.get_by_role("button", name="Run").click()
    lab.until("/update ([5-9]|1[0-9]) /.test(document.querySelector('#tokens .readout').textContent)")
    assert posts == [], "while it runs the panels are streamed, not asked for"
    lab.page.get_by_role("button", name="Pause").click()
    lab.page.get_by_role("button", name="Run").wait_for()
    newest = lab.state("state.newest")
    lab.until(f"document.querySelector('#tokens .readout').textContent.includes('update {newest + 1} ')")


def test_mistakes_are_said_in_the_servers_words(lab: Any) -> None:
    lab.page.get_by_role("button", name="New N").click()
    form = lab.page.get_by_role("dialog", name="A new session")
    form.get_by_label("width (n_embd)").fill("18")
    form.get_by_role("button", name="Start").click()
    notice = lab.page.locator(".notice")
    notice.wait_for()
    assert "n_embd" in notice.inner_text()
    lab.complaints[:] = [one for one in lab.complaints if "422" not in one and "400" not in one]


def test_the_tour_ends_and_is_not_shown_again(lab: Any) -> None:
    assert lab.page.locator(".tour").count() == 0, "this reader has seen it"
    lab.page.get_by_role("button", name="Tour").click()
    tour, titles = lab.page.locator(".tour"), set()
    for stop in range(1, 8):
        tour.get_by_text(f"{stop} of 7").wait_for()
        titles.add(tour.locator("h2").inner_text())
        assert lab.page.locator(".toured").count() == 1, "what is spoken of is shown"
        tour.get_by_role("button", name="Next" if stop < 7 else "Close").click()
    tour.wait_for(state="detached")
    assert len(titles) == 7
    assert lab.page.locator(".toured").count() == 0


@pytest.mark.parametrize(
    "options",
    [{}, {"color_scheme": "dark"}, {"viewport": {"width": 360, "height": 740}}],
    ids=["light", "dark", "narrow"],
)
def test_axe_finds_nothing(open_lab: Any, lab_server: str, trained: str, options: dict[str, Any]) -> None:
    lab = open_lab(lab_server, trained, reduced_motion="reduce", bypass_csp=True, **options)
    lab.open()
    for panel in PANELS:
        lab.show(panel).get_by_role("button", name="About").click()
        lab.page.locator(f"#{panel} .wait").wait_for(state="detached")
    lab.page.locator("#graph .node").nth(8).click()
    lab.page.get_by_role("button", name="Look inside").click()
    lab.page.locator("#operands").wait_for()
    lab.page.locator("#parameters .text-button").first.click()
    lab.page.get_by_role("button", name="Why did it move?").click()
    lab.page.locator("#terms").wait_for()
    lab.page.locator("#compare").get_by_role("button", name="Compare", exact=True).click()
    lab.page.locator("#compare-table").wait_for()
    found = axe.Axe().run(lab.page)
    assert found.violations_count == 0, found.generate_report()
    assert lab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    lab.page.keyboard.press("n")
    start = lab.page.get_by_role("dialog").get_by_role("button", name="Start")
    start.wait_for()
    lab.page.wait_for_function("b => !b.disabled && !document.getAnimations().length", arg=start.element_handle())
    found = axe.Axe().run(lab.page)
    assert found.violations_count == 0, found.generate_report()


def test_a_run_of_the_trainer_is_looked_into(open_lab: Any, lab_server: str) -> None:
    lab = open_lab(lab_server)
    ended = lab.ask("session/start", {"num_steps": 5, "name": "ended", "seed": 9})["session_id"]
    lab.ask(f"session/{ended}/run", {"steps": 5, "delay_ms": 0})
    lab.session, lab.ended = ended, {ended}
    lab.open()
    lab.until("document.querySelector('[data-fact=step]').textContent === 'step 5 of 5'")
    loss = lab.ask(f"session/{ended}/scalars")["rows"][-1][1]
    lab.shows("loss", loss, abs=1e-3)
    lab.close(ended)
    lab.page.goto("about:blank")
    lab.page.goto(lab_server)
    lab.page.locator(".bar").wait_for()
    lab.page.keyboard.press("n")
    lab.page.get_by_role("region", name="Runs").get_by_role("button", name="ended").first.click()
    lab.until("import('/static/store.js').then(({ state }) => state.metadata?.kind === 'run')")
    lab.page.locator("#loss canvas").first.wait_for()
    lab.until("document.querySelector('[data-fact=step]').textContent.startsWith('step 5 ')")
    lab.shows("loss", loss, abs=1e-3)
    lab.show("attention")
    lab.page.locator("#attention-table").wait_for(state="attached")
    assert not lab.page.get_by_role("button", name="Run R").is_visible()


def test_a_session_is_ended_here_and_elsewhere(open_lab: Any, lab_server: str, trained: str) -> None:
    lab = open_lab(lab_server)
    first, second = (lab.ask("session/start", {"num_steps": 5, "seed": seed})["session_id"] for seed in (1, 2))
    lab.session, lab.ended = first, {first, second}
    lab.open()
    lab.page.get_by_role("button", name="End").click()
    lab.until("id => import('/static/store.js').then(({ state }) => state.sessionId === id)", second)
    assert first not in lab.sessions()
    lab.page.get_by_text("connected").wait_for()
    lab.page.locator("#loss canvas").first.wait_for()
    lab.until("import('/static/store.js').then(({ state }) => state.busy === '')")
    lab.close(second)
    lab.page.get_by_text("The session has ended.").wait_for()
    lab.until("id => import('/static/store.js').then(({ state }) => state.sessionId === id)", trained)
