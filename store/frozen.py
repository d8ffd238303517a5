"""Immutable objects of named fields that cost next to nothing to define.

A callback's modules are read at the start of every training, and ``@dataclass`` compiles six functions for a class and ``NamedTuple`` each
of its annotations: a millisecond or two, and a third of one, where ``Frozen`` takes a fiftieth of one. It serves what every
start needs; elsewhere a dataclass does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, FrozenInstanceError, field, fields, make_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self, dataclass_transform

if TYPE_CHECKING:
    from inspect import Signature


class _Made:
    """``__dataclass_fields__`` and ``__dataclass_params__``, made when something asks: all of ``dataclasses`` works."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type[Frozen]) -> Any:
        defaults = owner._defaults
        listed: list[Any] = []
        for name in owner._names:
            made = field()
            if name in defaults:
                default = defaults[name]
                made = field(default_factory=default.copy) if type(default) in _COPIED else field(default=default)
            listed.append((name, owner._annotations[name], made))
        text = {"__doc__": owner.__name__}  # without one it would be written, from the signature
        done: Any = make_dataclass(owner.__name__, listed, namespace=text, init=False, repr=False, eq=False, frozen=True)
        owner.__dataclass_fields__ = {item.name: item for item in fields(done)}  # for the next one who asks
        owner.__dataclass_params__ = done.__dataclass_params__
        return getattr(owner, self._name)


class _Signature:
    """``__signature__``, for ``help`` and notebooks."""

    def __get__(self, instance: object, owner: type[Frozen]) -> Signature:
        from inspect import Parameter, Signature

        kind, defaults, missing = Parameter.POSITIONAL_OR_KEYWORD, owner._defaults, Parameter.empty
        parameters = [Parameter(name, kind, default=defaults.get(name, missing), annotation=of) for name, of in owner._annotations.items()]
        return Signature(parameters)


@dataclass_transform(frozen_default=True)
class Frozen:
    """A base of classes whose annotated attributes are fields, as those of a frozen dataclass.

    Fields are given by position or by name, in the order of the annotations, those of the bases first. A default that is a ``dict``, a
    ``list`` or a ``set`` is copied for every instance. Instances of one class with equal fields are equal.

    Raises:
        TypeError: If a field is missing, given twice or unknown.
    """

    _names: ClassVar[tuple[str, ...]] = ()
    _defaults: ClassVar[Mapping[str, Any]] = {}
    _annotations: ClassVar[Mapping[str, str]] = {}
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    __dataclass_params__: ClassVar[Any]

    def __init_subclass__(cls, **options: Any) -> None:
        """Read the fields."""
        super().__init_subclass__(**options)
        own = {name: kind for name, kind in cls.__annotations__.items() if "ClassVar" not in str(kind).partition("[")[0]}
        for base in cls.__bases__ if len(cls.__bases__) > 1 else ():
            if issubclass(base, Frozen):
                cls._annotations, cls._defaults = {**base._annotations, **cls._annotations}, {**base._defaults, **cls._defaults}
        cls._annotations = {**cls._annotations, **own}
        cls._names = tuple(cls._annotations)
        cls._defaults = {**cls._defaults, **{name: cls.__dict__[name] for name in own if name in cls.__dict__}}
        type.__setattr__(cls, "__match_args__", cls._names)
        cls.__dataclass_fields__, cls.__dataclass_params__ = _FIELDS, _PARAMS  # a base's may have been made already

    __signature__: ClassVar[Any] = _Signature()

    def __init__(self, *values: Any, **named: Any) -> None:
        """Take the fields."""
        names, mine = self._names, self.__dict__
        given = dict(zip(names, values, strict=False))
        if len(values) > len(names) or given.keys() & named.keys() or not named.keys() <= self._annotations.keys():
            self._refuse(values, named)
        given.update(named)
        for name in names:
            if name in given:
                mine[name] = given[name]
            elif name in self._defaults:
                default = self._defaults[name]
                mine[name] = default.copy() if type(default) in _COPIED else default
            else:
                self._refuse(values, named)

    def _refuse(self, values: tuple[Any, ...], named: Mapping[str, Any]) -> NoReturn:
        needed = ", ".join(f"[{field}]" if field in self._defaults else field for field in self._names)
        got = ", ".join([*(repr(value) for value in values), *(f"{field}={value!r}" for field, value in named.items())])
        name = type(self).__name__
        raise TypeError(f"{name} takes each of its fields once, but got ({got}). Its fields, optional ones in brackets: {needed}.")

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse."""
        raise FrozenInstanceError(f"cannot assign to field {name!r}; dataclasses.replace() makes a changed copy")

    def __delattr__(self, name: str) -> None:
        """Refuse."""
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def _values(self) -> tuple[Any, ...]:
        mine = self.__dict__
        return tuple([mine[name] for name in self._names])

    def __eq__(self, other: object) -> bool:
        """Compare all fields of two instances of one class."""
        return self._values() == other._values() if isinstance(other, Frozen) and type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        """Hash all fields."""
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        """Show all fields."""
        return f"{type(self).__name__}({', '.join(f'{name}={self.__dict__[name]!r}' for name in self._names)})"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name; unlike ``dataclasses.asdict`` it neither copies the values nor looks into them."""
        return {name: self.__dict__[name] for name in self._names}

    def __replace__(self, **changes: Any) -> Self:
        """Return a changed copy; what ``copy.replace`` of Python 3.13 calls."""
        return type(self)(**{**self.as_dict(), **changes})


_COPIED = (dict, list, set)
_FIELDS: Any = _Made("__dataclass_fields__")
_PARAMS: Any = _Made("__dataclass_params__")
