"""All that takes bytes of strangers, by name."""

from collections.abc import Mapping
from typing import Final

from fuzz.archives import ARCHIVES
from fuzz.decoder import DECODER
from fuzz.documents import DOCUMENTS
from fuzz.requests import REQUESTS
from fuzz.target import Target

TARGETS: Final[Mapping[str, Target]] = {
    each.name: each for each in (DECODER, REQUESTS, *ARCHIVES, *DOCUMENTS)
}
