"""Where the process stands on its way out."""

from typing import Final

from proxy.flag import Flag

SHUTTING_DOWN: Final = "The server is shutting down."
"""What is told to whom a drain leaves without an answer."""


class Drain:
    """Set by the server, read by the app."""

    def __init__(self) -> None:
        self.started = False
        """No more requests are wanted on connections that are open."""
        self.begun = Flag()
        """The same, for those who wait for it; set a moment later."""
        self.over = Flag()
        """Requests in flight must be answered now, finished or not."""
