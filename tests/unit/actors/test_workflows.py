"""Workflows on the actors of one node, with the record in memory and time that the test moves."""

from __future__ import annotations

from typing import Any

import pytest
from typing_extensions import TypedDict

from actors import (
    Context,
    Fail,
    Harness,
    InvalidInput,
    Parents,
    Task,
    Workflow,
    chain,
    chord,
    group,
    handler,
    task,
)
from runtime.core.task import State
from runtime.errors import WrongState

LARGE = 300 * 1024  # more than the record holds


class Part(TypedDict):
    n: int
    square: int


@handler
async def square(ctx: Context, n: int) -> Part:
    return {"n": n, "square": n * n}


@handler
async def total(ctx: Context) -> int:
    return sum(part["square"] for part in ctx.parents.results(Part))


@handler
async def fan_out(ctx: Context, count: int) -> int:
    ctx.submit(chord([task(square, n=n) for n in range(count)], then=task(total)))
    return count


@handler
def fan_out_in_a_thread(ctx: Context, count: int) -> int:
    ctx.submit(chord([task(square, n=n) for n in range(count)], then=task(total)))
    return count


@handler(max_attempts=2)
async def broken(ctx: Context) -> int:
    raise Fail("no")


@handler
async def names(ctx: Context) -> list[str]:
    return [f"{parent.name}:{parent.state}" for parent in ctx.parents]


@handler
async def large(ctx: Context, size: int) -> bytes:
    return b"x" * size


@handler
async def lengths(ctx: Context) -> list[Any]:
    found: list[Any] = []
    for parent in ctx.parents:
        async with parent.stream() as pieces:
            streamed = sum([len(piece) async for piece in pieces])
        found.append((parent.comes_along, len(await parent.load(bytes)), streamed))
    return found


ALL = (square, total, fan_out, fan_out_in_a_thread, broken, names, large, lengths)


async def test_a_fan_out_is_joined_once_with_all_results() -> None:
    async with Harness(*ALL) as harness:
        made = await harness.submit(task(fan_out, count=5))
        [join] = await harness.tasks("total")
        assert join.result == 0 + 1 + 4 + 9 + 16
        assert join.view.workflow_id == made.id
        parts = await harness.tasks("square")
        assert [part.view.workflow_id for part in parts] == [made.id] * 5
        assert join.view.parents == tuple(part.id for part in parts)
        view = await harness.store.workflow(made.id, 10)
        assert view is not None
        assert (view.state, view.total) == ("succeeded", 6)


async def test_a_def_handler_fans_out_too() -> None:
    async with Harness(*ALL) as harness:
        await harness.submit(task(fan_out_in_a_thread, count=3))
        await harness.run_until_idle()
        [join] = await harness.tasks("total")
        assert join.result == 5


async def test_a_chain_of_groups_runs_step_by_step() -> None:
    async with Harness(*ALL) as harness:
        flow = chain(task(square, n=1), group(task(square, n=2), task(square, n=3)), task(names), task(names))
        assert list(flow.tasks) == ["square", "square_2", "square_3", "names", "names_2"]
        assert flow.parents["names"] == ("square_2", "square_3")
        tasks = await harness.submit_workflow(flow)
        assert tasks["names"].result == ["square_2:succeeded", "square_3:succeeded"]
        assert tasks["names_2"].result == ["names:succeeded"]


async def test_a_failed_parent_ends_its_children_as_they_say() -> None:
    async with Harness(*ALL) as harness:
        flow = Workflow()
        flow.add(task(broken))
        flow.add(task(names), name="fails", after=["broken"])
        flow.add(task(names).options(on_parent_failure="skip"), name="skipped", after=["broken"])
        flow.add(task(names).options(on_parent_failure="run_anyway"), name="runs", after=["broken"])
        flow.add(task(names), name="below", after=["skipped"])
        tasks = await harness.submit_workflow(flow)
        states = {name: each.state for name, each in tasks.items()}
        assert states == {
            "broken": State.FAILED,
            "fails": State.FAILED,
            "skipped": State.CANCELLED,
            "runs": State.SUCCEEDED,
            "below": State.CANCELLED,
        }
        assert tasks["runs"].result == ["broken:failed"]
        error = tasks["skipped"].error
        assert error is not None
        assert error.message == (
            f"parent_failed: task broken ({tasks['broken'].id}), which it depends on, failed"
        )


