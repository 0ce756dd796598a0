"""`make evaluate`: labelled speech through the engine that serves -> what its scores are worth.

Every clip goes as the bytes of its file through the handler that TorchServe runs, in as many
processes as there are cores, or by HTTP to a service that runs. Each answer is written down at
once, so that a run that was killed goes on where it stood.
"""

import argparse
import hashlib
import json
import math
import os
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import httpx
import numpy as np
import yaml
from accent.decode import decode
from accent.errors import ModelFolderError, Refusal
from accent.layout import HYPERPARAMS_FILE, LABELS_FILE, US_LABEL
from accent.scoring import posterior
from accent.specification import read_labels, read_spec
from accent.waveform import Waveform
from accent_handler import AccentHandler
from tqdm import tqdm

from aurea.archive.build import PackagingError, inputs_digest
from aurea.archive.distort import DISTORTIONS, distort
from aurea.files import write_whole
from aurea.lab.corpus import Clip, read_clips
from aurea.lab.figures import ClipResult, Estimate, Evaluation, ModelFacts, summarise
from aurea.lab.reporting.report import write_report
from aurea.models.choice import (
    DEFAULT_CACHE,
    DEFAULT_EMBEDDED,
    ModelUnavailable,
    choose_model,
)
from aurea.paths import ROOT
from aurea.processes import process_pool

RESULTS_FILE: Final = "results.jsonl"
JSON_FILE: Final = "evaluation.json"
UNREADABLE: Final = "unreadable_file"
DISTORTION_FAILED: Final = "distortion_failed"

_CONFIG_FILE: Final = ROOT / "handler" / "model-config.yaml"
_BABBLE_CLIPS: Final = 12
_SERVICE_ATTEMPTS: Final = 30
_SERVICE_JOBS: Final = 4
_SERVICE_TIMEOUT_S: Final = 90.0


def model_facts(model_folder: Path, name: str = "") -> ModelFacts:
    """What a report says of the model in `model_folder`; its digest covers the engine too.

    Raises `PackagingError` or `ModelFolderError` for a folder that holds no model.
    """
    return ModelFacts(
        name or model_folder.name,
        inputs_digest(model_folder, "", ""),
        read_labels(model_folder / LABELS_FILE),
        read_spec(model_folder / HYPERPARAMS_FILE).softmax_scale,
    )


def evaluate_clips(
    model_folder: Path,
    clips: Sequence[Clip],
    *,
    jobs: int = 0,
    log: Path | None = None,
    distortions: Sequence[str] = (),
    distorted_clips: int = 300,
    seed: int = 0,
) -> list[ClipResult]:
    """Have the handler answer every clip in `jobs` processes, one a core by default.

    Results come in the order of `clips`, those of distorted clips after them. With `log`,
    answers are kept in that file and only what it lacks is computed: an answer stands for
    the engine's and the model's files, the clip's path, size and time, and all that distorts it.
    At most `distorted_clips` clips are distorted, US and others by halves where there are
    enough, drawn by `seed`.

    Raises `SystemExit` if a worker dies, and `ModelFolderError` or `PackagingError` for a
    folder that cannot be served.
    """
    facts = model_facts(model_folder)
    jobs = jobs or _cores()
    setting = _Setting(model_folder.resolve(), seed, tuple(_babble_clips(clips, seed)))

    def pool() -> Executor:
        return process_pool(jobs, _start_worker, setting)

    return _run(
        clips,
        distortions,
        _drawn(clips, distorted_clips, seed) if distortions else [],
        pool,
        _answer_in_worker,
        log,
        facts.digest,
        f"{seed} {' '.join(str(clip.path) for clip in setting.babble)}",
    )


def evaluate_service(
    url: str, clips: Sequence[Clip], *, jobs: int = 0, log: Path | None = None
) -> tuple[ModelFacts, list[ClipResult]]:
    """Send every clip to a service that runs, `jobs` at a time (four by default).

    The public contract tells the US score only, so that results have no cosines. A service
    that is busy is asked again after the time that it names.

    Raises `SystemExit` if the service does not answer.
    """
    address = url.rstrip("/")
    try:
        about = httpx.get(f"{address}/", timeout=_SERVICE_TIMEOUT_S).raise_for_status().json()
        name = f"{about['model']['name']}/{about['model']['version']}"
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{address} does not answer as the service does: {error}") from None
    facts = ModelFacts(name, hashlib.sha256(f"{address} {name}".encode()).hexdigest(), (), 0.0)
    client = httpx.Client(base_url=address, timeout=_SERVICE_TIMEOUT_S)
    with client:
        results = _run(
            clips,
            (),
            [],
            lambda: ThreadPoolExecutor(jobs or _SERVICE_JOBS),
            lambda task: [_answer_of_service(client, task)],
            log,
            facts.digest,
            "",
        )
    return facts, results


