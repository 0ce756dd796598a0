import gc
import json
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from accent.classifier import AccentClassifier, Answer
from accent.decode import Audio, decode
from accent.ecapa.loading import EcapaModel
from accent.ecapa.torch_engine import TorchEngine
from accent.engine import WindowScores
from accent.limits import AudioLimits
from accent.speech import SpeechFacts, SpeechGate, SpeechLimits
from accent.trimming import TrimSettings
from accent.waveform import Waveform

from tests import sounds
from tests.clips import encode, voice

BAD = {
    "empty_file": b"",
    "unsupported_audio": b"not audio at all",
    "audio_too_short": encode(voice(0.3), 16_000, "wav-s16"),
    "no_speech": encode(sounds.white(3.0, 0), 16_000, "wav-s16"),
}
INTERNAL = {
    "code": "internal",
    "detail": "The server failed on this clip.",
    "model": {"name": "small", "version": "2.0"},
}
STATUS = {"empty_file": 400, "unsupported_audio": 415, "audio_too_short": 422, "no_speech": 422}


def classifier(
    model: EcapaModel, windows_per_pass: int | None = None, **options: Any
) -> AccentClassifier:
    engine = TorchEngine(model.network, windows_per_pass=windows_per_pass)
    return AccentClassifier(model, engine, name="small", version="2.0", **options)


def clip(duration_s: float, seed: int = 0, encoding: str = "flac") -> bytes:
    return encode(voice(duration_s, seed=seed), 16_000, encoding)


def scores(answer: Answer) -> dict[str, float]:
    assert answer.status == 200, answer.document
    return {entry["label"]: entry["score"] for entry in answer.document["accents"]}


def without_timings(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "timings"}


@pytest.mark.slow
@pytest.mark.parametrize("windows_per_pass", [1, 8])
def test_a_clip_scores_the_same_alone_and_in_ten_mixed_batches(
    small_model: EcapaModel, windows_per_pass: int
) -> None:
    served = classifier(small_model, windows_per_pass)
    lengths_s = (0.5, 1.0, 1.0, 1.0, 2.5, 2.5, 11.0, 11.0, 21.0)
    pool = [clip(length_s, seed) for seed, length_s in enumerate(lengths_s)]
    alone = [scores(served.classify([upload])[0]) for upload in pool]
    assert len({round(result["us"], 3) for result in alone}) > 4, "clips differ in score"

    rng = np.random.default_rng(1)
    for _ in range(10):
        chosen = list(rng.integers(0, len(pool), size=rng.integers(2, 5)))
        batch: list[tuple[str | int, bytes]] = [(int(index), pool[index]) for index in chosen]
        for code in rng.choice(list(BAD), size=2):
            batch.insert(int(rng.integers(0, len(batch) + 1)), (str(code), BAD[code]))
        answers = served.classify([upload for _, upload in batch])
        for (which, _), answer in zip(batch, answers, strict=True):
            if isinstance(which, int):
                assert scores(answer) == pytest.approx(alone[which], abs=1e-5)
            else:
                assert (answer.status, answer.document["code"]) == (STATUS[which], which)


def test_the_answer_is_a_full_document_ready_for_json(small_model: EcapaModel) -> None:
    (answer,) = classifier(small_model).classify([clip(12.0)])

    assert json.loads(json.dumps(answer.document, allow_nan=False)) == answer.document
    assert answer.document["model"] == {"name": "small", "version": "2.0", "kind": "ecapa"}
    assert answer.document["audio"]["duration_s"] == 12.0
    assert [window["end_s"] for window in answer.document["windows"]] == [6.0, 12.0]
    timings = answer.document["timings"]
    assert set(timings) == {"decode_s", "gate_s", "features_s", "forward_s", "total_s"}
    assert min(timings.values()) > 0
    steps = [timings[name] for name in timings if name != "total_s"]
    assert timings["total_s"] + 1e-4 > sum(steps)
    assert 10 < answer.document["audio"]["speech_s"] <= 12
    assert answer.document["audio"]["scored_s"] == 12.0


def test_the_same_sound_in_two_lossless_formats_scores_the_same(small_model: EcapaModel) -> None:
    first, second = classifier(small_model).classify(
        [clip(2.0, encoding="flac"), clip(2.0, encoding="wav-s16")]
    )
    assert scores(first) == scores(second)


def test_an_empty_batch_has_no_answers(small_model: EcapaModel) -> None:
    assert classifier(small_model).classify([]) == []


def test_a_batch_of_bad_clips_alone_is_answered(small_model: EcapaModel) -> None:
    answers = classifier(small_model).classify(list(BAD.values()))
    assert [answer.document["code"] for answer in answers] == list(BAD)


class FailingEngine:
    """The real engine, but for windows of one length."""

    def __init__(self, engine: TorchEngine, failing_samples: int) -> None:
        self._engine = engine
        self._failing_samples = failing_samples

    def score(self, windows: Sequence[Waveform]) -> list[WindowScores | Exception]:
        return [
            MemoryError("/secret/path")
            if window.size == self._failing_samples
            else self._engine.score([window])[0]
            for window in windows
        ]


