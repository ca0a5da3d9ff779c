from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.kernel.errors import Invalid
from falaj.kernel.names import NAME, check_column, check_name

BAD = [
    "",
    " ",
    ".",
    "..",
    "a/b",
    "../a",
    "a\\b",
    "Sales",
    "a b",
    "a\n",
    "\x00",
    "مبيعات",
    "a" * 300,
    "-a",
    "a-",
    "_a",
    "🙂",
    "a@1",
    None,
    7,
]


@pytest.mark.parametrize("name", BAD, ids=repr)
@pytest.mark.parametrize("kind", ["project", "source", "entity", "feature view", "model"])
def test_what_would_not_be_safe_in_a_path_or_an_address_names_nothing(kind: str, name: object) -> None:
    with pytest.raises(Invalid) as refused:
        check_name(kind, name)
    assert refused.value.code == "bad_name" and kind in refused.value.message and "lower-case" in refused.value.hint
    assert len(refused.value.message) < 150 and refused.value.message.isprintable()


@given(st.from_regex(NAME.pattern.removesuffix(r"\Z"), fullmatch=True))
def test_a_name_is_one_part_of_a_path_and_of_an_address(name: str) -> None:
    assert check_name("source", name) == name
    assert Path("/lake", name).name == name and quote(name, safe="") == name == name.lower()


@pytest.mark.parametrize("name", ["distance", "Sepal Length (cm)", "المسافة", "température", "x_2", "40%", "a.b"])
def test_a_column_has_the_name_that_the_data_gives_it(name: str) -> None:
    assert check_column("feature", name) == name


@pytest.mark.parametrize(
    "name", ["", " a", "a ", "_file", "__key", "a/b", "a\\b", 'a"', "a:b", "a,b", "[a]", "{a}", "a\tb", "x" * 101, None]
)
def test_a_column_that_would_be_misread_later_is_refused_at_once(name: object) -> None:
    with pytest.raises(Invalid) as refused:
        check_column("feature", name)
    assert refused.value.code == "bad_column_name" and refused.value.message.isprintable()
