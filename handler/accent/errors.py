"""Every refusal of a clip: an HTTP status, a stable code and a sentence for people."""

from typing import ClassVar


class Refusal(Exception):
    """A clip that gets no score. The message may be shown to the client as it is.

    `status` is an HTTP status, `code` the stable name that clients may switch on.
    """

    status: ClassVar[int]
    code: ClassVar[str]

    def document(self) -> dict[str, str]:
        """The answer that takes the place of a score: `{"code": ..., "detail": ...}`."""
        return {"code": self.code, "detail": str(self)}


class EmptyFile(Refusal):
    """No bytes at all."""

    status = 400
    code = "empty_file"


class AudioTooLong(Refusal):
    """More seconds of audio than the server accepts."""

    status = 413
    code = "audio_too_long"


class UnsupportedAudio(Refusal):
    """Not decodable as audio, or outside the channels and sample rates accepted."""

    status = 415
    code = "unsupported_audio"


class AudioTooShort(Refusal):
    """Fewer seconds of audio than a score could rest on."""

    status = 422
    code = "audio_too_short"


class NoSpeech(Refusal):
    """No speech in the clip, or too little of it."""

    status = 422
    code = "no_speech"


class Overloaded(Refusal):
    """The machine stalled: no verdict on the clip, which may be sent again."""

    status = 503
    code = "overloaded"


class InternalError(Refusal):
    """A fault of the server's own. Carries no detail: the log has it."""

    status = 500
    code = "internal"

    def __init__(self) -> None:
        super().__init__("The server failed on this clip.")

    def __reduce__(self) -> tuple[type["InternalError"], tuple[()]]:
        """It is made of nothing, also in another process."""
        return InternalError, ()


class ModelFolderError(Exception):
    """A model folder that cannot be served. The message says which file and why."""


def shown(value: object, most_chars: int = 200) -> str:
    """A value of a stranger's file as a message may have it: its repr, cut."""
    try:
        return f"{value!r:.{most_chars}}"
    # Python writes no whole numbers of more than 4,300 digits, and no end of nesting.
    except (ValueError, RecursionError):
        return f"a value of kind {type(value).__name__}"
