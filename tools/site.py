"""Build the documents as a site: `python tools/site.py [OUT]`, by default into build/docs.

The pages are plain Markdown that reads well on a forge. They are laid out in a folder of their own: what lies in docs at
the root, the pages of the repository's root in `project`, examples in `examples`. Links are led to the new places; a file
that is no page is brought along as a download. The navigation is what the index pages link to, in their order, so a
page that no index names is an orphan, and any warning fails the build.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from sphinx.cmd.build import main as sphinx

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
CONFIGURATION = str(DOCS)
PROJECT = ("README.md", "ARCHITECTURE.md", "GLOSSARY.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
LINK = re.compile(r"(?P<before>!?\[(?:[^\]\[]|\[[^\]]*\])*\]\()(?P<target>[^)\s]+)\)")
CODE = re.compile(r"(^```.*?^```|`[^`\n]*`)", re.DOTALL | re.MULTILINE)
INDEXES = ("docs/README.md", "docs/adr/README.md")
"""Pages whose links are the navigation."""
ALONE = "docs/reference/errors"
"""One page for each code: found by its index and by search, too many for a tree beside every page."""


def build(out: Path, *, quiet: bool = False) -> int:
    """Lay the pages out and build them; the exit status, 0 only without a warning."""
    with tempfile.TemporaryDirectory(prefix="falaj-site-") as folder:
        source = Path(folder) / "source"
        lay_out(source)
        shutil.rmtree(out, ignore_errors=True)
        arguments = ["-b", "html", "-W", "--keep-going", "-j", "auto", "-c", CONFIGURATION, "-d", f"{folder}/trees"]
        return sphinx([*arguments, *(["-q"] if quiet else []), str(source), str(out)])


def lay_out(target: Path) -> None:
    """Write every page into its place in the site."""
    places = {page: placed(page) for page in pages()}
    for page, place in places.items():
        path = target / place
        path.parent.mkdir(parents=True, exist_ok=True)
        text = led(page, page.read_text("utf-8"), places, target)
        name = page.relative_to(ROOT).as_posix()
        if name in INDEXES:
            text += navigation(page, places)
        if name.startswith(ALONE) and page.name != "README.md":
            text = f"---\norphan: true\n---\n{text}"
        path.write_text(text, "utf-8")


def pages() -> list[Path]:
    """Every page of the site."""
    manual = [p for p in DOCS.rglob("*.md") if not any(part.startswith("_") for part in p.relative_to(DOCS).parts)]
    examples = (ROOT / "examples").glob("*/README.md")
    return sorted([*manual, *(ROOT / name for name in PROJECT), *examples])


def placed(page: Path) -> Path:
    """A page's path in the site: the index of a folder is its `index`."""
    if DOCS in page.parents:
        path = page.relative_to(DOCS)
    elif page.parent == ROOT:
        path = Path("project") / page.name.lower().replace("readme", "overview")
    else:
        path = Path("examples") / f"{page.parent.name}.md"
    return path.with_name("index.md") if path.name == "README.md" else path


def led(page: Path, text: str, places: dict[Path, Path], target: Path) -> str:
    """The text with its links led to the places in the site; code is left alone."""
    parts = CODE.split(text)
    for at in range(0, len(parts), 2):
        parts[at] = LINK.sub(lambda match: _link(match, page, places, target), parts[at])
    return "".join(parts)


def _link(match: re.Match[str], page: Path, places: dict[Path, Path], target: Path) -> str:
    link, _, fragment = match["target"].partition("#")
    if not link or re.match(r"[a-z][a-z+.-]*:", link):
        return match[0]
    there = Path(os.path.normpath(page.parent / link))
    if there.is_dir() and (there / "README.md") in places:
        there /= "README.md"
    here = (target / places[page]).parent
    if there in places:
        led_to = os.path.relpath(target / places[there], here)
    elif there.is_file():
        copy = target / "files" / there.relative_to(ROOT)
        copy = copy.with_name(f"{copy.name}.txt") if copy.suffix == ".md" else copy  # else it would be taken for a page
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(there, copy)
        led_to = os.path.relpath(copy, here)
    elif there.is_dir():
        return match["before"].removesuffix("(").strip("[]!")  # a folder has no page: its name stays as words
    else:
        led_to = link  # the build says that it is broken
    return f"{match['before']}{led_to}{'#' + fragment if fragment else ''})"


def navigation(page: Path, places: dict[Path, Path]) -> str:
    """Hidden trees of contents: one for each heading of an index page, with what is linked below it."""
    here = places[page].parent
    trees = []
    seen = {page}
    preface, *sections = re.split(r"^## ", page.read_text("utf-8"), flags=re.MULTILINE)
    for section in sections or [preface]:
        caption, _, body = section.partition("\n")
        entries = []
        for match in LINK.finditer(CODE.sub("", body)):
            there = Path(os.path.normpath(page.parent / match["target"].partition("#")[0]))
            if there in places and there not in seen:
                seen.add(there)
                entries.append(os.path.relpath(places[there].with_suffix(""), here))
        if entries:
            shown = "" if caption.startswith("# ") else f":caption: {caption}\n"
            trees.append("```{toctree}\n:hidden:\n" + shown + "\n" + "\n".join(entries) + "\n```\n")
    return "\n" + "\n".join(trees)


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "docs"))
