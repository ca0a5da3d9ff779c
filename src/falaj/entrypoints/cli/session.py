"""The options that every command takes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from falaj.kernel.settings import Settings, load_settings


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options of every command."""

    json: Annotated[bool, Parameter(negative="", group="Common", help="Print JSON.")] = False
    home: Annotated[Path | None, Parameter(group="Common", help="The home folder (FALAJ_HOME).")] = None
    server: Annotated[str | None, Parameter(group="Common", help="Address of a control plane (FALAJ_SERVER).")] = None
    principal: Annotated[
        str | None, Parameter(name="--as", group="Common", help="Who acts, by a token of this home (FALAJ_PRINCIPAL).")
    ] = None

    def settings(self) -> Settings:
        """The settings for the present folder, with these options on top."""
        given = {
            "home": str(self.home.absolute()) if self.home else None,
            "server": self.server,
            "principal": self.principal,
        }
        return load_settings(os.environ, Path.cwd(), **given)


DEFAULT = Common()
