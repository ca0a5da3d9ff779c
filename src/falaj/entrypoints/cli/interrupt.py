"""Ctrl-C: what a command was at when it came."""

from __future__ import annotations


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while a command waited for a flow; `moment` when the control plane ends with the command."""

    def __init__(self, flow: str, *, moment: bool) -> None:
        super().__init__(flow)
        self.flow = flow
        self.moment = moment
