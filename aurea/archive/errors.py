"""Why an archive is not taken."""


class ArchiveRefused(Exception):
    """An archive that could do harm. The message says what is wrong and what to do."""
