"""References: the name under which a fresh interpreter finds a worker class.

``module:Class``, or ``/path/of/script.py:Class`` for a class of the script that runs as ``__main__``. The parent
makes references and never imports what a string names; the rank resolves them.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

from worker_node.distributed.errors import InvalidWorker
from worker_node.distributed.worker import DistributedWorker

_MAIN = "__mp_main__"
"""Multiprocessing's name for a script's second life: ``if __name__ == "__main__"`` guards hold here too."""


def reference(worker_cls: type[DistributedWorker] | str) -> str:
    """Name a worker class.

    Raises:
        InvalidWorker: no other interpreter could find it, or it is no worker.
    """
    if isinstance(worker_cls, str):
        module, _, name = worker_cls.rpartition(":")
        if not module or not name:
            raise InvalidWorker(f"{worker_cls!r} is not of the form 'package.module:Class'")
        return worker_cls
    if not (isinstance(worker_cls, type) and issubclass(worker_cls, DistributedWorker)):
        raise InvalidWorker(f"{worker_cls!r} is not a subclass of DistributedWorker")
    name = worker_cls.__qualname__
    if "<locals>" in name:
        raise InvalidWorker(f"{name} is defined inside a function: move it to the top of its module")
    return f"{_home(worker_cls.__module__, name)}:{name}"


def resolve(worker: str) -> type[DistributedWorker]:
    """Import the class that a reference names.

    Raises:
        InvalidWorker: there is no such class, or it is no worker. What the module itself raises passes through.
    """
    module_name, _, qualified_name = worker.rpartition(":")
    found: object = _load_script(module_name) if module_name.endswith(".py") else importlib.import_module(module_name)
    for part in qualified_name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as exc:
            raise InvalidWorker(f"{module_name} has no {qualified_name}") from exc
    if not (isinstance(found, type) and issubclass(found, DistributedWorker)):
        raise InvalidWorker(f"{worker} is not a subclass of DistributedWorker")
    return found


def _home(module: str, name: str) -> str:
    if module != "__main__":
        return module
    main = sys.modules["__main__"]
    if main.__spec__ is not None and main.__spec__.name:
        return main.__spec__.name
    if path := getattr(main, "__file__", None):
        return str(path)
    raise InvalidWorker(f"{name} was typed into an interactive session: put it into a file")


def _load_script(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(_MAIN, path)
    if spec is None or spec.loader is None:
        raise InvalidWorker(f"{path} cannot be loaded as a module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MAIN] = module
    spec.loader.exec_module(module)
    return module
