"""Reads a page into a tree, strictly: a tag left open, closed twice or closed out of turn is an error."""

from html.parser import HTMLParser

VOID = {"img", "input", "link", "meta", "wbr"}


class Node:
    """An element: `children` are nodes and texts in order."""

    def __init__(self, name, attributes):
        self.name, self.attributes, self.children = name, attributes, []

    def __getitem__(self, key):
        return self.attributes[key]

    @property
    def classes(self):
        return (self.attributes.get("class") or "").split()

    def walk(self):
        for child in self.children:
            if isinstance(child, Node):
                yield child
                yield from child.walk()

    def all(self, name=None, **attributes):
        """Elements below: by name, by class (`class_`) and by attributes."""
        wanted = attributes.pop("class_", None)
        return [
            node
            for node in self.walk()
            if name in (None, node.name)
            and (wanted is None or wanted in node.classes)
            and all(node.attributes.get(key.replace("_", "-")) == value for key, value in attributes.items())
        ]

    def one(self, name=None, **attributes):
        (node,) = self.all(name, **attributes)
        return node

    def text(self, without=()):
        """All text below, leaving out elements of some names."""
        return "".join(
            child if isinstance(child, str) else "" if child.name in without else child.text(without)
            for child in self.children
        )


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = [Node("", {})]

    def handle_starttag(self, name, attributes):
        assert len({key for key, _ in attributes}) == len(attributes), f"<{name}> has an attribute twice"
        node = Node(name, dict(attributes))
        self.open[-1].children.append(node)
        if name not in VOID:
            self.open.append(node)

    def handle_endtag(self, name):
        assert self.open[-1].name == name, f"</{name}> where <{self.open[-1].name}> is open"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    def unknown_decl(self, data):
        raise AssertionError(f"a declaration: {data}")


def read_page(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert len(reader.open) == 1, f"<{reader.open[-1].name}> is never closed"
    return reader.open[0]


def plain(node, without=()):
    """Text of a node with the marks of odd characters turned back into what they stand for."""
    parts = []
    for child in node.children:
        if isinstance(child, str):
            parts.append(child)
        elif "odd" in child.classes:
            parts.append("" if child.text() == "U+000A" else chr(int(child.text()[2:], 16)))
        elif child.name not in without:
            parts.append(plain(child, without))
    return "".join(parts)
