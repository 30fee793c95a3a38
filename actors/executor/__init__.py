"""The executor actor: claims work for this node, runs handler bodies, commits how they ended.

executor.py   the actor: what to claim when, drain, isolation of suspects, audits
capacity.py   how much may be started now, and who has it reserved
pool.py       pooled workers that run bodies, with one shared deadline structure
bodies.py     one body: run it, and turn whatever happens into a move of the row
threads.py    plain `def` handlers
processes.py  `cpu=True` handlers, in child processes that can be killed (child.py is what they run)
settling.py   group commit of outcomes, repeated until the record answers
"""
