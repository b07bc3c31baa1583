"""What is measured of growing work, not how fast any of it is."""

import io
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import growth_speed, population_speed, speed
from jaxkd.errors import Stopped, UserError
from jaxkd.report import rows
from jaxkd.report import speed as report
from jaxkd.run import config as configs

DEMO = Path(__file__).parents[2] / 'configs' / 'hinton2015_soft_targets.py'
LONG = 1e6  # seconds, so that nothing is left out


@pytest.fixture(scope='module')
def demo():
  config = configs.plain(configs.load(f'{DEMO}:tiny'))
  return configs.put(config, 'train.batch_size', 4)


@pytest.fixture(scope='module')
def measure(demo):
  """Measures a part of small work, with nets and losses that compile soon."""
  net = population_speed._case(
    'tiny',
    {'source': 'synthetic', 'kw': {'shape': (4, 4, 1), 'size': 60}},
    {'model': 'mlp', 'kw': {'widths': (4,)}},
    {'batch_size': 4},
  )
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(population_speed, 'cases', lambda demo: {'tiny': net})
    patch.setattr(speed, 'images', lambda *a, **k: speed.cases(demo)['demo'])
    patch.setattr(speed, 'cases', lambda demo: {'demo': case(demo)})
    patch.setattr(growth_speed, '_LOGITS', ('kl', 'multi_level_logits'))
    patch.setattr(growth_speed, '_RELATIONS', ('rkd_distance',))
    yield lambda part, sizes, **options: growth_speed.measure(
      part, demo, 2, sizes=sizes, **{'seconds': LONG, **options}
    )


def case(demo):
  layers = ('layers/0', 'layers/0')
  return speed.Case('demo', demo, (8, 8, 1), 10, layers)


@pytest.fixture(scope='module')
def classes(measure):
  return measure('classes', (10, 100))


@pytest.mark.parametrize(
  ('part', 'sizes', 'curves'),
  [
    ('members', (1, 2), ['tiny, vmap', 'tiny, sequence']),
    ('batch', (4, 8), ['rkd_distance']),
    ('teachers', (1, 2), ['mlp', 'resnet20 → resnet8']),
    ('examples', (100, 200), ['read and indexed', 'checksums', 'first batch']),
    ('terms', (1, 2), ['first step: trace and compile',
                       'before it: init and a trace']),
  ],
)  # fmt: skip
def test_each_curve_has_a_point_of_each_size(measure, part, sizes, curves):
  found = measure(part, sizes)
  assert found['name'] == f'Growth: {part}'
  points = [(row['curve'], row[part]) for row in found['rows']]
  assert points == [(curve, size) for curve in curves for size in sizes]
  for row in found['rows']:
    assert row['s' if part == 'terms' else 'ms'] >= 0
  rows.check_shape(rows.plain([found]), report.SCHEMA, 'x')


def test_losses_have_time_and_memory(classes):
  assert [(row['curve'], row['classes']) for row in classes['rows']] == [
    ('kl', 10), ('kl', 100),
    ('multi_level_logits', 10), ('multi_level_logits', 100),
  ]  # fmt: skip
  for row in classes['rows']:
    assert 0 < row['lower quartile'] <= row['ms'] <= row['upper quartile']
    assert row['temporary MiB'] > 0


def test_what_needs_too_much_memory_is_left_out(measure, classes):
  most = max(row['temporary MiB'] for row in classes['rows'])
  found = measure('classes', (10, 100), mib=0.9 * most)
  assert [(row['curve'], row['classes']) for row in found['rows']] == [
    ('kl', 10), ('kl', 100), ('multi_level_logits', 10),
  ]  # fmt: skip


def test_what_would_take_too_long_is_left_out(measure):
  found = measure('batch', (4, 8), seconds=0)
  assert [row['batch'] for row in found['rows']] == [4]


def test_what_a_point_takes_is_told_by_those_before(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(growth_speed.time, 'perf_counter', lambda: now[0])
  bound, calls = growth_speed.Bound(100), speed.WARM_UP + speed.FEWEST
  assert bound.fits('a', 1000)
  bound.took('a', 10, whole=4 + calls, each=1.0)
  assert bound.fits('a', 120)  # 4 + 12 calls' eight times are exactly 100
  assert not bound.fits('a', 130)
  assert bound.fits('b', 10**9)
  bound.took('a', 20, whole=4 + 4 * calls, each=4.0)  # its square
  assert not bound.fits('a', 40)
  now[0] = 99.0
  assert bound.left == 1


def test_every_term_that_is_added(demo):
  of = case(demo)
  entries = growth_speed._some_terms(of, 12)
  assert len(entries) == growth_speed.PARTS['terms'][-1] == 12
  assert len({entry['loss'] for entry in entries.values()}) == 12
  assert entries['hint']['at'] == ('layers/0', 'layers/0')
  assert entries['kl' if 'kl' in entries else 'soft']['teacher'] == 'main'


def test_the_picture(classes, tmp_path):
  figure = growth_speed.draw(classes)
  time_, memory = figure.axes
  assert (time_.get_xscale(), time_.get_yscale()) == ('log', 'log')
  assert memory.get_ylabel() == 'MiB of temporaries'
  lines = {line.get_label(): line for line in time_.lines}
  assert list(lines) == ['kl', 'multi_level_logits', 'as the work']
  assert lines['kl'].get_xdata().tolist() == [10, 100]
  x, y = lines['as the work'].get_data()
  assert y[1] / y[0] == pytest.approx(x[1] / x[0])
  drawn = growth_speed.save_picture(classes, tmp_path / 'cpu_growth.json')
  path = tmp_path / 'cpu_growth_classes.png'
  assert drawn['picture'] == path.as_posix()
  assert path.read_bytes().startswith(b'\x89PNG')
  assert [*tmp_path.iterdir()] == [path]
  with pytest.raises(UserError, match=r'classes\.png cannot be written'):
    growth_speed.save_picture(classes, tmp_path / 'none' / 'x.json')


def test_the_terminal(classes):
  output = io.StringIO()
  Console(file=output, width=100).print(growth_speed.table(classes))
  assert 'multi_level_logits' in output.getvalue()
  assert 'are left out' in output.getvalue()


def test_asked_to_stop(measure):
  stop = threading.Event()
  stop.set()
  begun = time.monotonic()
  for part in growth_speed.PARTS:
    with pytest.raises(Stopped, match='nothing was kept'):
      measure(part, (1,), stop=stop)
  assert time.monotonic() - begun < 60
