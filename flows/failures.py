"""What people read of a run that was refused: the sentence that names what is wrong and the remedy, without traceback.

A refusal of the rules, or a terminal error of a port, says all that a person needs. Its traceback goes through our
code and Prefect's, and hides the sentence. Other errors keep theirs.
"""

import logging

from blocks.common.errors import TerminalError
from tasks.shared.rules.refusal import Refusal

_PREFECT_LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine")


class RefusalTracebackFilter(logging.Filter):
    """Takes the traceback off records of errors that explain themselves; passes every record on."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True, the record changed where it bears a refusal."""
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, Refusal | TerminalError):
            message, shown = record.getMessage(), repr(error)
            record.msg, record.args = message.replace(shown, str(error)), ()
            record.exc_info, record.exc_text = None, None
        return True


def hide_refusal_tracebacks() -> None:
    """Have Prefect's own loggers of runs leave such tracebacks out, in this process. A second call changes nothing."""
    for name in _PREFECT_LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, RefusalTracebackFilter) for known in logger.filters):
            logger.addFilter(RefusalTracebackFilter())