@dataclass(frozen=True)
class _Task:
    """A clip and what is wanted of it: distortions by name, "" for the clip as it is."""

    clip: Clip
    distortions: tuple[str, ...]


@dataclass(frozen=True)
class _Setting:
    model_folder: Path
    seed: int
    babble: tuple[Clip, ...]


class _Worker:
    """The handler as TorchServe would set it up, and the voices that babble is made of."""

    def __init__(self, setting: _Setting) -> None:
        config = yaml.safe_load(_CONFIG_FILE.read_text(encoding="utf-8"))
        # Threads that wait for each other gain nothing where every core has a process, and a
        # sum by parts would not be the same sum.
        config["accent"]["threads_per_worker"] = 1
        # The report tells how much speech there was.
        config["accent"]["hear_whole_clip"] = True
        self._handler = AccentHandler()
        self._handler.initialize(
            SimpleNamespace(
                model_name=setting.model_folder.name,
                manifest={"model": {"modelVersion": "evaluation"}},
                system_properties={"model_dir": str(setting.model_folder), "gpu_id": None},
                model_yaml_config=config,
                metrics=None,
            )
        )
        labels = read_labels(setting.model_folder / LABELS_FILE)
        self._us = labels.index(US_LABEL)
        self._scale = read_spec(setting.model_folder / HYPERPARAMS_FILE).softmax_scale
        self._setting = setting
        self._babble: list[tuple[str, Waveform]] | None = None

    def answer(self, task: _Task) -> list[ClipResult]:
        """The results that `task` wants; none for distortions of what cannot be decoded."""
        try:
            data = task.clip.path.read_bytes()
        except OSError as error:
            failed = ClipResult(task.clip, refusal=UNREADABLE, detail=str(error.strerror))
            return [failed] if "" in task.distortions else []
        results = [self._score(task.clip, "", data)] if "" in task.distortions else []
        wanted = [name for name in task.distortions if name]
        if not wanted or any(result.refusal for result in results):
            return results
        try:
            waveform = decode(data).waveform
        except Refusal:
            return results
        for name in wanted:
            results.append(self._distorted(task.clip, name, waveform))
        return results

    def _distorted(self, clip: Clip, name: str, waveform: Waveform) -> ClipResult:
        # The same noise in every run and whatever else is judged.
        place = zlib.crc32(f"{clip.path.name}/{name}".encode())
        rng = np.random.default_rng((self._setting.seed, place))
        try:
            data = distort(name, waveform, self._others(clip), rng)
        except Exception as error:
            return ClipResult(clip, name, DISTORTION_FAILED, f"{type(error).__name__}: {error}")
        return self._score(clip, name, data)

    def _others(self, clip: Clip) -> list[Waveform]:
        if self._babble is None:
            self._babble = []
            for other in self._setting.babble:
                try:
                    waveform = decode(other.path.read_bytes()).waveform
                except (OSError, Refusal):
                    continue
                self._babble.append((other.speaker, waveform))
        return [waveform for speaker, waveform in self._babble if speaker != clip.speaker]

    def _score(self, clip: Clip, distortion: str, data: bytes) -> ClipResult:
        started = time.perf_counter()
        (staged,) = self._handler.inference(self._handler.preprocess([{"body": data}]))
        (answer,) = self._handler.postprocess([staged])
        latency_s = time.perf_counter() - started
        result = ClipResult(clip, distortion, latency_s=latency_s)
        if staged.audio is not None:
            facts = staged.audio.facts
            result = replace(
                result,
                duration_s=facts.duration_s,
                codec=facts.codec,
                sample_rate_hz=facts.sample_rate_hz,
            )
        if answer.status != 200:
            return replace(
                result, refusal=answer.document["code"], detail=answer.document["detail"]
            )
        cosines = (
            np.stack([score.cosines for score in staged.scores]).astype(np.float64).mean(axis=0)
        )
        return replace(
            result,
            us_score=float(posterior(cosines, self._scale)[self._us]),
            cosines=tuple(cosines.tolist()),
            speech_s=answer.document["audio"].get("speech_s"),
        )


