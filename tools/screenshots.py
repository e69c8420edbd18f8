"""The pictures of docs/annotating.md: a real session on real clips, in a headless Chromium.

python tools/screenshots.py .venv/browser/chromium
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parents[1] / "docs" / "images"
DATASET = "feedbackgen/SafetyPointGoal1-v0/pictures-v0"
FBGEN = [sys.executable, "-W", "ignore", "-c", "from fbgen.main import main; main()"]
PHONE = {"viewport": {"width": 390, "height": 780}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
DESKTOP = {"viewport": {"width": 1100, "height": 820}}
VIEWS = {
    "annotate-desktop": ("preferences", DESKTOP),
    "annotate-dark": ("safety", {**DESKTOP, "color_scheme": "dark"}),
    "annotate-phone": ("preferences", PHONE),
}
WAIT = 60_000  # milliseconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("browser", help="a Chromium")
    browser_path = parser.parse_args().browser
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"MINARI_DATASETS_PATH": folder, "FEEDBACKGEN_CACHE": folder}
        collect = ["collect", "SafetyPointGoal1-v0", "-n", "6", "--policy", "expert", "--policy", "safe-expert",
                   "--policy", "medium", "--name", "pictures", "--max-episode-steps", "300"]  # fmt: skip
        subprocess.run([*FBGEN, *collect], check=True, env=environment, stdout=subprocess.DEVNULL)
        for kind in ("preferences", "safety"):
            views = {name: context for name, (asked, context) in VIEWS.items() if asked == kind}
            session = [
                "annotate",
                DATASET,
                "--feedback",
                kind,
                "--ask",
                kind,
                "--gold",
                "0",
                "--port",
                "0",
                "--invite",
                "Ada",
            ]
            server = subprocess.Popen([*FBGEN, *session], env=environment, stdout=subprocess.PIPE, text=True)
            try:
                server.stdout.readline()
                link = server.stdout.readline().rsplit(" ", 1)[1].strip()
                with sync_playwright() as playwright:
                    browser = playwright.chromium.launch(
                        executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"]
                    )
                    for name, context in views.items():
                        page = browser.new_context(**context).new_page()
                        page.set_default_timeout(WAIT)
                        page.goto(link)
                        while not page.evaluate(
                            "[...document.querySelectorAll('video')].some(v => v.currentTime > 0.8)"
                        ):
                            page.wait_for_timeout(
                                20
                            )  # the page allows no code but its own, so it is asked from outside
                        page.keyboard.press("Space")
                        page.screenshot(path=IMAGES / f"{name}.png")
                    browser.close()
            finally:
                server.send_signal(signal.SIGINT)
                server.wait(30)


if __name__ == "__main__":
    main()
