"""The model card: what a bundle is, for the person who finds it."""

from spectag.bundle import BackboneInfo, BundleInfo


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
            f"Each counts as heard from a probability of {info.thresholds[0]:g}; that is a plain default, not fitted.",
            "",
        ]
    )


def _scores(info: BundleInfo) -> list[str]:
    metrics = info.metrics
    if not metrics:
        return ["No clips were held out, so nobody knows. Evaluate it on clips that it has not seen."]
    low, high = metrics["intervals"]["lwlrap"]
    lines = [
        f"On {metrics['n_clips']} clips that it had not seen (cross-validated, or held out):",
        "",
        f"- lwlrap {metrics['lwlrap']:.3f} (95 % interval {low:.3f} to {high:.3f})",
        f"- mean average precision {metrics['mean_average_precision']:.3f}",
    ]
    if metrics["top1_accuracy"] is not None:
        lines.append(f"- top-1 accuracy {metrics['top1_accuracy']:.3f}")
    return lines


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