_worker: _Worker | None = None


def _start_worker(setting: _Setting) -> None:
    global _worker
    _worker = _Worker(setting)


def _answer_in_worker(task: _Task) -> list[ClipResult]:
    if _worker is None:
        raise RuntimeError("the worker was not started")
    return _worker.answer(task)


def _answer_of_service(client: httpx.Client, task: _Task) -> ClipResult:
    clip = task.clip
    try:
        data = clip.path.read_bytes()
    except OSError as error:
        return ClipResult(clip, refusal=UNREADABLE, detail=str(error.strerror))
    result = ClipResult(clip)
    try:
        facts = decode(data).facts
        result = replace(
            result,
            duration_s=facts.duration_s,
            codec=facts.codec,
            sample_rate_hz=facts.sample_rate_hz,
        )
    except Refusal:
        pass  # The service's own word on it is what counts.
    for _ in range(_SERVICE_ATTEMPTS):
        started = time.perf_counter()
        try:
            response = client.post("/classify-us-accent", files={"file": ("clip", data)})
        except httpx.HTTPError as error:
            raise SystemExit(f"{client.base_url} does not answer any more: {error}") from None
        result = replace(result, latency_s=time.perf_counter() - started)
        if response.status_code != 503:
            break
        time.sleep(float(response.headers.get("retry-after", "1")))
    document = response.json()
    if response.status_code != 200:
        return replace(result, refusal=document["code"], detail=document["detail"])
    return replace(result, us_score=document["us_confidence"] / 100.0)


def _run(
    clips: Sequence[Clip],
    distortions: Sequence[str],
    distorted: Sequence[Clip],
    pool: Callable[[], Executor],
    answer: Callable[[_Task], list[ClipResult]],
    log: Path | None,
    engine: str,
    distorted_by: str,
) -> list[ClipResult]:
    """Have what `log` lacks answered by a pool, and return all results in a fixed order."""
    done = _logged(log) if log is not None else {}
    to_distort = set(distorted)
    results: dict[tuple[Clip, str], ClipResult] = {}
    tasks: list[_Task] = []
    keys: dict[tuple[Clip, str], str] = {}
    for clip in clips:
        wanted: list[str] = []
        for name in ("", *(distortions if clip in to_distort else ())):
            key = keys[clip, name] = _key(
                f"{engine} {name} {distorted_by}" if name else engine, clip
            )
            if key in done:
                results[clip, name] = replace(done[key], clip=clip)
            else:
                wanted.append(name)
        plain = results.get((clip, ""))
        if wanted and (plain is None or not plain.refusal):
            tasks.append(_Task(clip, tuple(wanted)))
    if tasks:
        for result in _answers(tasks, pool, answer, len(clips)):
            results[result.clip, result.distortion] = result
            if log is not None:
                _write_down(log, keys[result.clip, result.distortion], result)
    return [results[clip, name] for clip, name in keys if not name] + [
        results[clip, name] for clip, name in keys if name and (clip, name) in results
    ]


def _answers(
    tasks: Sequence[_Task],
    pool: Callable[[], Executor],
    answer: Callable[[_Task], list[ClipResult]],
    total: int,
) -> Iterable[ClipResult]:
    with pool() as executor:
        try:
            futures = [executor.submit(answer, task) for task in tasks]
            bar = tqdm(
                as_completed(futures),
                desc="evaluate",
                unit="clip",
                initial=total - len(tasks),
                total=total,
                disable=None,
            )
            for future in bar:
                yield from future.result()
        except BrokenProcessPool:
            raise SystemExit(
                "A worker died, perhaps for want of memory: run it again with fewer JOBS, "
                "and it goes on from here."
            ) from None
        finally:
            executor.shutdown(wait=False, cancel_futures=True)


