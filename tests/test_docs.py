"""The examples on the pages of docs run as they stand there."""

import doctest
import fnmatch
import importlib
import pathlib
import re

import pytest

from jaxkd.report import survey

DOCS = pathlib.Path(__file__).parents[1] / 'docs'


@pytest.mark.parametrize('page', ['distill.md', 'terms.md'])
def test_examples_run(page):
  found = doctest.testfile(
    str(DOCS / page), module_relative=False, encoding='utf-8'
  )
  assert found.attempted > 10 and not found.failed


def test_the_page_about_the_step_quotes_it():
  folder = DOCS.parent / 'jaxkd' / 'distill'

  def flat(text):  # the formatter breaks lines by how far they are indented
    return re.sub(r'\s|,(?=\s*[)}\]])', '', text)

  code = flat(
    '\n'.join((folder / f).read_text() for f in ('step.py', 'contexts.py'))
  )
  page = (DOCS / 'step.md').read_text('utf-8')
  blocks = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
  assert len(blocks) > 5
  for block in blocks:
    assert flat(block) in code, f'not in step.py or contexts.py:\n{block}'


def test_the_step_is_as_long_as_its_page_says():
  lines = (DOCS.parent / 'jaxkd/distill/step.py').read_text().count('\n')
  assert 250 < lines < 320


# As the survey writes some data sets, and as the page does.
NAMES = {
  'fmnist': 'fashionmnist',
  'mit': 'mitindoorscenes',
  'mridataset': 'breastmri',
  'microsoftshortmessagedictation': 'microsoftsshortmessagedictation',
  'ntu rgb-d action': 'nturgbd',
  'ptb': 'penntreebank',
  'udf101': 'ucf101',
}


def test_every_data_set_of_the_survey_is_on_their_page():
  def flat(text):
    return re.sub(r"[\s'-]", '', text.lower())

  names = {flat(old): new for old, new in NAMES.items()}
  page = flat((DOCS / 'datasets.md').read_text('utf-8'))
  works = survey.load()['work']
  said = [
    flat(name)
    for work in works
    for cells in work.get('cells', ())
    for name in cells['dataset'].split(',')
  ]
  assert len(set(said)) > 25
  missing = {name for name in said if names.get(name, name) not in page}
  assert not missing


def test_every_page_is_in_a_table_of_contents_of_the_site():
  paths = [path.relative_to(DOCS) for path in DOCS.rglob('*.md')]
  paths = [path for path in paths if path.parts[0] != '_build']
  pages = {path.with_suffix('').as_posix() for path in paths}
  listed = []
  for path in paths:
    text = (DOCS / path).read_text('utf-8')
    blocks = re.findall(r'```\{toctree\}\n(.*?)```', text, re.DOTALL)
    for line in '\n'.join(blocks).splitlines():
      if line and not line.startswith(':'):
        listed += fnmatch.filter(pages, line) or [line]
  assert sorted(listed) == sorted(pages - {'index'}), (
    'list each page of docs once, in a toctree of docs/index.md'
  )


def test_the_pages_of_the_api_name_what_there_is():
  found = []
  for page in (DOCS / 'api').glob('*.md'):
    text = page.read_text('utf-8')
    found += re.findall(r'auto(?:class|function):: ([\w.]+)\.(\w+)', text)
    modules = r'automodule:: ([\w.]+)(?:\n +:members:((?:.|\n {6})*))?'
    for module, members in re.findall(modules, text):
      names = re.findall(r'\w+', members) or ['__doc__']
      found += [(module, name) for name in names]
  assert len(found) > 50
  for module, name in found:
    assert getattr(importlib.import_module(module), name), (module, name)
