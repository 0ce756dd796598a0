"""Where the process stands on its way out."""

from proxy.flag import Flag


class Drain:
    """Set by the server, read by the app."""

    def __init__(self) -> None:
        self.started = False
        """No more requests are wanted on connections that are open."""
        self.over = Flag()
        """Requests in flight must be answered now, finished or not."""
