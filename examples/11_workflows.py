"""Tasks that wait for each other: fan out over the parts of a text, then one task that gets all their results.

    noria dev examples/11_workflows.py

    noria submit count text="one two three two" --wait    # a task that makes a workflow of its own
    noria workflow list
    noria workflow show ID

A child is run when all its parents have ended; `ctx.parents` are they, with their results. Parts and join are committed
together with the outcome of the task that made them, or not at all, and the join runs once, whatever dies meanwhile.
"""

from __future__ import annotations

from collections import Counter

from actors import Context, Workflow, chain, chord, handler, task
from node.client import SyncClient


@handler
async def count(ctx: Context, text: str) -> int:
    """One task per line, and one that adds up what they found."""
    lines = text.splitlines()
    ctx.submit(chord([task(words, line=line) for line in lines], then=task(most_frequent)))
    return len(lines)


@handler
async def words(ctx: Context, line: str) -> dict[str, int]:
    return dict(Counter(line.split()))


@handler
async def most_frequent(ctx: Context) -> str:
    total: Counter[str] = Counter()
    for found in ctx.parents.results(dict[str, int]):  # in the order of the parts, checked against the type
        total.update(found)
    return total.most_common(1)[0][0] if total else ""


@handler
async def tell(ctx: Context) -> str:
    """Runs also where the part before it failed, and says so."""
    before = ctx.parents[0]
    return f"the word is {before.result(str)}" if before.state == "succeeded" else f"nothing: {before.state}"


def flow(lines: list[str]) -> Workflow:
    """The same from outside, with one more step."""
    parts = [task(words, line=line) for line in lines]
    return chain(chord(parts, then=task(most_frequent)), task(tell).options(on_parent_failure="run_anyway"))


if __name__ == "__main__":
    with SyncClient("http://127.0.0.1:8080") as client:
        print(client.submit_workflow(flow(["one two", "two three"])).result(timeout_s=30))