def _key(stands_for: str, clip: Clip) -> str:
    try:
        status = clip.path.stat()
        state = f"{status.st_size} {status.st_mtime_ns}"
    except OSError:
        state = "absent"
    text = "\0".join([stands_for, str(clip.path.absolute()), state])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _logged(log: Path) -> dict[str, ClipResult]:
    """The results in `log` by key, their clips yet to be filled in."""
    done: dict[str, ClipResult] = {}
    if not log.exists():
        return done
    text = log.read_text(encoding="utf-8")
    nobody = Clip(Path(), "", "", "", "")
    # A kill can leave half a line, and only at the end.
    whole, _, rest = text.rpartition("\n")
    if rest:
        log.write_text(f"{whole}\n" if whole else "", encoding="utf-8")
    for line in whole.splitlines():
        entry = json.loads(line)
        cosines = entry.pop("cosines")
        key = entry.pop("key")
        del entry["path"]
        done[key] = ClipResult(nobody, **entry, cosines=None if cosines is None else (*cosines,))
    return done


def _write_down(log: Path, key: str, result: ClipResult) -> None:
    entry = asdict(result)
    path = entry.pop("clip")["path"]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"key": key, "path": str(path), **entry}) + "\n")


def _babble_clips(clips: Sequence[Clip], seed: int) -> list[Clip]:
    """A clip each of a few speakers, drawn by `seed`."""
    by_speaker: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        by_speaker[clip.speaker].append(clip)
    rng = np.random.default_rng((seed, 1))
    speakers = rng.permutation(sorted(by_speaker))[:_BABBLE_CLIPS].tolist()
    return [found[int(rng.integers(len(found)))] for found in map(by_speaker.__getitem__, speakers)]


