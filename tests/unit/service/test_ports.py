import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from aurea.service.errors import ServiceFailed
from aurea.service.ports import claim_ports, claims_folder, described_address, local_url

START = 20_000 + os.getpid() % 10_000


def test_ports_that_are_taken_are_passed_over_and_no_two_are_the_same(tmp_path: Path) -> None:
    with ExitStack() as claims, socket.socket() as taken:
        with ExitStack() as given_back:
            first = claim_ports(given_back, tmp_path, START)[0]
        taken.bind(("127.0.0.1", first))
        taken.listen()
        found = claim_ports(claims, tmp_path, first, first + 1, first, first)
    assert first not in found
    assert len(set(found)) == 4
    assert all(first < port < first + 1000 for port in found)


def test_where_no_port_is_free_it_is_said_from_which_on(tmp_path: Path) -> None:
    with ExitStack() as claims, socket.socket() as taken:
        taken.bind(("127.0.0.1", 65_535))
        taken.listen()
        with pytest.raises(ServiceFailed, match="free from 65535 on"):
            claim_ports(claims, tmp_path, 65_535)


def test_what_one_service_has_claimed_and_not_yet_taken_no_other_gets(tmp_path: Path) -> None:
    wanted = (START + 1, START + 2, START + 3, START + 4)
    with ExitStack() as one, ExitStack() as other:
        first = claim_ports(one, tmp_path, *wanted)
        second = claim_ports(other, tmp_path, *wanted)
        assert len({*first, *second}) == 8
        one.close()
        with ExitStack() as third:
            assert claim_ports(third, tmp_path, *wanted) == first


CLAIM = """
import sys
from contextlib import ExitStack
from pathlib import Path
from aurea.service.ports import claim_ports

sys.stdin.readline()
claims = ExitStack()
print(*claim_ports(claims, Path(sys.argv[1]), *map(int, sys.argv[2:])), flush=True)
sys.stdin.readline()
"""


@pytest.mark.slow
def test_services_that_start_at_the_same_time_get_ports_of_their_own(tmp_path: Path) -> None:
    wanted = [str(START + 20 + each) for each in range(4)]
    with ExitStack() as stack:
        services = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", CLAIM, str(tmp_path), *wanted],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(5)
        ]
        for each in services:
            assert each.stdin is not None
            each.stdin.write("\n")
            each.stdin.flush()
        found: list[str] = []
        for each in services:
            assert each.stdout is not None
            found += each.stdout.readline().split()
        for each in services:
            each.communicate("\n", timeout=30)
    assert len(found) == len(set(found)) == 20
    # Those that ended hold nothing any more.
    with ExitStack() as claims:
        assert claim_ports(claims, tmp_path, int(wanted[0]))[0] <= min(map(int, found))


def test_the_folder_of_claims_is_closed_to_others() -> None:
    folder = claims_folder()
    assert folder.stat().st_uid == os.getuid()
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (8081, "management at http://127.0.0.1:8081"),
        (0, "management at http://127.0.0.1:8081"),
        (8080, "management at http://127.0.0.1:8081 (port 8080 was busy)"),
    ],
)
def test_a_port_that_was_busy_is_named_beside_the_one_that_is_used(wanted: int, said: str) -> None:
    assert described_address("management", "http://127.0.0.1:8081", wanted) == said


@pytest.mark.parametrize(
    ("host", "scheme", "url"),
    [
        ("0.0.0.0", "https", "https://127.0.0.1:8000"),
        ("::", "http", "http://[::1]:8000"),
        ("127.0.0.1", "http", "http://127.0.0.1:8000"),
    ],
)
def test_this_machine_reaches_the_public_port_in_the_scheme_that_it_speaks(
    host: str, scheme: str, url: str
) -> None:
    assert local_url(host, 8000, scheme) == url
