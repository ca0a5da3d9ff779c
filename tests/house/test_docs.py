"""Documents are checked like code: what they link to exists, what they promise to hold is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CAPABILITIES = {"D": 7, "F": 4, "T": 9, "E": 6, "R": 7, "O": 4, "S": 6, "M": 7, "L": 3, "G": 9, "I": 7}
STATES = {"works", "partly", "planned"}
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.DOTALL | re.MULTILINE)


def pages() -> list[Path]:
    """Every Markdown page of the repository, whether committed yet or not."""
    if not (ROOT / ".git").exists():
        found = (p.relative_to(ROOT) for p in ROOT.rglob("*.md"))
        return sorted(ROOT / p for p in found if not any(part.startswith(".") for part in p.parts))
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(git, capture_output=True, text=True, check=True).stdout
    return sorted({ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()})


def rows(page: str) -> list[list[str]]:
    """The cells of every table row of a page, without heads and rules."""
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    return [row for row in cells if not re.fullmatch(r"[-: ]*", row[0]) or row[0] == ""]


def readme() -> str:
    return (ROOT / "README.md").read_text("utf-8")


def test_the_first_command_comes_after_sixty_words_at_most() -> None:
    before, _, _ = readme().partition("make demo")
    assert len(re.findall(r"\w[\w'-]*", before)) <= 60
    assert before != readme()


def test_every_capability_stands_in_the_readme_once() -> None:
    found = [row for row in rows(readme()) if re.fullmatch(r"[A-Z]\d+", row[0])]
    assert [row[0] for row in found] == [
        f"{letter}{n + 1}" for letter, count in CAPABILITIES.items() for n in range(count)
    ]
    assert {row[2].split(":")[0].split(",")[0].strip() for row in found} <= STATES
    assert all(len(row) == 3 and row[1] for row in found)


def test_a_capability_that_is_only_partly_there_says_what_is_missing() -> None:
    for row in rows(readme()):
        if re.fullmatch(r"[A-Z]\d+", row[0]) and row[2].startswith("partly"):
            assert re.match(r"partly: \w", row[2]), row


def test_no_word_is_explained_twice() -> None:
    glossary = (ROOT / "GLOSSARY.md").read_text("utf-8")
    words = [w.strip() for row in rows(glossary)[1:] for w in row[0].split(",") if not row[0].startswith("**")]
    assert len(words) > 50
    assert sorted(set(words)) == sorted(words)
    assert all(row[1] for row in rows(glossary)[1:] if not row[0].startswith("**"))


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    text = CODE.sub("", page.read_text("utf-8"))
    for link in (a or b for a, b in LINK.findall(text)):
        if re.match(r"[a-z][a-z+.-]*:", link):
            continue
        target, _, fragment = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page.name} links to {link}"
        if fragment and path.suffix == ".md":
            assert fragment in anchors(path), f"{page.name} links to {link}"


def anchors(page: Path) -> set[str]:
    """The anchors that headings make, as forges make them."""
    headings = re.findall(r"^#+ +(.+)$", CODE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_every_decision_is_listed_and_has_its_parts() -> None:
    folder = ROOT / "docs" / "adr"
    index = (folder / "README.md").read_text("utf-8")
    records = sorted(folder.glob("[0-9]*.md"))
    assert [int(r.name[:4]) for r in records] == list(range(1, len(records) + 1))
    for record in records:
        text = record.read_text("utf-8")
        title = text.splitlines()[0].removeprefix(f"# {int(record.name[:4])}. ")
        assert f"]({record.name}) | {title} |" in index
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Rejected", "Consequences"]


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_page_has_gaps(page: Path) -> None:
    text = CODE.sub("", page.read_text("utf-8"))
    assert not re.search(r"\b(TO[D]O|TB[D]|FIX[M]E|lorem ipsum|coming soon)\b", text, re.IGNORECASE)
