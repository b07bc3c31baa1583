"""The notebooks of docs: two run here, all of them in `make docs`."""

import ast
import pathlib
import re

import matplotlib.pyplot as plt
import pytest

FOLDER = pathlib.Path(__file__).parents[1] / 'docs' / 'notebooks'
SHORTEST = ('losses_in_your_loop', 'read_a_row_honestly')


def cells(name: str) -> list[str]:
  """The code of a notebook, without the options of its cells."""
  text = (FOLDER / f'{name}.md').read_text('utf-8')
  found = re.findall(
    r'^```\{code-cell\} ipython3\n(.*?)^```$', text, re.DOTALL | re.MULTILINE
  )
  return [
    re.sub(r'\A(---\n.*?^---\n|(:.*\n)+)', '', cell, flags=re.S | re.M)
    for cell in found
  ]


def names() -> list[str]:
  return sorted(path.stem for path in FOLDER.glob('*.md'))


@pytest.mark.parametrize('name', SHORTEST)
def test_the_shortest_run(name, monkeypatch):
  monkeypatch.chdir(FOLDER)
  namespace = {'__name__': '__main__'}
  try:
    for cell in cells(name):
      exec(compile(cell, f'{name}.md', 'exec'), namespace)
  finally:
    plt.close('all')


@pytest.mark.parametrize('name', names())
def test_all_are_python_with_text_around_it(name):
  found = cells(name)
  assert len(found) > 4
  for cell in found:
    ast.parse(cell)


def test_the_twenty_lines_are_twenty():
  (cell,) = [c for c in cells('distil_in_twenty_lines') if 'losses.hint' in c]
  assert len(cell.splitlines()) == 20
