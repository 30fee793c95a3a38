"""The executor actor: claims work for this node, runs handler bodies, commits how they ended.

executor.py   the actor: what to claim when, drain, isolation of suspects, audits
capacity.py   how much may be started now, and who has it reserved; door.py who waits for it before it accepts
claiming.py   which bands to claim from next; suspects.py those that must run alone; reminders.py what is due later
offers.py     what other nodes have offered, and the credit that they have
pool.py       pooled workers that run bodies, with one shared deadline structure
attempts.py   one attempt: its context, where its body runs, what becomes of its row
batches.py    tasks that are called together; calls.py one such call
bodies.py     how a body ended, and the move that follows from it
threads.py    plain `def` handlers
processes.py  `cpu=True` handlers, in child processes that can be killed (child.py is what they run)
storing.py    results too large for the record, before their outcomes
draining.py   the way out
settling.py   group commit of outcomes, repeated until the record answers; reporting.py what the world hears
housekeeping.py  what others changed, and what may have been lost on the way
"""
