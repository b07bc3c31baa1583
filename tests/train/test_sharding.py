"""Populations on eight simulated devices."""

import math
import pathlib
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxkd.distill import roles
from jaxkd.errors import UserError
from jaxkd.run import checks, jobs, train_job
from jaxkd.run import config as configs
from jaxkd.train import sharding

pytestmark = pytest.mark.all_devices

COLLECTIVE = re.compile(
  r' (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute'
  r'|collective-broadcast|ragged-all-to-all)(-start)?\('
)


def groups(line):
  """The devices that a collective couples, in any spelling that XLA has.

  Raises:
    ValueError: in one that is not known here.
  """
  pairs = (
    r'(?:replica_groups|source_target_pairs)=\{(\{[\d,]+\}(?:,\{[\d,]+\})*)\}'
  )
  if found := re.search(pairs, line):
    return [
      [int(n) for n in group.split(',')]
      for group in re.findall(r'\{([\d,]+)\}', found[1])
    ]
  iota = r'replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?'
  if found := re.search(iota, line):
    shape, order = (
      [int(n) for n in text.split(',')] if text else None
      for text in found.groups()[2:]
    )
    ids = np.arange(math.prod(shape)).reshape(shape)
    ids = ids if order is None else ids.transpose(order)
    return ids.reshape(int(found[1]), int(found[2])).tolist()
  named = r'replica_groups=mesh\[([^\]:]*)\]\s*\{([^}:]*)\}'
  if found := re.search(named, line):
    sizes = dict(
      part.split('=') for part in re.sub(r"['\s]", '', found[1]).split(',')
    )
    along = re.sub(r"['\s]", '', found[2]).split(',')
    shape = [int(size) for size in sizes.values()]
    ids = np.arange(math.prod(shape)).reshape(shape)
    last = [list(sizes).index(name) for name in along]
    first = [i for i in range(len(shape)) if i not in last]
    size = math.prod(shape[i] for i in last)
    return ids.transpose(*first, *last).reshape(-1, size).tolist()
  raise ValueError(f'cannot read the groups of {line.strip()[:200]}')


