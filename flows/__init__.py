"""One flow a file, each reading as one sentence.

Importing a flow hides the traceback of a refusal in the log. The message of a refusal, or of a terminal error of a
port, says all that a person needs, and a traceback would hide it. Other errors keep their traceback.
"""

import logging

from blocks.common.errors import TerminalError
from tasks.shared.rules.refusal import Refusal


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


for _name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(RefusalTracebackFilter())
