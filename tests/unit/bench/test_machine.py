from pathlib import Path

import pytest

from bench.machine import machine_facts, processor


def cache(folder: Path, index: int, level: str, kind: str, size: str) -> None:
    place = folder / f"index{index}"
    place.mkdir(parents=True)
    for name, value in (("level", level), ("type", kind), ("size", size)):
        (place / name).write_text(f"{value}\n")


@pytest.mark.parametrize(
    ("flags", "told", "not_told"),
    [
        ("flags\t\t: fpu avx2 avx512_vnni", ["avx2", "avx512_vnni"], ["fpu", "avx512f"]),
        ("Features\t: asimd i8mm", ["asimd", "i8mm"], ["avx2"]),
    ],
)
def test_processors_of_one_name_are_told_apart(
    flags: str, told: list[str], not_told: list[str], tmp_path: Path
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    first = f"model name\t: AMD EPYC\ncpu family\t: 25\nmodel\t\t: 17\nstepping\t: 1\n{flags}\n"
    cpuinfo.write_text(f"{first}\n{first.replace('17', '99')}")
    caches = tmp_path / "cache"
    cache(caches, 0, "1", "Data", "32K")
    cache(caches, 1, "1", "Instruction", "48K")
    cache(caches, 2, "3", "Unified", "32768K")
    parts = processor(cpuinfo, caches).split(", ")
    assert parts[:6] == ["AMD EPYC", "family 25", "model 17", "stepping 1", "L1 32K", "L3 32768K"]
    assert set(told) <= set(parts)
    assert not {*not_told, "L1 48K"} & set(parts)


def test_without_linuxs_files_a_processor_still_has_a_name(tmp_path: Path) -> None:
    assert processor(tmp_path / "none", tmp_path / "none").endswith(" cores")


def test_a_run_says_which_processor_it_was() -> None:
    facts = machine_facts()
    assert facts["processor"].startswith(facts["summary"].split(",")[0])
