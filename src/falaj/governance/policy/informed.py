"""What the platform knows of a resource is added to each question about it, here and nowhere else.

Whoever asks can neither forget such a fact nor say another one; where it is not known it is left out, and the rules that
need it forbid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from falaj.governance.policy.decide import Decider
from falaj.kernel.access import Decision, Question
from falaj.kernel.errors import FalajError

BREAK_GLASS = ("break-glass",)
"""The rule that permits what was allowed in an emergency; where no other one permits, the entry says so."""

Glass = Callable[[str], Mapping[str, str]]
"""What a principal may do in an emergency now: action → the id of what allows it."""
Source = Callable[[Question], dict[str, Any]]
"""The facts that it has for a question, by name; none for one that no rule needs them for."""


def _nobodys(_question: Question) -> dict[str, Any]:
    return {}


class InformedDecider:
    """Decides by another decider, once it knows what the sources know. They are told when there are stages to ask."""

    def __init__(self, decider: Decider) -> None:
        self._decider = decider
        self._sources: tuple[Source, ...] = ()
        self._whose: Source = _nobodys
        self._glass: Glass = lambda _name: {}

    def learn_from(self, *sources: Source, whose: Source = _nobodys) -> None:
        """Ask these from now on; the later one wins. `whose` knows which project a thing belongs to."""
        self._sources, self._whose = sources, whose

    def allow_in_emergencies(self, glass: Glass) -> None:
        """Ask this for what people may do beyond their roles."""
        self._glass = glass

    def facts(self, question: Question) -> dict[str, Any]:
        """What is known beside what the question says itself. Of what is not a bound token's own nothing else is looked at: an
        answer, or how long it takes, shall not tell whether the thing is there.
        """
        facts = self._whose(question)
        if question.principal.project and facts.get("project") != question.principal.project:
            return facts
        return facts | {name: value for source in self._sources for name, value in source(question).items()}

    def decide(self, question: Question) -> Decision:
        """Decide; a source that fails is a denial."""
        try:
            facts = self.facts(question)
        except FalajError as e:
            why = f"what the rules look at could not be read: {e.message}"
            return Decision(False, errors=(why[:500],), reason="the question could not be evaluated", hint=e.hint)
        resource = question.resource
        if facts:
            resource = msgspec.structs.replace(resource, attributes={**resource.attributes, **facts})
        opened = self._glass(question.principal.name)
        principal = msgspec.structs.replace(question.principal, glass=tuple(opened))
        asked = msgspec.structs.replace(question, principal=principal, resource=resource)
        decision = self._decider.decide(asked)
        if decision.allowed and decision.rules == BREAK_GLASS:
            return msgspec.structs.replace(decision, under=opened[question.action])
        return decision
