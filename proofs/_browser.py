"""Chromium without a window, over its own protocol through a pipe. https://chromedevtools.github.io/devtools-protocol/"""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

PATIENCE = 30.0
RAN = "ran"
"""The function that a script calls to be seen; every frame of every page has it."""


class Browser:
    """One tab. `seen` is what ran since the last `open`: calls of `ran`, dialogs, addresses asked for."""

    def __init__(self, program: str, folder: Path) -> None:
        to_it, from_it = os.pipe(), os.pipe()
        theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (to_it[0], from_it[1])]
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--remote-debugging-pipe",
        ]
        flags += [
            "--disable-background-networking",
            "--disable-component-update",
            f"--user-data-dir={folder}",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{theirs[0]} 4>&{theirs[1]}', "-", program, *flags], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=theirs, env={**os.environ, "HOME": str(folder)},
        )  # fmt: skip
        for fd in (*theirs, to_it[0], from_it[1]):
            os.close(fd)
        self._out, self._in = to_it[1], from_it[0]
        self._waiting, self._number, self._session = b"", 0, ""
        self.seen: list[str] = []
        self._loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")
        self.call("Runtime.addBinding", name=RAN)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the browser, and take in what happens meanwhile."""
        self._number += 1
        wanted = self._number
        message: dict[str, Any] = {"id": wanted, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            for told in self._read(deadline):
                if told.get("id") == wanted:
                    if "error" in told:
                        raise RuntimeError(f"{method}: {told['error']}")
                    found: dict[str, Any] = told["result"]
                    return found

    def open(self, url: str) -> None:
        """Go there, until everything has loaded."""
        self._loaded, self.seen = False, []
        failed = self.call("Page.navigate", url=url).get("errorText")
        if failed:
            raise RuntimeError(f"{url}: {failed}")
        deadline = time.monotonic() + PATIENCE
        while not self._loaded:
            self._read(deadline)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page; promises are awaited."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return found.get("result", {}).get("value")

    def click(self, x: float, y: float) -> None:
        """Click there, as a person does, and wait until the page has seen it."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.evaluate("new Promise(done => setTimeout(done, 30))")

    def cookie(self, name: str, value: str, url: str) -> None:
        """Let it hold a cookie."""
        self.call("Network.setCookie", name=name, value=value, url=url)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        os.close(self._out)
        os.close(self._in)

    def _read(self, deadline: float) -> list[dict[str, Any]]:
        while b"\0" not in self._waiting:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            part = os.read(self._in, 1 << 20) if ready else b""
            if not part:
                raise TimeoutError("the browser says nothing")
            self._waiting += part
        *whole, self._waiting = self._waiting.split(b"\0")
        messages = [json.loads(m) for m in whole]
        for message in messages:
            self._happened(message)
        return messages

    def _happened(self, message: dict[str, Any]) -> None:
        method, more = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.bindingCalled" and more.get("name") == RAN:
            self.seen.append(f"ran {more.get('payload', '')[:80]}")
        elif method == "Page.javascriptDialogOpening":
            self.seen.append(f"dialog {more.get('message', '')[:80]}")
            self._number += 1
            answer = {
                "id": self._number,
                "method": "Page.handleJavaScriptDialog",
                "params": {"accept": True},
                "sessionId": self._session,
            }
            os.write(self._out, json.dumps(answer).encode() + b"\0")
        elif method == "Network.requestWillBeSent":
            self.seen.append(f"asked {more.get('request', {}).get('url', '')[:200]}")
