"""The rules by which the weights' gradients are formed, one a file; a file's name is the rule's."""

import importlib
import pkgutil

from steadyspike.snn.rule import Rule


def _rule_of(name: str) -> type[Rule]:
    """The one rule that the module of that name defines."""
    module = importlib.import_module(f"{__name__}.{name}")
    (rule,) = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Rule)
        and value.__module__ == module.__name__
    ]
    return rule


RULES = {module.name: _rule_of(module.name) for module in pkgutil.iter_modules(__path__)}
