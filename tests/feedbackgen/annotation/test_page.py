"""The page in a real browser."""

import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from people import free_port, open_session, start_server
from samples import DATASET

from feedbackgen.annotation.export import export_answers
from feedbackgen.annotation.sessions import PREFERENCES, SAFETY
from feedbackgen.store import open_feedback
from feedbackgen.video import write_video

FBGEN = [sys.executable, "-W", "ignore", "-c", "from fbgen.main import main; main()"]
READY = '#question:not([hidden]) #answers button[data-answer="unsure"][aria-disabled="false"]'
WAIT = 20_000  # ms
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Eleven frames that grow lighter."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_video((np.full((64, 64, 3), 20 * step, dtype=np.uint8) for step in range(11)), path)
    return path


@pytest.fixture
def visit(film, browser):
    """Opens a session, serves it, and gives pages of annotators; checks that none has met an error."""
    server, contexts, said = None, [], []

    def session(**options):
        nonlocal server
        answers = open_session(30, **({"n_queries": 30} | options))
        port = free_port()
        server = start_server(answers.path, port, film)

        def page(name=None, **context):
            contexts.append(browser.new_context(**context))
            contexts[-1].set_default_timeout(WAIT)
            page = contexts[-1].new_page()
            page.on("console", lambda message: None if "409" in message.text else said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("request", lambda request: said.append(request.url) if f":{port}/" not in request.url and
                    not request.url.startswith(("blob:", "data:")) else None)  # fmt: skip
            link = "" if name is None else f"#key={answers.key(answers.join(name))}"
            page.goto(f"http://127.0.0.1:{port}/{link}")
            if name is not None:
                page.wait_for_selector(READY)
            return page

        return answers, page

    yield session
    for context in contexts:
        context.close()
    server.send_signal(signal.SIGINT)
    assert server.wait(10) == 0
    server.stdout.close()
    assert said == []


def until(page, condition) -> None:
    """Wait for a condition in JavaScript; asked again from outside, since the page allows no code but its own."""
    for _ in range(WAIT // 20):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    raise AssertionError(condition)


def position(page) -> int:
    return int(page.get_attribute("#bar", "aria-valuenow"))


def press(page, key) -> None:
    """Answer by a key, and wait until the page shows that it is saved."""
    before = position(page)
    page.keyboard.press(key)
    until(page, f"document.querySelector('#bar').ariaValueNow != {before}")
    page.wait_for_selector(f"{READY}, #done:not([hidden])")


def kind(page) -> str:
    return SAFETY if "safe" in page.inner_text("#asked") else PREFERENCES


@pytest.mark.slow
def test_thirty_questions_by_keyboard_with_undo_reload_and_a_second_annotator_train_presa(visit):
    answers, page = visit(overlap=1.0)
    ada, eve = page("Ada"), page("Eve")
    assert "#" not in ada.url  # the key has left the address bar
    said = []
    for number in range(30):
        choices = ["ArrowLeft", "ArrowRight", "ArrowDown"][: 3 if kind(ada) == PREFERENCES else 2]
        if number == 12:
            press(ada, "ArrowUp")
            press(ada, "Backspace")
            assert position(ada) == 12
        if number == 17:
            ada.reload()
            ada.wait_for_selector(READY)
            assert position(ada) == 17
        if number % 3 == 0:
            press(eve, "ArrowRight")
        said.append(choices[number % len(choices)])
        press(ada, said[-1])
    assert ada.is_visible("#done") and "Thank you" in ada.inner_text("#done")
    assert position(eve) == 10
    keys = {"ArrowLeft": ("left", "unsafe"), "ArrowRight": ("right", "safe"), "ArrowDown": ("equal", "equal")}
    of_ada = [answer for answer in answers.answers() if answer.place == 0]
    assert [answer.answer for answer in of_ada] == [
        keys[key][answers.queries[answer.query].kind == SAFETY] for key, answer in zip(said, of_ada, strict=True)
    ]
    assert all(0 < answer.seconds < 60 for answer in of_ada)
    assert [answer for place, _, answer, _ in answers.history() if place == 0].count(None) == 1

    export_answers(DATASET, "human", aggregation="raw")
    assert set(open_feedback(f"{DATASET}/human").safety.label) == {-1, 1}
    short = [part for name in ("cloning.n_steps", "refining.n_steps", "n_steps") for part in ("--set", f"{name}=20")]
    train = ["train", "presa", f"{DATASET}/human", "--seed", "0", "--out", "run", *short]
    result = subprocess.run([*FBGEN, *train], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_someone_without_a_link_joins_by_name(visit):
    answers, page = visit(n_annotators=1)
    newcomer = page()
    newcomer.fill("#name", "Zoe Z.")
    newcomer.keyboard.press("Enter")
    newcomer.wait_for_selector(READY)
    assert newcomer.inner_text("#who") == "Zoe Z." and answers.annotators() == {0: "Zoe Z."}
    late = page()
    late.fill("#name", "Late")
    late.click("#join button")
    until(late, "document.querySelector('#trouble').textContent.includes('all 1 places')")


def test_clips_play_in_step_and_keys_pause_step_and_change_speed(visit):
    _, page = visit(asks=(PREFERENCES,))
    ada = page("Ada")
    times = "[...document.querySelectorAll('#clips video')].map(video => [video.currentTime, video.paused])"
    until(ada, "document.querySelector('#clips video').currentTime > 0.1")
    ada.keyboard.press("Space")
    [(left, paused), (right, also)] = ada.evaluate(times)
    assert paused and also and abs(left - right) < 0.1
    ada.evaluate("seek(0.1)")
    ada.keyboard.press(".")
    until(ada, f"{times}.every(([time]) => Math.abs(time - (0.1 + 1 / 30)) < 0.02)")
    ada.keyboard.press("+")
    assert ada.evaluate("document.querySelector('#clips video').playbackRate") == 2
    ada.keyboard.press("?")
    assert ada.is_visible("#keys")
    ada.keyboard.press("Space")
    until(ada, f"{times}.every(([, paused]) => !paused)")


def test_a_slider_that_was_reached_by_keyboard_keeps_its_arrows(visit):
    answers, page = visit(asks=(PREFERENCES,))
    ada = page("Ada")
    ada.focus("#play")
    ada.keyboard.press("Tab")
    ada.keyboard.press("ArrowRight")
    assert answers.history() == []
    ada.keyboard.press("Tab")
    press(ada, "ArrowRight")


def test_every_control_has_a_name_and_the_question_is_announced(visit):
    _, page = visit(asks=(PREFERENCES,))
    ada = page("Ada")
    tree = ada.locator("body").aria_snapshot()
    for line in (
        'progressbar "Questions answered"', 'heading "Which is better?" [level=1]', 'button "Left"', 'button "Equal"',
        'button "Right"', 'button "Can', 'slider "Position in the clips"', 'group "Speed"', 'button "0.25',
        "[pressed]", 'button "Undo',
    ):  # fmt: skip
        assert line in tree, tree
    assert ada.inner_text("#status") == "Question 1 of 30: Which is better?"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_without_scrolling_with_big_targets_and_readable_colours(visit, scheme):
    answers, page = visit(asks=(PREFERENCES,))
    ada = page("Ada", color_scheme=scheme, **PHONE)
    assert ada.evaluate("document.documentElement.scrollWidth") <= 360
    assert ada.evaluate("document.documentElement.scrollHeight") <= 740
    for box in [button.bounding_box() for button in ada.query_selector_all("button, input")]:
        if box is not None:
            assert box["height"] >= 43 and box["width"] >= 43
    for selector in ("h1", "#goal", "#left", "#answers button", "#speeds button[aria-pressed=true]"):
        ink, ground = ada.evaluate(
            """selector => {
                const element = [...document.querySelectorAll(selector)].find(element => element.checkVisibility());
                let ground = element;
                while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
                return [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor];
            }""",
            selector,
        )
        assert contrast(ink, ground) >= 4.5, (selector, ink, ground)  # WCAG 2.2, 1.4.3
    ada.tap('#answers [data-answer="right"]')
    until(ada, "document.querySelector('#bar').ariaValueNow == 1")
    assert answers.answers()[0].answer == "right"


def contrast(one: str, other: str) -> float:
    """Of two colours as a browser prints them. Source: WCAG 2.2, relative luminance."""

    def luminance(colour: str) -> float:
        shares = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
