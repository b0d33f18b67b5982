# SPDX-License-Identifier: Apache-2.0
"""One place that answers for a setting of the model: the gin file or a flag, then the shapes, then a question."""

from .errors import ImportFailure
from .gin_config import ABSENT, UndefinedMacro
from .gin_syntax import Reference
from .trax_functions import FIXED, LAYERS, MODELS, WITHOUT_EFFECT


class Settings:
    """Settings of one model function and of the layers it uses.

    Flags were added to the gin configuration as later bindings, so they win. What neither it nor the shapes tell is
    collected by `ask` and reported as one question; `trax_defaults` answers it with the defaults of Trax's code.
    """

    def __init__(self, gin, trax_defaults=False):
        self.gin = gin
        self.function = _model_function(gin)
        self.family, self._defaults = MODELS[self.function]
        self._trax_defaults = trax_defaults
        self._used = {self.function: self._defaults}  # function or layer -> its parameters
        self._found = {}
        self._questions = {}
        self._reasons = {}  # why a binding of the gin file did not answer
        self.assumed = {}  # what came from Trax's defaults, for the report

    # --- parameters of the model function

    def given(self, name):
        """The value in gin file or flags; ABSENT otherwise."""
        fixed = FIXED.get(self.function, {})
        return fixed[name] if name in fixed else self._lookup(name, self.function, name)

    def find(self, name, value):
        """Notes what a shape revealed."""
        self._found[name] = value

    def known(self, name):
        """Given or found; ABSENT otherwise."""
        value = self.given(name)
        return self._found.get(name, ABSENT) if value is ABSENT else value

    def need(self, name):
        """Given or found; otherwise a question to the user."""
        value = self.known(name)
        if value is ABSENT:
            value = self._ask(f"--{name.replace('_', '-')}", name, self._defaults[name])
            self.find(name, value)
        return value

    def usual(self, name):
        """Given or found; otherwise Trax's default: for what every published file leaves out and no number depends on."""
        value = self.known(name)
        return self._defaults.get(name) if value is ABSENT else value

    # --- parameters of a layer

    def use(self, layer):
        """Notes that the model has such a layer, so that its bindings count."""
        self._used[layer] = LAYERS[layer]

    def layer_given(self, layer, name):
        self.use(layer.name)
        return self._lookup(f"{layer.name}.{name}", layer.name, name, layer.scopes)

    def _lookup(self, title, *key):
        """A binding; ABSENT also where it hangs on an undefined macro, which matters only if nothing else tells."""
        try:
            return self.gin.lookup(*key)
        except UndefinedMacro as error:
            self._reasons[title] = str(error)
            return ABSENT

    def layer_need(self, layer, name):
        value = self.layer_given(layer, name)
        if value is not ABSENT:
            return value
        return self._ask(f"--gin-param '{layer.name}.{name} = ...'", f"{layer.name}.{name}", LAYERS[layer.name][name])

    def layer_usual(self, layer, name):
        value = self.layer_given(layer, name)
        return self.layer_default(layer, name) if value is ABSENT else value

    @staticmethod
    def layer_default(layer, name):
        """What Trax takes where nothing is said; None also for a parameter that the layer does not have."""
        return LAYERS[layer.name].get(name)

    # --- bindings that nothing reads

    def unknown_bindings(self):
        """Parameters that the gin file gives to functions and layers of this model, but that neither have an effect here
        nor are known to have none: slips, and what the importer does not offer."""
        return sorted(
            f"{scope}/{function}.{parameter}" if scope else f"{function}.{parameter}"
            for scope, function, parameter in self.gin.bindings()
            if function in self._used and parameter not in self._used[function] and parameter not in WITHOUT_EFFECT
        )

    # --- questions

    def _ask(self, flag, name, default):
        if self._trax_defaults:
            self.assumed[name] = default
        else:
            self._questions[name] = (flag, default)
        return default

    def check_questions(self):
        """Throws one error that asks for everything that is open."""
        if not self._questions:
            return
        parts = []
        for name, (flag, default) in self._questions.items():
            reason = f"{self._reasons[name]}; " if name in self._reasons else ""
            parts.append(f"{name} ({reason}{flag}; Trax's default is {show(default)})")
        raise ImportFailure(
            "neither the gin file nor the tensors tell "
            + ", ".join(parts)
            + "; give the flags, or --trax-defaults to take these defaults"
        )


def _model_function(gin):
    """The function that `train.model` names, or the only known one that has bindings."""
    model = gin.lookup("train", "model")
    if isinstance(model, Reference):
        if model.name not in MODELS:
            raise ImportFailure(f"gin: train.model is {model.name}; known are {', '.join(MODELS)}")
        return model.name
    candidates = [name for name in MODELS if name in gin.functions()]
    if len(candidates) != 1:
        found = f"bindings of {' and '.join(candidates)}" if candidates else "bindings of none"
        raise ImportFailure(
            f"no train.model in the gin file, and {found} of the known models: give --model, one of {', '.join(MODELS)}"
        )
    return candidates[0]


def show(value):
    """A setting as a gin file writes it."""
    return f"@{value.name}" if isinstance(value, Reference) else repr(value)
