"""The command line, started quickly: one process has imported it, and forks for each command.

A command is what it always is: a process of its own, with the arguments, variables, folder and streams of whoever
called it, running the console script's `main`. Only the imports are done already. `falaj` on the readers' PATH is
a small script that hands all this over a socket and ends with the command's exit code. It is one for a shell and for
Python at once, because a path with a space fits no `#!` line.
"""

from __future__ import annotations

import array
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from falaj.entrypoints.cli.app import COMMANDS, main

SHOWN_WIDE = {"COLUMNS": "200", "NO_COLOR": "1"}
SHIM = """#!/bin/sh
'''exec' '{python}' -IS "$0" "$@"
' '''
import array, json, os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect({address!r})
said = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode("utf-8", "surrogateescape")
s.sendmsg([len(said).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
s.sendall(said)
sys.exit(int(s.recv(8) or b"1"))
"""


class Quick:
    """Starts commands for readers; `bin` goes to the front of their PATH."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        address = folder / "s"
        shim = self.bin / "falaj"
        shim.write_text(SHIM.format(python=sys.executable, address=str(address)), "utf-8")
        shim.chmod(0o755)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("FALAJ_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.docs.quick", str(address)],
            stdout=subprocess.PIPE, env=inherited | SHOWN_WIDE, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def close(self) -> None:
        """No command is started any more."""
        self._process.terminate()
        self._process.wait(10)
        if self._process.stdout is not None:
            self._process.stdout.close()


def serve(address: str) -> None:
    """Fork for each command that is handed over."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(32)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        caller, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _answer(caller)
        caller.close()


def _answer(caller: socket.socket) -> None:
    """Run the command in a child of this process, so that its exit status can be told however it ends."""
    streams = array.array("i")
    size, ancillary, _, _ = caller.recvmsg(4, socket.CMSG_SPACE(3 * streams.itemsize))
    for _, _, data in ancillary:
        streams.frombytes(data)
    said = b""
    while len(said) < int.from_bytes(size, "big"):
        said += caller.recv(65536)
    child = os.fork()
    if child == 0:
        caller.close()
        _run(json.loads(said), list(streams))
    for stream in streams:
        os.close(stream)
    ends = os.pidfd_open(child)  # unlike its number, never another process's
    threading.Thread(target=_hang_up, args=(caller, ends), daemon=True).start()
    _, status = os.waitpid(child, 0)
    caller.sendall(str(os.waitstatus_to_exitcode(status) % 256).encode())
    os._exit(0)


def _hang_up(caller: socket.socket, ends: int) -> None:
    """Whoever ends what they started, such as by `kill $!`, ended the script that hands it over: so the command ends too."""
    if not caller.recv(1):
        with suppress(ProcessLookupError):  # it ended by itself, and its exit code is what was waited for
            signal.pidfd_send_signal(ends, signal.SIGTERM)


def _run(said: tuple[list[str], dict[str, str], str], streams: list[int]) -> None:
    arguments, variables, folder = said
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = ["falaj", *arguments]
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, encoding="utf-8", buffering=1) for number, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    code: object = 1
    try:
        main()
        code = 0
    except SystemExit as e:
        code = e.code
    except BaseException:  # what the interpreter does at the end of a program that fails
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    for where, _ in COMMANDS.values():
        if not where.startswith("demo"):
            importlib.import_module(f"falaj.entrypoints.cli.{where.partition(':')[0]}")
    serve(sys.argv[1])