async def test_a_child_of_a_task_on_record_and_of_none() -> None:
    async with Harness(*ALL) as harness:
        parent = await harness.submit(task(square, n=3))
        child = await harness.submit(task(names).options(depends_on=[parent.id]))
        assert child.result == [":succeeded"]
        with pytest.raises(InvalidInput, match="there is no task 0"):
            await harness.submit(task(names).options(depends_on=["01890000-0000-7000-8000-000000000000"]))


async def test_large_results_are_read_from_where_they_lie() -> None:
    async with Harness(*ALL) as harness:
        sizes = [LARGE, 10, 250_000, 250_000, 250_000, 250_000, 250_000]
        tasks = await harness.submit_workflow(
            chord([task(large, size=size) for size in sizes], task(lengths))
        )
        comes, *_ = zip(*tasks["lengths"].result, strict=True)
        assert [found[1:] for found in tasks["lengths"].result] == [[size, size] for size in sizes]
        assert list(comes) == [False, True, True, True, True, True, False]


async def test_cancelling_a_parent_cancels_what_waits_for_it() -> None:
    async with Harness(*ALL) as harness:
        flow = chain(task(square, n=1).options(delay_s=60), task(names), task(names))
        tasks = await harness.submit_workflow(flow)
        assert tasks["names"].state is State.BLOCKED
        await harness.cancel(tasks["square"])
        assert [each.state for each in tasks.values()] == [State.CANCELLED] * 3


async def test_a_handler_is_tested_with_parents_by_name() -> None:
    parts = Parents.of({"a": {"n": 2, "square": 4}, "b": {"n": 3, "square": 9}})
    assert await total(Context.for_test(parents=parts)) == 13
    assert parts["a"].result(Part)["square"] == 4
    with pytest.raises(KeyError, match="no parent is named 'c'; there are: a, b"):
        parts["c"]
    with pytest.raises(InvalidInput, match="is not a list"):
        parts["a"].result(list[int])
    assert len(Context.for_test().parents) == 0


async def test_a_parent_without_a_result_says_why() -> None:
    @handler
    async def reads(ctx: Context) -> str:
        with pytest.raises(WrongState, match="parent broken .* has no result, it is failed: Fail: no"):
            ctx.parents.results()
        return "seen"

    async with Harness(broken, reads) as harness:
        flow = chain(task(broken), task(reads).options(on_parent_failure="run_anyway"))
        assert (await harness.submit_workflow(flow))["reads"].result == "seen"


def test_a_workflow_is_checked_where_it_is_made() -> None:
    flow = Workflow()
    flow.add(task(square, n=1), name="a")
    with pytest.raises(InvalidInput, match="task a of a workflow: there is one of that name"):
        flow.add(task(square, n=1), name="a")
    with pytest.raises(InvalidInput, match="after: there is no task 'b' yet"):
        flow.add(task(square, n=1), after=["b"])
    with pytest.raises(InvalidInput, match="'b c' is no name"):
        flow.add(task(square, n=1), name="b c")
    with pytest.raises(InvalidInput, match="say after="):
        flow.add(task(square, n=1).options(depends_on=["01890000-0000-7000-8000-000000000000"]))
    for wrong, text in (("no", "is not a list"), (["x"], "'x' is not the id"), ([1], "1 is not the id")):
        with pytest.raises(InvalidInput, match=text):
            task(square, n=1).options(depends_on=wrong)
    with pytest.raises(InvalidInput, match="'perhaps' is not one of fail, skip, run_anyway"):
        task(square, n=1).options(on_parent_failure="perhaps")  # type: ignore[typeddict-item]  # that is the point


def test_a_workflow_comes_back_from_its_request() -> None:
    flow = chord([task(square, n=n) for n in range(3)], then=task(total).options(on_parent_failure="skip"))
    request = flow.to_request()
    assert request["tasks"]["total"] == {
        "handler": "total",
        "payload": {},
        "on_parent_failure": "skip",
        "depends_on": ["square", "square_2", "square_3"],
    }
    again = Workflow.from_request(request)
    assert again.to_request() == request
    assert again.ends == ["total"]
    assert again.tasks["square"] == Task(handler="square", payload={"n": 0})
