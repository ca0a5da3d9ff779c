"""The options that every command takes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from falaj.kernel.errors import Invalid
from falaj.kernel.settings import Settings, load_settings, settings_file


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

    def settings(self, *, anywhere: bool = False) -> Settings:
        """The settings for the present folder, with these options on top.

        Raises `Invalid` where there is no project, no home, and nothing says where the home is, unless the command
        may be used `anywhere`: else a look from the wrong folder would leave a home with keys there.
        """
        given = {
            "home": str(self.home.absolute()) if self.home else None,
            "server": self.server,
            "principal": self.principal,
        }
        folder = Path.cwd()
        settings = load_settings(os.environ, folder, **given)
        said = self.home or os.environ.get("FALAJ_HOME") or settings.server or settings_file(folder)
        if not (anywhere or said or (settings.home / "falaj.db").exists()):
            raise Invalid(
                f"there is no project and no home in {folder}",
                hint="go to the project's folder, make one: `falaj init NAME`, or name the home: --home",
                code="no_home",
            )
        return settings


DEFAULT = Common()
