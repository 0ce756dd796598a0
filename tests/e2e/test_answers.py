"""What a client sees of the running service when all is well."""

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from accent.bounds import MAX_P99_POINTS
from accent.decode import decode
from accent.ecapa.compiled import hardware_precisions
from accent.ecapa.loading import load_model

from aurea.archive.distort import wav
from aurea.archive.surroundings import Place, Sound, surround
from aurea.paths import ROOT
from aurea.service.packaging import PackagingOrder, build
from tests.clips import ENCODINGS, SPEECH, encode, every_format, voice
from tests.e2e.archives import content, registered
from tests.e2e.conftest import Serve
from tests.e2e.services import RunningService
from tests.models import SHARED

EMBEDDED = ROOT / "model_store" / "embedded-ecapa"
FORMATS = [*ENCODINGS, "ogg-vorbis"]
LENGTHS_S = (0.5, 2.0, 9.9, 10.0)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return every_format(voice(3.0, seed=5, sample_rate_hz=48_000))


@pytest.mark.parametrize("name", FORMATS)
def test_each_promised_format_gets_a_score(
    service: RunningService, files: dict[str, bytes], name: str
) -> None:
    response = service.classify(files[name])
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["us_confidence"]
    assert 0 <= response.json()["us_confidence"] <= 100
    assert re.fullmatch(r"embedded-ecapa/[\w.]+", response.headers["x-model"])
    assert re.fullmatch(r"[\w.-]{1,64}", response.headers["x-request-id"])


def test_formats_of_one_clip_agree(
    service: RunningService, fragile: RunningService, files: dict[str, bytes]
) -> None:
    """In fp32 they do; products in 16 or 8 bits round two decodings of one clip to different sides.

    That may cost what `auto` accepts of an engine.
    """
    in_fp32 = hardware_precisions() == {"fp32"}
    for running, allowed_points in (
        (fragile, 0.2),
        (service, 0.2 if in_fp32 else MAX_P99_POINTS),
    ):
        lossless = [
            running.classify(data).json()["us_confidence"]
            for name, data in files.items()
            if name in ENCODINGS and ENCODINGS[name].lossless and name != "wav-u8"
        ]
        assert max(lossless) - min(lossless) <= allowed_points


@pytest.mark.parametrize(("sound", "place"), [("silence", "after"), ("music", "before")])
def test_what_surrounds_the_voice_is_not_scored(
    service: RunningService, sound: Sound, place: Place
) -> None:
    waveform = voice(4.0, seed=2).astype(np.float32)
    surrounded = surround(waveform, sound, place, np.random.default_rng(0))
    bare, found = (
        service.classify(wav(clip)).json()["us_confidence"] for clip in (waveform, surrounded)
    )
    assert abs(found - bare) <= 3


