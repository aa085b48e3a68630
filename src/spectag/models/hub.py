"""Models on the Hugging Face Hub: hf:user/name, or hf:user/name@revision for a branch, a tag or a commit.

Only the files of a model are sent and fetched, never code or pickles. A fetched model is opened with the same checks as
any other from a stranger. Its files are in the cache folder:

    CACHE/hub/models--user--name/    in the layout of huggingface_hub; spectag.json comes last
    CACHE/hub/commits/user/name@revision    the commit that a revision was when the hub was last asked; empty during the
                                            first download
"""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from spectag.errors import BundleError, MissingExtraError
from spectag.models.bundle import (
    CARD_FILE,
    INFO_FILE,
    MAX_NETWORK_BYTES,
    MEMBERS_FOLDER,
    ONNX_FILE,
    RECIPE_FILE,
    WEIGHTS_FILE,
    BundleInfo,
    check_network_file,
    read_info,
)
from spectag.models.frames_info import FRAMES_FILE
from spectag.models.limits import MAX_MEMBERS
from spectag.models.model_card import render_card
from spectag.models.onnx_file import check_frames_file, check_onnx_file
from spectag.system.atomic_files import unfinished_file
from spectag.system.cache import cache_folder, hold_cache, writable_cache_folder
from spectag.system.output import one_line
from spectag.system.progress import Log, Progress, no_log, silent

PREFIX = "hf:"
PREDICTION_FILES = "predictions.csv", "calibration.csv"
_NETWORK = rf"({re.escape(ONNX_FILE)}(\.data)?|{re.escape(WEIGHTS_FILE)})"
_FRAMES = re.escape(FRAMES_FILE)
_TEXTS = "|".join(map(re.escape, (INFO_FILE, CARD_FILE, RECIPE_FILE, *PREDICTION_FILES)))
_MODEL_FILE = re.compile(rf"({MEMBERS_FOLDER}/[1-9][0-9]*/)?{_NETWORK}|{_FRAMES}|{_TEXTS}")
_NAME = re.compile(r"hf:(?P<repository>[A-Za-z0-9][\w.-]*/[\w.-]+)(@(?P<revision>\S+))?", re.ASCII)
_COMMIT = re.compile("[0-9a-f]{40}")
_TIMEOUT_SECONDS = 10.0
_USAGE = re.compile(r"^spectag tag .+ recording\.wav$", re.MULTILINE)
_TAGS = ("spectag", "audio-tagging", "multi-label", "onnx")


