"""Every page, with friendly and with hostile data in it."""

from __future__ import annotations

import asyncio
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from markupsafe import escape

import falaj.entrypoints.console as package
from falaj.entrypoints.console import channel, pages, rides, sights, words
from falaj.entrypoints.console import views as v
from falaj.lifecycle import STAGES

HOSTILE = (
    '<script>alert(1)</script>"><img src=x onerror=alert(2)>{{7*7}}',
    "' onmouseover='alert(3)' javascript:alert(4) </textarea></title>&lt;",
    "تأخير الرحلات \u202e<b>gnirts</b>",
    "x" * 300,
)
VOID = {"meta", "link", "input", "br", "img", "hr"}


class Seen(HTMLParser):
    """What stands in a page: tags with attributes, links, ids; and whether tags close as they should."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.crooked: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.crooked.append(tag)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def addresses(console: Any) -> list[str]:
    run_id = console.home.run_page.run.id
    references = list(console.home.evidence_pages)
    evidence = [f"/models/flight-delay/{r}/evidence" for r in references]
    watch = ["/models/flight-delay/rollout", "/models/flight-delay/drift", "/incidents", "/reviews", "/reviews/rev_1"]
    return ["/", "/models/flight-delay", *evidence, *watch, f"/runs/{run_id}", "/audit", "/login", "/login?code=open"]


def get(console: Any, path: str, **more: Any) -> Any:
    return asyncio.run(console.ask("GET", path, **more))


def poison(value: Any, text: str) -> Any:
    """The same view with every free text replaced: names, reasons, details, keys of maps."""
    keep = {"state", "model", "reference", "id", "run", "at", "created_at", "stage"}
    if isinstance(value, msgspec.Struct):
        changed = {
            f: poison(getattr(value, f), text)
            for f in value.__struct_fields__
            if not (f in keep and isinstance(getattr(value, f), str))
            and not (f == "name" and isinstance(value, v.ModelPage))
        }
        return msgspec.structs.replace(value, **changed)
    if isinstance(value, tuple):
        return tuple(poison(item, text) for item in value)
    if isinstance(value, dict):
        return {text + str(i): poison(item, text) for i, item in enumerate(value.values())}
    return text if type(value) is str else value


def well_made(text: str, path: str) -> Seen:
    page = Seen(text)
    assert not page.crooked and not page.open, (path, page.crooked, page.open)
    for tag, attrs in page.tags:
        assert tag not in ("style", "img", "iframe", "object") and "style" not in attrs, (path, tag)
        assert not any(a.startswith(("on", "hx-on", "data-hx-on")) for a in attrs), (path, tag, attrs)
    for script in page.all("script"):
        assert (script.get("src") or "").startswith("/static/"), path
    assert text.count("<script") == len(page.all("script")) == 3
    return page


def test_every_page_renders(console: Any) -> None:
    for path in addresses(console):
        answer = get(console, path)
        assert answer.status_code == 200, (path, answer.text[:300])
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        page = well_made(answer.text, path)
        ids = [a["id"] for _, a in page.tags if a.get("id")]
        assert len(ids) == len(set(ids)), path
        assert [a.get("id") for a in page.all("main")] == ["content"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_only_text(console: Any, text: str) -> None:
    home = console.home
    home.shown = poison(home.shown, text)
    home.model_page = poison(home.model_page, text)
    home.evidence_pages = {r: poison(p, text) for r, p in home.evidence_pages.items()}
    home.run_page = poison(home.run_page, text)
    home.entries = poison(home.entries, text)
    home.rollout_page, home.drift_page = poison(home.rollout_page, text), poison(home.drift_page, text)
    home.incidents_page = poison(home.incidents_page, text)
    home.reviews_page, home.review_page = poison(home.reviews_page, text), poison(home.review_page, text)
    for path in addresses(console):
        answer = get(console, path)
        assert answer.status_code == 200, (path, answer.text[:300])
        page = well_made(answer.text, path)
        assert "<img" not in answer.text, path
        assert all((a.get("href") or "").startswith(("/", "#")) for a in page.all("a")), path
        if not path.startswith("/login"):
            assert str(escape(text)) in answer.text, path


def test_hostile_text_is_shown_whole(console: Any) -> None:
    console.home.shown = poison(console.home.shown, HOSTILE[0])
    answer = get(console, "/")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&gt;&lt;img src=x onerror=alert(2)&gt;{{7*7}}" in answer.text


def test_hostile_queries_come_back_as_text(console: Any) -> None:
    answer = get(console, "/audit", params={"principal": HOSTILE[0], "subject": HOSTILE[1]})
    page = well_made(answer.text, "/audit")
    assert [i.get("value") for i in page.all("input") if i.get("name") == "principal"] == [HOSTILE[0]]
    code = get(console, "/login", params={"code": HOSTILE[0]})
    assert [i.get("value") for i in well_made(code.text, "/login").all("input")] == [HOSTILE[0]]


def test_all_links_lead_somewhere(console: Any) -> None:
    found: set[str] = set()
    for path in addresses(console):
        page = Seen(get(console, path).text)
        found |= {a["href"] for t in ("a", "link") for a in page.all(t) if a.get("href")}  # type: ignore[misc]
        found |= {a["src"] for a in page.all("script") if a.get("src")}  # type: ignore[misc]
        ids = {a.get("id") for _, a in page.tags}
        for _, attrs in page.tags:
            for name in ("aria-labelledby", "aria-controls"):
                assert attrs.get(name) is None or attrs[name] in ids, (path, attrs)
    assert {"/", "/audit", "/incidents", "/models/flight-delay", "/models/flight-delay/2/evidence"} <= found
    assert {"/models/flight-delay/rollout", "/models/flight-delay/drift"} <= found
    for link in sorted(found):
        if link.startswith("#"):
            assert link == "#content"
        else:
            assert get(console, link).status_code == 200, link


def test_empty_homes_say_what_to_do_next(console: Any) -> None:
    console.home.shown = v.Overview()
    console.home.model_page = v.ModelPage("flight-delay", "binary", "late")
    console.home.entries = ()
    console.home.rollout_page = sights.RolloutPage("flight-delay")
    console.home.drift_page, console.home.incidents_page = sights.DriftPage("flight-delay"), sights.IncidentsPage()
    console.home.reviews_page = sights.ReviewsPage()
    console.home.review_page = sights.ReviewPage(console.home.review_page.case)
    console.home.replay = None
    overview = get(console, "/").text
    assert (
        "<code>falaj train MODEL</code>" in overview
        and "No data plane has reported" in overview
        and "Replay clock" not in overview
    )
    assert "No version yet" in get(console, "/models/flight-delay").text
    assert "No entry matches" in get(console, "/audit").text
    assert "<code>falaj approve MODEL@N</code>" in get(console, "/models/flight-delay/rollout").text
    assert "<code>falaj predict MODEL --data FILE</code>" in get(console, "/models/flight-delay/drift").text
    assert "Nothing is open" in get(console, "/incidents").text
    assert "No answer waits for a person" in get(console, "/reviews").text
    mute = get(console, "/reviews/rev_1").text
    assert "not in the journal any more" in mute and "Somebody else decides this one" in mute


def test_every_page_says_that_the_glass_is_broken(console: Any) -> None:
    assert "Break-glass." not in get(console, "/").text
    console.home.glass = ("ann may rollout.steer until 2013-11-04T12:00, let by <b>bob</b>",)
    for path in ("/", "/models/flight-delay", "/audit", "/incidents"):
        text = get(console, path).text
        assert "Break-glass." in text and "let by &lt;b&gt;bob&lt;/b&gt; UTC" in text


def test_the_overview_tells_how_things_are(console: Any) -> None:
    text = get(console, "/").text
    for fact in (
        "184,203",
        "0.49 ms",
        "1.83 ms",
        "flight-delay@2",
        "328,521",
        "842",
        "412",
        "Replay clock",
        "60 times",
    ):
        assert fact in text, fact
    assert "needs attention" in text and "12 of the last 1,000 requests failed" in text
    assert "look at the slice&#39;s rows in the evidence" in text  # the refusal's next step
    assert 'title="sha256:' in text and "95 min ago" in text


def test_the_overview_tells_what_answers_for_a_killed_model(console: Any) -> None:
    page = console.home.shown
    killed = msgspec.structs.replace(page.models[0], alias="", digest="", health="down", instead="no <answer>")
    console.home.shown = msgspec.structs.replace(page, models=(killed, *page.models[1:]))
    text = get(console, "/").text
    assert "In its place:" in text and "no &lt;answer&gt;" in text and "Nothing serves yet" not in text


def test_evidence_shows_each_gate_with_reason_and_limit(console: Any) -> None:
    text = get(console, "/models/flight-delay/2/evidence").text
    for fact in ("0.5312 misses &gt;= 0.6", "the load generator could not reach the plane", "too few rows to judge"):
        assert fact in text, fact
    for fact in ("view airport_weather", "the request is refused", "413 kB", "6 categories", "mandatory", "verifies"):
        assert fact in text, fact
    unsigned = msgspec.structs.replace(
        console.home.evidence_pages["2"], signature=None, gates=(), contract=None, admissions=()
    )
    console.home.evidence_pages["2"] = unsigned
    text = get(console, "/models/flight-delay/2/evidence").text
    assert "The files are not signed" in text and "No evidence is not a pass" in text


def test_the_channel_has_all_stages_in_order_and_each_version_where_it_stands(console: Any) -> None:
    text = get(console, "/models/flight-delay").text
    heads = re.findall(r"<h3>(\w+)</h3>\s*<p class=\"reach-state", text)
    assert [h.lower() for h in heads] == list(STAGES)
    page = console.home.model_page
    reaches = {r.stage: r for r in channel.draw(page.stages, page.versions)}
    assert [x.reference for x in reaches["serving"].versions] == ["2"]
    assert [x.state for x in reaches["evidence"].versions] == ["refused"]
    assert reaches["evidence"].through and not reaches["monitoring"].through
    assert reaches["monitoring"].fact.state == "dry"


def test_a_canary_stands_at_rollout_and_a_crowd_is_counted() -> None:
    canary = v.Version("m@4", "4", "", "approved", "a", "", role="canary", weight=5)
    crowd = tuple(v.Version(f"m@{i}", str(i), "", "retired", "a", "") for i in range(9, 0, -1))
    reaches = {r.stage: r for r in channel.draw((), (canary, *crowd))}
    assert reaches["rollout"].versions == (canary,)
    assert [x.reference for x in reaches["registry"].versions] == ["9", "8", "7"] and reaches["registry"].more == 6


def test_a_rollout_shows_both_versions_and_what_may_be_done(console: Any) -> None:
    text = get(console, "/models/flight-delay/rollout").text
    for fact in (
        "10 % of the answers",
        "436 requests; 200 were needed",
        "1,740 ms",
        "6.25 ms",
        "0.24 on 50 requests",
        "12",
    ):
        assert fact in text, fact
    for fact in ("&gt; 10⁶", "&lt; 0.01", "not decided yet", "within its margin", "15 seconds a point", "output 1"):
        assert fact in text, fact
    page = Seen(text)
    assert [f.get("value") for f in page.all("input") if f.get("name") == "order"] == ["promote", "abort"]
    assert {f.get("value") for f in page.all("input") if f.get("name") == "rollout"} == {"rol_1"}
    assert [a.get("class") for a in page.all("li") if a.get("aria-current")] == ["split-reach here wait"]
    assert 'data-hx-trigger="every 2s"' in text
    whole = console.home.rollout_page
    ended = msgspec.structs.replace(whole.ride, ended=True)
    bare = msgspec.structs.replace(whole.ride, figures=(), curves=(), problem="the journal is torn")
    for changed in ({"may_steer": False}, {"ride": ended}):
        console.home.rollout_page = msgspec.structs.replace(whole, **changed)
        assert 'name="order"' not in get(console, "/models/flight-delay/rollout").text
    console.home.rollout_page = msgspec.structs.replace(whole, ride=bare)
    text = get(console, "/models/flight-delay/rollout").text
    assert "the journal is torn" in text and "No request has been recorded" in text


def test_drift_shows_each_window_and_the_numbers_behind_each_picture(console: Any) -> None:
    text = get(console, "/models/flight-delay/drift?window=w-28").text
    assert console.home.reads[-1] == "drift w-28"
    for fact in (
        "3 of 5 features drifted",
        "0.7312",
        "on 812 labels",
        "no labels yet",
        "still open",
        "days since 2013-10-21",
    ):
        assert fact in text, fact
    for fact in ("noise floor", "too few rows to tell", "the model&#39;s answer", "90 %", "any number"):
        assert fact.replace("&#39;", "'") in text or fact in text, fact
    assert text.count('class="chart pairs"') == 3 and "?window=w-21#pictures" in text
    assert [a.get("class") for a in Seen(text).all("tr") if a.get("class")] == ["chosen"]
    console.home.drift_page = msgspec.structs.replace(console.home.drift_page, bars=())
    assert "This window cannot be compared" in get(console, "/models/flight-delay/drift").text


def test_a_review_shows_what_went_in_and_offers_what_may_be_said(console: Any) -> None:
    text = get(console, "/reviews").text
    for word in ("0.512", "overdue", "the project&#39;s rule", "overridden", "missing context"):
        assert word in text, word
    page = get(console, "/reviews/rev_1").text
    seen = Seen(page)
    assert [f.get("action") for f in seen.all("form") if "/reviews/" in (f.get("action") or "")] == [
        "/reviews/rev_1/decision"
    ] * 2
    assert [o.get("value") for o in seen.all("option")] == ["", "on time", "late", "", "wrong_input", "house_rule"]
    assert "airport_weather" in page and "the caller" in page and "house_rule" in page
    console.home.review_page = msgspec.structs.replace(console.home.review_page, choices=())
    (number,) = [i for i in Seen(get(console, "/reviews/rev_1").text).all("input") if i.get("name") == "to"]
    assert number.get("inputmode") == "decimal"
    console.home.shown = msgspec.structs.replace(console.home.shown, reviews=3)
    assert "3 answers wait for a person" in get(console, "/").text


def test_incidents_say_what_followed(console: Any) -> None:
    text = get(console, "/incidents").text
    for fact in ("rtr_1", "/models/flight-delay/1/evidence", f"/runs/{console.home.run_page.run.id}", "every model"):
        assert fact in text, fact
    assert 'href="/models/gone"' not in text and "See the drift" in text
    actions = [f.get("action") for f in Seen(text).all("form") if "resolve" in (f.get("action") or "")]
    assert actions == ["/incidents/inc_1/resolve", "/incidents/inc_2/resolve"]
    console.home.shown = msgspec.structs.replace(console.home.shown, incidents=2)
    assert "2 open incidents" in get(console, "/").text


def test_words_name_every_width_and_unit() -> None:
    assert {f"every.{w}" for w in rides.WIDTHS} | {f"unit.{u}" for u, _ in rides.UNITS} <= set(words.ENGLISH)


def test_audit_filters_and_parts(console: Any) -> None:
    whole = get(console, "/audit", params={"action": "registry.approve", "outcome": "denied"})
    assert len(re.findall(r'class="detail"', whole.text)) == 1 and "four-eyes" in whole.text
    part = get(console, "/audit?principal=falaj", headers={"HX-Request": "true", "HX-Target": "div#entries"})
    assert (
        part.text.lstrip().startswith('<div id="entries">') and "data.ingest" in part.text and "<html" not in part.text
    )
    older = re.search(r'href="(/audit\?before=\d+)"', get(console, "/audit").text)
    assert older is not None and 'class="detail"' in get(console, older[1]).text


@pytest.mark.parametrize("query", ["before=-1", "before=x", "principal=" + "y" * 301])
def test_unreadable_queries_are_explained(console: Any, query: str) -> None:
    answer = get(console, "/audit?" + query)
    assert answer.status_code == 422 and "bad_page_input" in answer.text and "Next step" in answer.text


def test_every_sentence_is_in_the_table_and_every_entry_is_used() -> None:
    folder = Path(package.__file__).parent
    source = "".join(
        p.read_text() for p in [*folder.glob("templates/*.html"), folder / "pages.py", folder / "routes.py"]
    )
    used = set(re.findall(r'(?:\bt|words)\("([\w. -]+)"', source))
    counted = {f"{k}.{n}" for k in re.findall(r'\bt\.count\("([\w.]+)"', source) for n in ("one", "other")}
    missing = (used | counted) - set(words.ENGLISH)
    assert not missing
    named = (
        "state.",
        "stage.",
        "metric.",
        "verdict.",
        "window.",
        "trip.",
        "kind.",
        "every.",
        "unit.",
        "mark.",
        "because.",
        "code.",
    )
    indirect = (*named, "problem.4", "problem.5", "ago.")
    assert not {k for k in words.ENGLISH if k not in used | counted and not k.startswith(indirect)}
    assert {f"stage.{s}" for s in STAGES} <= set(words.ENGLISH) and {f"state.{s}" for s in pages.TONES} <= set(
        words.ENGLISH
    )


def test_another_language_is_another_table() -> None:
    arabic = words.Words(words.ENGLISH, "ar", "rtl")
    html = pages.Pages(arabic).render(
        "login.html", section="", code="", error=None, command="falaj console", provider=True
    )
    assert '<html lang="ar" dir="rtl">' in bytes(html.body).decode()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "\N{EN DASH}"),
        (0.741234, "0.74123"),
        (200.0, "200"),
        (2.1e-7, "2.1e-07"),
        (float("nan"), "nan"),
        (12345.0, "12,345"),
    ],
)
def test_values_are_short(value: float | None, expected: str) -> None:
    assert pages.significant(value) == expected


def test_back_quotes_set_code_and_nothing_else() -> None:
    assert pages.coded("run `falaj x <y>`") == "run <code>falaj x &lt;y&gt;</code>"
    assert pages.coded("a ` <b>") == "a ` &lt;b&gt;" and pages.coded("<i>") == "&lt;i&gt;"


def test_sizes_and_times() -> None:
    assert [pages.file_size(n) for n in (0, 999, 1000, 412_880, 5 * 10**9)] == [
        "0 B",
        "999 B",
        "1 kB",
        "413 kB",
        "5 GB",
    ]
    english, now = words.english(), "2013-11-04T08:00:00Z"
    told = [
        pages.ago(f"2013-11-{t}Z", now, english) for t in ("04T07:59:30", "04T07:00:00", "03T08:00:00", "01T08:00:00")
    ]
    assert told == ["just now", "60 min ago", "24 h ago", "3 d ago"]
    assert pages.ago("not a time", now, english) == "" and pages.moment("not a time") == "not a time"
    assert pages.ago("2013-11-04T09:00:00Z", now, english) == "later than now"


def test_a_model_s_page_says_who_answers_for_it_and_that_it_was_killed(console: Any) -> None:
    marked = msgspec.structs.replace(console.home.model_page.versions[0], marks=("one-person",))
    overseen = v.Overseen(
        "high", "rita, 2013-11-01", True, "ops <b>", "planning", "late crews", "refusal", "2014-01-01T00:00:00Z",
        "omar", "2013-11-04T08:00:00.000Z", "it answers <script>nonsense", "version 1", False,
        ("revalidation_overdue: it had to be validated again by 2013-10-01",),
    )  # fmt: skip
    console.home.model_page = msgspec.structs.replace(console.home.model_page, overseen=overseen, versions=(marked,))
    page = get(console, "/models/flight-delay").text
    for told in (
        "high",
        "regulated use",
        "planning",
        "by omar: it answers &lt;script&gt;nonsense",
        "falaj revive flight-delay",
    ):
        assert told in page, told
    assert "ops &lt;b&gt;" in page and "<script>nonsense" not in page
    assert "revalidation_overdue" in page and "its author alone approved it" in page
    calm = msgspec.structs.replace(overseen, killed_by="", frozen=(), retired=True)
    console.home.model_page = msgspec.structs.replace(console.home.model_page, overseen=calm)
    page = get(console, "/models/flight-delay").text
    assert "falaj revive" not in page and "none of its versions is admitted anywhere" in page
