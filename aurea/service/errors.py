"""How a service ends before its time."""


class ServiceFailed(Exception):
    """The service cannot start or go on. The message says why and what to do."""


class StopRequested(Exception):
    """SIGINT, SIGTERM or SIGHUP arrived."""
