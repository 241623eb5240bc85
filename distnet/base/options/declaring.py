"""What an option is, and the ways to declare one: a dataclass field, a parameter of an entry."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any


@dataclass(frozen=True)
class Option:
    """A setting: what it means and what values it may have. Its type is that of its default.

    choices: the allowed texts; otherwise: how the error ends for a text that is like none of them;
    limits: bounds by comparison, such as `{">=": 1}`; bare: the value of the flag given without
    one; decides: whether the option decides the results of a run; path: a file or directory, where
    ~ is the home directory; positional: it is given without a flag, and its default says no more
    than its type; verbatim: it is all that follows `--`; optional: it can be left out. instead_of:
    the option in whose place this one decides, so that who gives it leaves behind what a file says
    of that.
    owner, takers: of an option that belongs to the entries of a registry, the option that names
    the entry ("optimizer"), and what it is for each entry that takes it, by name.
    """

    help: str
    default: Any = None
    group: str = ""
    metavar: str = ""
    choices: tuple[str, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    bare: str | None = None
    decides: bool = True
    path: bool = False
    otherwise: str = ""
    positional: bool = False
    verbatim: bool = False
    optional: bool = False
    instead_of: str = ""
    owner: str = ""
    takers: Mapping[str, "Option"] = field(default_factory=dict)

    @property
    def is_list(self) -> bool:
        """Whether it takes several values of one type: its default is a tuple that has some."""
        return isinstance(self.sample.default, tuple)

    @property
    def kind(self) -> type:
        """The type of a value: bool, int, float or str."""
        default = self.sample.default
        return type(default[0] if isinstance(default, tuple) else default)

    @property
    def sample(self) -> "Option":
        """Itself or, of an option of entries, what it is for the first one."""
        return next(iter(self.takers.values()), self)


def option(
    default: object,
    help: str,
    *,
    group: str,
    metavar: str = "",
    choices: Iterable[str] = (),
    otherwise: str = "",
    limits: Mapping[str, float] | None = None,
    bare: str | None = None,
    decides: bool = True,
    path: bool = False,
    instead_of: str = "",
) -> Any:
    """A dataclass field that is an Option; see there."""
    settings = Option(
        help,
        default,
        group,
        metavar,
        tuple(choices),
        limits or {},
        bare,
        decides,
        path,
        otherwise,
        instead_of=instead_of,
    )
    return field(default=default, metadata={"option": settings})


def argument(
    help: str,
    metavar: str,
    *,
    several: bool = False,
    path: bool = False,
    verbatim: bool = False,
    optional: bool = False,
) -> Any:
    """A dataclass field that a command line has to give without a flag: text.

    several: at least one, as a tuple; only the last argument of a command may be so.
    verbatim: the several are all that follows `--`, a command that is passed on. optional: it can
    be left out, and is then empty.
    """
    settings = Option(
        help,
        ("",) if several else "",
        metavar=metavar,
        path=path,
        positional=True,
        verbatim=verbatim,
        optional=optional,
    )
    if optional:
        empty: Any = () if several else ""
        return field(default=empty, kw_only=True, metadata={"option": settings})
    return field(kw_only=True, metadata={"option": settings})


def with_default(cls: type, name: str, default: object) -> Any:
    """The field `name` of dataclass `cls` with another default, for a class made from it."""
    (item,) = (item for item in fields(cls) if item.name == name)
    return field(default=default, metadata={"option": replace(details(item), default=default)})


def option_of(owner: str, takers: Mapping[str, Option], group: str) -> Any:
    """A dataclass field for an option that belongs to the entries `takers` of a registry.

    owner: the field with the name of the entry. The default, None, is what that entry says.
    """
    if len({(settings.kind, settings.is_list) for settings in takers.values()}) > 1:
        raise TypeError(f"an option has different types for {', '.join(takers)}")
    settings = replace(
        next(iter(takers.values())), default=None, group=group, owner=owner, takers=takers
    )
    return field(default=None, metadata={"option": settings})


Registry = Mapping[str, Mapping[str, Option]]  # {entry: {option: what it is for that entry}}


def with_options_of(group: Mapping[str, str], **registries: Registry) -> Callable[[type], Any]:
    """Gives a class, before `dataclass` sees it, a field for every option that some entry takes.

    A registry is called like the field that names one of its entries, such as "optimizer", and so
    is, in `group`, the group of help and TOML where its options go. Raises TypeError if two options
    have one name but not one registry or one type.
    """

    def add_fields(cls: type) -> type:
        annotations = dict(cls.__annotations__)
        for owner, entries in registries.items():
            for name in dict.fromkeys(name for options in entries.values() for name in options):
                if name in annotations:
                    raise TypeError(f"{cls.__name__} has two options {name}, one of {owner}")
                takers = {
                    entry: options[name] for entry, options in entries.items() if name in options
                }
                setattr(cls, name, option_of(owner, takers, group[owner]))
                annotations[name] = Any
        cls.__annotations__ = annotations
        return cls

    return add_fields


def own_options(maker: Callable[..., Any]) -> dict[str, Option]:
    """The options that a function or class declares, by name.

    They are its keyword-only parameters annotated as `Annotated[type, Option(help, ...)]`, with
    their defaults.
    """
    if isinstance(maker, type) and getattr(maker, "__init__", None) is object.__init__:
        return {}  # `inspect` would parse the text of the signature of `object`
    found = {}
    for name, parameter in inspect.signature(maker, eval_str=True).parameters.items():
        for note in getattr(parameter.annotation, "__metadata__", ()):
            if parameter.kind is parameter.KEYWORD_ONLY and isinstance(note, Option):
                found[name] = replace(note, default=parameter.default)
    return found


def details(item: Field[Any]) -> Option:
    """What was declared for a dataclass field."""
    return item.metadata["option"]


def flag(name: str) -> str:
    """The flag of a field: `--batch-size` for `batch_size`."""
    return "--" + name.replace("_", "-")


def groups(cls: type) -> Iterator[tuple[str, list[Field[Any]]]]:
    """The fields by group, as they are declared; those that are given without a flag are first."""
    names = dict.fromkeys(sorted((details(item).group for item in fields(cls)), key=bool))
    for name in names:
        yield name, [item for item in fields(cls) if details(item).group == name]
