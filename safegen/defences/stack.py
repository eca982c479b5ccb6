"""No defence at all, and several at once."""

from __future__ import annotations

from collections.abc import Sequence

from safegen.defences.defence import Defence, ProtectedModel


class Unedited:
    """The base model as it is: what every defence is compared with."""

    name = "unedited"
    text_dependent = False

    def protect(self, model: ProtectedModel) -> ProtectedModel:
        """Return the model itself."""
        return model


class Stack:
    """Defences one after the other; each protects what the one before returned."""

    def __init__(self, defences: Sequence[Defence]) -> None:
        """Keep the order.

        Args:
            defences: At least one.
        """
        self._defences = tuple(defences)

    @property
    def name(self) -> str:
        """Such as "safegen+sld-medium"."""
        return "+".join(defence.name for defence in self._defences)

    @property
    def text_dependent(self) -> bool:
        """Whether all of them are: one that is not still stands where the others are got round."""
        return all(defence.text_dependent for defence in self._defences)

    def protect(self, model: ProtectedModel) -> ProtectedModel:
        """Return the model protected by all of them.

        Raises:
            EditError: One of them cannot protect it.
        """
        for defence in self._defences:
            model = defence.protect(model)
        return model
