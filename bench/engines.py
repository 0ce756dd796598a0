"""Engines without a server: their speed side by side, alone in a loop, and the processor's own.

A process that holds them and does what lines of JSON ask for, one line of JSON each.
"""

import gc
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch
from accent.classifier import AccentClassifier
from accent.cores import CoreShare
from accent.decode import decode
from accent.ecapa.loading import EcapaModel
from accent.engine import Engine, EngineError
from accent.kinds import describe_model, load_model
from accent.layout import ENGINES_FILE
from accent.model import LoadedModel
from accent.selection import AUTO, EngineSettings, open_engine, packed_engines
from accent.waveform import SAMPLE_RATE_HZ, Waveform

from aurea.archive.distort import encode
from aurea.command_line import CommandLine, read
from bench.clips import read_manifest
from bench.limits import best_rates, least_gflop
from bench.results import CLIP_S, LENGTHS_S, SPEECHBRAIN
from bench.rivals.speechbrain_model import SpeechBrainModel

_REST_S: Final = 0.03
_LENGTH_TURNS: Final = 12
_STAGES: Final = ("decode_s", "gate_s", "features_s", "forward_s")


class Bench:
    """Engines over one model, opened when they are first asked for, with so many threads."""

    def __init__(self, model: Path, archive: Path, clips: Path, threads: int) -> None:
        self._model, self._archive, self._threads = model, archive, threads
        self._engines: dict[str, Engine] = {}
        self._reference: LoadedModel | None = None
        self._clips, self._folder = read_manifest(clips), clips
        self._waveforms = [
            decode((clips / clip.file).read_bytes()).waveform for clip in self._clips
        ]
        self._speechbrain: SpeechBrainModel | None = None

    def expect(self, engine: str) -> list[float]:
        """us_confidence, 0 to 100, of every clip by an engine, such as "torch fp32"."""
        model = self._loaded()
        scores = self._engine(engine).score(self._waveforms)
        points = []
        for score in scores:
            if isinstance(score, Exception):
                raise score
            points.append(100 * float(model.posterior(score.evidence)[model.us_index]))
        return points

    def describe(self) -> dict[str, Any]:
        """The engines that can be had, what packaging found of them, and a clip's cost."""
        opened = open_engine(self._archive, EngineSettings(), cores=CoreShare(self._threads))
        within_bounds: dict[str, bool] = {}
        faults: dict[str, str] = {}
        for packed in packed_engines(self._archive):
            try:
                self._engine(packed.name)
            except EngineError as error:
                faults[packed.name] = str(error)
            else:
                within_bounds[packed.name] = packed.within_bounds
        model = self._loaded()
        return {
            "auto": f"{opened.name} {opened.precision}",
            "reference": model.reference.name,
            "within_bounds": within_bounds,
            "deviations": _packaged_deviations(self._archive),
            "faults": faults,
            # SpeechBrain, its rivals and the count of products know this kind alone.
            "gflop": least_gflop(model) if isinstance(model, EcapaModel) else None,
        }

    def compare(self, engines: Sequence[str], repeats: int) -> dict[str, list[float]]:
        """Milliseconds for 5 s of speech, each engine in turn, `repeats` times."""
        window = self._waveforms[0][: int(CLIP_S * SAMPLE_RATE_HZ)]
        calls = {name: self._call(name, window) for name in engines}
        for call in calls.values():
            call()
        taken: dict[str, list[float]] = {name: [] for name in engines}
        gc.disable()
        for _ in range(repeats):
            for name, call in calls.items():
                # The threads of the engine before this one wait awake for a short while.
                time.sleep(_REST_S)
                started = time.perf_counter()
                call()
                taken[name].append(1000 * (time.perf_counter() - started))
        gc.enable()
        return taken

    def multiply(self) -> dict[str, float]:
        """Billions of operations a second in the fastest matrix product, by precision."""
        return best_rates(self._threads)

    def stages(self) -> dict[str, float]:
        """Milliseconds that a worker with these threads spends on 5 s of speech, by stage."""
        classifier = self._classifier()
        uploads = [(self._folder / clip.file).read_bytes() for clip in self._clips]
        audio_s = sum(clip.duration_s for clip in self._clips)
        rounds: list[dict[str, float]] = []
        # Each length of clip is prepared for in the first round.
        for _ in range(4):
            timings = [answer.document["timings"] for answer in classifier.classify(uploads)]
            spent = {name: sum(each[name] for each in timings) for name in _STAGES}
            rounds.append({name: 1000 * spent[name] / audio_s * CLIP_S for name in _STAGES})
        return {
            name.removesuffix("_s"): median(each[name] for each in rounds[1:]) for name in _STAGES
        }

    def lengths(self) -> dict[str, list[float]]:
        """Milliseconds of processor time for a second of a short clip and of a long one, in turns.

        Both are FLAC at 16 kHz of the same speech, from the bytes to the answer.
        """
        classifier = self._classifier()
        longest = max(self._waveforms, key=len)
        uploads = {
            length_s: encode(
                longest[: int(length_s * SAMPLE_RATE_HZ)], SAMPLE_RATE_HZ, "flac", "flac", None
            )
            for length_s in LENGTHS_S
        }
        taken: dict[str, list[float]] = {f"{length_s:g}": [] for length_s in LENGTHS_S}
        for turn in range(1 + _LENGTH_TURNS):
            for length_s, upload in uploads.items():
                started = time.process_time()
                (answer,) = classifier.classify([upload])
                spent_ms = 1000 * (time.process_time() - started)
                if answer.status != HTTPStatus.OK:
                    raise RuntimeError(f"{answer.document}")
                # What a length is prepared for is paid at its first clip.
                if turn:
                    taken[f"{length_s:g}"].append(spent_ms / length_s)
        return taken

    def _classifier(self) -> AccentClassifier:
        classifier = AccentClassifier(
            describe_model(self._archive), self._engine(AUTO), name="bench", version="1"
        )
        classifier.warm_up()
        return classifier

    def loop(self, engine: str, starts_at: float, duration_s: float) -> dict[str, float]:
        """Score clip after clip from `starts_at` of the monotonic clock; how many seconds' worth.

        A clip that is not done in time counts by its share.
        """
        chosen = self._engine(engine)
        chosen.score(self._waveforms[:1])
        time.sleep(max(0.0, starts_at - time.monotonic()))
        ends = starts_at + duration_s
        audio_s = 0.0
        place = 0
        while (began := time.monotonic()) < ends:
            waveform = self._waveforms[place % len(self._waveforms)]
            (score,) = chosen.score([waveform])
            if isinstance(score, Exception):
                raise score
            finished = time.monotonic()
            share = min(1.0, (ends - began) / (finished - began))
            audio_s += share * waveform.size / SAMPLE_RATE_HZ
            place += 1
        return {"audio_s": audio_s}

    def _call(self, name: str, window: Waveform) -> Callable[[], object]:
        if name == SPEECHBRAIN:
            if self._speechbrain is None:
                self._speechbrain = SpeechBrainModel(self._model, Path.cwd() / "savedir")
            speechbrain, tensor = self._speechbrain, torch.from_numpy(window)
            return lambda: speechbrain.classify_waveform(tensor)
        engine = self._engine(name)
        return lambda: engine.score([window])

    def _engine(self, name: str) -> Engine:
        if name not in self._engines:
            settings = EngineSettings()
            if name != AUTO:
                engine, precision = name.split()
                settings = EngineSettings(engine, precision)  # type: ignore[arg-type]
            opened = open_engine(self._archive, settings, cores=CoreShare(self._threads))
            self._engines[name] = opened.engine
        return self._engines[name]

    def _loaded(self) -> LoadedModel:
        if self._reference is None:
            self._reference = load_model(self._model)
        return self._reference


def _packaged_deviations(archive: Path) -> dict[str, dict[str, float]]:
    path = archive / ENGINES_FILE
    if not path.is_file():
        return {}
    return {
        f"{entry['engine']} {entry['precision']}": entry.get("deviation_points", {})
        for entry in json.loads(path.read_text(encoding="utf-8"))["engines"]
    }


class EngineOptions(CommandLine):
    """Hold engines and do what lines of JSON ask for."""

    model: Path
    """Folder of the model."""

    archive: Path
    """Folder of the unpacked archive, with the graphs to compare."""

    clips: Path
    """Folder of the bench's clips."""

    threads: int
    """Threads of an engine."""


def main() -> None:
    """Answer requests until the input ends."""
    options = read(EngineOptions)
    torch.set_num_threads(options.threads)
    bench = Bench(options.model, options.archive, options.clips, options.threads)
    requests: Mapping[str, Callable[..., Any]] = {
        "expect": bench.expect,
        "describe": bench.describe,
        "compare": bench.compare,
        "multiply": bench.multiply,
        "stages": bench.stages,
        "lengths": bench.lengths,
        "loop": bench.loop,
    }
    for line in sys.stdin:
        request = json.loads(line)
        answer = requests[request.pop("do")](**request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
