"""The page of names tells what a config can use, and no more."""

import re

import pytest

from jaxkd import models
from jaxkd.data import augment, sources, views
from jaxkd.report import names
from jaxkd.train import optimizer


@pytest.fixture(scope='module')
def tables():
  """Title -> name -> (options, what it is)."""
  found = {}
  for part in names.page().split('\n## ')[1:]:
    lines = [
      line.split(' | ') for line in part.splitlines() if line[:2] == '| '
    ]
    found[part.partition('\n')[0]] = {
      re.search(r'`([^`]+)`', name)[1]: (options, said)
      for name, options, said in (line for line in lines if '`' in line[0])
    }
  return found


def test_all_names_are_there(tables):
  assert set(tables['Views']) == set(views.ops())
  assert set(tables['Augmentation']) == set(augment.ops())
  assert set(tables['Models']) == set(models.families())
  assert set(tables['Optimisers']) == set(optimizer.optimizers())
  bare = {name.partition(':')[0] for name in tables['Sources']}
  assert bare == set(sources.NAMES)


def test_what_jaxkd_fills_is_no_option(tables):
  filled = {'key', 'image', 'input_shape', 'rngs', 'other'}
  for title, table in tables.items():
    for options, said in table.values():
      if title == 'Optimisers':  # one of optax takes a key
        continue
      assert filled.isdisjoint(re.findall(r'`(\w+)', options))
      assert len(said) > 10
  assert tables['Views']['cutout'][0] == '`size`'
  assert tables['Augmentation']['mixup'][0] == '`alpha`'
  assert '`temperature=1.0`' in tables['Losses']['kl'][0]
  assert tables['Regions']['near_anchors'][0] == '`psi=0.5`'
  assert tables['Schedules']['cosine'][0] == '`alpha=0.0`, `exponent=1.0`'
  of_warmup = '`init_value=0.0`, `warmup_steps`'
  assert tables['Schedules']['warmup_constant'][0] == of_warmup


def test_schedules_are_found_by_their_names(tables):
  for name in tables['Schedules']:
    optimizer.find_schedule(name, at='train.schedule')


def test_a_page_of_another_optax_is_told():
  assert names.is_of_here(names.page())
  assert not names.is_of_here('those of optax 0.0.1.')
