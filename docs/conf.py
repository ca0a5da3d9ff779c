"""How the site looks. `python tools/site.py` lays the pages out and builds them with this; nothing is fetched from anywhere."""

from __future__ import annotations

project = "Falaj"
html_title = "Falaj"
copyright = "the Falaj authors, Apache 2.0"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns: list[str] = ["files"]
nitpicky = True
language = "en"

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]
myst_links_external_new_tab = False
suppress_warnings = ["myst.header"]  # a table of a forge may begin at any level; links and anchors are still checked

pygments_style = "friendly"
pygments_dark_style = "github-dark"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["falaj.css"]
html_logo = "_static/mark.svg"
html_favicon = "_static/mark.svg"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_last_updated_fmt = None
html_permalinks_icon = "§"

_SANS = (
    "'SF Pro Text', -apple-system, 'Segoe UI Variable Text', 'Segoe UI', Roboto, Cantarell, 'Noto Sans', "
    "'Noto Sans Arabic', system-ui, sans-serif"
)
_MONO = (
    "ui-monospace, 'SF Mono', 'Cascadia Mono', 'Segoe UI Mono', 'Roboto Mono', 'Noto Sans Mono', Menlo, Consolas, "
    "'DejaVu Sans Mono', monospace"
)
# Sand and water, as in the console.
html_theme_options = {
    "sidebar_hide_name": False,
    "navigation_with_keys": True,
    "top_of_page_buttons": [],
    "light_css_variables": {
        "font-stack": _SANS,
        "font-stack--monospace": _MONO,
        "color-foreground-primary": "#17282c",
        "color-foreground-secondary": "#566769",
        "color-foreground-muted": "#6f7d7d",
        "color-foreground-border": "#b9a982",
        "color-background-primary": "#fffdf9",
        "color-background-secondary": "#f6f3ec",
        "color-background-hover": "#ece5d6",
        "color-background-border": "#e3dccd",
        "color-background-item": "#e3dccd",
        "color-brand-primary": "#0b6f7a",
        "color-brand-content": "#0b6f7a",
        "color-brand-visited": "#0c4f5c",
        "color-api-name": "#0b6f7a",
        "color-inline-code-background": "#f0ebdf",
        "color-highlight-on-target": "#faecd0",
    },
    "dark_css_variables": {
        "color-foreground-primary": "#e4ebe8",
        "color-foreground-secondary": "#9aabab",
        "color-foreground-muted": "#82938f",
        "color-foreground-border": "#6e6448",
        "color-background-primary": "#142023",
        "color-background-secondary": "#0d1618",
        "color-background-hover": "#1b2829",
        "color-background-border": "#26373a",
        "color-background-item": "#26373a",
        "color-brand-primary": "#62cdcb",
        "color-brand-content": "#62cdcb",
        "color-brand-visited": "#8fd6d4",
        "color-api-name": "#62cdcb",
        "color-inline-code-background": "#1b2829",
        "color-highlight-on-target": "#372a10",
    },
}
