"""A control plane's address is told when somebody listens there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CONNECTS = """
import os, socket, sys
from pathlib import Path
from urllib.parse import urlsplit
from falaj.entrypoints import control_plane
from falaj.kernel.settings import Settings

def at_once(message):
    socket.create_connection(("127.0.0.1", urlsplit(message["url"]).port), timeout=5).close()
    os.write(1, b"connected")
    os._exit(0)

control_plane.say = at_once
folder = Path(sys.argv[1])
control_plane.run(Settings(home=folder / "home", project=folder), private=True)
"""


def test_whoever_reads_the_address_can_connect_at_once(tmp_path: Path) -> None:
    read, write = os.pipe()  # it serves until its standard input closes
    command = [sys.executable, "-c", CONNECTS, str(tmp_path)]
    done = subprocess.run(command, stdin=read, capture_output=True, text=True, timeout=60, check=False)
    os.close(read)
    os.close(write)
    assert done.stdout == "connected", done.stderr
