"""review.html: what a review doubts, to be listened to and decided; the decisions leave the page as corrections.csv."""

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from spectag.audio.spectrogram_image import read_png
from spectag.curation.label_review import DOUBTS, FAULTS, Finding, Review
from spectag.data.clips import Clip
from spectag.data.corrections import COLUMNS, Corrections
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.errors import AudioError, DataError
from spectag.models.tagger import Tagger
from spectag.reporting.evaluation_report.clip_excerpts import Excerpt, loudest, mel_to_draw, mp3, spectrogram
from spectag.reporting.evaluation_report.formatting import count, swatch
from spectag.reporting.evaluation_report.svg import jpeg
from spectag.system.atomic_files import unfinished_file
from spectag.system.progress import Progress, silent

N_SHOWN = 100

_EXCERPT_SECONDS = 20.0
_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
$style</style>
</head>
<body>
<header>
<h1>$title</h1>
<p>$about</p>
<p class="needs-script">For each, say which labels are true. Your decisions change nothing yet: save them as
<code>corrections.csv</code>, and give it to <code>spectag train</code> and the others with
<code>--corrections corrections.csv</code>. Until you save them, they are kept by this browser at best.</p>
</header>
<div class="bar needs-script">
<label>Your name <input id="who" autocomplete="name" required></label>
<button type="button" id="download">Save corrections.csv</button>
<output id="state" role="status"></output>
<label><input type="checkbox" id="open-only"> only those without a decision</label>
<details><summary>Keys</summary><p><kbd>j</kbd> next, <kbd>k</kbd> the one before, <kbd>space</kbd> play or pause,
<kbd>t</kbd> take the suggestion, <kbd>l</kbd> leave as it is, <kbd>s</kbd> take the ticked labels, <kbd>u</kbd> undo,
<kbd>1</kbd> to <kbd>9</kbd> tick a label, <kbd>w</kbd> write why.</p></details>
</div>
<div class="kinds needs-script" role="group" aria-label="What to show">$kinds</div>
<main class="cards">
$cards
</main>
<datalist id="labels">$labels</datalist>
<script type="application/json" id="data">$data</script>
<script>
$script</script>
</body>
</html>
""")


@dataclass(frozen=True)
class _Look:
    """What the cards share."""

    tagger: Tagger
    clips: dict[Clip, int]
    colored: frozenset[str]


def write_review_page(
    found: Review,
    path: str | Path,
    tagger: Tagger,
    *,
    n_shown: int = N_SHOWN,
    earlier: Corrections | None = None,
    progress: Progress = silent,
) -> Path:
    """Write the first doubts and faults of a review as a page that needs nothing else.

    Parameters
    ----------
    found : Review
    path : str or Path
        The page; written whole or not at all.
    tagger : Tagger
        Whose front end draws the spectrograms.
    n_shown : int
        Findings with their sound, the first ones.
    earlier : Corrections, optional
        Rows that the table which the page saves begins with.
    progress : Progress
        Told how many findings are drawn.

    Raises
    ------
    DataError
        If the page can't be written. A clip that can't be read any more is named on the page.
    """
    path = Path(path)
    in_doubt = [finding for finding in found.findings if finding.kind != "no doubt"]
    text = _page(found, in_doubt[:n_shown], len(in_doubt), tagger, earlier, progress)
    try:
        with unfinished_file(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise DataError(f"{path}: the page can't be written: {error.strerror or error}") from error
    return path


def _page(
    found: Review,
    shown: Sequence[Finding],
    n_in_doubt: int,
    tagger: Tagger,
    earlier: Corrections | None,
    progress: Progress,
) -> str:
    clips = list(dict.fromkeys(finding.clip for finding in shown))
    look = _Look(tagger, {clip: place for place, clip in enumerate(clips)}, frozenset(tagger.labels.names))
    cards = []
    for n_done, finding in enumerate(shown):
        progress("findings drawn", n_done, len(shown))
        cards.append(_card(finding, look))
    progress("findings drawn", len(shown), len(shown))
    here = Path(__file__)
    script = here.with_suffix(".js").read_text(encoding="utf-8")
    return _PAGE.substitute(
        policy=_policy(script),
        title=escape(f"Review of {found.manifest.source.name}"),
        style=here.with_suffix(".css").read_text(encoding="utf-8"),
        about=escape(_about(found, len(shown), n_in_doubt)),
        kinds="".join(_kind_buttons(shown)),
        cards="\n".join(cards) or "<p>Nothing is in doubt.</p>",
        labels="".join(f'<option value="{escape(label)}">' for label in found.manifest.labels.names),
        data=_json(_data(found, shown, clips, earlier)),
        script=script,
    )


def _policy(script: str) -> str:
    """What the page may load and run: only what is in it, and no script but ours."""
    digest = base64.b64encode(hashlib.sha256(f"\n{script}".encode()).digest()).decode("ascii")
    return (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _about(found: Review, n_shown: int, n_in_doubt: int) -> str:
    counts = found.counts
    n_doubts, n_faults = (sum(counts[kind] for kind in kinds) for kinds in (DOUBTS, FAULTS))
    sentences = [
        f"The labels of {n_doubts:,} of {count(len(found.manifest.clips), 'clip')} are in doubt, and "
        f"{count(n_faults, 'sound')} may be at fault."
    ]
    if n_shown < n_in_doubt:
        sentences.append(f"Here are the first {n_shown:,}; review.csv has all of them.")
    if found.n_kept:
        sentences.append(f"{count(found.n_kept, 'clip')} were left out, for somebody found their labels right.")
    n_learnt = found.origins.get("learnt", 0)
    if n_learnt:
        sentences.append(
            f"WARNING: the tagger learnt from {n_learnt:,} of the clips with the labels that are to be judged, so it "
            "believes them. Train it with folds, for what networks say that did not see them."
        )
    return " ".join(sentences)


def _kind_buttons(shown: Sequence[Finding]) -> Iterator[str]:
    yield f'<button type="button" data-kind="" aria-pressed="true">all {len(shown)}</button>'
    for kind in (*DOUBTS, *FAULTS):
        n = sum(finding.kind == kind for finding in shown)
        if n:
            yield f'<button type="button" data-kind="{kind}" aria-pressed="false">{kind} {n}</button>'


def _data(
    found: Review, shown: Sequence[Finding], clips: Sequence[Clip], earlier: Corrections | None
) -> dict[str, Any]:
    """What the script has to know."""
    return {
        "manifest": str(found.manifest.source.resolve()),
        "columns": COLUMNS,
        "earlier": [list(row.fields().values()) for row in earlier.rows] if earlier else [],
        "labels": found.manifest.labels.names,
        "clips": [
            {
                "fname": clip.fname,
                "start": f"{clip.start_seconds!r}" if clip.start_seconds else "",
                "end": "" if clip.end_seconds is None else f"{clip.end_seconds!r}",
                "given": clip.labels,
            }
            for clip in clips
        ],
        "suggested": [finding.suggested for finding in shown],
    }


def _json(data: dict[str, Any]) -> str:
    """JSON that no label can break out of, whatever it is called."""
    text = json.dumps(data, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _card(finding: Finding, look: _Look) -> str:
    clip = finding.clip
    differs = set(finding.suggested) != set(clip.labels)
    take = f"Take: {_told(finding.suggested)}"
    return (
        f'<article class="card" tabindex="-1" id="finding-{finding.rank}" data-clip="{look.clips[clip]}" '
        f'data-kind="{finding.kind}"><h3><span class="kind">{finding.rank} · {finding.kind}</span> '
        f"{escape(clip.name)}</h3><p>{escape(_sentence(finding))}</p>{_shown_clip(clip, look.tagger)}"
        f'<fieldset><legend>Which labels are true?</legend><ul class="choices">{"".join(_choices(finding, look))}</ul>'
        '<input class="another needs-script" list="labels" placeholder="another label" aria-label="another label">'
        "</fieldset>"
        '<input class="why needs-script" placeholder="why (may be left out)" aria-label="why">'
        '<div class="buttons needs-script">'
        f'<button type="button" class="final_model">Leave: {escape(_told(clip.labels))}</button>'
        + (f'<button type="button" class="take">{escape(take)}</button>' if differs else "")
        + '<button type="button" class="save">Take the ticked</button></div>'
        '<p class="decision" hidden><output></output> <button type="button" class="undo">Undo</button></p></article>'
    )


def _sentence(finding: Finding) -> str:
    """What is in doubt, and how sure that is."""
    if finding.label is None:
        return f"{finding.note[:1].upper()}{finding.note[1:]}."
    said = f"the tagger gives it {finding.probability:.2f}"
    told = {
        "swapped label": f"{finding.label} is likely wrong ({said}), and {_told(finding.suggested)} right.",
        "wrong label": f"{finding.label} is likely wrong: {said}.",
        "missing label": f"{finding.label} is likely missing: {said}.",
    }[finding.kind]
    note = f" But {finding.note}, so it flatters itself." if finding.note else ""
    sure = f"Probability that the labels are wrong: {_percent(finding.score)}; that the suggestion is right: "
    return f"{told} {sure}{_percent(finding.certainty)}.{note}"


def _told(labels: Sequence[str]) -> str:
    return ", ".join(labels) or "no label"


def _percent(probability: float | None) -> str:
    """A probability for a person: never 100 %, for nothing is that sure."""
    assert probability is not None
    return "over 99%" if probability > 0.99 else "under 1%" if probability < 0.01 else f"{probability:.0%}"


def _choices(finding: Finding, look: _Look) -> Iterator[str]:
    """Labels to tick, the most probable first."""
    clip = finding.clip
    probabilities = dict(finding.likely)
    names = dict.fromkeys([*probabilities, *clip.labels, *finding.suggested])
    for name in names:
        probability = probabilities.get(name)
        meter = ""
        if probability is not None:
            meter = (
                f'<span class="meter" style="--value:{100 * probability:.1f}%"></span>'
                f'<span class="figure">{probability:.2f}</span>'
            )
        color = swatch(name, look.tagger.labels.names) if name in look.colored else ""
        words = [word for word, labels in (("given", clip.labels), ("suggested", finding.suggested)) if name in labels]
        ticked = " checked" if name in clip.labels else ""
        yield (
            f'<li><label><input type="checkbox" value="{escape(name)}"{ticked}> {color}'
            f'<span class="text">{escape(name)}</span></label>{meter}<span class="words">{", ".join(words)}</span></li>'
        )


def _shown_clip(clip: Clip, tagger: Tagger) -> str:
    """Spectrogram and player, or the image."""
    try:
        if clip.path.suffix.lower() in IMAGE_SUFFIXES:
            picture = jpeg(read_png(clip.path))
            return f'<img class="spectrogram-image" alt="Spectrogram of {escape(clip.name)}" src="{picture}">'
        excerpt: Excerpt = loudest(clip, _EXCERPT_SECONDS)
        drawing = spectrogram(excerpt, tagger.front_end.mel or mel_to_draw(excerpt), clip.name)
    except (AudioError, DataError) as error:
        return f'<p class="gone">It can’t be read now: {escape(str(error))}</p>'
    part = "" if excerpt.is_whole else f'<p class="part">{excerpt.in_words()}</p>'
    return (
        f'<div class="sound">{drawing}<audio controls preload="metadata" aria-label="{escape(clip.name)}" '
        f'src="{mp3(excerpt)}"></audio></div>{part}'
    )
