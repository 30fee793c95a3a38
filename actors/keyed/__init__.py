"""Keyed actors on a node: turns of keys, run one message after the other, committed with the state.

keyed.py        which keys have mail here, and their turns from begin to commit
turn.py         one turn: its messages in order, the instance, what is to be committed
activations.py  instances that stay in memory between turns
ending.py       group commit of turns
placing.py      which nodes may have a key, by the version of its state
"""
