"""Clips -> answers: what the log lacks is asked of a pool, and written down as it comes."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace

from tqdm import tqdm

from aurea.lab.corpus import Clip
from aurea.lab.evaluation.answer_log import AnswerLog, answer_key
from aurea.lab.evaluation.clip_results import ClipResult, unreadable


@dataclass(frozen=True)
class Task:
    """A clip and what is wanted of it: distortions by name, "" for the clip as it is."""

    clip: Clip
    distortions: tuple[str, ...]


@dataclass(frozen=True)
class Distorting:
    """Which `names` of distortions `clips` get, and what else decides the results (`inputs`)."""

    names: tuple[str, ...] = ()
    clips: frozenset[Clip] = frozenset()
    inputs: str = ""


def answer_clips(
    clips: Sequence[Clip],
    pool: Callable[[], Executor],
    answer: Callable[[Task], list[ClipResult]],
    *,
    engine_digest: str,
    log: AnswerLog | None,
    distorting: Distorting = Distorting(),
) -> list[ClipResult]:
    """The results of all clips in their order, then those of distorted ones.

    No pool is made where the log has everything. A refused clip is not distorted.

    Raises `SystemExit` if a worker process dies.
    """
    results: dict[tuple[Clip, str], ClipResult] = {}
    tasks: list[Task] = []
    keys: dict[tuple[Clip, str], str] = {}
    for clip in clips:
        wanted: list[str] = []
        for name in ("", *(distorting.names if clip in distorting.clips else ())):
            stands_for = f"{engine_digest} {name} {distorting.inputs}" if name else engine_digest
            key = keys[clip, name] = answer_key(stands_for, clip)
            known = log.answers.get(key) if log is not None else None
            if known is None:
                wanted.append(name)
            else:
                results[clip, name] = replace(known, clip=clip)
        if wanted and (failed := _unreadable(clip)):
            results.setdefault((clip, ""), failed)
        plain = results.get((clip, ""))
        if wanted and (plain is None or not plain.refusal):
            tasks.append(Task(clip, tuple(wanted)))
    if tasks:
        for result in _answers(tasks, pool, answer, len(clips)):
            results[result.clip, result.distortion] = result
            if log is not None:
                log.add(keys[result.clip, result.distortion], result)
    return [results[clip, name] for clip, name in keys if not name] + [
        results[clip, name] for clip, name in keys if name and (clip, name) in results
    ]


def _unreadable(clip: Clip) -> ClipResult | None:
    try:
        with clip.path.open("rb"):
            return None
    except OSError as error:
        return unreadable(clip, error)


def _answers(
    tasks: Sequence[Task],
    pool: Callable[[], Executor],
    answer: Callable[[Task], list[ClipResult]],
    total: int,
) -> Iterator[ClipResult]:
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
