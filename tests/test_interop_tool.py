"""What the peers said is on the page; they themselves are run by hand, in environments of their own."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def interop():
    specification = importlib.util.spec_from_file_location("interop_tool", ROOT / "tools" / "interop.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_page_has_what_the_peers_of_these_versions_said(interop):
    written = interop.PAGE.read_text().partition(interop.BEGIN)[2].partition(interop.END)[0]
    for peer in interop.PEERS:
        assert peer.requirement.replace("==", " ") in written
        assert (ROOT / "tools" / "peers" / peer.script).is_file() and peer.script in written


def test_only_the_part_between_the_marks_is_written(interop, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{interop.BEGIN}old\n{interop.END}after\n")
    monkeypatch.setattr(interop, "PAGE", page)
    for _ in range(2):
        interop.write_page("new\n")
        assert page.read_text() == f"before\n{interop.BEGIN}\nnew\n\n{interop.END}after\n"


def test_a_command_that_fails_ends_the_run_with_what_it_said(interop, tmp_path):
    with pytest.raises(SystemExit, match="no such peer"):
        interop.output([interop.sys.executable, "-c", "raise SystemExit('no such peer')"], tmp_path)
