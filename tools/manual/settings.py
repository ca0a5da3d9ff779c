"""The page of settings."""

from __future__ import annotations

import msgspec

from falaj.kernel.settings import Settings
from tools.manual.tables import docstrings, table


def settings() -> str:
    """Each field of `Settings` with its variable, its default and its docstring."""
    told = docstrings(Settings)
    rows = [
        (f"`{f.name}`", f"`FALAJ_{f.name.upper()}`", _default(f.default), told[f.name])
        for f in msgspec.structs.fields(Settings)
    ]
    return f"""# Settings

Each is read from its environment variable, else from the table `[falaj]` of `falaj.toml` in the present folder or a
parent of it, else it has its default. Paths in the file are relative to the file. An unknown name or a value of the
wrong kind is refused.

```toml
[falaj]
home = ".falaj"
approvals = 2
```

{table(("setting", "variable", "default", "what it is"), rows)}"""


def _default(value: object) -> str:
    return f"`{value}`" if str(value) else "empty"
