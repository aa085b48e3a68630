"""The model card: README.md of a bundle, which describes the model to the people who use it."""

import shlex

from spectag.config.backbones import BACKBONES
from spectag.models.bundle import BackboneInfo, BundleInfo
from spectag.models.frames_info import FRAMES_FILE


def render_card(info: BundleInfo, name: str) -> str:
    """README.md of a bundle in the format of Hugging Face: of a trained model or of a published one."""
    is_published = info.data.n_clips_per_label is None
    licence, origin = "", f"Trained with spectag {info.versions['spectag']}."
    if is_published:
        licence = f"license: {info.backbone.licence.lower()}\n"
        origin = f"Converted by spectag {info.versions['spectag']} from a published network."
    paragraphs = [
        "---\nlibrary_name: spectag\npipeline_tag: audio-classification\n"
        f"tags: [audio-tagging, multi-label, onnx]\n{licence}---",
        f"# {name}",
        f"A tagger for {len(info.labels)} kinds of sound, several of which may occur at the same time. {origin}",
        f"```\nspectag tag {shlex.quote(name)} recording.wav\n```",
        "## Quality",
        *(_published_sections(info) if is_published else _trained_sections(info)),
    ]
    return "\n\n".join(paragraphs) + "\n"


def _trained_sections(info: BundleInfo) -> list[str]:
    model = [
        *_networks(info),
        f"- Data: {info.data.n_clips} clips of {info.data.name} (fingerprint {info.data.fingerprint}). "
        "Please add the licence of the data.",
        *_frames(info),
        f"- The probabilities of model.onnx and of training differ by at most {info.onnx_difference:.1e}.",
    ]
    return [*_scores(info), "## Labels", *_label_table(info), *_extension(info), "## Model", "\n".join(model)]


def _extension(info: BundleInfo) -> list[str]:
    """The labels of the published model that the model extends."""
    if info.extends is None:
        return []
    names, threshold = info.labels[len(info.own_labels) :], info.thresholds[-1]
    return [
        f"## Labels of {info.extends.model}",
        f"{len(names)} further labels are those of a published network, trained on {info.extends.data}. The scores and "
        f"tables above are not about them. Please cite: {info.extends.source}",
        f"{'; '.join(names)}.",
        *([f"They are reported from a probability of {threshold:g}."] if _is_same(info, threshold) else []),
    ]


def _is_same(info: BundleInfo, threshold: float) -> bool:
    """Whether all labels of the published model have this threshold, and not one that was fitted or set later."""
    return set(info.thresholds[len(info.own_labels) :]) == {threshold}


def _published_sections(info: BundleInfo) -> list[str]:
    if info.backbone.name not in BACKBONES:
        return _network_card_sections(info)
    source = BACKBONES[info.backbone.name].weights
    assert source is not None
    return [
        f"Mean average precision {info.metrics['mean_average_precision']:.3f} on {info.metrics['on']}, as published; "
        "not measured by spectag.",
        *_calibration(info),
        "## Source",
        f"- Weights: {source.url}, licence {info.backbone.licence}.\n- Trained on: {info.data.name}.\n"
        f"- Please cite: {info.metrics['source']}",
        "## Labels",
        f"{'; '.join(info.labels)}.",
        _thresholds(info),
    ]


def _network_card_sections(info: BundleInfo) -> list[str]:
    """Of a model that a network card describes."""
    texts = {name: str(info.metrics.get(name, "")) for name in ("source", "homepage", "note")}
    return [
        "Not measured by spectag.",
        *_calibration(info),
        *([texts["note"]] if texts["note"] else []),
        "## Source",
        f"- Network: {texts['homepage']}, licence {info.backbone.licence}.\n- Trained on: {info.data.name}.\n"
        f"- Please cite: {texts['source']}",
        "## Labels",
        f"{'; '.join(info.labels)}.",
        _thresholds(info),
    ]


