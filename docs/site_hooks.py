"""Makes a site of the pages: what the generator of `mkdocs.yml` calls while it builds.

The pages are written for readers of the repository, where the README is the first of them and
links may lead to any file. In the site the README is its first page, files that pages link to come
along, and the docstrings of all that `import distnet` offers become pages.
"""

from __future__ import annotations

import inspect
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path

import distnet

ROOT = Path(__file__).resolve().parents[1]
FIRST = "index.md"
LINK = re.compile(r"(?<=\]\()(?P<path>[\w./-]+)(?P<anchor>#[\w-]+)?(?=\))")
SOURCES = "source"  # where files from outside of docs/ lie in the site


def on_config(config):
    """Headings get names that the scripts of the theme can look up."""
    slugify = import_module("markdown.extensions.toc").slugify
    config["mdx_configs"]["toc"]["slugify"] = lambda text, separator: name_of_heading(
        slugify(text, separator)
    )


def name_of_heading(slug: str) -> str:
    """Not with a digit in front: scripts take the name for a selector of CSS, and stop at that."""
    return f"n-{slug}" if slug[:1].isdigit() else slug


def on_files(files, config):
    """Adds the first page, those of the docstrings, and the sources that pages link to."""
    File = type(next(iter(files)))  # that of the generator
    added = {FIRST: (ROOT / "README.md").read_text(), **api_pages(names_by_module())}
    for path, text in added.items():
        files.append(File.generated(config, path, content=text))
    pages = {file.src_uri: file.content_string for file in files.documentation_pages()}
    for path in sorted(set(outside(pages))):
        source = str(ROOT / path)
        files.append(File.generated(config, f"{SOURCES}/{path}", abs_src_path=source))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links as they are in the site."""
    return LINK.sub(lambda found: in_site(found[0], page.file.src_uri), markdown)


def in_repository(link: str, page: str) -> str:
    """What a `link` of the page (by its place in docs/) leads to, as a path in the repository."""
    folder = "" if page == FIRST else posixpath.dirname(f"docs/{page}")
    return posixpath.normpath(posixpath.join(folder, link.partition("#")[0]))


def in_site(link: str, page: str) -> str:
    """The same as a link of the site."""
    if link.startswith("#"):
        return link
    target, (_, hash_sign, anchor) = in_repository(link, page), link.partition("#")
    if not (ROOT / target).exists():
        return link  # no link to a file: for the generator to look at
    inside = target.removeprefix("docs/")
    if target == "README.md":
        inside = FIRST
    elif inside == target:
        inside = f"{SOURCES}/{target}"
    start = posixpath.dirname(page) or "."
    return posixpath.relpath(inside, start) + hash_sign + anchor


def outside(pages: Mapping[str, str]) -> Iterator[str]:
    """The files outside of docs/ to which pages link, as paths in the repository."""
    for page, text in pages.items():
        for found in LINK.finditer(text):
            target = in_repository(found["path"], page)
            is_outside = not target.startswith(("docs/", "README.md"))
            if is_outside and (ROOT / target).is_file():
                yield target


def names_by_module() -> dict[str, list[str]]:
    """All that is public, by the package of distnet that it comes from: `nn`, `training`, ..."""
    found = defaultdict(list)
    for module, names in distnet._HOMES.items():
        found[module.split(".")[1]] += [where_defined(module, name) for name in names]
    return dict(sorted(found.items()))


def where_defined(module: str, name: str) -> str:
    """The path by which its docstring is found: of functions and classes where they are written."""
    value = getattr(distnet, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        return f"{value.__module__}.{value.__qualname__}"
    return f"{module}.{name}"


def api_pages(names: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """A page for each package, made of its docstrings, and one that lists all names."""
    pages, index = {}, ["# Reference", "", "What `import distnet` offers, by where it comes from."]
    for package, paths in names.items():
        title = f"distnet.{package}"
        ordered = sorted(paths, key=lambda path: path.rpartition(".")[2].lower())
        blocks = [f"# {title}", *(f"::: {path}" for path in ordered)]
        pages[f"api/{package}.md"] = "\n\n".join(blocks) + "\n"
        links = [f"[{path.rpartition('.')[2]}]({package}.md#{path})" for path in ordered]
        index += ["", f"## {title}", "", ", ".join(links)]
    return {"api/index.md": "\n".join(index) + "\n", **pages}
