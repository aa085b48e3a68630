"""The texts about settings: the docstrings below the fields of their classes."""

import ast
import inspect
import sys
from functools import cache
from itertools import pairwise


def field_docs(settings: type) -> dict[str, str]:
    """The docstrings below the fields of a settings class, by field, with those of its base classes."""
    bases = [base for base in reversed(settings.__mro__) if base.__module__.startswith("spectag.")]
    return {name: doc for base in bases for name, doc in _field_docs_of_module(base.__module__)[base.__name__].items()}


@cache
def _field_docs_of_module(name: str) -> dict[str, dict[str, str]]:
    tree = ast.parse(inspect.getsource(sys.modules[name]))
    return {
        settings.name: {
            ast.unparse(field.target): " ".join(ast.literal_eval(text.value).split())
            for field, text in pairwise(settings.body)
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
        }
        for settings in tree.body
        if isinstance(settings, ast.ClassDef)
    }
