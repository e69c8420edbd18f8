"""A browser for the tests of the page."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium: the one that `make test` installs into .venv, or the machine's own."""
    sync_api = pytest.importorskip("playwright.sync_api")
    installed = Path(sys.prefix) / "browser" / "chromium"
    names = ("chromium", "chromium-browser", "google-chrome")
    found = installed if installed.is_file() else next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium: neither in .venv/browser (tests/install_browser.sh needs npm) nor on this machine")
    # Chromium takes no sandbox as root, nor in most containers.
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    environment = dict(os.environ)
    if found == installed and "not found" in subprocess.run(["ldd", found], capture_output=True, text=True).stdout:
        environment["LD_LIBRARY_PATH"] = str(installed.parent / "al2023" / "lib")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=arguments, env=environment)
        yield chromium
        chromium.close()
