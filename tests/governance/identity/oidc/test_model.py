from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.governance.identity.model import check_principal
from falaj.governance.identity.oidc.model import Claims, groups_in, mapping, roles_of, setup_of
from falaj.kernel.errors import Denied, Invalid
from falaj.kernel.settings import Settings

GOOD: dict[str, Any] = {"oidc_issuer": "https://id.example", "oidc_client_id": "falaj", "oidc_groups": "a=viewer"}
SUBJECTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=255)


def claims(*groups: str, subject: str = "alice") -> Claims:
    return Claims("https://id.example", subject, "Alice", groups)


def test_without_an_issuer_there_is_no_provider() -> None:
    assert setup_of(Settings()) is None
    found = setup_of(Settings(**GOOD))
    assert found is not None and found.audiences == {"falaj"} and found.groups == (("a", "viewer"),)


@pytest.mark.parametrize(
    "wrong",
    [
        {"oidc_client_id": ""}, {"oidc_groups": ""}, {"oidc_groups": "a"}, {"oidc_groups": "a=owner"},
        {"oidc_groups": "=viewer"}, {"oidc_groups": "a=system"}, {"oidc_scopes": "profile"},
        {"oidc_issuer": "http://id.example"}, {"oidc_issuer": "https://"}, {"oidc_issuer": "https://a:b@id.example"},
        {"oidc_issuer": "https://id.example#x"}, {"oidc_issuer": "file:///etc/passwd"}, {"oidc_issuer": "https://id:x"},
        {"oidc_issuer": "http://127.0.0.1.evil.example"}, {"oidc_issuer": "https://id.example/\n"},
        {"oidc_redirect_url": "http://falaj.example/oidc/callback"}, {"oidc_client_secret_file": "/nowhere/at/all"},
        {"oidc_client_secret": "x", "oidc_client_secret_file": "/x"},
    ],
)  # fmt: skip
def test_a_setup_that_cannot_be_trusted_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        setup_of(Settings(**{**GOOD, **wrong}))
    assert refused.value.code == "bad_setting" and refused.value.hint


def test_the_secret_may_lie_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(" s3cret\n")
    found = setup_of(Settings(**{**GOOD, "oidc_client_secret_file": str(file)}))
    assert found is not None and found.secret == "s3cret"
    file.write_text("\n")
    with pytest.raises(Invalid):
        setup_of(Settings(**{**GOOD, "oidc_client_secret_file": str(file)}))


def test_groups_give_roles_and_nothing_else_does() -> None:
    pairs = mapping("a=viewer; cn=x,ou=y=risk-officer\n b = auditor ;")
    assert pairs == (("a", "viewer"), ("cn=x,ou=y", "risk-officer"), ("b", "auditor"))
    assert roles_of(claims("b", "cn=x,ou=y", "other"), pairs) == ("risk-officer", "auditor")
    for groups in ((), ("A",), ("a ",), ("viewer",)):
        with pytest.raises(Denied) as refused:
            roles_of(claims(*groups), pairs)
        assert refused.value.code == "no_mapped_group"


@pytest.mark.parametrize(
    ("claim", "groups"),
    [("a", ("a",)), (["a", "b"], ("a", "b")), ([], ()), (None, ()), (["a", 1], ()), ({"a": 1}, ()), (1, ())],
)
def test_a_claim_of_another_shape_names_no_group(claim: Any, groups: tuple[str, ...]) -> None:
    assert groups_in(claim) == groups


@given(SUBJECTS, SUBJECTS)
def test_two_subjects_never_share_a_name_and_none_is_a_local_one(one: str, two: str) -> None:
    names = [claims(subject=s).principal for s in (one, two)]
    assert (names[0] == names[1]) == (one == two)
    assert all("/" not in n and n.isascii() and n.isprintable() for n in names)
    with pytest.raises(Invalid):
        check_principal(names[0], ("viewer",))
