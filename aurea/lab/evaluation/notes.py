"""What a reader must know to take an evaluation's figures for what they are."""

from aurea.lab.evaluation.figures import DataFacts
from aurea.lab.evaluation.model_facts import ModelFacts


def notes_on(data: DataFacts, model: ModelFacts, unanswered: int = 0) -> tuple[str, ...]:
    """Sentences on intervals, speakers, labels and kinds, and on `unanswered` clips."""
    notes: list[str] = []
    if data.speakers and not data.clips_of_unknown_speakers:
        notes.append(
            "Intervals are 95 %, from drawing whole speakers anew: clips of one voice are no "
            "independent evidence."
        )
    elif data.speakers:
        notes.append(
            f"Intervals are 95 %, from drawing speakers anew. The speaker of "
            f"{data.clips_of_unknown_speakers} clips is not known: each counts as a speaker of "
            "its own, so the intervals are narrower than they should be."
        )
    else:
        notes.append(
            "No speaker is known, so the 95 % intervals come from drawing clips anew. If people "
            "speak in several clips, the intervals are narrower than they should be."
        )
    if data.us_clips and data.us_speakers < 30:
        notes.append(
            f"Only {data.us_speakers} US speakers stand behind every figure of US against the "
            "rest: differences inside the intervals mean nothing."
        )
    if unanswered:
        notes.append(
            f"Only part of the clips was judged: for {unanswered} of them the server failed. They "
            "count in no figure, and the next run asks for them again."
        )
    if model.labels and data.outside:
        notes.append(
            f"No label of the model, and so counted as not US and left out of accuracy: "
            f"{', '.join(data.outside)}."
        )
    if not model.labels:
        notes.append("A running service tells the US score alone, in steps of 0.1 %.")
    if set(data.kinds) - {"recorded"}:
        notes.append(
            "Not all of it is recorded speech: synthesised and vocoded voices flatter or punish "
            "a model in ways that people's recordings do not."
        )
    if not data.us_clips or data.us_clips == data.clips - data.refused:
        notes.append("US and other clips are both needed: without, nothing can be ranked.")
    notes.append(
        "Figures are worth something only on voices that the model was not trained on; which "
        "those are, the model's own card says."
    )
    notes.append(
        "The posterior supposes each label to be equally common. Calibration on data with "
        "another share of US clips shows that difference too."
    )
    return tuple(notes)
