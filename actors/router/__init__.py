"""The router actor: accepts tasks durably, decides where they go, and tells those who wait for their end.

router.py      the actor
submitting.py  how a door hands tasks over
accepting.py   group commit of accepted tasks
waiters.py     who waits for which task
messages.py    what the router is told and asked
"""
