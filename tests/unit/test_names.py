import random

import pytest

from aurea.names import BadName, check_name, check_version, version_order


@pytest.mark.parametrize("version", ["1.0", "2", "10.0-rc.1", "2026_11", "a" * 32])
def test_a_sane_version_is_taken_as_it_is(version: str) -> None:
    assert check_version(version) == version


@pytest.mark.parametrize("version", ["", "1.0+cpu", "1/0", "-1", ".1", "1 0", "a" * 33, "1.0\n"])
def test_a_version_unfit_for_an_address_is_refused_with_what_is_allowed(version: str) -> None:
    with pytest.raises(BadName, match="1 to 32 letters, digits"):
        check_version(version)


@pytest.mark.parametrize("name", ["", "my model", "a/b", "../x", "ä", "a" * 129])
def test_a_name_unfit_for_an_address_is_refused_with_what_is_allowed(name: str) -> None:
    with pytest.raises(BadName, match="1 to 128 letters, digits"):
        check_name(name)


def test_versions_are_ordered_by_their_numbers() -> None:
    ordered = ["1.0", "1.0-rc1", "1.9", "1.10", "2.0", "10.0"]
    shuffled = random.Random(1).sample(ordered, len(ordered))
    assert sorted(shuffled, key=version_order) == ordered
