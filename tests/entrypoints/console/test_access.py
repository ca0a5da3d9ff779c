"""Who gets in, from where, and what they see when they do not."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from falaj.entrypoints.console import routes
from falaj.entrypoints.console.reader import COOKIE
from falaj.governance.identity.guard import Guard

OURS = {"Sec-Fetch-Site": "same-origin"}
PAGES = ["/", "/models/flight-delay", "/models/flight-delay/2/evidence", "/runs/run_x", "/audit"]
PAGES += ["/models/flight-delay/rollout", "/models/flight-delay/drift", "/incidents", "/reviews", "/reviews/rev_1"]
CHANGES = {
    "/audit/verify": {},
    "/models/flight-delay/rollout": {"order": "abort", "rollout": "rol_1"},
    "/incidents/inc_1/resolve": {},
    "/reviews/rev_1/decision": {"decision": "confirm"},
}
"""What changes something, with the form that its page sends."""


def ask(console: Any, method: str, path: str, **more: Any) -> Any:
    return asyncio.run(console.ask(method, path, **more))


def test_without_a_session_every_page_leads_to_signing_in(console: Any) -> None:
    for path in PAGES:
        answer = ask(console, "GET", path, signed_in=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login"), path
    for path, fields in CHANGES.items():
        answer = ask(console, "POST", path, signed_in=False, headers=OURS, data=fields)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login"), path
    part = ask(console, "GET", "/audit", signed_in=False, headers={"HX-Request": "true"})
    assert (part.status_code, part.headers["hx-redirect"]) == (401, "/login")
    assert console.home.reads == [] and console.home.orders == []


def test_every_route_declares_an_action_and_pages_are_guarded_by_it(console: Any) -> None:
    assert Guard(cast(Any, None), cast(Any, None)).undeclared(console.app) == []
    assert sorted(console.guard.pages) == [
        "audit.read",
        "audit.verify",
        "evidence.read",
        "loop.read_status",
        "monitoring.decide_review",
        "monitoring.read_drift",
        "monitoring.read_incidents",
        "monitoring.read_reviews",
        "monitoring.resolve_incident",
        "registry.read",
        "rollout.read",
        "rollout.steer",
        "serving.read_prediction",
        "training.read",
    ]


def test_a_forbidden_page_is_explained_and_nothing_is_read(console: Any) -> None:
    console.guard.forbidden = {"audit.read", "audit.verify"}
    answer = ask(console, "GET", "/audit")
    assert (
        answer.status_code == 403
        and "ask a platform administrator" in answer.text
        and "denied_by_policy" in answer.text
    )
    part = ask(console, "POST", "/audit/verify", headers={**OURS, "HX-Request": "true"})
    assert part.status_code == 403 and part.headers["hx-retarget"] == "#notice" and 'id="problem"' in part.text
    assert console.home.reads == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://falaj.test"},
        {"Origin": "null"},
        {"Origin": "http://evil.test"},
        {"Origin": "https://falaj.test"},
        {"Origin": "http://falaj.test:81"},
        {"Origin": "http://falaj.test.evil.test"},
    ],
)
def test_changes_from_elsewhere_are_refused(console: Any, headers: dict[str, str]) -> None:
    for path, fields in {**CHANGES, "/logout": {}, "/login": {"code": "open"}}.items():
        answer = ask(console, "POST", path, headers=headers, data=fields)
        assert answer.status_code == 403 and "cross_site" in answer.text, path
    assert (
        console.home.reads == []
        and console.home.orders == []
        and "c" in console.codes.live
        and "open" in console.codes.codes
    )


@pytest.mark.parametrize("headers", [OURS, {"Origin": "http://falaj.test"}])
def test_the_log_is_verified_from_our_own_page(console: Any, headers: dict[str, str]) -> None:
    answer = ask(console, "POST", "/audit/verify", headers=headers)
    assert answer.status_code == 200 and "The log is whole" in answer.text and "<html" in answer.text
    part = ask(console, "POST", "/audit/verify", headers={**headers, "HX-Request": "true"})
    assert "The log is whole" in part.text and "<html" not in part.text
    console.home.whole = False
    broken = ask(console, "POST", "/audit/verify", headers=headers).text
    assert "The log does not hold" in broken and "the roots differ" in broken and "compare it with a witness" in broken


def test_signing_in_uses_the_code_up(console: Any) -> None:
    page = ask(console, "GET", "/login?code=open", signed_in=False)
    assert "ready to be used" in page.text and "open" in console.codes.codes  # looking does not use it up
    answer = ask(console, "POST", "/login", signed_in=False, headers=OURS, data={"code": "open"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=fresh;") and "HttpOnly" in cookie and "SameSite=strict" in cookie
    again = ask(console, "POST", "/login", signed_in=False, headers=OURS, data={"code": "open"})
    assert (
        again.status_code == 403 and "This link no longer works" in again.text and "ask for a fresh link" in again.text
    )
    assert "set-cookie" not in again.headers and "falaj console" in again.text


def test_over_tls_the_cookie_is_secure(console: Any) -> None:
    answer = ask(console, "POST", "https://falaj.test/login", headers=OURS, data={"code": "open"})
    assert "Secure" in answer.headers["set-cookie"] and "strict-transport-security" in answer.headers


def test_signing_out_ends_the_session(console: Any) -> None:
    answer = ask(console, "POST", "/logout", headers=OURS)
    assert answer.headers["location"] == "/login" and 'falaj_session=""' in answer.headers["set-cookie"]
    assert ask(console, "GET", "/").status_code == 303


def test_forms_are_small(console: Any) -> None:
    for data in (b"code=" + b"x" * 9000, b"&".join(b"a=1" for _ in range(50)), b"code=%ff\xff"):
        answer = ask(console, "POST", "/login", headers=OURS, content=data)
        assert answer.status_code in (403, 422) and "open" in console.codes.codes


def test_headers_on_every_kind_of_answer(console: Any) -> None:
    answers = [ask(console, "GET", p) for p in ("/", "/login", "/models/none", "/nowhere", "/static/console.css")]
    answers.append(ask(console, "GET", "/", signed_in=False))
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["x-frame-options"] == "DENY"
    assert answers[0].headers["cache-control"] == "no-store"


def test_assets_are_a_list_and_not_a_folder(console: Any) -> None:
    for name in (
        "../routes.py",
        "..%2froutes.py",
        "%2e%2e/routes.py",
        "vendor",
        "LICENSES/htmx.txt",
        "vendor/README.md",
        "",
    ):
        answer = ask(console, "GET", "/static/" + name)
        assert answer.status_code == 404 and b"import" not in answer.content, name
    found = ask(console, "GET", "/static/vendor/htmx.min.js", signed_in=False)
    assert found.status_code == 200 and found.headers["content-type"].startswith("text/javascript")
    assert found.headers["cache-control"] == "no-cache"
    same = ask(console, "GET", "/static/vendor/htmx.min.js", headers={"If-None-Match": found.headers["etag"]})
    assert same.status_code == 304
    fixed = ask(console, "GET", "/static/vendor/htmx.min.js?v=" + found.headers["etag"].strip('"'))
    assert "immutable" in fixed.headers["cache-control"]


def test_an_address_without_a_route_has_a_page_too(console: Any) -> None:
    console.app.add_exception_handler(404, lambda request, _: routes.no_such_page(request))
    answer = ask(console, "GET", "/nowhere")
    assert answer.status_code == 404 and "No page has this address" in answer.text


def test_errors_are_pages_with_a_next_step(console: Any) -> None:
    missing = ask(console, "GET", "/models/no-such-model")
    assert (
        missing.status_code == 404 and "there is no model no-such-model" in missing.text and "Next step" in missing.text
    )
    console.home.broken = True
    broken = ask(console, "GET", "/")
    assert (
        broken.status_code == 500
        and "Something broke" in broken.text
        and "secret of the stack trace" not in broken.text
    )


def test_a_rollout_is_steered_by_its_own_page_only(console: Any) -> None:
    for order in ("promote", "abort"):
        fields = {"order": order, "rollout": "rol_1"}
        answer = ask(console, "POST", "/models/flight-delay/rollout", headers=OURS, data=fields)
        assert (answer.status_code, answer.headers["location"]) == (303, "/models/flight-delay/rollout")
    assert [o[3] for o in console.home.orders] == ["promote", "abort"]
    for fields in ({"order": "restart", "rollout": "rol_1"}, {"rollout": "rol_1"}, {}):
        assert ask(console, "POST", "/models/flight-delay/rollout", headers=OURS, data=fields).status_code == 422
    stale = {"order": "abort", "rollout": "rol_0"}
    answer = ask(console, "POST", "/models/flight-delay/rollout", headers=OURS, data=stale)
    assert answer.status_code == 409 and "rollout_not_running" in answer.text and "Next step" in answer.text
    assert len(console.home.orders) == 2


def test_whoever_may_not_steer_or_resolve_is_refused(console: Any) -> None:
    console.guard.forbidden = {"rollout.steer", "monitoring.resolve_incident", "monitoring.decide_review"}
    for path, fields in CHANGES.items():
        answer = ask(console, "POST", path, headers=OURS, data=fields)
        assert answer.status_code == (200 if path == "/audit/verify" else 403), path
    assert console.home.orders == []
    assert ask(console, "GET", "/incidents").status_code == 200


def test_an_incident_is_resolved_from_our_own_page(console: Any) -> None:
    answer = ask(console, "POST", "/incidents/inc_1/resolve", headers=OURS)
    assert (answer.status_code, answer.headers["location"]) == (303, "/incidents")
    assert console.home.orders == [("omar", "resolve", "inc_1")]


def test_an_answer_is_confirmed_or_overridden_from_our_own_page(console: Any) -> None:
    confirmed = ask(console, "POST", "/reviews/rev_1/decision", headers=OURS, data={"decision": "confirm"})
    assert (confirmed.status_code, confirmed.headers["location"]) == (303, "/reviews")
    said = {"decision": "override", "to": "late", "code": "wrong_input"}
    assert ask(console, "POST", "/reviews/rev_1/decision", headers=OURS, data=said).status_code == 303
    assert console.home.orders == [
        ("omar", "decide", "rev_1", "", ""),
        ("omar", "decide", "rev_1", "late", "wrong_input"),
    ]
    for half in (
        {},
        {"decision": "override"},
        {"decision": "confirm", "to": "late"},
        {"decision": "maybe", "to": "late"},
    ):
        assert ask(console, "POST", "/reviews/rev_1/decision", headers=OURS, data=half).status_code == 422
    assert len(console.home.orders) == 2
