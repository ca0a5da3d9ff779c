"""A model that somebody else serves, in a small TOML file.

name = "churn"
task = "binary"
score = "probability"
served_by = "https://scores.example.com/churn"
silent_after = 3

[inputs]
age = "float"
country = "category"

[monitor]
window = "1d"
psi = 0.2
features = 1
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import msgspec

from falaj.authoring.monitor import Monitor
from falaj.kernel.errors import Invalid
from falaj.lifecycle.monitoring.model import ExternalModel, check_external


def read_external(path: Path) -> ExternalModel:
    """A declaration from its file; `[monitor]` says what `fj.Monitor` says. Raises `Invalid`."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        watched = _monitor(table.pop("monitor", {}))
        model = msgspec.convert({**table, "monitor": msgspec.to_builtins(watched.policy())}, ExternalModel)
    except OSError as e:
        raise Invalid(f"{path} cannot be read: {e.strerror}", hint="name a TOML file", code="no_such_file") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, TypeError) as e:
        raise Invalid(
            f"{path.name} declares no model: {e}",
            hint="it says name, task and score, and has a table [inputs]",
            code="wrong_external_model",
        ) from e
    return check_external(model)


def _monitor(table: Any) -> Monitor:
    known = {f.name for f in fields(Monitor)}
    if not isinstance(table, dict) or set(table) - known:
        raise TypeError(f"[monitor] knows {', '.join(sorted(known))}")
    kinds = {name: type(value) for name, value in asdict(Monitor()).items()}
    for name, value in table.items():
        if not isinstance(value, (int, float) if kinds[name] is float else kinds[name]):
            raise TypeError(f"{name} in [monitor] is {value!r}")
    return Monitor(**table)