def _scores(info: BundleInfo) -> list[str]:
    metrics = info.metrics
    if "lwlrap" not in metrics:
        return [
            "No clips were held out, so there are no scores. Evaluate the tagger on clips it was not trained on.",
            *_calibration(info),
        ]
    interval = ""
    if "lwlrap" in metrics["intervals"]:
        low, high = metrics["intervals"]["lwlrap"]
        interval = f" (95 % interval {low:.3f} to {high:.3f})"
    lwlrap = [] if metrics["lwlrap"] is None else [f"- lwlrap {metrics['lwlrap']:.3f}{interval}"]
    scores = [
        *lwlrap,
        f"- mean average precision {metrics['mean_average_precision']:.3f}",
    ]
    if metrics["top1_accuracy"] is not None:
        scores.append(f"- top-1 accuracy {metrics['top1_accuracy']:.3f}")
    return [f"On {metrics['n_clips']} held-out clips:", "\n".join(scores + _calibration(info))]


def _calibration(info: BundleInfo) -> list[str]:
    if "calibration" not in info.metrics:
        return []
    metrics = info.metrics["calibration"]
    before, after = metrics["expected_calibration_error"]
    where = f" on {metrics['n_clips']} clips of {metrics['on']}" if "on" in metrics else ""
    if info.calibration is None:
        return [f"- expected calibration error {before:.3f}{where}; the probabilities are not calibrated"]
    return [f"- expected calibration error {after:.3f}{where}; {before:.3f} before calibration"]


def _thresholds(info: BundleInfo) -> str:
    n_fitted, distinct = sum(info.thresholds_fitted), set(info.thresholds)
    if len(distinct) == 1 and not n_fitted:
        return f"A label is reported from a probability of {distinct.pop():g}: a default, which is not fitted."
    missing = f", which cannot be shown for {', '.join(info.labels_missing_goal)}" if info.labels_missing_goal else ""
    return (
        f"Each label has its own threshold, which is in spectag.json; {n_fitted} of them are fitted to reach "
        f"{info.threshold_goal}{missing}."
    )


def _networks(info: BundleInfo) -> list[str]:
    if not info.members:
        return [f"- Backbone: {_backbone(info.backbone)}."]
    return [
        f"- An ensemble of {len(info.members)} networks: the weighted sum of their logits, plus {info.bias:.3f}.",
        *(
            f"    - {member.folder}, weight {member.weight:.3f}: {_backbone(member.backbone)}."
            for member in info.members
        ),
    ]


def _frames(info: BundleInfo) -> list[str]:
    """What segments are found from, if the model has frames."""
    if info.frames is None or info.front_end.mel is None:
        return []
    seconds = info.frames.frame_seconds(info.front_end.mel)
    return [f"- Segments in recordings are found from frames of {1000 * seconds:g} ms, whose network is {FRAMES_FILE}."]


def _backbone(backbone: BackboneInfo) -> str:
    weights = "not pretrained" if backbone.pretrained_on == "nothing" else f"pretrained on {backbone.pretrained_on}"
    return (
        f"{backbone.name}, {weights}, licence {backbone.licence}; features: {backbone.features}; head: {backbone.head}"
    )


def _label_table(info: BundleInfo) -> list[str]:
    """The labels with their clips and thresholds; with thresholds of windows, a column and a sentence for these."""
    windows = info.window_thresholds
    if windows is None:
        return ["\n".join(["| label | training clips | threshold |", "|---|---|---|", *_label_rows(info)])]
    column = f"threshold of {'frames and ' if info.frames else ''}windows below {windows.below_seconds:g} s"
    thresholds = windows.thresholds[: len(info.own_labels)]
    rows = [f"{row} {threshold:.2f} |" for row, threshold in zip(_label_rows(info), thresholds, strict=True)]
    table = [f"| label | training clips | threshold | {column} |", "|---|---|---|---|", *rows]
    of_frames = "" if info.frames is None else "frames, "
    return [
        f"Windows shorter than {windows.below_seconds:g} s, {of_frames}and segments made from them, have thresholds of "
        "their own.",
        "\n".join(table),
    ]


def _label_rows(info: BundleInfo) -> list[str]:
    """A row for each label that is trained."""
    n_clips = info.data.n_clips_per_label
    assert n_clips is not None  # it is a trained model
    notes = {
        label: "" if is_fitted else " (not fitted)"
        for label, is_fitted in zip(info.labels, info.thresholds_fitted, strict=True)
    }
    notes |= dict.fromkeys(info.labels_missing_goal, f" (misses {info.threshold_goal})")
    return [
        f"| {label.replace('|', '&#124;')} | {n} | {threshold:.2f}{notes[label]} |"
        for label, n, threshold in zip(info.own_labels, n_clips, info.thresholds[: len(n_clips)], strict=True)
    ]
