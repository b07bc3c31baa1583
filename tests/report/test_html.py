"""The page of a run: one file, which shows all and runs nothing."""

import base64
from html.parser import HTMLParser

import pytest

from jaxkd import run_files
from jaxkd.errors import UserError
from jaxkd.report import html, wording

PIXEL = base64.b64decode(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/'
  'iZk9HQAAAABJRU5ErkJggg=='
)
EMPTY = {'meta', 'img', 'br', 'hr', 'line', 'circle'}


class Checked(HTMLParser):
  """Collects texts and attributes; fails where tags do not match."""

  def __init__(self, text):
    super().__init__()
    self.open, self.tags, self.texts, self.links = [], [], [], []
    self.feed(text)
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.links += [value for name, value in attrs if name in ('src', 'href')]
    if tag not in EMPTY:
      self.open.append(tag)

  def handle_endtag(self, tag):
    if tag not in EMPTY:
      assert self.open.pop() == tag

  def handle_data(self, data):
    self.texts.append(data)


@pytest.fixture
def run(tmp_path, row):
  (tmp_path / 'shown').mkdir()
  for name in ('curves.png', 'shown/first.png'):
    (tmp_path / name).write_bytes(PIXEL)
  return tmp_path


def test_the_page_has_everything_in_one_file(run, row):
  row['notes'] = ['a note with <script>alert(1)</script> & more']
  html.save(row, {'task': 'classification', 'name': '<b>'}, run, 'print(1)')
  found = Checked((run / run_files.REPORT).read_text())
  outside = [link for link in found.links if not link.startswith('data:')]
  assert outside == ['https://arxiv.org/abs/1503.02531']
  assert len([link for link in found.links if link.startswith('data:')]) == 2
  assert 'svg' in found.tags
  assert 'script' not in found.tags
  said = ''.join(found.texts)
  assert '<script>alert(1)</script> & more' in said
  assert wording.verdict(row['comparison'], row) in said
  assert 'distilled' in said
  assert '"name": "<b>"' in said
  assert 'print(1)' in said


def test_long_names_are_broken_on_narrow_screens(tmp_path, row):
  assert 'overflow-wrap: break-word' in html.page(row, {}, tmp_path)


def test_too_few_seeds_are_said_once(tmp_path, plain_row):
  plain_row['comparison'] |= {'seeds': 2, 'ci95': None, 'holds': None}
  page = html.page(plain_row, {}, tmp_path)
  listed = page[page.index('<ul>') : page.index('</ul>')]
  assert listed.count('too few seeds (2)') == 1


def test_a_run_without_pictures_or_controls(tmp_path, plain_row):
  html.save(plain_row, {}, tmp_path)
  Checked((tmp_path / run_files.REPORT).read_text())


def test_a_page_that_cannot_be_written(tmp_path, row):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match=r'report\.html cannot be written'):
    html.save(row, {}, tmp_path / 'file')
