"""What a project says of its models: frozen types and pure rules."""

from __future__ import annotations

from typing import Any

import msgspec

from falaj.governance.changes.inventory import Declared
from falaj.kernel.access import Action
from falaj.kernel.errors import Invalid
from falaj.kernel.names import check_column, check_name
from falaj.lifecycle.data.model import SourceSpec
from falaj.lifecycle.evidence.model import GateSpec
from falaj.lifecycle.features.model import EntitySpec, ViewSpec
from falaj.lifecycle.monitoring.policy import MonitorPolicy, RetrainPolicy, ReviewPolicy
from falaj.lifecycle.rollout.strategy import Strategy
from falaj.lifecycle.training.model import Input, JoinKey, TrainingSpec, ViewUse

DEFINITION_READ = Action("loop.read_definition", "read", "Project", "see what is defined and what would change")
DEFINITION_APPLY = Action("loop.apply", "engineering", "Project", "make a project's definition the one that holds")
BUILD = Action("loop.build", "engineering", "Model", "carry a model from data to a registered version")
FLOW_READ = Action("loop.read_flow", "read", "Flow", "watch a flow")
FLOW_CANCEL = Action("loop.cancel_flow", "engineering", "Flow", "stop a flow that is under way")
CLOCK_SET = Action("loop.set_clock", "administration", "Platform", "move the home's clock to replay recorded data")
STATUS_READ = Action("loop.read_status", "read", "Platform", "see how the platform is")
ACTIONS = (DEFINITION_READ, DEFINITION_APPLY, BUILD, FLOW_READ, FLOW_CANCEL, CLOCK_SET, STATUS_READ)

BUILD_FLOW, STAGING_FLOW, RELEASE_FLOW, ROLLOUT_FLOW = "build", "staging", "release", "rollout"


class ModelDefinition(msgspec.Struct, frozen=True):
    """One model, as declared by the project and frozen.

    `spine` is the source whose rows are enriched, `at` its column with the moment of decision.
    `inputs` are the features in the model's order, not yet with categories. `gates` holds the
    mandatory ones too. `approvals` are the roles that must approve, `oversight` what the inventory is told of it. `train` is `module:name`, `code`
    the digest of that function's source. With `history_seconds` only rows are learnt from that are no older, by `at`.
    """

    name: str
    task: str
    label: str
    spine: str
    at: str
    inputs: tuple[Input, ...]
    keys: tuple[JoinKey, ...]
    views: tuple[ViewUse, ...]
    gates: tuple[GateSpec, ...]
    train: str
    code: str
    positive: str = "true"
    purpose: str = ""
    approvals: tuple[str, ...] = ()
    params: dict[str, Any] = {}
    holdout: float = 0.2
    validation: float = 0.15
    slices: tuple[str, ...] = ()
    strategy: Strategy | None = None
    monitor: MonitorPolicy = MonitorPolicy()
    retrain: RetrainPolicy = RetrainPolicy()
    history_seconds: int = 0
    seed: int = 0
    oversight: Declared = Declared()
    review: ReviewPolicy | None = None

    def training(self) -> TrainingSpec:
        """What a training step is told of this model."""
        return TrainingSpec(
            model=self.name,
            task=self.task,
            label=self.label,
            at=self.at,
            inputs=self.inputs,
            keys=self.keys,
            views=self.views,
            positive=self.positive,
            purpose=self.purpose,
            holdout=self.holdout,
            validation=self.validation,
            slices=self.slices,
            history_seconds=self.history_seconds,
        )


class ProjectDefinition(msgspec.Struct, frozen=True):
    """Everything a project declares. `code` is the digest of its Python files and its falaj.toml."""

    name: str
    code: str
    sources: tuple[SourceSpec, ...]
    entities: tuple[EntitySpec, ...]
    views: tuple[ViewSpec, ...]
    models: tuple[ModelDefinition, ...]


class Applied(msgspec.Struct, frozen=True):
    """A definition that holds, or held. `digest` names it."""

    number: int
    digest: str
    definition: ProjectDefinition
    author: str
    at: str


class Change(msgspec.Struct, frozen=True):
    """One difference between two definitions; `fields` names what differs in a changed one."""

    kind: str  # source | entity | view | model
    name: str
    change: str  # added | removed | changed
    fields: tuple[str, ...] = ()


def check_names(definition: ProjectDefinition) -> None:
    """Hold a definition to the rules for names: it comes from a process that runs the project's own code. Raises `Invalid`."""
    check_name("project", definition.name)
    for kind, things in (
        ("source", definition.sources), ("entity", definition.entities), ("feature view", definition.views), ("model", definition.models),
    ):  # fmt: skip
        names = [check_name(kind, thing.name) for thing in things]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise Invalid(f"{kind} {twice[0]} is there twice", hint="give each its own name", code="duplicate_name")
    for column in (
        *(c.name for v in definition.views for c in v.columns),
        *(i.name for m in definition.models for i in m.inputs),
    ):
        check_column("feature", column)


def changes(old: ProjectDefinition | None, new: ProjectDefinition) -> tuple[Change, ...]:
    """What applying `new` over `old` would change, in the channel's order."""
    found: list[Change] = []
    for kind, attribute in (("source", "sources"), ("entity", "entities"), ("view", "views"), ("model", "models")):
        before = {x.name: x for x in getattr(old, attribute)} if old else {}
        after = {x.name: x for x in getattr(new, attribute)}
        for name in sorted(before.keys() | after.keys()):
            if name not in after:
                found.append(Change(kind, name, "removed"))
            elif name not in before:
                found.append(Change(kind, name, "added"))
            elif before[name] != after[name]:
                fields = before[name].__struct_fields__
                differing = tuple(f for f in fields if getattr(before[name], f) != getattr(after[name], f))
                found.append(Change(kind, name, "changed", differing))
    return tuple(found)
