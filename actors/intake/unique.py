"""Which requests are unique, by which rule: what a task says, else its handler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson

from actors.authoring.unique import due_faults
from actors.intake.checked import Checked
from actors.intake.faults import Errors, placed, raise_if_any
from actors.intake.requests import TaskSpec
from runtime.core.unique import Sole, Unique, unique_id


def sole_of(one: Checked, rule: Unique) -> Sole:
    spec = one.spec
    payload = orjson.loads(one.payload)
    return Sole(unique_id(spec.tenant, spec.handler, rule, actor_key=spec.actor_key, payload=payload), rule)


def make_unique(checked: Sequence[Checked]) -> None:
    """By what the task says, else its handler. Raises InvalidInput."""
    errors: Errors = []
    for index, one in enumerate(checked):
        spec = one.spec
        if spec.unique is not None and _is_linked(spec):
            errors += placed([("/unique", _NOT_LINKED)], index, checked)
        rule = spec.unique
        if rule is None and (own := one.handler.options.unique) is not None and not _is_linked(spec):
            rule = own
        if rule is not None:
            one.unique = rule
            errors += placed(due_faults(rule, delay_s=spec.delay_s, run_at=spec.run_at), index, checked)
            if any(_is_linked(other.spec) for other in checked):
                errors += placed([("/unique", _NOT_BESIDE)], index, checked)
    raise_if_any(errors)


_NOT_LINKED: Final = "does not go with depends_on and workflows: what others wait for cannot be another task"
_NOT_BESIDE: Final = "does not go in one batch with tasks that depend on others"


def _is_linked(spec: TaskSpec) -> bool:
    return bool(spec.parents) or spec.workflow_id is not None


def refuse_unique(specs: Sequence[TaskSpec]) -> None:
    detail = "only tasks that are posted can be unique, not children, schedules and parts of workflows"
    errors: Errors = []
    for index, spec in enumerate(specs):
        if spec.unique is not None:
            errors += placed([("/unique", detail)], index, specs)
    raise_if_any(errors)
