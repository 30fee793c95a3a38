"""The handler author's face: what handlers are written with, and how a node reads what was written.

    markers.py      @handler and @lifespan: they mark a function and return it unchanged
    options.py      what may be said about a handler, validated
    limits.py       what a task may carry, and words for what is beyond it
    actor.py        class Actor, field(), actor(): keyed actors as authors see them
    task.py         Task and task(): a call of a handler as a value, typed
    workflow.py     Workflow, chain, group, chord: several tasks as one value
    parents.py      what ctx.parents holds: the tasks that this one waited for
    context.py      Context: what a running handler sees of the runtime
    exceptions.py   Fail, Retry and the other ways out of a handler
    signature.py    the arguments of a function, read once, with errors that name the line
    binding.py      arguments: JSON to Python values and back, and their JSON Schema
    results.py      results: Python values to bytes and back
    exact.py        what JSON would silently change is found here
    registry.py     Registry and HandlerDef: what a node can run
    loading.py      modules, files and packages by name
    resources.py    what ctx.use searches, by type
    lifespans.py    resources of a node process, opened in order and closed in reverse
    source.py       file and line of what was written
    log_context.py  task id, attempt and trace on every log record

Law: nothing is registered globally and nothing is read from the environment at import.
"""