@dataclass(frozen=True)
class HubName:
    """A model on the hub: user/name, and the branch, tag or commit."""

    repository: str
    revision: str | None

    @classmethod
    def parse(cls, name: str) -> Self:
        """The parts of a name such as hf:user/name@v1.

        Raises
        ------
        BundleError
            If it is not such a name.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise BundleError(f"{name}: not a model on the hub; expected hf:user/name or hf:user/name@revision")
        return cls(match["repository"], match["revision"])

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}" + (f"@{self.revision}" if self.revision else "")


class _NoAnswerError(Exception):
    """The hub did not answer whether there is a model; the text says why."""


@dataclass(frozen=True)
class PushedModel:
    """The result of `push`."""

    name: str
    """With the commit, such as hf:user/name@0123456789abcdef0123456789abcdef01234567: always the same model."""
    url: str
    files: tuple[str, ...]


def is_hub_name(model: str | Path) -> bool:
    """Whether a model is named as one on the hub."""
    return str(model).startswith(PREFIX)


def hub_folder(model: str, *, progress: Progress = silent, log: Log = no_log) -> Path:
    """The folder of a model on the hub, in the cache; the files that are missing there are downloaded.

    Without a connection, with HF_HUB_OFFLINE, or if the hub does not answer as it should, the commit that was used last
    is used again.

    Parameters
    ----------
    model : str
        hf:user/name, or hf:user/name@revision for a branch, a tag or a commit.
    progress, log
        Called during the download, and with the commit.

    Raises
    ------
    BundleError
        If there is no such model, it is too large, it cannot be downloaded, or it is not in the cache and there is no
        connection.
    MissingExtraError
        If huggingface_hub is not installed and the commit is not in the cache.
    """
    name = HubName.parse(model)
    hold_cache(cache_folder())
    if name.revision is not None and _COMMIT.fullmatch(name.revision) and (folder := _cached(name, name.revision)):
        return folder
    last_commit = _last_commit(name)
    last_folder = _cached(name, last_commit) if last_commit else None
    try:
        info = _model_info(name)
    except _NoAnswerError as error:
        if last_folder is None:
            raise BundleError(
                f"{name}: not in the cache, and {error}; load it once when the hub can be reached"
            ) from error
        log(f"{name}: {error}, so commit {last_commit} from the cache is used")
        return last_folder
    commit = str(info.sha)
    folder = _cached(name, commit)
    if folder is None or commit != last_commit:
        cache = writable_cache_folder()
        folder = folder or _download(name, info, cache, progress)
        with unfinished_file(_commit_file(name, cache)) as unfinished:
            unfinished.write_text(f"{commit}\n", encoding="ascii")
        log(f"{name}: commit {commit}, stored in {folder}")
    return folder


def push(
    model: str | Path,
    to: str,
    *,
    license: str | None = None,  # noqa: A002 - the word of the hub
    private: bool = False,
    predictions: bool = True,
    progress: Progress = silent,
    log: Log = no_log,
) -> PushedModel:
    """Upload a model to the Hugging Face Hub, as one commit; the repository is created if necessary.

    The token is that of `hf auth login` or of the variable HF_TOKEN.

    Parameters
    ----------
    model : str or Path
        As for `load`.
    to : str
        hf:user/name.
    license : str, optional
        For the model card, such as cc-by-4.0. By default what the card of the model says.
    private : bool
        If the repository is created, only its owner can see it.
    predictions : bool
        Upload predictions.csv and calibration.csv, which contain the names of the training files.
    progress, log
        Called with messages.

    Raises
    ------
    BundleError
        If the model is damaged, or the hub refuses it.
    MissingExtraError
        If huggingface_hub is not installed.
    """
    from spectag.models.pretrained import tagger_folder

    name = HubName.parse(to)
    if name.revision is not None:
        raise BundleError(f"{to}: a model is pushed to the main branch; leave out @{name.revision}")
    hub = _huggingface_hub(f"pushing to {to}")
    folder = tagger_folder(model, progress=progress, log=log)
    info = read_info(folder)
    files = _files_to_push(folder, info, predictions=predictions)
    contents: dict[str, Path | bytes] = {file: folder / file for file in files}
    contents[CARD_FILE] = _card(hub, folder, info, name, license, log).encode()
    log(f"uploading {len(contents)} files to {name}")
    api = _api(hub)
    try:
        api.create_repo(name.repository, exist_ok=True, private=private or None)
        remote = [file.rfilename for file in api.model_info(name.repository).siblings or ()]
        commit = api.create_commit(
            name.repository,
            [
                *(hub.CommitOperationAdd(file, content) for file, content in contents.items()),
                *(hub.CommitOperationDelete(file) for file in _own_files(remote) if file not in contents),
            ],
            commit_message=f"Upload the model with spectag {info.versions['spectag']}",
        )
    except Exception as error:  # those of httpx or requests, and of huggingface_hub
        raise _refused(name, error) from error
    return PushedModel(f"{name}@{commit.oid}", f"{api.endpoint}/{name.repository}", tuple(sorted(contents)))


def _huggingface_hub(purpose: str) -> Any:
    try:
        hub: Any = import_module("huggingface_hub")
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "hub", purpose) from error
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # our own lines say what it would warn of
    import_module("huggingface_hub.utils").disable_progress_bars()
    return hub


def _api(hub: Any) -> Any:
    return hub.HfApi(library_name="spectag", library_version=version("spectag"))


def _model_info(name: HubName) -> Any:
    """What the hub says of a model.

    Raises
    ------
    BundleError
        If the hub refuses it.
    _NoAnswerError
        If the hub cannot be reached, is in trouble, or something else answers, such as the login page of a network.
    """
    hub = _huggingface_hub(f"{name}: a model on the hub")
    try:
        return _api(hub).model_info(
            name.repository, revision=name.revision, files_metadata=True, timeout=_TIMEOUT_SECONDS
        )
    except Exception as error:  # those of httpx or requests, and of huggingface_hub
        is_invalid_name = isinstance(error, import_module("huggingface_hub.errors").HFValidationError)
        if is_invalid_name or _status(error) in (401, 403, 404):
            raise _refused(name, error) from error
        raise _NoAnswerError(_no_answer(error)) from error


def _no_answer(error: Exception) -> str:
    if status := _status(error):
        return f"the hub answers with status {status}"
    return "something else than the hub answers" if isinstance(error, ValueError) else "the hub cannot be reached"


def _status(error: Exception) -> int | None:
    """The HTTP status of an error; None if the server has not answered."""
    errors = error, error.__cause__
    statuses = (getattr(getattr(each, "response", None), "status_code", None) for each in errors)
    return next((status for status in statuses if status is not None), None)


def _refused(name: HubName, error: Exception) -> BundleError:
    """Why the hub does not deliver or take a model, and what to do."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    answer = getattr(error, "server_message", None) or (lines[0] if lines else type(error).__name__)
    rights = "check the rights of your token, and the terms on the page of the model"
    reasons = {
        None: f"{'the hub refuses it' if isinstance(error, ValueError) else 'the hub cannot be reached'}: {answer}",
        401: "no such model on the hub, or it is private: log in with `hf auth login`, or set HF_TOKEN",
        403: f"the hub does not allow it; {rights}: {answer}",
        404: f"no such model on the hub, or no revision {name.revision or 'main'}; check the name",
    }
    return BundleError(f"{name}: {reasons.get(_status(error), f'the hub refuses it: {answer}')}")


