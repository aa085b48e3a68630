"""Make taggers for sounds: a folder of recordings and a table of labels in, a tagger out.

model = spectag.load("audioset-mn04")                       a published model, or the folder of your own
model.tag("street.ogg")                                     its tags: for label, probability in tags: ...
model.tag(array, sample_rate=48_000)                        NumPy, (n_samples,) or (n_samples, n_channels)
model.tag_many(paths_or_arrays, progress=True)              an iterator of tags, and of errors in their place
model.segments("day.wav").to_dataframe()                    when each label is on
model.embed("street.ogg")                                   the features of the network, (n_features,)
spectag.train("labels.csv", "model", progress=True).scores  a table, a folder or a DataFrame
spectag.evaluate(model, "test.csv").to_dataframe()          scores with intervals

help(model) and help(spectag.train) say more; dir(spectag) lists all names, docs/reference/python.md describes them.
"""

import os
import sys

import lazy_loader

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime: it would send usage data and store an ID

_EXTRAS = {
    **dict.fromkeys(("torch", "torchvision", "timm", "accelerate"), "finetune"),
    **dict.fromkeys(("fastapi", "prometheus_client", "python_multipart", "starlette", "uvicorn"), "serve"),
}

_import, _names, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version  # slow to import

        return version("spectag")
    try:
        return _import(name)
    except ModuleNotFoundError as error:
        from spectag.errors import MissingExtraError

        package = error.name or "onnx"
        raise MissingExtraError(package, _EXTRAS.get(package, "train"), f"spectag.{name}") from error


def __dir__() -> list[str]:
    frame, callers = sys._getframe(1), list[str]()
    while frame is not None and len(callers) < 4:
        callers.append(frame.f_globals.get("__name__", ""))
        frame = frame.f_back
    # help(spectag) would import everything and print 3,000 lines
    return ["__version__"] if "pydoc" in callers else [*_names(), "__version__"]
