from __future__ import annotations

import subprocess
import sys

import msgspec

PROGRAM = """
from falaj.kernel import log
log.configure("control-plane", "warning")
mine = log.logger("here").bind(flow="f1")
mine.info("silent")
mine.warning("heard", number=3)
try:
    raise ValueError("broken")
except ValueError:
    mine.error("failed", exc_info=True)
"""


def test_logs_are_lines_of_json_on_standard_error() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    heard, failed = (msgspec.json.decode(line) for line in done.stderr.splitlines())
    assert {k: v for k, v in heard.items() if k != "timestamp"} == {
        "event": "heard", "flow": "f1", "level": "warning", "module": "here", "number": 3, "process": "control-plane",
    }  # fmt: skip
    assert heard["timestamp"].endswith("Z")
    assert "ValueError: broken" in failed["exception"]
