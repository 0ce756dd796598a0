"""Other voices, rooms, devices and lines than those that a clip was recorded with.

Two kinds. Versions of a whole clip are made from its waveform once, before training: speed,
vocal tract, room, a device's response, noise, overload, codecs. Crops of log-mel features are
perturbed anew at every step: tempo, vocal tract, silence, colour, noise, cut-off; then
SpecAugment.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from accent.decode import decode
from accent.limits import AudioLimits
from accent.waveform import SAMPLE_RATE_HZ, Waveform
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import resample_poly
from speechbrain.augment.freq_domain import SpectrogramDrop
from speechbrain.augment.time_domain import Resample
from torch import Tensor

from aurea.archive.distort import (
    add_noise,
    babble,
    encode,
    room,
    telephone,
)
from aurea.archive.surroundings import coloured_noise

# Rates in a simple ratio to 16 kHz: read at 16 kHz, the clip is 1.11, 1 or 0.91 times as fast.
_RESAMPLED_HZ: Final = (14_400, 16_000, 17_600)
_PEAK: Final = 0.9
_SPECTRUM_SAMPLES: Final = 512
# Speech that became quiet is still the speech of its label.
_NO_LIMITS: Final = AudioLimits(min_audio_s=0.0, silence_dbfs=-200.0, max_audio_s=3600.0)


def version_of(
    waveform: Waveform, others: Sequence[Waveform], rng: np.random.Generator
) -> tuple[Waveform, float]:
    """Another recording of (samples,) float32 at 16 kHz, and how many times as fast it is.

    Speed (Ko et al., 2015), vocal tract length, a room, a device, noise or babble of `others`,
    overload, and a codec or a telephone, each of them with a chance of its own.
    """
    rate_hz = int(rng.choice(_RESAMPLED_HZ))
    if rate_hz != SAMPLE_RATE_HZ:
        resample = Resample(SAMPLE_RATE_HZ, rate_hz)
        with torch.inference_mode():
            waveform = resample(torch.from_numpy(waveform.copy())[None])[0].numpy()
    if rng.uniform() < 0.4:
        waveform = _other_vocal_tract(waveform, rng.uniform(0.9, 1.1))
    if rng.uniform() < 0.45:
        waveform = room(waveform, rng.uniform(0.1, 0.6), rng)
    waveform = _through_device(waveform, rng)
    if rng.uniform() < 0.65:
        size = waveform.size
        noise = (
            babble(size, others, rng)
            if rng.uniform() < 0.3
            else coloured_noise(size, rng.uniform(0.0, 2.0), rng)
        )
        waveform = add_noise(waveform, noise, rng.uniform(5.0, 40.0))
    waveform = waveform * np.float32(_PEAK / max(float(np.abs(waveform).max()), 1e-6))
    if rng.uniform() < 0.1:
        waveform = np.clip(waveform * np.float32(rng.uniform(1.5, 5.0)), -_PEAK, _PEAK)
    if rng.uniform() < 0.6:
        waveform = decode(_recoded(waveform, rng), _NO_LIMITS).waveform
    return waveform, SAMPLE_RATE_HZ / rate_hz


def _other_vocal_tract(waveform: Waveform, factor: float) -> Waveform:
    """(samples,) with all resonances at `factor` times their frequency and its time unchanged.

    Magnitudes of the short-time spectrum are stretched along frequency under the phases that
    were there (after Jaitly and Hinton, 2013, who stretch mel bands).
    """
    window = torch.hann_window(_SPECTRUM_SAMPLES)
    samples = torch.from_numpy(np.ascontiguousarray(waveform))
    spectrum = torch.stft(
        samples, _SPECTRUM_SAMPLES, window=window, return_complex=True, pad_mode="constant"
    )
    magnitudes = spectrum.abs()
    positions = (torch.arange(len(spectrum)) / factor).clamp(max=len(spectrum) - 1.0)
    lower = positions.long()
    upper = (lower + 1).clamp(max=len(spectrum) - 1)
    stretched = torch.lerp(magnitudes[lower], magnitudes[upper], (positions - lower)[:, None])
    phases = spectrum / magnitudes.clamp(min=1e-9)
    out = torch.istft(phases * stretched, _SPECTRUM_SAMPLES, window=window, length=len(samples))
    return np.asarray(out.numpy(), np.float32)


def _through_device(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """(samples,) through a microphone and line of a random response: colour, cut-offs, holes."""
    hz = np.fft.rfftfreq(next_fast_len(waveform.size, real=True), 1.0 / SAMPLE_RATE_HZ)
    octaves = np.log2(np.maximum(hz, 20.0))
    gain_db = np.zeros(hz.size)
    if rng.uniform() < 0.8:
        gain_db += np.interp(octaves, np.linspace(6.0, 13.0, 8), rng.normal(0.0, 4.0, 8))
    if rng.uniform() < 0.5:
        cut_hz = 2.0 ** rng.uniform(np.log2(2_500.0), np.log2(8_000.0))
        gain_db -= rng.uniform(24.0, 96.0) * np.maximum(octaves - np.log2(cut_hz), 0.0)
    if rng.uniform() < 0.4:
        cut_hz = rng.uniform(60.0, 400.0)
        gain_db -= rng.uniform(12.0, 48.0) * np.maximum(np.log2(cut_hz) - octaves, 0.0)
    if rng.uniform() < 0.3:
        for _ in range(int(rng.integers(1, 4))):
            centre_hz, width_hz = rng.uniform(300.0, 7_000.0), rng.uniform(100.0, 600.0)
            gain_db[np.abs(hz - centre_hz) < width_hz / 2] -= 40.0
    spectrum = rfft(waveform, next_fast_len(waveform.size, real=True))
    filtered = irfft(spectrum * 10.0 ** (gain_db / 20.0), next_fast_len(waveform.size, real=True))
    return np.asarray(filtered[: waveform.size], np.float32)


def _recoded(waveform: Waveform, rng: np.random.Generator) -> bytes:
    kbit = 1000
    match int(rng.integers(4)):
        case 0:
            rate = int(rng.choice([24, 32, 40, 64]))
            return encode(waveform, SAMPLE_RATE_HZ, "mp3", "mp3", rate * kbit)
        case 1:
            wide = resample_poly(waveform, 3, 1).astype(np.float32)
            rate = int(rng.choice([12, 16, 24, 32]))
            return encode(wide, 3 * SAMPLE_RATE_HZ, "webm", "libopus", rate * kbit)
        case 2:
            rate = int(rng.choice([24, 32, 48, 64]))
            return encode(waveform, SAMPLE_RATE_HZ, "mp4", "aac", rate * kbit)
        case _:
            narrow = telephone(waveform)
            codec = "pcm_mulaw" if rng.uniform() < 0.5 else "pcm_s16le"
            return encode(narrow, SAMPLE_RATE_HZ // 2, "wav", codec)


def crop_at(features: Tensor, frames: int, place: float, tempo: float) -> tuple[Tensor, Tensor]:
    """Cut `frames` frames out of (n, n_mels), read `tempo` times as fast.

    `place` in [0, 1) says where between the first and the last possible start. A clip that
    is too short is repeated. Returns (frames, n_mels) float32 and where in the clip each of
    them was read, (frames,) in frames.
    """
    last = max(len(features) - 1, 1)
    start = place * max(last - frames * tempo, 0.0)
    positions = (start + torch.arange(frames) * tempo) % last
    lower = positions.long()
    weight = (positions - lower)[:, None]
    upper = (lower + 1).clamp(max=len(features) - 1)
    return torch.lerp(features[lower].float(), features[upper].float(), weight), positions


def perturbed_crop(
    features: Tensor, frames: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """A random crop of (n, n_mels) in dB as another voice, room or device might give it.

    Tempo, vocal tract length (Jaitly and Hinton, 2013), silence around the speech, colour
    and stationary noise; then a cut-off as of a telephone. Returns what `crop_at` does.
    """
    crop, positions = crop_at(features, frames, rng.uniform(), rng.uniform(0.9, 1.1))
    n_mels = crop.shape[1]
    crop = _warp_frequencies(crop, rng.uniform(0.9, 1.1))
    speech_level_db = float(torch.quantile(crop.mean(dim=1), 0.9))
    if rng.uniform() < 0.4:
        before, after = rng.uniform(0.0, 0.3, 2) * frames
        silence_db = speech_level_db - 80.0
        crop[: int(before)] = silence_db
        crop[frames - int(after) :] = silence_db
    mel_axis = np.linspace(0.0, 1.0, n_mels)
    colour_db = np.interp(mel_axis, np.linspace(0.0, 1.0, 6), rng.normal(0.0, 3.0, 6))
    crop = crop + torch.from_numpy(colour_db).float()
    # Noise, or none at all: a studio's silence lies far below speech, and the mean that is
    # taken from each clip depends on how deep it is.
    if rng.uniform() < 0.6:
        noise_db = (
            speech_level_db
            - rng.uniform(10.0, 70.0)
            + rng.uniform(-15.0, 15.0) * (mel_axis - 0.5)
            + 10.0 * np.log10(rng.gamma(4.0, 0.25, (frames, n_mels)) + 1e-6)
        )
        ln_per_db = math.log(10.0) / 10.0
        noise = torch.from_numpy(noise_db).float()
        crop = torch.logaddexp(crop * ln_per_db, noise * ln_per_db) / ln_per_db
    if rng.uniform() < 0.15:
        crop[:, int(rng.uniform(0.68, 0.95) * n_mels) :] = speech_level_db - 60.0
    return crop, positions


def _warp_frequencies(features: Tensor, factor: float) -> Tensor:
    """Stretch the mel axis as a vocal tract `factor` times as short would."""
    n_mels = features.shape[1]
    top_mel = 2595.0 * math.log10(1.0 + SAMPLE_RATE_HZ / 2 / 700.0)
    mel = torch.arange(1, n_mels + 1) / (n_mels + 1) * top_mel
    warped = 2595.0 * torch.log10(1.0 + (10.0 ** (mel / 2595.0) - 1.0) / factor)
    positions = (warped / top_mel * (n_mels + 1) - 1.0).clamp(0.0, n_mels - 1.0)
    lower = positions.long()
    upper = (lower + 1).clamp(max=n_mels - 1)
    return torch.lerp(features[:, lower], features[:, upper], positions - lower)


def spec_augment(features: Tensor) -> Tensor:
    """SpecAugment (Park et al., 2019) on mean-normalised (batch, frames, n_mels).

    Two stretches of at most 10 % of the frames and two of at most 10 mel bands are set to
    the mean. What is dropped depends on torch's generator alone.
    """
    _, frames, n_mels = features.shape
    for dim, longest in ((1, frames // 10), (2, min(10, n_mels // 2))):
        features = SpectrogramDrop(
            drop_length_low=0,
            drop_length_high=max(longest, 1),
            drop_count_low=2,
            drop_count_high=2,
            dim=dim,
        )(features)
    return features
