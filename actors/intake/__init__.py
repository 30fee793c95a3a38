"""From what a caller asked for to a task that can be accepted.

Everything that can be wrong with a request is found here, before anything is stored: unknown handler, arguments
that do not bind, values out of bounds. One place for all doors (HTTP, children, Harness), so that they agree.

intake.py    checks requests and makes tasks of them
requests.py  one request as a value, and requests of tasks that code has made
faults.py    what can be wrong with one by itself
checked.py   a request in which nothing is wrong
unique.py    which of them are unique, by which rule
"""
