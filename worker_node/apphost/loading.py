"""Loading: from an import string to the user's App class.

``package.module:Class``, or ``path/to/file.py:Class``. A file is imported under the name that its folder gives it, so
that ranks, which import the worker class by name, find it too. The app host calls it; nothing else imports user code.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

from stoker.app import App
from stoker.errors import AppDefinitionError, StokerError


def load_app(import_string: str) -> type[App]:
    """Import the class.

    Raises:
        AppDefinitionError: there is no such class, it is no App, or its module raised; the message says why.
    """
    home, _, name = import_string.rpartition(":")
    if not home or not name.isidentifier():
        hint = 'Write "package.module:Class" or "path/to/file.py:Class".'
        raise AppDefinitionError(f"{import_string!r} does not name an app", hint=hint)
    module_name = _module_of(Path(home)) if home.endswith(".py") else home
    try:
        module = importlib.import_module(module_name)
    except StokerError:
        raise
    except ModuleNotFoundError as error:
        hint = "Start the node where the module can be imported, or name its file: path/to/file.py:Class."
        raise AppDefinitionError(f"cannot import {module_name}: {error}", hint=hint) from error
    except (Exception, SystemExit) as error:
        hint = "This is what the module raised:\n" + "".join(traceback.format_exception(error)[-6:])
        message = f"importing {module_name} raised {type(error).__name__}: {error}"
        raise AppDefinitionError(message, hint=hint) from error
    if home.endswith(".py") and Path(str(module.__file__)).resolve() != Path(home).resolve():
        hint = "Give the file another name."
        raise AppDefinitionError(f"{home}: another module is called {module_name} already", hint=hint)
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, App) and found is not App):
        apps = [key for key, value in vars(module).items() if isinstance(value, type) and App in value.__mro__[1:]]
        hint = f"Its apps are: {', '.join(apps) or 'none'}."
        raise AppDefinitionError(f"{module_name} has no App called {name}", hint=hint)
    return found


def _module_of(path: Path) -> str:
    """The dotted name of a file, with the folder it counts from put on the path."""
    if not path.is_file():
        raise AppDefinitionError(f"there is no file {path}", hint="The path counts from where the node was started.")
    path = path.resolve()
    names, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return ".".join(names)