def test_a_clip_that_the_engine_fails_on_is_an_internal_error_without_detail(
    small_model: EcapaModel,
) -> None:
    engine = TorchEngine(small_model.network)
    served = AccentClassifier(
        small_model, FailingEngine(engine, 16_000), name="small", version="2.0"
    )
    before, failed, after = served.classify([clip(2.0, 1), clip(1.0), clip(12.0, 2)])

    assert failed.status == 500
    assert failed.document == INTERNAL
    right = classifier(small_model).classify([clip(2.0, 1), clip(12.0, 2)])
    assert [without_timings(before.document), without_timings(after.document)] == [
        without_timings(answer.document) for answer in right
    ]


def test_what_breaks_the_decoder_stays_with_its_clip(
    small_model: EcapaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode_or_break(data: bytes | bytearray, limits: AudioLimits) -> Audio:
        if data == b"bomb":
            raise MemoryError("/secret/path")
        return decode(data, limits)

    monkeypatch.setattr("accent.classifier.decode", decode_or_break)
    failed, good = classifier(small_model).classify([b"bomb", clip(1.0)])
    assert (failed.status, failed.document["code"]) == (500, "internal")
    assert "secret" not in json.dumps(failed.document)
    assert good.status == 200


@pytest.mark.parametrize(
    "sound",
    [sounds.white(2.0, 0), sounds.sine(2.0, 2), sounds.band(12.0, 1), np.zeros(32_000)],
    ids=["noise", "tone", "music", "silence"],
)
def test_what_the_gate_refuses_changes_no_neighbour(small_model: EcapaModel, sound: Any) -> None:
    served = classifier(small_model, windows_per_pass=8)
    good = [clip(2.0, 1), clip(12.0, 2), clip(2.0, 3)]
    right = [without_timings(answer.document) for answer in served.classify(good)]
    refused = encode(sound, 16_000, "flac")
    answers = served.classify([refused, good[0], good[1], refused, good[2]])

    for answer in (answers[0], answers[3]):
        assert (answer.status, answer.document["code"]) == (422, "no_speech")
        assert "record again" in answer.document["detail"]
    together = [without_timings(answers[index].document) for index in (1, 2, 4)]
    assert [document["audio"] for document in together] == [document["audio"] for document in right]
    for ours, theirs in zip(together, right, strict=True):
        for one, other in zip(ours["accents"], theirs["accents"], strict=True):
            assert one["label"] == other["label"]
            assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_what_breaks_the_gate_stays_with_its_clip(
    small_model: EcapaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = SpeechGate.check

    def check_or_break(gate: SpeechGate, waveform: Waveform, *, whole: bool) -> SpeechFacts:
        if waveform.size == 24_000:
            raise RuntimeError("/secret/path")
        return check(gate, waveform, whole=whole)

    monkeypatch.setattr(SpeechGate, "check", check_or_break)
    failed, good = classifier(small_model).classify([clip(1.5), clip(1.0)])
    assert failed.document == INTERNAL
    assert good.status == 200


def test_the_gate_given_is_the_gate_applied(small_model: EcapaModel) -> None:
    open_to_all = classifier(small_model, gate=SpeechGate(SpeechLimits(min_speech_s=0)))
    (answer,) = open_to_all.classify([BAD["no_speech"]])
    assert (answer.status, answer.document["audio"]["speech_s"]) == (200, 0)


def test_without_trimming_the_gate_listens_until_it_has_enough_or_is_told_to_go_on(
    small_model: EcapaModel,
) -> None:
    untrimmed = TrimSettings(trim=False)
    (answer,) = classifier(small_model, trimming=untrimmed).classify([clip(12.0)])
    assert 0.4 <= answer.document["audio"]["speech_s"] < 3
    listening = SpeechGate(SpeechLimits(hear_whole_clip=True))
    (answer,) = classifier(small_model, gate=listening, trimming=untrimmed).classify([clip(12.0)])
    assert 10 < answer.document["audio"]["speech_s"] <= 12


def test_the_limits_given_are_the_limits_applied(small_model: EcapaModel) -> None:
    strict = classifier(small_model, limits=AudioLimits(max_audio_s=1.0))
    (answer,) = strict.classify([clip(2.0)])
    assert (answer.status, answer.document["code"]) == (413, "audio_too_long")


def test_warming_up_fails_where_scoring_would(small_model: EcapaModel) -> None:
    classifier(small_model).warm_up()
    broken = AccentClassifier(
        small_model,
        FailingEngine(TorchEngine(small_model.network), 160_000),
        name="small",
        version="2.0",
    )
    with pytest.raises(MemoryError):
        broken.warm_up()


def test_warming_up_fails_where_the_gate_would(
    small_model: EcapaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_gate: SpeechGate, _waveform: Waveform) -> SpeechFacts:
        raise RuntimeError("the gate is broken")

    monkeypatch.setattr(SpeechGate, "measure", fail)
    with pytest.raises(RuntimeError, match="the gate is broken"):
        classifier(small_model).warm_up()


def test_a_clip_is_gone_with_its_answer_whether_taken_or_refused(small_model: EcapaModel) -> None:
    served = classifier(small_model)
    gc.disable()
    try:
        clips = served.decode([*BAD.values(), clip(1.0)])
        references = [weakref.ref(each) for each in clips]
        served.score(clips)
        served.answer(clips)
        del clips
        assert [reference() for reference in references] == [None] * 5
    finally:
        gc.enable()
