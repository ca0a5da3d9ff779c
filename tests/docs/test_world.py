"""The reader that follows pages notices what is not as a page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.world import Reader


def read(folder: Path, text: str) -> Reader:
    """Follow a page of this text in an empty folder."""
    page = folder / "page.md"
    page.write_text(text, "utf-8")
    place = folder / "place"
    place.mkdir()
    reader = Reader(page, place, folder / "worlds", folder / "beside")
    reader.follow()
    return reader


def console(text: str) -> str:
    return f"```console\n{text}\n```\n"


@pytest.mark.parametrize(
    "text",
    [
        console("$ echo one\none"),
        console("$ A=3\n$ echo $A\n3"),
        console("$ mkdir x; cd x\n$ echo here > a\n$ ls\na"),
        console("$ echo one \\\n> two\none two"),
        console("$ printf 'invalid it is not\\n'; false\ninvalid it is not"),
        "<!-- test: file a.txt -->\n```json\n{}\n```\n" + console("$ cat a.txt\n{}"),
        "<!-- test: run echo 'x = 1' > a.py -->\n<!-- test: file a.py -->\n```diff\n x = 1\n+y = 2\n```\n" + console("$ cat a.py\nx = 1\ny = 2"),
        "<!-- test: skip because nobody can know what comes of this -->\n" + console("$ false"),
        "```python\nprint(1)\n```\n",
        "```text\nanything\n```\n",
    ],
)  # fmt: skip
def test_what_a_page_says_holds(text: str, tmp_path: Path) -> None:
    assert read(tmp_path, text).wrong == []


@pytest.mark.parametrize(
    "text",
    [
        console("$ echo one\ntwo"),
        console("$ echo one"),
        console("$ true\none"),
        console("$ false"),
        console("$ printf 'all is well\\n'; false\nall is well"),
        "```sh\nfalse\n```\n",
        "```python\nraise SystemExit(3)\n```\n",
        "```toml\na = \n```\n",
        "```toml\n[falaj]\nno_such_setting = 1\n```\n",
        "```json\n{,}\n```\n",
        "```nonsense\nx\n```\n",
        "<!-- test: file a.py -->\n```diff\n x = 1\n+y = 2\n```\n<!-- test: run true -->\n",
        "<!-- test: run false -->\n",
        "<!-- test: walk on water -->\n",
    ],
)
def test_what_does_not_hold_is_noticed(text: str, tmp_path: Path) -> None:
    assert len(read(tmp_path, text).wrong) == 1


def test_output_without_a_command_is_no_block(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="without a command"):
        read(tmp_path, console("one"))
