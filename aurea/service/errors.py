"""How a service ends before its time."""


class ServiceFailed(Exception):
    """The service cannot start or go on. The message says why and what to do."""


class StopRequested(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived.

    No `Exception`, as `KeyboardInterrupt` is none: it comes anywhere, and whoever takes any failure
    for one of a file or a library would go on, deaf to every further signal.
    """
