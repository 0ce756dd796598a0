"""What people read of a judgement."""

from dataclasses import replace

from accent.selection import EngineSettings

from aurea.archive.card import card_section, terminal_table
from aurea.archive.engines import engines_to_pack
from tests.unit.archive.judged import BF16, FP32, STRAYING_INT8, TORCH, judgement_of

JUDGEMENT = judgement_of(STRAYING_INT8, BF16, FP32, TORCH)
PACKED = engines_to_pack(JUDGEMENT, EngineSettings())


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_card_tells_of_every_engine_its_deviation_and_its_lot() -> None:
    section = card_section(JUDGEMENT, PACKED)
    rows = {cells(line)[0]: cells(line)[1:] for line in section.splitlines() if line[:1] == "|"}
    assert rows["openvino int8"] == ["2.00", "9.00", "20.00", "90.0 %", "no", "no"]
    assert rows["openvino bf16"] == ["0.10", "0.50", "0.90", "100.0 %", "yes", "yes"]
    assert {len(row) for row in rows.values()} == {6}
    assert list(rows)[2:] == ["openvino int8", "openvino bf16", "openvino fp32", "torch fp32"]
    assert "scale 30, US bias 0." in section
    assert "`auto` takes the fastest with p99 up to 1 and largest up to 3" in section


def test_what_was_not_timed_is_taken_in_the_order_of_the_table() -> None:
    untimed = judgement_of(*(replace(each, pass_s=None) for each in JUDGEMENT.engines))
    section = card_section(untimed, engines_to_pack(untimed, EngineSettings()))
    assert "`auto` takes the first of the table with p99 up to 1" in section
    assert "fastest" not in section
    lines = terminal_table(untimed, []).splitlines()[2:]
    assert all(line.split("%")[1].split() == ["left", "out"] for line in lines[1:])


def test_the_terminal_says_what_is_left_out_and_why() -> None:
    lines = terminal_table(JUDGEMENT, PACKED).splitlines()
    assert lines[0].startswith("engines over 1 clips")
    by_name = {line[4:19].strip(): line for line in lines[2:]}
    assert by_name["openvino int8"].endswith("left out  beyond the bounds")
    assert by_name["openvino int8"].split()[2:8] == ["2.00", "9.00", "20.00", "90.0", "%", "100.0"]
    assert by_name["torch fp32"].endswith("400.0")
    assert terminal_table(JUDGEMENT, [TORCH]).count("left out") == 3
