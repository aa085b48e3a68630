"""spectag --install-completion: commands, options and files, completed by the shell.

The scripts are those of cyclopts. They do not run spectag, so the shell answers at once.
"""

import re
from pathlib import Path

from cyclopts import App, CycloptsError

FLAG = "--install-completion"
SHELLS = "bash", "zsh", "fish"
_ZSH_ARGUMENT_WITHOUT_ACTION = re.compile(r"^( +'(?:\d+|\*):(?:\\.|'\\''|[^':\\])*)(?=' \\$)", re.MULTILINE)


def install_completion(app: App, words: list[str]) -> None:
    """Write the completion script of a shell to where it is found, and print its path.

    Parameters
    ----------
    app : App
    words : list of str
        The shell; none: the one that runs this command.

    Raises
    ------
    CycloptsError
        If the shell is unknown.
    OSError
        If the script cannot be written.
    """
    from cyclopts.completion.detect import ShellDetectionError, detect_shell
    from cyclopts.completion.install import add_to_rc_file, get_default_completion_path

    usage = f"{FLAG} needs the name of a shell: {', '.join(SHELLS)}"
    try:
        [shell] = words or [detect_shell()]
    except (ShellDetectionError, ValueError) as error:
        raise CycloptsError(msg=usage) from error
    if shell not in SHELLS:
        raise CycloptsError(msg=f"{usage}; got {shell!r}")
    path = Path(get_default_completion_path(shell, app.name[0]))  # type: ignore[arg-type]  # checked above
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(completion_script(app, shell), encoding="utf-8")
    if shell != "fish":  # which reads the folder by itself
        add_to_rc_file(path, app.name[0], shell)  # type: ignore[arg-type]  # checked above
    print(path)
    print(f"Open a new {shell} to use it. After an update of spectag, run this command again.")


def completion_script(app: App, shell: str) -> str:
    """The completion script of a shell. Arguments that are texts, such as a model, are completed as files, too."""
    script = app.generate_completion(shell=shell)  # type: ignore[arg-type]  # one of SHELLS  # nosec B604 - a name
    if shell == "bash":
        return script.replace("complete -F ", "complete -o default -F ")
    return _ZSH_ARGUMENT_WITHOUT_ACTION.sub(r"\1:_files", script) if shell == "zsh" else script
