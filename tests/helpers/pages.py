"""Pages, as a test reads them."""

import re
from html.parser import HTMLParser

VOID = {"meta", "input", "img", "br", "link"}


class Page(HTMLParser):
    """The elements and the text of a page; checks that every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.html, self.open, self.elements, self.texts = text, [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.texts.append(data)

    def all(self, tag, **values):
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and all(attributes.get(key) == value for key, value in values.items())
        ]

    @property
    def text(self):
        return re.sub("[ \n]+", " ", " ".join(self.texts))
