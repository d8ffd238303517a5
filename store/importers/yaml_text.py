"""Untrusted YAML: plain values only. Tags are never instantiated, and a document that grows when its aliases are followed is refused."""

from __future__ import annotations

from typing import Any

from store.extras import needed_for
from store.importers.bounded_files import UnreadableRecordError

_MAX_NODES = 50_000
"""Values of one document, an alias counted with all that it stands for: a few lines can stand for billions."""


def parse_yaml_mapping(text: str) -> dict[str, Any]:
    """Return a YAML mapping with texts as keys. Tuples become lists; what a tag would make becomes the tag's text.

    Raises:
        UnreadableRecordError: If the text is no YAML mapping, nested too deeply or too large once its aliases are followed.
        MissingDependencyError: If PyYAML is missing.
    """
    with needed_for("Reading YAML"):
        import yaml
    try:
        # the loader in C is faster, and brings the process down where a text is nested deeply
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = _Reader(yaml).value(node, 0)
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        raise UnreadableRecordError("a file is not YAML") from error
    if not isinstance(value, dict):
        raise UnreadableRecordError("a YAML file holds no mapping")
    return value


class _Reader:
    def __init__(self, yaml: Any) -> None:
        self._yaml = yaml
        self._scalars = yaml.SafeLoader("")
        self._left = _MAX_NODES

    def value(self, node: Any, depth: int) -> Any:
        """Return the plain value of a node."""
        self._left -= 1
        if self._left < 0 or depth > 40:
            raise UnreadableRecordError("a YAML file is too large or too deep")
        if isinstance(node, self._yaml.MappingNode):
            pairs = {str(self.value(key, depth + 1)): self.value(item, depth + 1) for key, item in node.value}
            return pairs if _is_plain(node.tag) else pairs | {"$tag": _short(node.tag)}
        if isinstance(node, self._yaml.SequenceNode):
            items = [self.value(item, depth + 1) for item in node.value]
            if _is_plain(node.tag) or node.tag.endswith("python/tuple"):
                return items
            # an enum member is written as its class and the value it is made from
            return items[0] if len(items) == 1 else _short(node.tag)
        if not isinstance(node, self._yaml.ScalarNode):
            return None
        if not _is_plain(node.tag):
            return _short(node.tag) if not node.value else node.value
        return self._scalars.construct_object(node)


def _is_plain(tag: str) -> bool:
    return tag.startswith("tag:yaml.org,2002:") and "python" not in tag


def _short(tag: str) -> str:
    return tag.rpartition(":")[2][:200]
