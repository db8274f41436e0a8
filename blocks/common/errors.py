"""Errors that ports raise. The type alone decides whether a task is retried.

```
PortError
├── TransientError          retry: the same call may succeed in a moment
│   ├── Unavailable         the service did not respond, or reported that it is busy
│   └── ConcurrentWrite     another writer was first; read again, then write on top of its result
└── TerminalError           no retry: nothing changes until a person changes something
    ├── NotFound            the resource does not exist
    ├── Conflict            the resource exists already, with other content
    ├── Corrupt             the data read are not the data written
    ├── Rejected            the other side refused the request or its content
    └── JobFailed           the job itself failed, was stopped, or reached a limit
```
A refusal by the rules of the project has a class of its own, and is never retried either.
"""

from runtime.foreign_text import visible


class PortError(Exception):
    """An error of a port. The message names the resource, the place, the value and the remedy, in visible text."""

    def __str__(self) -> str:
        return visible(super().__str__(), keep="\n")


class TransientError(PortError):
    """The same call may succeed in a moment: the task is retried."""


class Unavailable(TransientError):
    """The service did not respond, or reported that it is busy."""


class ConcurrentWrite(TransientError):
    """Another writer was first; read again, then write on top of its result."""


class TerminalError(PortError):
    """Nothing changes until a person changes something: the task is not retried."""


class NotFound(TerminalError):
    """The resource does not exist."""


class Conflict(TerminalError):
    """The resource exists already, with other content."""


class Corrupt(TerminalError):
    """The data read are not the data written."""


class Rejected(TerminalError):
    """The other side refused the request or its content."""


class JobFailed(TerminalError):
    """The job itself failed, was stopped, or reached a limit."""
