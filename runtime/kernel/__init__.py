"""The part of the runtime that waits: actors and what they need, on asyncio alone.

    actor          what an actor's author sees: Behavior, ActorContext, Ref, Request, Reply
    cell, life     where an actor lives, and one life of it: set up, take turns, wind up
    mailbox        bounded, control lane first; what nobody gets is counted in dead_letters
    supervision    children as data, who is restarted when; system is the top of the tree
    clock          monotonic time, timers, sleep; virtual is a whole loop in virtual time, for tests
    batcher        group commit without a timer
    watchdog       notices from outside that the loop does not move, and says who holds it

Law: imports core and errors, knows neither services nor tasks. Nothing here is thread-safe but the watchdog.
"""
