"""What a run must share with a stopped one to go on where that stood."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from accent.ecapa.loading import EcapaModel

from aurea.files import sha256_of
from aurea.lab.corpus import Clip
from aurea.lab.features.prepare import FORMAT
from aurea.lab.teacher.encoders import TEACHER_FILES
from aurea.lab.teacher.probe import ProbeRecipe
from aurea.lab.training.recipe import Recipe


def fingerprint_of(
    recipe: Recipe,
    parts: Mapping[str, Sequence[Clip]],
    labels: Sequence[str],
    init: EcapaModel | None,
) -> str:
    """A digest, in hex, of the recipe, the labels, the teacher, `init` and the clips.

    `parts` are the clips by what they serve, training or judging. Of each, its place in the
    order, accent, speaker, kind, corpus, certainty and content count, and not where its file
    lies: a folder that was moved as a whole is the same data. Files are read in full, for names,
    sizes and times of change stay when a clip is replaced.
    """
    digest = hashlib.sha256()
    facts = {
        "recipe": recipe.model_dump(),
        "labels": list(labels),
        "features": FORMAT,
        "teacher": (
            [asdict(ProbeRecipe()), [file.sha256 for file in TEACHER_FILES]]
            if recipe.teacher
            else None
        ),
        "init": None if init is None else asdict(init.spec),
        "clips": {part: [_facts(clip) for clip in clips] for part, clips in parts.items()},
    }
    digest.update(json.dumps(facts, sort_keys=True).encode())
    if init is not None:
        for name, tensor in init.network.embedding_model.state_dict().items():
            digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def _facts(clip: Clip) -> list[str]:
    return [clip.accent, clip.speaker, clip.kind, clip.corpus, clip.certainty, _content(clip)]


def _content(clip: Clip) -> str:
    try:
        return sha256_of(clip.path)
    except OSError:
        # Preparation names it and leaves it out; one that is back again is other data.
        return ""
