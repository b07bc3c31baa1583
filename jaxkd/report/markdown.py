"""Pieces of Markdown."""

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
  """A table; bars inside a cell are escaped."""
  cells = [
    [one_line(cell).replace('|', r'\|') for cell in line]
    for line in [header, *lines]
  ]
  ruled = [cells[0], ['---'] * len(header), *cells[1:]]
  return '\n'.join(f'| {" | ".join(line)} |' for line in ruled)


def bullets(notes: Iterable[str]) -> str:
  """A list of texts."""
  return '\n'.join(f'- {one_line(note)}' for note in notes)


def picture(alt: str, path: str) -> str:
  """A picture that there is in light and in dark.

  Args:
    alt: what it shows.
    path: of its files, from the page, without ``_light.svg``.
  """
  return (
    '<picture>\n'
    f'<source media="(prefers-color-scheme: dark)" srcset="{path}_dark.svg">\n'
    f'<img alt="{alt}" src="{path}_light.svg">\n'
    '</picture>'
  )


def one_line(text: str) -> str:
  """A text with one space for white space."""
  return ' '.join(text.split())
