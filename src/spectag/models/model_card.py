"""The model card: what a bundle is, for the person who finds it."""

from spectag.config.backbones import BACKBONES
from spectag.models.bundle import BackboneInfo, BundleInfo


def card_of(info: BundleInfo, name: str) -> str:
    """README.md of any bundle: one that was trained here, or one made of a published network."""
    if info.data.n_clips_per_label is not None:
        return model_card(info, name)
    source = BACKBONES[info.backbone.name].weights
    assert source is not None
    return published_card(info, name, file_url=source.url, citation=info.metrics["source"])


def model_card(info: BundleInfo, name: str) -> str:
    """README.md of a bundle, in the hub's form."""
    return "\n".join(
        [
            "---",
            "library_name: spectag",
            "pipeline_tag: audio-classification",
            "tags: [audio-tagging, multi-label, onnx]",
            "---",
            "",
            f"# {name}",
            "",
            f"A tagger for {len(info.labels)} kinds of sound; several may be heard at once. Made with "
            f"spectag {info.versions['spectag']}.",
            "",
            "```",
            f"spectag tag {name} recording.wav",
            "```",
            "",
            "## How good it is",
            "",
            *_scores(info),
            "",
            "## Labels",
            "",
            "| label | training clips | threshold |",
            "|---|---|---|",
            *_label_rows(info),
            "",
            "## What it is made of",
            "",
            *_networks(info),
            f"- Data: {info.data.n_clips} clips of {info.data.name} (fingerprint {info.data.fingerprint}). "
            "Its licence is for you to add.",
            f"- model.onnx gives torch's probabilities within {info.onnx_difference:.1e}.",
            "",
        ]
    )


def published_card(info: BundleInfo, name: str, *, file_url: str, citation: str) -> str:
    """README.md of a bundle that was made of a network which others trained and published."""
    return "\n".join(
        [
            "---",
            "library_name: spectag",
            "pipeline_tag: audio-classification",
            "tags: [audio-tagging, multi-label, onnx]",
            f"license: {info.backbone.licence.lower()}",
            "---",
            "",
            f"# {name}",
            "",
            f"A tagger for {len(info.labels)} kinds of sound; several may be heard at once. spectag "
            f"{info.versions['spectag']} made it of a network that others trained.",
            "",
            "```",
            f"spectag tag {name} recording.wav",
            "```",
            "",
            "## How good it is",
            "",
            f"Mean average precision {info.metrics['mean_average_precision']:.3f} on {info.metrics['on']}, as "
            "published; spectag did not measure it.",
            *_apart(info),
            "",
            "## Where it comes from",
            "",
            f"- Weights: {file_url}, licence {info.backbone.licence}.",
            f"- Trained on: {info.data.name}.",
            f"- To be cited as: {citation}",
            "",
            "## Labels",
            "",
            f"{'; '.join(info.labels)}.",
            "",
            _thresholds(info),
            "",
        ]
    )


def _scores(info: BundleInfo) -> list[str]:
    metrics = info.metrics
    if "lwlrap" not in metrics:
        return ["No clips were held out, so nobody knows. Evaluate it on clips that it has not seen.", *_apart(info)]
    low, high = metrics["intervals"]["lwlrap"]
    lines = [
        f"On {metrics['n_clips']} clips that it had not seen (cross-validated, or held out):",
        "",
        f"- lwlrap {metrics['lwlrap']:.3f} (95 % interval {low:.3f} to {high:.3f})",
        f"- mean average precision {metrics['mean_average_precision']:.3f}",
    ]
    if metrics["top1_accuracy"] is not None:
        lines.append(f"- top-1 accuracy {metrics['top1_accuracy']:.3f}")
    return lines + _calibration(info)


def _calibration(info: BundleInfo) -> list[str]:
    if "calibration" not in info.metrics:
        return []
    found = info.metrics["calibration"]
    before, after = found["expected_calibration_error"]
    where = f" on {found['n_clips']} clips of {found['on']}" if "on" in found else ""
    if info.calibration is None:
        return [f"- expected calibration error {before:.3f}{where}; its probabilities are not calibrated"]
    return [f"- expected calibration error {after:.3f}{where}; {before:.3f} before calibration"]


def _apart(info: BundleInfo) -> list[str]:
    """What is known of the calibration, after an empty line."""
    known = _calibration(info)
    return ["", *known] if known else []


def _thresholds(info: BundleInfo) -> str:
    n_fitted, different = sum(info.thresholds_fitted), set(info.thresholds)
    if len(different) == 1 and not n_fitted:
        return f"Each counts as heard from a probability of {different.pop():g}; that is a plain default, not fitted."
    return (
        f"Each counts as heard from a probability of its own, which spectag.json has; {n_fitted} of them were fitted "
        f"to reach {info.threshold_goal}."
    )


def _networks(info: BundleInfo) -> list[str]:
    if not info.members:
        return [f"- Backbone: {_backbone(info.backbone)}."]
    return [
        f"- {len(info.members)} networks that answer together: their logits, each times its weight, and "
        f"{info.bias:.3f} are added up.",
        *(
            f"    - {member.folder}, weight {member.weight:.3f}: {_backbone(member.backbone)}."
            for member in info.members
        ),
    ]


def _backbone(backbone: BackboneInfo) -> str:
    return (
        f"{backbone.name}, pretrained on {backbone.pretrained_on}, licence {backbone.licence}; "
        f"features: {backbone.features}; head: {backbone.head}"
    )


def _label_rows(info: BundleInfo) -> list[str]:
    assert info.data.n_clips_per_label is not None  # of a tagger that was trained here
    rows = zip(info.labels, info.data.n_clips_per_label, info.thresholds, info.thresholds_fitted, strict=True)
    return [
        f"| {label.replace('|', '&#124;')} | {n_clips} | {threshold:.2f}{'' if is_fitted else ' (not fitted)'} |"
        for label, n_clips, threshold, is_fitted in rows
    ]
