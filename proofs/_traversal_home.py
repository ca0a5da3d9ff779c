"""The served side of `traversal.py`: both planes over one home, until standard input ends. Run under strace."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import uvicorn  # noqa: E402  # the paths come first

from falaj.entrypoints.control_plane import application  # noqa: E402
from falaj.governance.identity.guard import _walk  # noqa: E402
from falaj.kernel.access import SYSTEM, Principal  # noqa: E402
from proofs import _traversal_files as unpacking  # noqa: E402
from proofs._traversal import CANARY, FILES, REQUESTS, SECRET, Slot  # noqa: E402
from tests.lifecycle.house import house  # noqa: E402

PROSE = {
    "reason",
    "text",
    "findings",
    "intended_use",
    "owner",
    "impact",
    "outcome",
    "claims",
    "cases",
    "attributes",
    "hours",
}
"""Members of bodies that name nothing: sentences, figures."""
DECLARED = {("POST", "/api/v1/backups", "to")}
"""Takes a folder by intent: whoever may back the home up says where to. It is tried apart."""


def serve(root: Path, broken: bool) -> None:
    """Serve, and unpack when told so."""
    with house(root / "srv") as home:
        version = home.registered()
        assert home.release(version).state == "done"
        caller = Principal("shop", "service", ("service", "viewer"))
        tokens = [home.plane.identity.grant(SYSTEM, who, 1).token for who in (home.owner, caller)]
        app = application(home.plane)
        if broken:
            unpacking.break_open(app, home.root / "home" / "blobs")
        config = uvicorn.Config(app, port=0, log_level="error", lifespan="off")
        listener, server = config.bind_socket(), uvicorn.Server(config)
        listener.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        plant(root)
        with home.data_plane() as plane:
            told = {
                "control": listener.getsockname()[1],
                "data": int(plane.address.rpartition(":")[2]),
                "tokens": tokens,
            }
            code = home.plane.sessions.link(home.owner)
            told |= {"slots": list(slots(app)), "digest": version.digest, "cookie": home.plane.sessions.open(code)}
            prepared = unpacking.prepare(root)
            Path(REQUESTS).exists()
            print(json.dumps(told), flush=True)
            sys.stdin.readline()
            Path(FILES).exists()
            print(json.dumps(unpacking.unpack(prepared, home, int(sys.stdin.readline()), broken=broken)), flush=True)
            sys.stdin.read()
        server.should_exit = True
        thread.join(20)


def plant(root: Path) -> None:
    """A canary outside, one in each folder above, one in each folder of the home."""
    (root / "outside").mkdir()
    home = root / "srv" / "home"
    inside = (p for p in home.rglob("*") if p.is_dir() and not p.is_symlink())
    for folder in [root / "outside", root, root / "srv", home, *inside]:
        (folder / f"{CANARY}.txt").write_bytes(SECRET)


def slots(app: Any) -> Iterator[Slot]:
    """Every place of every route that takes text."""
    for path, methods, route in _walk(app.routes, ""):
        asked = getattr(route, "dependant", None)
        if asked is None:
            continue
        kind = getattr(getattr(getattr(route, "body_field", None), "field_info", None), "annotation", None)
        fields = getattr(kind, "model_fields", {})
        names = [("path", n) for n in re.findall(r"{(\w+)", path)]
        names += [("query", n) for n in sorted(_queries(asked))]
        names += [
            ("body", n) for n, f in fields.items() if n not in PROSE and re.search("str|dict|list", str(f.annotation))
        ]
        for method in sorted(methods - {"HEAD"}):
            yield from (
                Slot("control", method, path, where, n) for where, n in names if (method, path, n) not in DECLARED
            )


def _queries(asked: Any) -> set[str]:
    return {p.name for p in asked.query_params}.union(*map(_queries, asked.dependencies))


if __name__ == "__main__":
    serve(Path(sys.argv[1]), "--broken" in sys.argv)
