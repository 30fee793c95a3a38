"""Modules by the names that settings give them: module, file, folder or package.

Law: a file is imported under the name that its own neighbours import it by, so that no class exists twice.
Its folder (for a dotted name: the current folder) is put on the import path, as `python FILE` and `python -m`
do. Whatever goes wrong while it is imported becomes a RegistrationError that names file and line.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from runtime.errors import RegistrationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


def load_modules(name: str) -> list[ModuleType]:
    """The module that `name` means, and all below it where it is a package. Raises RegistrationError."""
    path = Path(name)
    if name.endswith(".py") or path.is_dir():
        return list(_from_path(name, path.resolve()))
    if "/" in name or "\\" in name:
        raise RegistrationError(f"{name}: no such file or folder (looked in {Path.cwd()})")
    _importable(Path.cwd())
    return list(_walk(_import(name, name)))


def _from_path(name: str, path: Path) -> Iterator[ModuleType]:
    if not path.exists():
        raise RegistrationError(f"{name}: no such file (looked in {path.parent})")
    if (path / "__init__.py").exists() or (path.parent / "__init__.py").exists():
        yield from _from_package(name, path)
    elif path.is_dir():
        files = sorted(file for file in path.glob("*.py") if file.stem.isidentifier())
        if not files:
            raise RegistrationError(f"{name}: no Python file in this folder")
        for file in files:
            yield _from_file(str(file), file)
    else:
        yield _from_file(name, path)


def _from_package(name: str, path: Path) -> Iterator[ModuleType]:
    """A package, or a file inside one: imported by its dotted name, so that relative imports work."""
    root = path if path.is_dir() else path.parent
    while (root.parent / "__init__.py").exists():
        root = root.parent
    _importable(root.parent)
    parts = list(path.relative_to(root.parent).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    module = _import(".".join(parts), name)
    _check_same(name, path / "__init__.py" if path.is_dir() else path, module)
    yield from _walk(module)


def _from_file(name: str, path: Path) -> ModuleType:
    """A file that belongs to no package."""
    _importable(path.parent)
    known = sys.modules.get(path.stem)
    if known is None and _found_at(path.stem) in (None, path) and path.stem.isidentifier():
        module_name = path.stem
    elif known is not None and _file_of(known) == path:
        return known
    else:  # the plain name means something else here: a name of its own, the same in every process
        module_name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        if module_name in sys.modules:
            return sys.modules[module_name]
    return _execute(name, module_name, path)


def _execute(name: str, module_name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise RegistrationError(f"{name}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # noqa: BLE001 - the author's code; SystemExit, too
        del sys.modules[module_name]
        _refuse(name, error)
    return module


def _import(module_name: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            hint = (
                f"; there is a file {module_name}.py: name it so"
                if Path(f"{module_name}.py").exists()
                else ""
            )
            why = f"no module named {error.name!r} (looked in {Path.cwd()} and what is installed){hint}"
            raise RegistrationError(f"{name}: {why}") from None
        _refuse(name, error)
    except BaseException as error:  # noqa: BLE001 - the author's code; SystemExit, too
        _refuse(name, error)


def _walk(module: ModuleType) -> Iterator[ModuleType]:
    yield module
    if hasattr(module, "__path__"):
        for found in pkgutil.iter_modules(module.__path__, f"{module.__name__}."):
            if not found.name.endswith(".__main__"):  # importing it would run a program
                yield from _walk(_import(found.name, found.name))


def _importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()


def _found_at(module_name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module_name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    return Path(spec.origin).resolve() if spec.has_location and spec.origin else Path()


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if file else None


def _check_same(name: str, path: Path, module: ModuleType) -> None:
    if _file_of(module) != path:
        why = f"another module is called {module.__name__!r}: {_file_of(module)}"
        raise RegistrationError(f"{name}: {why}; run from its folder, or rename one of them")


def _refuse(name: str, error: BaseException) -> NoReturn:
    if isinstance(error, KeyboardInterrupt):
        raise error
    if isinstance(error, RegistrationError):
        raise error
    raise RegistrationError(
        f"{_place(error) or name}: cannot import {name}: {type(error).__name__}: {error}"
    ) from error


def _place(error: BaseException) -> str | None:
    """The innermost line of the author's, as `file:line`; of a library's where there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _machinery(frame.filename)]
    own = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)] or frames
    return f"{own[-1].filename}:{own[-1].lineno}" if own else None


def _machinery(filename: str) -> bool:
    return (
        filename == __file__ or filename.startswith("<frozen importlib") or "importlib/__init__" in filename
    )


_LIBRARIES: Final = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