def talking(text, data):
  """The collectives of a program that couple devices of different members."""
  lines = [line for line in text.splitlines() if COLLECTIVE.search(line)]
  across = [
    line
    for line in lines
    if any(len({device // data for device in g}) > 1 for g in groups(line))
  ]
  return lines, across


@pytest.mark.parametrize(
  ('text', 'want'),
  [
    ('replica_groups={{0,1},{2,3}}', [[0, 1], [2, 3]]),
    ('replica_groups=[2,2]<=[4]', [[0, 1], [2, 3]]),
    ('replica_groups=[2,2]<=[2,2]T(1,0)', [[0, 2], [1, 3]]),
    ("replica_groups=mesh['member'=2,'data'=2] {'data'}", [[0, 1], [2, 3]]),
    ("replica_groups=mesh['member'=2,'data'=2] {'member'}", [[0, 2], [1, 3]]),
    ('source_target_pairs={{0,1},{1,0}}', [[0, 1], [1, 0]]),
  ],
)
def test_the_reader_of_programs(text, want):
  line = f'  %x = f32[] all-reduce(%y), channel_id=1, {text}, to_apply=%add'
  assert groups(line) == want
  apart = any(len({device // 2 for device in g}) > 1 for g in want)
  assert bool(talking(line, 2)[1]) == apart


def test_the_reader_refuses_what_it_does_not_know():
  with pytest.raises(ValueError, match='cannot read'):
    talking('%x = f32[] all-reduce(%y), replica_groups=<0 to 3>', 2)


def run_config(**changes):
  given = dict(
    name='small',
    data=dict(
      source='synthetic', kw=dict(shape=(8, 8, 1), num_classes=3, size=120)
    ),
    teachers=dict(main=dict(model='mlp', kw=dict(widths=(8,)))),
    students=dict(student=dict(model='mlp', kw=dict(widths=(4,)))),
    distill=dict(
      labels=dict(loss='cross_entropy'),
      soft=dict(loss='kl', teacher='main'),
      relations=dict(
        loss='rkd_distance', teacher='main', weight=0.1, at=('logits', 'logits')
      ),
    ),
    arms=dict(student={}, distilled={}),
    train=dict(
      steps=2, seeds=4, batch_size=8, optimizer=dict(name='sgd', kw={}),
      learning_rate=0.1,
    ),
  )  # fmt: skip
  for entry, value in changes.items():
    given = merged(given, entry.split('__'), value)
  return configs.plain(configs.complete(given))


def merged(tree, path, value):
  first, *rest = path
  return {
    **tree,
    first: merged(tree.get(first, {}), rest, value) if rest else value,
  }


def population(config, mode='vmap', **mesh):
  """The population of the arm `distilled` on a mesh, and its first batch."""
  config = configs.put(config, 'train.mesh', dict(member=1, data=1) | mesh)
  source, (part,) = checks.prepare(config, pathlib.Path())
  taught = {}
  for name, role in part.teachers.items():
    one = role.net.init(jax.random.key(7))
    one = jax.tree.map(lambda x: jnp.asarray(x)[None], one)
    taught[name] = roles.Group(role, one)
  session = jobs.session_of(part, source, pathlib.Path(), progress=None)
  job = jobs.of_arm(part, 'distilled', source, taught)
  batch = train_job.batches_of(session, job).batch(0)
  return train_job.populations_of(session, job, batch)(mode), batch


KINDS = {
  'dense': {},
  'conv with BatchNorm': dict(
    students__student=dict(
      model='resnet', kw=dict(depth=8, widths=(2, 2, 4, 4))
    )
  ),
  'shared batch': dict(data__order='shared'),
  'mutual learning': dict(
    students__student__count=2,
    distill__peer=dict(loss='kl', teacher='student'),
  ),
}


@pytest.mark.parametrize('kind', KINDS)
def test_members_never_talk(kind):
  made, batch = population(run_config(**KINDS[kind]), member=4, data=2)
  lines, across = talking(made.program(batch), 2)
  assert not across
  assert lines  # the devices that share a batch do


def test_members_alone_on_their_devices_say_nothing_at_all():
  made, batch = population(run_config(), member=4, data=1)
  assert talking(made.program(batch), 1) == ([], [])


def test_a_plain_program_would_talk():
  """The reader finds what it is to find."""
  mesh = sharding.mesh(4, 8, member=4, data=2)
  x = sharding.put(np.ones((4, 8), np.float32), mesh, 'member', 'data')
  text = jax.jit(lambda x: x - x.mean()).lower(x).compile().as_text()
  assert talking(text, 2)[1]


@pytest.mark.parametrize(
  ('kind', 'mode', 'member', 'data'),
  [
    ('dense', 'vmap', 4, 2),
    ('dense', 'sequence', 1, 8),
    ('conv with BatchNorm', 'vmap', 2, 4),
  ],
)
def test_eight_devices_give_what_one_gives(kind, mode, member, data):
  results = []
  for sizes in (dict(member=1, data=1), dict(member=member, data=data)):
    config = run_config(**KINDS[kind])
    made, batch = population(config, mode, **sizes)
    carry, totals = made.init(), made.split(made.no_totals(batch))
    for _ in range(2):
      carry, totals = made.step(carry, totals, batch)
    found = made.stacked(carry)['train'], made.stacked(totals)
    results.append(jax.device_get(found))
  chex.assert_trees_all_close(*results, rtol=2e-4, atol=1e-5)


def test_the_mesh_that_is_chosen():
  shape = lambda *a, **kw: dict(sharding.mesh(*a, **kw).shape)  # noqa: E731
  assert shape(4, 8) == {'member': 4, 'data': 2}
  assert shape(5, 8) == {'member': 1, 'data': 8}
  assert shape(10, 30) == {'member': 2, 'data': 3}
  assert shape(1, 7) == {'member': 1, 'data': 7}
  assert shape(4, 8, member=2, data=1) == {'member': 2, 'data': 1}


@pytest.mark.parametrize(
  ('sizes', 'parts'),
  [
    (dict(member=3), ('train.mesh.member', '4 members', '3 groups')),
    (dict(member=0), ('train.mesh.member', '4 members')),
    (dict(data=3), ('train.mesh.data', 'a batch of 8')),
    (dict(member=4, data=4), ('train.mesh', '4 × 4', '8 are there')),
  ],
)
def test_a_mesh_that_does_not_fit(sizes, parts):
  with pytest.raises(UserError) as error:
    sharding.mesh(4, 8, **sizes)
  for part in parts:
    assert part in str(error.value)


@pytest.mark.parametrize(
  ('kind', 'mode', 'member', 'data'),
  [('dense', 'vmap', 2, 4), ('conv with BatchNorm', 'sequence', 1, 8)],
)
def test_parameters_in_parts_give_what_whole_ones_give(
  kind, mode, member, data
):
  results = []
  for sharded in (False, True):
    config = run_config(**KINDS[kind], train__shard_parameters=sharded)
    made, batch = population(config, mode, member=member, data=data)
    carry, totals = made.init(), made.split(made.no_totals(batch))
    for _ in range(2):
      carry, totals = made.step(carry, totals, batch)
    found = made.stacked(carry)['train'], made.stacked(totals)
    results.append(jax.device_get(found))
  chex.assert_trees_all_close(*results, rtol=2e-4, atol=1e-5)


def test_each_device_holds_an_eighth_of_the_parameters():
  config = run_config(
    students__student__kw=dict(widths=(64, 32)),
    teachers__main__kw=dict(widths=(128,)),
    train__shard_parameters=True,
    train__optimizer=dict(name='adam', kw={}),
    data__kw=dict(shape=(8, 8, 1), num_classes=8, size=120),
  )
  made, batch = population(config, 'sequence', member=1, data=8)
  carry, totals = made.init(), made.split(made.no_totals(batch))
  for _ in range(2):
    moments = optax.tree.get(carry[0]['opt'], 'mu')
    for tree in (carry[0]['train'], moments, made._placed['main']):
      leaves = jax.tree.leaves(tree)
      whole = sum(leaf.nbytes for leaf in leaves)
      assert whole > 1000
      for device in jax.devices():
        held = sum(
          shard.data.nbytes
          for leaf in leaves
          for shard in leaf.addressable_shards
          if shard.device == device
        )
        assert held == whole / 8
    carry, totals = made.step(carry, totals, batch)


def test_members_in_parts_never_talk():
  config = run_config(train__shard_parameters=True)
  made, batch = population(config, member=4, data=2)
  lines, across = talking(made.program(batch), 2)
  assert lines and not across
  assert any('all-gather' in line for line in lines)


class Device:
  """A device of one of several hosts."""

  def __init__(self, id, host):
    self.id, self.process_index = id, host

  def __repr__(self):
    return f'{self.process_index}:{self.id}'


def two_hosts(monkeypatch):
  there = [Device(4 * host + i, host) for host in range(2) for i in range(4)]
  monkeypatch.setattr(sharding, 'devices', lambda: there)
  monkeypatch.setattr(sharding, 'Mesh', lambda chosen, *_, **__: chosen)


def test_every_host_gives_as_many_devices(monkeypatch):
  two_hosts(monkeypatch)
  hosts = lambda *sizes: [  # noqa: E731
    [device.process_index for device in row] for row in sharding.mesh(*sizes)
  ]
  assert hosts(2, 8) == [[0] * 4, [1] * 4]  # a batch stays on one host
  assert hosts(1, 6) == [[0, 0, 0, 1, 1, 1]]
  assert hosts(4, 7) == [[0], [0], [1], [1]]
  with pytest.raises(UserError, match='cannot be shared by 2 hosts'):
    sharding.mesh(3, 7)


@pytest.mark.parametrize(('member', 'data'), [(2, 4), (1, 8)])
def test_the_part_of_a_host(member, data):
  mesh = sharding.mesh(member, 8, member=member, data=data)
  assert sharding.part((2, 8), mesh, 'member', 'data').all()
