"""What surrounds the accent core: archives, models, versions, the service, the lab."""

from typing import Final

__version__: Final = "0.1.0"
"""Of the project: what is packaged, what the API says and what the proxy's metrics show."""
