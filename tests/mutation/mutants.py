"""A module's mutants: its functions, each changed in one place, ready to be put in for the original."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any

from mutmut.mutation.file_mutation import mutate_file_contents

from tests.mutation.listed import ROOT, Change, dotted


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change of one function."""

    change: Change
    original: FunctionType
    code: CodeType
    defaults: tuple[Any, ...] | None
    keyword_defaults: dict[str, Any] | None

    def put_in(self) -> None:
        """Make the function do what the mutant does, whoever holds it already."""
        self.original.__code__ = self.code
        self.original.__defaults__ = self.defaults
        self.original.__kwdefaults__ = self.keyword_defaults


def of_module(path: str) -> list[Mutant]:
    """Return the mutants of a module, in its order, as mutmut makes them."""
    mutated = mutate_file_contents(path, (ROOT / path).read_text())
    lines = mutated.code.splitlines()
    codes = dict(_codes(compile(mutated.code, path, "exec")))
    trees = {
        node.name: node.args
        for node in ast.walk(ast.parse(mutated.code))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    module = importlib.import_module(dotted(path))
    mutants = []
    for name in mutated.mutant_names:
        base = name.rpartition("__mutmut_")[0]
        readable = base.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
        original = _original(module, readable)
        spans = [
            mutated.line_span_by_function_name[each] for each in (f"{base}__mutmut_orig", name)
        ]
        texts = [
            "\n".join(lines[span.start - 1 : span.end]).replace(each, readable.rpartition(".")[2])
            for span, each in zip(spans, (f"{base}__mutmut_orig", name), strict=True)
        ]
        defaults, keyword_defaults = _defaults(original, trees[f"{base}__mutmut_orig"], trees[name])
        mutant = Mutant(
            change=Change(f"{module.__name__}.{readable}", *_changed(*texts)),
            original=original,
            code=codes[name].replace(
                co_name=original.__code__.co_name, co_qualname=original.__code__.co_qualname
            ),
            defaults=defaults,
            keyword_defaults=keyword_defaults,
        )
        mutants.append(mutant)
    return mutants


def _codes(code: CodeType) -> Iterator[tuple[str, CodeType]]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant.co_name, constant
            yield from _codes(constant)


def _original(module: ModuleType, readable: str) -> FunctionType:
    owner: Any = module
    *path, name = readable.split(".")
    for each in path:
        owner = getattr(owner, each)
    function = inspect.getattr_static(owner, name)
    found = getattr(function, "__func__", function)
    assert isinstance(found, FunctionType), readable
    return found


def _changed(before: str, after: str) -> tuple[str, str]:
    """Return the lines that differ, each side as one line."""
    lines = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    was, is_now = (
        " ".join(line[2:].strip() for line in lines if line.startswith(sign)) for sign in "-+"
    )
    return was, is_now


def _defaults(
    original: FunctionType, before: ast.arguments, after: ast.arguments
) -> tuple[tuple[Any, ...] | None, dict[str, Any] | None]:
    """Return a mutant's defaults: the original's, but for the one that is changed, a plain value."""
    defaults = list(original.__defaults__ or ())
    for index, (was, is_now) in enumerate(zip(before.defaults, after.defaults, strict=True)):
        if ast.dump(was) != ast.dump(is_now):
            defaults[index] = ast.literal_eval(is_now)
    by_keyword = dict(original.__kwdefaults__ or {})
    for name, was, is_now in zip(
        before.kwonlyargs, before.kw_defaults, after.kw_defaults, strict=True
    ):
        if was is not None and is_now is not None and ast.dump(was) != ast.dump(is_now):
            by_keyword[name.arg] = ast.literal_eval(is_now)
    return tuple(defaults) or None, by_keyword or None