@pytest.fixture(scope="module")
def by_speechbrain(tmp_path_factory: pytest.TempPathFactory) -> dict[float, tuple[bytes, float]]:
    """A clip of each length, and its score by SpeechBrain's own loading, features and network."""
    folder = tmp_path_factory.mktemp("reference")
    clips = {
        duration_s: encode(voice(duration_s, seed=9), 16_000, "wav-s16") for duration_s in LENGTHS_S
    }
    paths = [folder / f"{duration_s}.wav" for duration_s in LENGTHS_S]
    for path, clip in zip(paths, clips.values(), strict=True):
        path.write_bytes(clip)
    script = (
        "import sys; from speechbrain.inference.classifiers import EncoderClassifier as E;"
        "c = E.from_hparams(source=sys.argv[1], savedir=sys.argv[2],"
        " overrides={'pretrained_path': sys.argv[1]});"
        "print('COSINES', [c.classify_file(each)[0][0].tolist() for each in sys.argv[3:]])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(EMBEDDED), str(folder / "save"), *map(str, paths)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    model = load_model(EMBEDDED)
    rows = json.loads(result.stdout.split("COSINES ")[1])
    scores = [model.posterior(np.array(row))[model.us_index] for row in rows]
    return {
        duration_s: (clips[duration_s], float(100 * score))
        for duration_s, score in zip(LENGTHS_S, scores, strict=True)
    }


@pytest.mark.parametrize("duration_s", LENGTHS_S)
def test_the_score_in_fp32_is_that_of_speechbrain(
    fragile: RunningService, by_speechbrain: dict[float, tuple[bytes, float]], duration_s: float
) -> None:
    clip, expected = by_speechbrain[duration_s]
    assert fragile.classify(clip).json()["us_confidence"] == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("duration_s", LENGTHS_S)
def test_the_score_of_auto_is_that_of_speechbrain_within_the_bounds_of_the_archive(
    service: RunningService,
    archive: Path,
    by_speechbrain: dict[float, tuple[bytes, float]],
    duration_s: float,
) -> None:
    clip, expected = by_speechbrain[duration_s]
    engines = json.loads(content(archive, "engines.json"))
    # The archive is judged by four clips of speech, and a sharp calibration magnifies what
    # this sound, which is none, adds to that.
    magnified = max(1.0, engines["measured"]["softmax_scale"] / 30)
    bound = engines["bounds_points"]["max"] * magnified
    assert abs(service.classify(clip).json()["us_confidence"] - expected) <= bound + 0.1


@pytest.mark.long
def test_the_score_of_auto_is_off_by_what_an_archive_judged_by_all_speech_states(
    serve: Serve,
    by_speechbrain: dict[float, tuple[bytes, float]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("whole")
    order = PackagingOrder(model=EMBEDDED, name="embedded-ecapa", version="1.0")
    whole = build(order, folder / "store").path
    registered(whole, folder / "run")
    running = serve(folder / "run")
    engines = json.loads(content(whole, "engines.json"))["engines"]
    stated = max(each["deviation_points"]["max"] for each in engines if each["within_bounds"])
    for clip, expected in by_speechbrain.values():
        off = abs(running.classify(clip).json()["us_confidence"] - expected)
        assert off <= stated + 0.1
    running.close()


def test_a_score_does_not_depend_on_concurrent_clips(service: RunningService) -> None:
    clips = [
        encode(voice(duration_s, seed=seed), 16_000, "flac")
        for seed, duration_s in enumerate((0.7, 3, 3, 5, 5, 11, 3, 0.5))
    ]
    alone = [service.classify(clip).json() for clip in clips]
    with ThreadPoolExecutor(len(clips)) as pool:
        for _ in range(3):
            together = list(pool.map(lambda clip: service.classify(clip).json(), clips))
            assert together == alone


def test_a_clip_of_five_minutes_is_scored(service: RunningService) -> None:
    response = service.classify(encode(np.tile(voice(10, seed=3), 30), 16_000, "flac"))
    assert response.status_code == 200, response.text


def test_a_request_id_is_kept_if_sane_and_made_if_not(service: RunningService, clip: bytes) -> None:
    kept = service.classify(clip, headers={"X-Request-ID": "learner-42"})
    assert kept.headers["x-request-id"] == "learner-42"
    made = service.classify(clip, headers={"X-Request-ID": "no spaces, please"})
    assert made.headers["x-request-id"] != "no spaces, please"
    assert "learner-42" in service.log("proxy.log")


def test_the_service_says_what_it_serves(service: RunningService) -> None:
    document = service.client.get("/").json()
    assert document["model"]["name"] == "embedded-ecapa"
    assert document["limits"]["max_audio_s"] == 300
    assert document["limits"]["max_upload_bytes"] == 25_000_000
    assert service.client.get("/healthz").status_code == 200
    assert service.client.get("/readyz").status_code == 200
    assert service.client.get("/docs").status_code == 200
    openapi = service.client.get("/openapi.json").json()
    answers = openapi["paths"]["/classify-us-accent"]["post"]["responses"]
    assert set(answers) >= {"200", "400", "413", "415", "422", "500", "503", "504"}


def test_torchserve_answers_the_full_document_behind_the_proxy(service: RunningService) -> None:
    clip = encode(
        np.stack([voice(25, seed=seed, sample_rate_hz=44_100) for seed in (1, 2)]),
        44_100,
        "wav-s16",
    )
    keys = json.loads((service.run_dir / "torchserve" / "key_file.json").read_text())
    socket_path = next((service.run_dir / "torchserve").rglob("inference.sock"))
    transport = httpx.HTTPTransport(uds=str(socket_path))
    with httpx.Client(transport=transport, base_url="http://torchserve", timeout=60) as client:
        refused = client.post("/predictions/embedded-ecapa", content=clip)
        response = client.post(
            "/predictions/embedded-ecapa",
            content=clip,
            headers={"Authorization": f"Bearer {keys['inference']['key']}"},
        )
    assert refused.status_code == 400
    document = response.json()
    duration_s = decode(clip).facts.duration_s
    labels = set(load_model(EMBEDDED).labels)
    assert {item["label"] for item in document["accents"]} == labels
    scores = [item["score"] for item in document["accents"]]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-4)
    assert len(document["windows"]) == 3
    assert document["windows"][0]["start_s"] == 0
    assert document["windows"][-1]["end_s"] == pytest.approx(duration_s, abs=0.01)
    assert document["audio"]["channels"] == 2
    assert document["audio"]["sample_rate_hz"] == 44_100
    assert document["audio"]["codec"] == "pcm_s16le"
    assert document["audio"]["duration_s"] == pytest.approx(duration_s)
    assert 0.4 < document["audio"]["peak"] <= 0.5
    assert 0.8 * duration_s < document["audio"]["speech_s"] <= document["audio"]["scored_s"]
    assert document["audio"]["scored_s"] <= duration_s
    speech_s = sum(window["speech_s"] for window in document["windows"])
    assert speech_s == pytest.approx(document["audio"]["speech_s"], abs=0.04)
    assert document["model"]["name"] == "embedded-ecapa"
    assert set(document["timings"]) == {"decode_s", "gate_s", "features_s", "forward_s", "total_s"}


def test_us_voices_score_above_british_ones(service: RunningService) -> None:
    def mean_score(country: str) -> float:
        clips = sorted(SPEECH.glob(f"{country}?_*.flac"))
        assert len(clips) >= 4
        scores = [service.classify(clip.read_bytes()).json()["us_confidence"] for clip in clips]
        return float(np.mean(scores))

    assert mean_score("a") > mean_score("b") + 10


@pytest.mark.long
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the labelled speech in ../shared/audio")
def test_recorded_us_voices_score_above_british_ones(service: RunningService) -> None:
    def mean_score(accent: str) -> float:
        clips = sorted((SHARED / "audio" / accent).glob("*.flac"))[:25]
        scores = [service.classify(clip.read_bytes()).json()["us_confidence"] for clip in clips]
        return float(np.mean(scores))

    assert mean_score("us") > mean_score("england")
