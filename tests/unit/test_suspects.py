"""Which clips are put to no worker for a while."""

from proxy.limits.suspects import KEPT_S, MOST, Suspects


class Clock:
    now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


def test_a_clip_is_known_by_its_content_for_a_while() -> None:
    clock = Clock()
    suspects = Suspects(clock)
    assert b"clip" not in suspects
    suspects.blame(b"clip")
    assert bytes(bytearray(b"clip")) in suspects
    assert b"another" not in suspects
    clock.now_s += KEPT_S - 1
    assert b"clip" in suspects
    suspects.blame(b"clip")
    clock.now_s += KEPT_S - 1
    assert b"clip" in suspects
    clock.now_s += 2
    assert b"clip" not in suspects


def test_only_the_youngest_are_kept() -> None:
    suspects = Suspects(Clock())
    for number in range(MOST + 5):
        suspects.blame(b"%d" % number)
    assert b"4" not in suspects
    assert b"5" in suspects
    assert b"%d" % (MOST + 4) in suspects
