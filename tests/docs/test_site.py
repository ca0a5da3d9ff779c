"""The site is built from every page, without a warning and without anything from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import site
from tools.manual.tables import ROOT

FETCHED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"([^\"]+)\"|<link\b[^>]*\bhref=\"([^\"]+)\"|@import|url\(([^)]+)\)"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole site."""
    out = tmp_path_factory.mktemp("site") / "html"
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "site.py"), str(out)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return out


@pytest.mark.timeout(300)
def test_every_page_is_in_the_site(built: Path) -> None:
    assert (built / "index.html").exists()
    missing = [page for page in site.pages() if not (built / site.placed(page).with_suffix(".html")).exists()]
    assert missing == []


def test_nothing_is_fetched_from_elsewhere(built: Path) -> None:
    for file in (built / "index.html", built / "tutorial.html", *(built / "_static").rglob("*.css")):
        for found in FETCHED.findall(file.read_text("utf-8")):
            for address in found:
                assert not re.match(r"[\"']?(https?:)?//", address), (file.name, address)


def test_the_navigation_has_every_page_but_those_of_errors(built: Path) -> None:
    tree = (built / "tutorial.html").read_text("utf-8").partition('class="sidebar-tree"')[2].partition("</aside>")[0]
    linked = set(re.findall(r'class="reference internal" href="([^"#]+)', tree)) | {"tutorial.html", "index.html"}
    wanted = {site.placed(page).with_suffix(".html").as_posix() for page in site.pages()}
    assert {page for page in wanted if not page.startswith("reference/errors/")} - linked == set()


BROKEN = {
    "a link that leads nowhere": ("see [it](nowhere.md)\n", "nowhere"),
    "an anchor that is not there": ("see [it](#not-here)\n", "not-here"),
    "an image that is not there": ("![it](images/none.png)\n", "none.png"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_fails_the_build(what: str, tmp_path: Path) -> None:
    text, named = BROKEN[what]
    assert _built(
        tmp_path, {"README.md": "# Index\n\n## More\n\n[other](other.md)\n", "other.md": f"# Other\n\n{text}"}, named
    )


def test_a_page_that_no_index_names_fails_the_build(tmp_path: Path) -> None:
    assert _built(tmp_path, {"README.md": "# Index\n", "other.md": "# Other\n"}, "toctree")


def _built(folder: Path, pages: dict[str, str], named: str) -> bool:
    """Whether building these pages alone fails, and says this."""
    docs = folder / "docs"
    docs.mkdir()
    for name, text in pages.items():
        (docs / name).write_text(text, "utf-8")
    script = (
        "import sys; from pathlib import Path; from tools import site\n"
        "conf, site.ROOT = str(site.DOCS), Path(sys.argv[1])\n"
        "site.DOCS, site.CONFIGURATION = site.ROOT / 'docs', conf\n"
        "site.pages = lambda: sorted(site.DOCS.rglob('*.md'))\n"
        "sys.exit(site.build(site.ROOT / 'out'))\n"
    )
    command = [sys.executable, "-c", script, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    return done.returncode == 1 and named in done.stderr
