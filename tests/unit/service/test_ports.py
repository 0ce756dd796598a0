"""Ports that are free, and that no two services choose however close together they start."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from aurea.service.errors import ServiceFailed
from aurea.service.ports import Ports

START = 20_000 + os.getpid() % 10_000
CHOOSER = """
import sys
from pathlib import Path
from aurea.service.ports import Ports

ports = Ports(Path(sys.argv[1]))
sys.stdin.readline()
print(*ports.choose(*map(int, sys.argv[2:])), flush=True)
sys.stdin.readline()
"""


def test_ports_that_are_taken_are_passed_over_and_no_two_are_the_same(tmp_path: Path) -> None:
    with socket.socket() as taken:
        (first,) = Ports(tmp_path / "other").choose(START)
        taken.bind(("127.0.0.1", first))
        taken.listen()
        found = Ports(tmp_path).choose(first, first + 1, first, first)
    assert first not in found
    assert len(set(found)) == 4
    assert all(first < port < first + 1000 for port in found)


def test_where_no_port_is_free_it_is_said_from_which_on(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 65_535))
        taken.listen()
        with pytest.raises(ServiceFailed, match="free from 65535 on"):
            Ports(tmp_path).choose(65_535)


def test_a_port_that_was_chosen_and_is_not_listened_on_yet_is_not_chosen_again(
    tmp_path: Path,
) -> None:
    first, second = Ports(tmp_path), Ports(tmp_path)
    (chosen,) = first.choose(START)
    assert second.choose(chosen) != [chosen]
    first.release()
    assert Ports(tmp_path).choose(chosen) == [chosen]


def test_any_port_that_the_system_gives_can_be_asked_for(tmp_path: Path) -> None:
    first, second = Ports(tmp_path).choose(0, 0)
    assert first != second


def test_where_there_is_no_place_for_locks_ports_are_chosen_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert len(Ports(file).choose(START)) == 1


@pytest.mark.slow
def test_services_that_start_in_the_same_moment_choose_different_ports(tmp_path: Path) -> None:
    choosers = [
        subprocess.Popen(
            [sys.executable, "-c", CHOOSER, str(tmp_path / "ports"), *map(str, [START] * 2)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    try:
        for each in choosers:
            assert each.stdin is not None
            each.stdin.write("\n")
            each.stdin.flush()
        chosen = [each.stdout.readline().split() for each in choosers if each.stdout is not None]
    finally:
        for each in choosers:
            each.communicate("\n", timeout=10)
    assert len({port for ports in chosen for port in ports}) == 6
