"""Every exception of the runtime on one screen, split by what the caller can do about it.

The docstring says when it is raised; messages carry the field, the value and what is allowed.
"""

from __future__ import annotations


class NoriaError(Exception):
    """Base of everything Noria raises on purpose."""


# -- fix the request or the code; repeating it changes nothing -------------------------------------


class InvalidInput(NoriaError):
    """A value from outside is not allowed; `errors` lists (JSON pointer, detail) pairs."""

    def __init__(self, detail: str, errors: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors


class SettingsError(NoriaError):
    """Settings are wrong; the message lists all of them with name, value and what is allowed."""


class EmbeddedError(NoriaError):
    """The embedded PostgreSQL cannot be used; the message says why, where, and what to do."""


class IllegalTransition(NoriaError):
    """An event that the task's state forbids; nothing was changed."""


class RegistrationError(NoriaError):
    """A handler, actor or resource is declared in a way that cannot work; names file and line."""


class UndecodableMessage(NoriaError):
    """Bytes from the wire that are not one of our messages."""


# -- refused by the record --------------------------------------------------------------------------


class TaskNotFound(NoriaError):
    """No task with this id."""


class WrongState(NoriaError):
    """The task's present state forbids what was asked."""

    def __init__(self, detail: str, state: str) -> None:
        super().__init__(detail)
        self.state = state


class TransactionRefused(NoriaError):
    """What a handler wrote in its transaction cannot be committed; the cause is the database's own error."""


class ObjectNotFound(NoriaError):
    """Nothing lies under this key."""


# -- try again later --------------------------------------------------------------------------------


class Unavailable(NoriaError):
    """A service cannot answer now. What was asked may or may not have happened; repeat it with the same ids."""


class Overloaded(NoriaError):
    """A bounded queue is full; nothing was done. Try again after `retry_after_s`."""

    def __init__(self, detail: str, retry_after_s: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


# -- actors -----------------------------------------------------------------------------------------


class AskError(NoriaError):
    """An ask that got no answer."""


class AskTimeout(AskError):
    """No answer within the deadline; whether the message was handled is unknown."""


class ActorStopped(AskError):
    """The actor is stopped (or was, before it could answer)."""


class ActorRestarted(AskError):
    """The actor failed while it held this message and was restarted; the message is not repeated."""


class MailboxFull(AskError):
    """The actor's bounded mailbox refused the message."""


# -- give up ----------------------------------------------------------------------------------------


class IncarnationDead(NoriaError):
    """This process was declared dead by the record; it must exit (code 75) and start anew."""
