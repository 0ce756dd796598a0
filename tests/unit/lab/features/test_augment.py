"""Augmentation: where a crop was read, how much is hidden, and that one seed is one sound."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from accent.waveform import SAMPLE_RATE_HZ, Waveform

from aurea.lab.features import augment
from aurea.lab.features.augment import (
    _other_vocal_tract,
    _through_device,
    crop_at,
    perturbed_crop,
    spec_augment,
    version_of,
)
from tests.clips import voice

N_MELS = 80
# AAC comes in blocks of 1,024 samples, and its last block is padded; a telephone halves.
TOLERANCE_SAMPLES = 1024 + 2
SPEEDS = (16.0 / 14.4, 1.0, 16.0 / 17.6)


def speech(seed: int = 3) -> Waveform:
    return voice(0.8, seed=seed).astype(np.float32)


def clock(frames: int) -> torch.Tensor:
    """(frames, 80) float16 whose values are the numbers of their frames."""
    return torch.arange(frames, dtype=torch.float16)[:, None].repeat(1, N_MELS)


@pytest.mark.parametrize("tempo", [0.9, 1.0, 1.1])
@pytest.mark.parametrize("place", [0.0, 0.37, 0.999])
def test_positions_tell_where_every_frame_was_read(tempo: float, place: float) -> None:
    crop, positions = crop_at(clock(300), 120, place, tempo)
    assert crop.shape == (120, N_MELS)
    assert crop.dtype == torch.float32
    assert torch.allclose(crop, positions[:, None].expand_as(crop), atol=1e-3)
    assert torch.allclose(positions.diff(), torch.full((119,), tempo), atol=1e-3)
    assert float(positions[0]) == pytest.approx(place * (299 - 120 * tempo), abs=1e-3)
    assert float(positions[-1]) <= 299


def test_a_clip_that_is_too_short_is_repeated() -> None:
    crop, positions = crop_at(clock(50), 200, 0.7, 1.0)
    assert torch.allclose(crop[:, 0], positions, atol=1e-3)
    assert torch.equal(positions[:98], positions[49:147])
    assert positions.min() == 0
    assert positions.max() == 48


def test_a_clip_of_one_frame_is_enough() -> None:
    crop, positions = crop_at(torch.full((1, N_MELS), 4.0), 30, 0.5, 1.1)
    assert torch.equal(crop, torch.full((30, N_MELS), 4.0))
    assert positions.max() < 1


def test_another_voice_reads_the_same_places_and_depends_on_its_generator_alone() -> None:
    features = torch.randn(300, N_MELS, generator=torch.Generator().manual_seed(1)) * 10.0
    features = features.half()
    before = features.clone()
    torch.manual_seed(0)
    one, positions = perturbed_crop(features, 150, np.random.default_rng(5))
    torch.manual_seed(1)
    again, same = perturbed_crop(features, 150, np.random.default_rng(5))
    other, _ = perturbed_crop(features, 150, np.random.default_rng(6))
    assert torch.equal(one, again)
    assert torch.equal(positions, same)
    assert not torch.equal(one, other)
    assert torch.equal(features, before)
    place, tempo = np.random.default_rng(5).uniform(size=2) * (1.0, 0.2) + (0.0, 0.9)
    assert torch.equal(positions, crop_at(features, 150, place, tempo)[1])


def test_perturbed_crops_are_finite_and_stay_in_shape_whatever_is_drawn() -> None:
    silence = torch.full((40, N_MELS), -100.0).half()
    for seed in range(60):
        features = silence if seed % 2 else clock(40 + seed)
        crop, positions = perturbed_crop(features, 90, np.random.default_rng(seed))
        assert crop.shape == (90, N_MELS)
        assert positions.shape == (90,)
        assert bool(torch.isfinite(crop).all())
        assert float(positions.min()) >= 0
        assert float(positions.max()) < len(features)


def test_spec_augment_hides_no_more_than_it_says() -> None:
    torch.manual_seed(0)
    hidden: Counter[str] = Counter()
    for _ in range(30):
        gone = spec_augment(torch.ones(4, 150, N_MELS)) == 0
        for row in gone:
            frames, bands = row.all(dim=1).sum().item(), row.all(dim=0).sum().item()
            assert frames <= 2 * 15
            assert bands <= 2 * 10
            # Whole frames and whole bands, and nothing else.
            assert int(row.sum()) == 150 * N_MELS - (150 - frames) * (N_MELS - bands)
            hidden.update(frames=int(frames), bands=int(bands))
    assert min(hidden.values()) > 0


def test_what_is_hidden_depends_on_torch_s_generator_alone() -> None:
    def hidden(seed: int, value: float, others: int) -> torch.Tensor:
        np.random.default_rng(others).uniform()
        torch.manual_seed(seed)
        return spec_augment(torch.full((2, 60, N_MELS), value)) == 0

    assert torch.equal(hidden(1, 1.0, 0), hidden(1, 5.0, 9))
    assert not torch.equal(hidden(1, 1.0, 0), hidden(2, 1.0, 0))


def test_very_short_crops_can_be_masked_too() -> None:
    torch.manual_seed(0)
    assert spec_augment(torch.ones(2, 5, 8)).shape == (2, 5, 8)


def count_calls(
    monkeypatch: pytest.MonkeyPatch, calls: Counter[str], name: str, label: Callable[..., str]
) -> None:
    plain = getattr(augment, name)

    def counted(*arguments: Any) -> Any:
        calls[label(*arguments)] += 1
        return plain(*arguments)

    monkeypatch.setattr(augment, name, counted)


@pytest.mark.slow
def test_every_kind_of_version_is_finite_and_as_long_as_its_speed_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: Counter[str] = Counter()
    for name in ("room", "babble", "coloured_noise"):
        count_calls(monkeypatch, calls, name, lambda *_, name=name: name)
    count_calls(monkeypatch, calls, "encode", lambda *arguments: str(arguments[3]))
    others = [speech(1), speech(2)]
    clip = speech()
    speeds = set()
    for seed in range(60):
        version, speed = version_of(clip, others, np.random.default_rng(seed))
        assert version.dtype == np.float32
        assert np.isfinite(version).all()
        assert 0 <= version.size - clip.size / speed < TOLERANCE_SAMPLES
        assert 0.2 < np.abs(version).max() < 2.0
        speeds.add(round(speed, 6))
    assert speeds == {round(speed, 6) for speed in SPEEDS}
    assert set(calls) == {
        *("room", "babble", "coloured_noise"),
        *("mp3", "libopus", "aac", "pcm_mulaw", "pcm_s16le"),
    }
    assert np.array_equal(clip, speech())


def test_the_same_generator_makes_the_same_version() -> None:
    for seed in range(12):
        (one, speed), (again, same) = (
            version_of(speech(), [speech(1)], np.random.default_rng(seed)) for _ in range(2)
        )
        assert one.tobytes() == again.tobytes()
        assert speed == same


def test_a_faster_version_says_the_same_in_less_time() -> None:
    rng = np.random.default_rng(0)
    tone = np.sin(2 * np.pi * 1_000 * np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ)
    moved = []
    for _ in range(12):
        version, speed = version_of(tone.astype(np.float32) * np.float32(0.5), [], rng)
        assert version.size * speed == pytest.approx(tone.size, rel=0.05)
        spectrum = np.abs(np.fft.rfft(version * np.hanning(version.size)))
        peak_hz = (spectrum[200:].argmax() + 200) * SAMPLE_RATE_HZ / version.size
        moved.append(abs(peak_hz / (1_000 * speed) - 1))
    # Another vocal tract moves it by a tenth, and a device may swallow it.
    assert sum(share < 0.003 for share in moved) >= 4
    assert sum(share < 0.11 for share in moved) >= 9


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.1])
def test_another_vocal_tract_moves_resonances_and_keeps_time(factor: float) -> None:
    time_s = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    tone = (0.5 * np.sin(2 * np.pi * 1_500 * time_s)).astype(np.float32)
    tone[: SAMPLE_RATE_HZ // 2] = 0.0
    other = _other_vocal_tract(tone, factor)
    assert other.size == tone.size
    assert np.abs(other[: SAMPLE_RATE_HZ // 2 - 512]).max() < 1e-3
    spectrum = np.abs(np.fft.rfft(other[-SAMPLE_RATE_HZ // 4 :]))
    assert spectrum.argmax() * 4 == pytest.approx(1_500 * factor, abs=40)


def test_a_device_colours_what_it_records_and_adds_nothing_to_silence() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(SAMPLE_RATE_HZ).astype(np.float32)
    coloured = [_through_device(noise, np.random.default_rng(seed)) for seed in range(12)]
    assert all(np.isfinite(each).all() and each.size == noise.size for each in coloured)
    changes = [float(np.abs(each - noise).mean()) for each in coloured]
    assert max(changes) > 0.3
    assert not _through_device(np.zeros(1_000, np.float32), rng).any()


def test_a_clip_that_is_barely_heard_has_versions_as_loud_as_any() -> None:
    for seed in range(8):
        faint = speech() * np.float32(2e-3)
        version, _ = version_of(faint, [faint], np.random.default_rng(seed))
        assert 0.2 < np.abs(version).max() < 2.0
