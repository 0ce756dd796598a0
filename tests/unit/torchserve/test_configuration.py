import re
from pathlib import Path

import pytest

from aurea.torchserve.configuration import Configuration, largest_upload_bytes, read_properties


def configured(**changes: int) -> Configuration:
    numbers = {
        "grpc_inference_port": 7070,
        "grpc_management_port": 7071,
        "max_upload_bytes": 25_000_000,
        "max_held_bytes": 256_000_000,
    }
    return Configuration(
        socket_dir=Path("/run/s"), model_store=Path("/run/store"), **numbers | changes
    )


def memory_mb(properties: dict[str, str]) -> tuple[int, int]:
    """Heap and direct memory."""
    found = re.search(r"-Xmx(\d+)m -XX:MaxDirectMemorySize=(\d+)m", properties["vmargs"])
    assert found
    return int(found[1]), int(found[2])


def test_every_place_of_the_template_is_filled_in() -> None:
    text = configured().text()
    entries = [line for line in text.splitlines() if not line.startswith("#")]
    assert not [line for line in entries if "@" in line]
    properties = read_properties(text)
    assert properties["inference_address"] == f"unix:{configured().inference_socket}"
    assert properties["management_address"] == f"unix:{configured().management_socket}"
    assert properties["metrics_address"] == f"unix:{configured().metrics_socket}"
    assert properties["grpc_inference_port"] == "7070"
    assert properties["grpc_management_port"] == "7071"
    assert properties["model_store"] == "/run/store"
    assert properties["allowed_urls"] == "file:///run/store/.*"
    assert properties["job_queue_size"] == "64"
    assert Path(properties["metrics_config"]).is_file()
    assert read_properties(configured(job_queue_size=512).text())["job_queue_size"] == "512"


def test_uploads_of_25_mb_need_what_they_always_did() -> None:
    properties = read_properties(configured().text())
    assert properties["max_request_size"] == "26000000"
    assert memory_mb(properties) == (768, 512)


@pytest.mark.parametrize("max_upload_bytes", [1, 25_000_000, 25_999_999, 26_000_000, 250_000_000])
def test_torchserve_takes_every_upload_that_the_proxy_takes(max_upload_bytes: int) -> None:
    properties = read_properties(configured(max_upload_bytes=max_upload_bytes).text())
    assert int(properties["max_request_size"]) > max_upload_bytes


@pytest.mark.parametrize("max_held_bytes", [1_000_000, 256_000_001, 1_000_000_000])
def test_its_memory_grows_with_what_the_proxy_holds(max_held_bytes: int) -> None:
    heap_mb, direct_mb = memory_mb(
        read_properties(configured(max_held_bytes=max_held_bytes).text())
    )
    assert heap_mb * 1_000_000 >= 3 * max_held_bytes
    assert direct_mb * 1_000_000 >= 2 * max_held_bytes


@pytest.mark.parametrize("max_upload_bytes", [100_000_000, 255_000_000])
def test_its_memory_grows_with_the_largest_upload(max_upload_bytes: int) -> None:
    _, direct_mb = memory_mb(read_properties(configured(max_upload_bytes=max_upload_bytes).text()))
    assert direct_mb * 1_000_000 >= 1.25 * 256_000_000 + 3 * max_upload_bytes


@pytest.mark.parametrize(
    ("memory_bytes", "largest"), [(580_000_000, 40_000_000), (1 << 40, 2**31 - 1 - 1_000_000)]
)
def test_the_largest_upload_is_bound_by_memory_and_by_what_java_can_count(
    monkeypatch: pytest.MonkeyPatch, memory_bytes: int, largest: int
) -> None:
    class Memory:
        total = memory_bytes

    monkeypatch.setattr("psutil.virtual_memory", Memory)
    assert largest_upload_bytes() == largest
    configured(max_upload_bytes=largest)