def _hub_cache(folder: Path) -> Path:
    return folder / "hub"


def _cached(name: HubName, commit: str) -> Path | None:
    """The folder of a model that is complete in the cache."""
    repository = f"models--{name.repository.replace('/', '--')}"
    folder = _hub_cache(cache_folder()) / repository / "snapshots" / commit
    return folder if (folder / INFO_FILE).is_file() else None


def _commit_file(name: HubName, cache: Path) -> Path:
    return _hub_cache(cache) / "commits" / f"{name.repository}@{quote(name.revision or '', safe='')}"


def _last_commit(name: HubName) -> str | None:
    """The commit that a revision was when the hub was last asked."""
    try:
        commit = _commit_file(name, cache_folder()).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return commit if _COMMIT.fullmatch(commit) else None


def _download(name: HubName, info: Any, cache: Path, progress: Progress) -> Path:
    """Download the files of a commit that are not in the cache yet; spectag.json last, which shows that all are there.

    Raises
    ------
    BundleError
        If the repository is not a model of spectag, it has too many members, a file is too large, or the connection is
        lost.
    """
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    files = _own_files(sizes)
    if INFO_FILE not in files:
        raise BundleError(f"{name}: not a model of spectag: no file {INFO_FILE} in commit {info.sha}")
    n_members = len({file.split("/")[1] for file in files if file.startswith(f"{MEMBERS_FOLDER}/")})
    if n_members > MAX_MEMBERS:
        raise BundleError(f"{name}: the model has {n_members} members, expected at most {MAX_MEMBERS}")
    for file in files:
        if sizes[file] > MAX_NETWORK_BYTES:
            raise BundleError(f"{name}: {file} has {sizes[file] / 1e9:.1f} GB, expected at most 4 GB")
    n_bytes, n_done = sum(sizes[file] for file in files), 0
    step, path = f"downloading {name.repository}, kB", ""
    api = _api(_huggingface_hub(f"{name}: a model on the hub"))
    mark = _commit_file(name, cache)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()  # the cache knows its models by these files, also those of a download that breaks off
    for file in sorted(files, key=lambda file: file == INFO_FILE):
        progress(step, n_done // 1000, n_bytes // 1000)
        try:
            path = api.hf_hub_download(name.repository, file, revision=info.sha, cache_dir=_hub_cache(cache))
        except Exception as error:  # those of httpx or requests, and of huggingface_hub
            raise _refused(name, error) from error
        n_done += sizes[file]
    progress(step, n_bytes // 1000, n_bytes // 1000)
    return Path(path).parent


def _own_files(files: Iterable[str]) -> list[str]:
    """The files of a model among those of a repository."""
    return [file for file in files if _MODEL_FILE.fullmatch(file)]


def _files_to_push(folder: Path, info: BundleInfo, *, predictions: bool) -> list[str]:
    """The files of a model to upload, after a check of its networks and weights."""
    networks = [f"{member.folder}/" for member in info.members] or [""]
    frames = [] if info.frames is None else [FRAMES_FILE]
    for file in sorted({*info.sha256, *(f"{network}{ONNX_FILE}" for network in networks), *frames}):
        check_network_file(folder, info, file)
    for network in networks:
        check_onnx_file(folder / network / ONNX_FILE)
    if info.frames is not None:
        check_frames_file(folder / FRAMES_FILE)
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    left_out = () if predictions else PREDICTION_FILES
    return [file for file in _own_files(found) if file not in left_out]


def _card(hub: Any, folder: Path, info: BundleInfo, name: HubName, license_name: str | None, log: Log) -> str:
    """The model card, with the header of the hub, and with the command that opens the model from there."""
    path = folder / CARD_FILE
    text = path.read_text(encoding="utf-8") if path.is_file() else render_card(info, name.repository)
    try:
        card = hub.ModelCard(_USAGE.sub(f"spectag tag {name} recording.wav", text))
    except Exception as error:  # of the parser of YAML
        raise BundleError(f"{path}: the header between the --- lines is not YAML: {one_line(str(error))}") from error
    card.data.library_name = "spectag"
    card.data.pipeline_tag = "audio-classification"
    card.data.tags = list(dict.fromkeys([*(card.data.tags or ()), *_TAGS]))
    card.data.license = license_name or card.data.license
    if card.data.license is None:
        log("the model card states no licence, so nobody may use the model; add one with --license, such as cc-by-4.0")
    return str(card)
