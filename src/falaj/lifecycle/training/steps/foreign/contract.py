"""What goes into an imported model and what comes out: from the model, the project and the importer. Nothing is guessed.

Each fact has one place that is asked first: the project's definition, then what the importer declares, then what the
model says of itself. Two that contradict each other are a refusal, and what nobody says is named.
"""

from __future__ import annotations

import msgspec

from falaj.kernel.errors import Invalid
from falaj.lifecycle.training.foreign import Declared, incomplete
from falaj.lifecycle.training.model import Input, JoinKey, TrainingSpec, ViewUse
from falaj.lifecycle.training.steps.foreign.originals import Foreign

_TRUE = ({"0", "1"}, {"false", "true"})
_OF_COURSE = {"1", "true"}
"""The positive class where the two are called 0 and 1, or false and true."""


class Agreed(msgspec.Struct, frozen=True):
    """What is known of a model. `classes` in the model's own order; `positive` is the place of the positive one among them."""

    task: str
    inputs: tuple[Input, ...]
    classes: tuple[str, ...] = ()
    positive: int = 1
    label: str = ""
    purpose: str = ""
    keys: tuple[JoinKey, ...] = ()
    views: tuple[ViewUse, ...] = ()


def agree(found: Foreign, declared: Declared, definition: TrainingSpec | None) -> Agreed:
    """Put it together. Raises `Invalid`: contract_incomplete with all that is missing, contract_differs for a contradiction."""
    missing: list[str] = []
    task = _task(found, declared, definition, missing)
    inputs = _inputs(found, declared, definition, missing)
    classes, positive = ((), 1) if task in ("", "regression") else _classes(task, found, declared, definition, missing)
    if missing:
        raise incomplete(missing)
    if definition is None:
        return Agreed(task, inputs, classes, positive, declared.label, declared.purpose)
    return Agreed(
        task, inputs, classes, positive, definition.label, definition.purpose, definition.keys, definition.views
    )


def _task(found: Foreign, declared: Declared, definition: TrainingSpec | None, missing: list[str]) -> str:
    said = {"the project": definition.task if definition else "", "you": declared.task, "the model": found.task}
    told = {who: task for who, task in said.items() if task}
    if len(set(told.values())) > 1:
        raise _differs("the task is " + ", ".join(f"{task} as {who} says" for who, task in told.items()))
    if not told:
        missing.append("its task (--task binary, multiclass or regression)")
    return next(iter(told.values()), "")


def _inputs(
    found: Foreign, declared: Declared, definition: TrainingSpec | None, missing: list[str]
) -> tuple[Input, ...]:
    told = {i.name: i for i in declared.inputs}
    names = found.names or tuple(told)
    if told and found.names and set(told) - set(found.names):
        raise _differs(f"the model has no feature {', '.join(sorted(set(told) - set(found.names)))}")
    if not names:
        width = f" of its {found.width} columns" if found.width else ""
        missing.append(f"the names{width} in their order ([[inputs]] in a contract file)")
        return ()
    if found.width and len(names) != found.width:
        raise _differs(f"{len(names)} features are named, and the model reads {found.width} columns")
    defined = {i.name: i for i in definition.inputs} if definition else {}
    if defined and set(defined) != set(names):
        only = ", ".join(sorted(set(names) - set(defined))) or "none"
        lacks = ", ".join(sorted(set(defined) - set(names))) or "none"
        raise _differs(f"features that only the model has: {only}; that only the project has: {lacks}")
    return tuple(_input(name, found, told.get(name), defined.get(name), missing) for name in names)


def _input(name: str, found: Foreign, told: Input | None, defined: Input | None, missing: list[str]) -> Input:
    base = defined or told or Input(name, found.types.get(name, "float"))
    if told and defined and told.type != defined.type:
        raise _differs(f"{name} is {defined.type} in the project and {told.type} as you say")
    if told:
        base = msgspec.structs.replace(base, null=told.null, unknown=told.unknown)
    if base.type != "category":
        if found.types.get(name) == "category":
            raise _differs(f"{name} is a category to the model, and {base.type} otherwise")
        return base
    own = found.categories.get(name, ())
    categories = (told.categories if told else ()) or own
    if told and told.categories and own and told.categories != own and not found.text:
        raise _differs(f"the model has learnt other categories of {name}, or in another order")
    if not categories:
        missing.append(f"the categories of {name} in the order of their codes")
    return msgspec.structs.replace(base, categories=categories)


def _classes(
    task: str, found: Foreign, declared: Declared, definition: TrainingSpec | None, missing: list[str]
) -> tuple[tuple[str, ...], int]:
    classes = declared.classes or found.classes
    if found.classes and declared.classes and len(found.classes) != len(declared.classes):
        raise _differs(f"{len(declared.classes)} classes are named, and the model has {len(found.classes)}")
    if not classes:
        missing.append("its classes in the order of its probabilities (--classes)")
        return (), 1
    if (task == "binary") != (len(classes) == 2) or len(set(classes)) != len(classes):
        raise _differs(f"the task is {task}, and the classes are {', '.join(classes)}")
    if task != "binary":
        return classes, 1
    defined = definition.positive if definition else ""
    if declared.positive and declared.positive != defined and {declared.positive, defined} <= set(classes):
        raise _differs(f"the positive class is {defined} in the project and {declared.positive} as you say")
    wanted = declared.positive or defined
    if wanted not in classes and set(classes) in _TRUE and (not declared.positive):
        wanted = next(c for c in classes if c in _OF_COURSE)
    if not wanted:
        missing.append(f"which class is the positive one (--positive {' or '.join(classes)})")
        return classes, 1
    if wanted not in classes:
        raise _differs(f"the positive class {wanted!r} is not among {', '.join(classes)}")
    return classes, classes.index(wanted)


def _differs(why: str) -> Invalid:
    return Invalid(
        f"the model's contract contradicts itself: {why}",
        hint="import the model under another name, or mend the contract file (--contract) or the project's definition",
        code="contract_differs",
    )
