"""Log refusals without a traceback, so that people see only the sentence with the problem and the remedy.

The message of a refusal, or of a terminal error of a port, says all that a person needs. A traceback through our code
and Prefect's would hide it. Other errors keep their traceback.
"""

import logging

from blocks.common.errors import TerminalError
from tasks.shared.rules.refusal import Refusal

_PREFECT_LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine")


class RefusalTracebackFilter(logging.Filter):
    """Removes the traceback from log records whose error explains itself. No record is dropped."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True, after removing the traceback of a refusal from the record."""
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, Refusal | TerminalError):
            message, shown = record.getMessage(), repr(error)
            record.msg, record.args = message.replace(shown, str(error)), ()
            record.exc_info, record.exc_text = None, None
        return True


def hide_refusal_tracebacks() -> None:
    """Add the filter to Prefect's run loggers in this process. Calling it again changes nothing."""
    for name in _PREFECT_LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, RefusalTracebackFilter) for known in logger.filters):
            logger.addFilter(RefusalTracebackFilter())
