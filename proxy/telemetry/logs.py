"""One JSON object a line, for all that the process logs, uvicorn's words included."""

import contextvars
import json
import logging
from datetime import datetime, timezone
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

LOG_FILE_BYTES: Final = 10_000_000
LOG_FILES_KEPT: Final = 3
NO_REQUEST: Final = "-"

REQUEST_ID: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default=NO_REQUEST)
"""Id of the request at hand, `NO_REQUEST` outside of one."""


class RequestIdFilter(logging.Filter):
    """Gives every log record its `request_id`."""

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = REQUEST_ID.get()
        return True


class JsonLines(logging.Formatter):
    """`time` (RFC 3339, UTC), `level`, `logger`, and `request_id` within a request.

    Then either a `message` for people, with an `exception` where there was one, or the name
    of an `event` and its fields.
    """

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Returns one line, whatever is in the message."""
        time = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
        }
        request_id = getattr(record, "request_id", NO_REQUEST)
        if request_id != NO_REQUEST:
            line["request_id"] = request_id
        fields = getattr(record, "fields", None)
        if fields is None:
            line["message"] = record.getMessage()
        else:
            line |= {"event": record.getMessage(), **fields}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _LogFile(RotatingFileHandler):
    """Formats each line once; the library's own does so twice, first to see whether it fits."""

    _line: str | None = None

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self._line = None
        super().emit(record)

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of the record that is being written."""
        if self._line is None:
            self._line = super().format(record)
        return self._line


def log_event(logger: logging.Logger, event: str, **fields: Any) -> None:
    """Logs an event whose fields are for machines to read."""
    logger.info(event, extra={"fields": fields})


def configure_logging(log_file: Path | None) -> None:
    """Sends all logs, each line with its request's id, to a file or to standard error.

    A file that cannot be opened hinders nobody: standard error takes its place, and says so.
    """
    # No line says these, and each record would look them up, the last in the stack.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    handler: logging.Handler = logging.StreamHandler()
    failure: OSError | None = None
    if log_file is not None:
        try:
            handler = _LogFile(
                log_file, maxBytes=LOG_FILE_BYTES, backupCount=LOG_FILES_KEPT, encoding="utf-8"
            )
        except OSError as error:
            failure = error
    handler.setFormatter(JsonLines())
    handler.addFilter(RequestIdFilter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # These log every request, which the proxy's own line describes better.
    for name in ("httpx", "httpcore", "python_multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if failure is not None:
        logging.getLogger("proxy.logs").error("the log goes to standard error: %s", failure)
