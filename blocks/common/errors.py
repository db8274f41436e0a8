"""What can go wrong at a port; the type alone decides whether a task is tried again.

```
PortError
├── TransientError          try again: the same call may well succeed in a moment
│   ├── Unavailable         the service did not answer, or said that it is busy
│   └── LostRace            another writer was first; read again, then write on top
└── TerminalError           do not try again: nothing changes until a person changes something
    ├── NotFound            the thing that was named does not exist
    ├── Conflict            it exists already, with other content
    ├── Corrupt             what was read is not what was written
    ├── Rejected            the other side refused what it was given
    └── JobFailed           the work itself failed, was stopped, or hit a limit
```
What the *rules* refuse is a `tasks.shared.rules.refusal.Refusal`, which is never tried again either.
"""


class PortError(Exception):
    """Anything that went wrong at a port. The message names the thing, the place, the value and the remedy."""


class TransientError(PortError):
    """The same call may succeed in a moment: a task tries again."""


class Unavailable(TransientError):
    """The service did not answer, or said that it is busy."""


class ConcurrentWrite(TransientError):
    """Another writer was first; read again, then write on top of what is there."""


class TerminalError(PortError):
    """Nothing changes until a person changes something: a task is not tried again."""


class NotFound(TerminalError):
    """The thing that was named does not exist."""


class Conflict(TerminalError):
    """It exists already, with other content."""


class Corrupt(TerminalError):
    """What was read is not what was written."""


class Rejected(TerminalError):
    """The other side refused what it was given."""


class JobFailed(TerminalError):
    """The work itself failed, was stopped, or hit a limit."""