def _drawn(clips: Sequence[Clip], count: int, seed: int) -> list[Clip]:
    """At most `count` clips by `seed`, US and others by halves where there are enough."""
    rng = np.random.default_rng((seed, 2))
    shuffled = [clips[i] for i in rng.permutation(len(clips)).tolist()]
    us = [clip for clip in shuffled if clip.accent == US_LABEL]
    rest = [clip for clip in shuffled if clip.accent != US_LABEL]
    n_us = min(len(us), max(count // 2, count - len(rest)))
    return us[:n_us] + rest[: count - n_us]


@dataclass(frozen=True)
class Gate:
    """A figure and the value that it must reach, or with `at_most` must not pass."""

    name: str
    limit: float
    at_most: bool

    def holds(self, figures: Mapping[str, float]) -> bool:
        """Whether the figure was measured and keeps the limit."""
        value = figures.get(self.name, math.nan)
        return value <= self.limit if self.at_most else value >= self.limit


def parse_gates(text: str, *, at_most: bool) -> list[Gate]:
    """Read `auc=0.85,balanced_accuracy=0.5`.

    Raises `argparse.ArgumentTypeError` for what is no name with a number.
    """
    gates: list[Gate] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, limit = part.partition("=")
        try:
            gates.append(Gate(name.strip(), float(limit), at_most))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{part!r} is not NAME=NUMBER") from None
    return gates


def _check_names(gates: Sequence[Gate], figures: Mapping[str, float]) -> None:
    unknown = [gate.name for gate in gates if gate.name not in figures]
    if unknown:
        raise SystemExit(
            f"No figure is called {', '.join(unknown)}. There are: {', '.join(sorted(figures))}."
        )


def gate_table(gates: Sequence[Gate], figures: Mapping[str, float]) -> str:
    """A line for each gate: its name, what was measured, its limit, and whether it holds."""
    return "\n".join(
        f"  {'passed' if gate.holds(figures) else 'FAILED'}  {gate.name} = "
        f"{figures[gate.name]:.4g} ({'at most' if gate.at_most else 'at least'} {gate.limit:g})"
        for gate in gates
    )


def _headline(evaluation: Evaluation) -> str:
    data, us = evaluation.data, evaluation.us
    lines = [
        f"{evaluation.model.name}: {data.clips} clips, {data.speakers} speakers "
        f"({data.us_speakers} US), {data.hours:.2f} h; {data.refused} refused",
        f"  AUC US / rest       {_interval(us.auc)}",
        f"  equal error rate    {_interval(us.equal_error_rate)}",
    ]
    lines += [
        f"  at {100 * point.max_false_accepts:g} % false accepts  "
        f"{100 * point.true_accepts:.0f} % of US accepted (threshold {100 * point.threshold:.1f})"
        for point in us.operating_points
        if not math.isnan(point.threshold)
    ]
    if evaluation.labels is not None:
        lines += [
            f"  accuracy            {_interval(evaluation.labels.accuracy)}",
            f"  balanced accuracy   {_interval(evaluation.labels.balanced_accuracy)}"
            f", chance {evaluation.labels.chance:.3f}",
        ]
    lines += [
        f"  calibration error   {_interval(evaluation.calibration.expected_error)}",
        f"  Brier score         {_interval(evaluation.calibration.brier)}"
        f", base rate {evaluation.calibration.base_rate_brier:.3f}",
        f"  time per clip       median {1000 * evaluation.timing.latency_median_s:.0f} ms, "
        f"95 % within {1000 * evaluation.timing.latency_p95_s:.0f} ms",
    ]
    lines += [
        f"  {shift.title:<19} moves the score by {100 * shift.median:.1f} (95 % within "
        f"{100 * shift.p95:.1f}), {shift.refused} refused"
        + ("" if math.isnan(shift.auc_change) else f", AUC {shift.auc_change:+.3f}")
        for shift in evaluation.robustness.values()
        if shift.clips
    ]
    for code, paths in evaluation.refusals.items():
        more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
        lines.append(f"  {code}: {len(paths)} ({', '.join(paths[:5])}{more})")
    return "\n".join(lines)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _interval(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "unknown"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate, write the report and hold the gates; the exit status is 1 if one fails."""
    parser = argparse.ArgumentParser(prog="evaluate", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", default="auto", help="auto, commonaccent, embedded or a folder")
    parser.add_argument("--url", default="", help="a service that runs, in place of a model")
    parser.add_argument("--data", required=True, help="folders and CSV files, with spaces")
    parser.add_argument("--out", type=Path, help="folder for the report and all answers")
    parser.add_argument("--jobs", type=int, default=0, help="processes; one a core by default")
    parser.add_argument("--seed", type=int, default=0, help="draws speakers, noise and clips")
    parser.add_argument("--robustness", action="store_true", help="distort the clips as well")
    parser.add_argument("--robustness-clips", type=int, default=300, help="how many at most")
    parser.add_argument(
        "--fail-under",
        type=partial(parse_gates, at_most=False),
        default=[],
        metavar="NAME=NUMBER,...",
        help="fail unless these figures are at least that much",
    )
    parser.add_argument(
        "--fail-over",
        type=partial(parse_gates, at_most=True),
        default=[],
        metavar="NAME=NUMBER,...",
        help="fail unless these figures are at most that much",
    )
    options = parser.parse_args(arguments)
    if options.url and options.robustness:
        parser.error("robustness is measured on a model, not on a service that others use")
    sources = options.data.split()
    if not sources:
        parser.error("DATA is needed: a folder with one sub-folder per accent, or a CSV file")
    clips = read_clips([Path(source) for source in sources])
    jobs = options.jobs or (_SERVICE_JOBS if options.url else _cores())
    started = time.monotonic()
    if options.url:
        out = options.out or default_out(
            "service", hashlib.sha256(options.url.encode()).hexdigest()
        )
        model, results = evaluate_service(options.url, clips, jobs=jobs, log=out / RESULTS_FILE)
    else:
        try:
            choice = choose_model(options.model, cache=DEFAULT_CACHE, embedded=DEFAULT_EMBEDDED)
            if choice.notice:
                print(choice.notice)
            model = model_facts(choice.folder, choice.name)
            out = options.out or default_out(model.name, model.digest)
            results = evaluate_clips(
                choice.folder,
                clips,
                jobs=jobs,
                log=out / RESULTS_FILE,
                distortions=tuple(DISTORTIONS) if options.robustness else (),
                distorted_clips=options.robustness_clips,
                seed=options.seed,
            )
        except (ModelUnavailable, ModelFolderError, PackagingError) as error:
            raise SystemExit(f"{error}") from None
    print(f"answered after {time.monotonic() - started:.0f} s")
    evaluation = summarise(results, model, sources=sources, jobs=jobs, seed=options.seed)
    write_json(out / JSON_FILE, evaluation.to_json())
    page = write_report(evaluation, out)
    print(_headline(evaluation))
    print(f"{page}\n{out / JSON_FILE}")
    gates = [*options.fail_under, *options.fail_over]
    if not gates:
        return 0
    figures = evaluation.figures()
    _check_names(gates, figures)
    print(gate_table(gates, figures))
    return 0 if all(gate.holds(figures) for gate in gates) else 1


def default_out(name: str, digest: str) -> Path:
    """Where reports on a model go unless the caller says: a folder for each state of it."""
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
    return ROOT / "build" / "evaluation" / f"{plain}-{digest[:12]}"


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write `document`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
