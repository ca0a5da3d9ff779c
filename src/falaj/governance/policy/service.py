"""The policy that holds, and the one way to another.

A version is a row, written in the transaction of its audit entry, so the log has the digest of every policy that ever
held. What decides is replaced as a whole after the commit; whoever projects it (the data planes) is told then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from falaj.governance.door import Done, Door, Intent
from falaj.governance.identity.model import IDENTITY_GRANT
from falaj.governance.policy.cases import Case, Result, checked, question_of
from falaj.governance.policy.decide import (
    EnvironmentAuthoriser,
    Layers,
    default_policy,
    platform_policy,
    policy_text,
    recovery_policy,
)
from falaj.governance.policy.explain import Explanation, explain
from falaj.governance.policy.model import HOME_POLICY, POLICY_APPLY, Plan, PolicyVersion, Shift, compare
from falaj.governance.policy.ports import PolicyStore
from falaj.governance.policy.schema import PROJECT
from falaj.governance.policy.shifts import allowed, shifts, shifts_of
from falaj.governance.policy.statements import check_policy, invalid, statements, unnamed, utf8
from falaj.kernel.access import Action, Decision, Principal, Question, Resource
from falaj.kernel.clock import iso
from falaj.kernel.digests import sha256
from falaj.kernel.environments import ENVIRONMENTS
from falaj.kernel.errors import Conflict, FalajError, Integrity, Invalid, NotFound
from falaj.storage.sql.database import Database, Tx


class PolicyInForce:
    """What decides now: the `Authoriser` of the door. Replaced as a whole, never changed.

    Raises `Integrity` when the release's own rules do not agree with its own actions: nothing may start then.
    """

    def __init__(self, actions: Iterable[Action]) -> None:
        self.actions = tuple(actions)
        texts = [policy_text(name) for name in ("", *ENVIRONMENTS)]
        wrong = [w for text in texts for w in (*unnamed(statements(text)), *invalid(text, self.actions))]
        if wrong:
            raise Integrity(
                f"the platform's own policy cannot hold: {wrong[0]}",
                hint="this installation is broken: install the release again",
                code="platform_policy_broken",
            )
        self.home = recovery_policy()
        self._authoriser = EnvironmentAuthoriser(self.actions, self.home)

    def decide(self, question: Question) -> Decision:
        """Decide by what holds now."""
        return self._authoriser.decide(question)

    def take(self, home: str, authoriser: EnvironmentAuthoriser) -> None:
        """Let another policy of the home hold from now on."""
        self.home, self._authoriser = home, authoriser


class PolicyService:
    """Versions of the home's policy. `holders` are whom the tokens stand for that are good now."""

    def __init__(
        self,
        database: Database,
        store: PolicyStore,
        door: Door,
        in_force: PolicyInForce,
        holders: Callable[[Tx], list[Principal]],
    ) -> None:
        self._database = database
        self._store = store
        self._door = door
        self._in_force = in_force
        self._holders = holders
        self._listeners: list[Callable[[], None]] = []
        self._refreshing = threading.Lock()
        self.trouble = ""
        self.refresh()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after another policy took effect, so that it can be projected."""
        self._listeners.append(listener)

    def refresh(self) -> None:
        """Let the newest version hold. One that was changed beside the door, or that this release cannot hold, does
        not: then administrators may mend it, nobody else may do anything, and `trouble` says why."""
        with self._refreshing:  # from reading on: what was read first must not be taken last
            version = self.current()
            try:
                if sha256(version.text.encode()) != version.digest:
                    raise Integrity("its text is not the one that was applied", hint="", code="policy_changed")
                if version.number:
                    check_policy(version.text, self._in_force.actions)
                home, self.trouble = version.text, ""
            except FalajError as e:
                home = recovery_policy()
                self.trouble = f"version {version.number} of the home's policy does not hold here: {e.message}"
            self._in_force.take(home, EnvironmentAuthoriser(self._in_force.actions, home))

    def layers(self, environment: str = "") -> Layers:
        """What holds (for things in an environment) now."""
        return Layers(platform_policy(environment), self._in_force.home)

    # versions

    def current(self) -> PolicyVersion:
        """The newest version; the release's default in a home that never applied one."""
        return self._database.read(self._store.newest) or _first()

    def version(self, number: int) -> PolicyVersion:
        """One version. Raises `NotFound`."""
        found = self._database.read(lambda tx: self._store.one(tx, number)) if number else _first()
        if found is None:
            raise NotFound(
                f"there is no version {number} of the policy", hint="see `falaj policy log`", code="no_such_policy"
            )
        return found

    def versions(self) -> list[PolicyVersion]:
        """All versions, newest first, the release's default last."""
        return [*self._database.read(self._store.all), _first()]

    # another one

    def plan(self, text: str) -> Plan:
        """What applying `text` would change. Raises `Invalid` for what could not be applied."""
        current, actions = self.current(), self._in_force.actions
        added, removed, changed = compare(statements(current.text), check_policy(text, actions))
        found = tuple(shifts(self._in_force, EnvironmentAuthoriser(actions, text), actions))
        return Plan(sha256(utf8(text)), current.number, added, removed, changed, found)

    def shifts(self, old: str, new: str) -> tuple[Shift, ...]:
        """The decisions that differ between two texts, by the actions of this release. Raises `Invalid`."""
        return shifts_of(old, new, self._in_force.actions)

    def gained(self, before: tuple[str, ...], roles: tuple[str, ...]) -> tuple[str, ...]:
        """The actions that some roles allow and others do not, by the policy that holds now."""
        home, actions = self._in_force.home, self._in_force.actions
        return tuple(sorted(allowed(home, roles, actions) - allowed(home, before, actions)))

    def apply(self, actor: Principal, text: str, reason: str, operation_id: str = "") -> PolicyVersion:
        """Let `text` be the home's policy from now on.

        Raises `Invalid` for a text that cannot hold, `Conflict` for one that holds already or that would leave nobody
        who may change it again.
        """
        digest = sha256(utf8(text))
        reason = reason.encode(errors="replace").decode().strip()

        def do(tx: Tx) -> Done[PolicyVersion]:
            if not 0 < len(reason) <= 1000:
                raise Invalid(
                    "a change of the policy needs a reason of 1 to 1000 characters",
                    hint="say why: --reason '…'",
                    code="no_reason",
                )
            before = self._store.newest(tx) or _first()
            check_policy(text, self._in_force.actions)
            if digest == before.digest and not self.trouble:
                raise Conflict(
                    f"this is version {before.number}, which holds already",
                    hint="nothing to do; `falaj policy show` prints it",
                    code="same_policy",
                )
            self._check_keepers(tx, EnvironmentAuthoriser(self._in_force.actions, text))
            at = iso(self._door.clock.now())
            version = PolicyVersion(before.number + 1, digest, text, reason, actor.name, at)
            self._store.add(tx, version)
            return Done(version, {"version": version.number, "before": before.digest})

        detail = {"digest": digest, "reason": reason[:500]}
        done = self._door.change(Intent(actor, POLICY_APPLY, HOME_POLICY, operation_id, detail=detail), do)
        self.refresh()
        for listener in self._listeners:
            listener()
        return msgspec.convert(done, PolicyVersion)

    def _check_keepers(self, tx: Tx, authoriser: EnvironmentAuthoriser) -> None:
        """Raise `Conflict` unless somebody with a good token could, under `authoriser`, change policy and roles again."""
        needed = ((POLICY_APPLY, HOME_POLICY), (IDENTITY_GRANT, Resource("Account", "*")))
        for holder in dict.fromkeys(self._holders(tx)):
            if all(authoriser.decide(Question(holder, a.name, r)).allowed for a, r in needed):
                return
        raise Conflict(
            "under this policy nobody who has a token could change the policy or the roles again",
            hint="permit policy.apply and identity.grant to a role that somebody has; `falaj token list` shows who",
            code="would_lock_out",
        )

    # asking

    def test(self, cases: Iterable[Case]) -> list[Result]:
        """The cases' results by what holds now. Raises `Invalid` for a case that cannot be asked."""
        return checked(self._in_force, cases, self._in_force.actions)

    def explain(self, case: Case, known: Callable[[str, str], dict[str, Any]]) -> Explanation:
        """Which rule decides the question of a case now, and what would change it; what it expects says nothing.

        `known` has the facts about a resource, by its type and id; those that the case has go before them. Raises `Invalid` for an action, a role or a fact that there is not.
        """
        actions = {a.name: a for a in self._in_force.actions}
        if case.action in actions:
            facts = known(actions[case.action].resource, case.resource)
            if not case.project:
                facts.pop(PROJECT, None)  # it matters to bound tokens only
            case = msgspec.structs.replace(case, attributes={**facts, **case.attributes})
        question = question_of(case, actions)
        return explain(self._in_force, question, self._in_force.home, self._in_force.actions)


def _first() -> PolicyVersion:
    text = default_policy()
    return PolicyVersion(0, sha256(text.encode()), text, "what a new home starts with", "falaj", "")
