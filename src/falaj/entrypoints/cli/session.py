"""The options that every command takes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from falaj.entrypoints.cli.naming import shown
from falaj.kernel.errors import Invalid
from falaj.kernel.settings import Settings, load_settings, settings_file
from falaj.storage.lake.places import check_place


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options of every command."""

    json: Annotated[bool, Parameter(negative="", group="Common", help="Print JSON.")] = False
    home: Annotated[str | None, Parameter(group="Common", help="The home folder (FALAJ_HOME).")] = None
    server: Annotated[str | None, Parameter(group="Common", help="Address of a control plane (FALAJ_SERVER).")] = None
    principal: Annotated[
        str | None, Parameter(name="--as", group="Common", help="Who acts, by a token of this home (FALAJ_PRINCIPAL).")
    ] = None

    def settings(self, *, anywhere: bool = False) -> Settings:
        """The settings for the present folder, with these options on top.

        Raises `Invalid` where there is no project, no home, and nothing says where the home is, unless the command
        may be used `anywhere`: else a look from the wrong folder would leave a home with keys there.
        """
        if self.principal == "":
            raise Invalid(
                "'' cannot name a principal",
                hint="name one whose token lies in this home, or leave --as out",
                code="bad_principal_name",
            )
        given = {
            "home": str(Path(_not_empty(self.home)).absolute()) if self.home is not None else None,
            "server": self.server,
            "principal": self.principal,
        }
        folder = Path.cwd()
        settings = load_settings(os.environ, folder, **given)
        if not settings.server:
            _check_home(settings.home)
        said = self.home or os.environ.get("FALAJ_HOME") or settings.server or settings_file(folder)
        if not (anywhere or said or (settings.home / "falaj.db").exists()):
            raise Invalid(
                f"there is no project and no home in {folder}",
                hint="go to the project's folder, make one: `falaj init NAME`, or name the home: --home",
                code="no_home",
            )
        return settings


def _not_empty(home: str) -> str:
    if not home:
        raise Invalid(
            "--home names no folder: it is empty",
            hint="name the home's folder, or leave --home out",
            code="bad_home_path",
        )
    return home


def _check_home(home: Path) -> None:
    """Raises `Invalid` for what cannot be a home: a file, or a folder where no lake can lie."""
    check_place(home)
    try:
        blocking = next((p for p in (home, *home.parents) if p.exists()), home)
    except OSError as e:
        raise Invalid(
            f"{shown(str(home))} cannot be a home: {(e.strerror or str(e)).lower()}",
            hint="name another folder: --home FOLDER (FALAJ_HOME); a path may have some 4,000 bytes, each name in it 255",
            code="bad_home_path",
        ) from e
    if not blocking.is_dir():
        raise Invalid(
            f"{home} cannot be a home: {blocking} is a file",
            hint="name a folder, or one that does not exist yet: --home FOLDER (FALAJ_HOME)",
            code="home_is_a_file",
        )


DEFAULT = Common()
