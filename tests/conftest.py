"""Strictness for all tests, set before jax starts."""

import gc
import os
import pathlib
from importlib import metadata

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Eight devices, and programs that compile fast rather than run fast.
FLAGS = (
  '--xla_force_host_platform_device_count=8',
  '--xla_backend_optimization_level=0',
  '--xla_llvm_disable_expensive_passes=true',
  '--xla_cpu_parallel_codegen_split_count=1',
)
# These emitters take two thirds of compiling; later releases have no choice,
# and end where they are told of an option that they do not know.
if metadata.version('jaxlib').startswith('0.10.'):
  FLAGS += ('--xla_cpu_use_fusion_emitters=false',)
os.environ.setdefault('XLA_FLAGS', ' '.join(FLAGS))
CACHE = pathlib.Path(__file__).parents[1] / '.cache' / 'xla'
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(CACHE))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')

# Tracing makes many small objects: looking for dead cycles at every 700 of them
# takes a tenth of a test's time.
gc.set_threshold(20_000, 10, 10)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from jaxkd.report import plots  # noqa: E402
from jaxkd.run import arms as students  # noqa: E402
from jaxkd.run import build, terms  # noqa: E402
from jaxkd.run import config as configs  # noqa: E402
from jaxkd.train import sharding  # noqa: E402
from jaxkd.types import Net  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')

# They take longest: they come first, so that no worker is left alone with one.
LONG = ('test_hosts.py', 'test_paper.py', 'test_pipeline.py', 'test_methods.py')


# Whole runs draw coarse pictures, in a third of the time; `test_plots.py` draws
# them as they are.
plots.DPI, plots.LAYOUT = 30, None

# Runs use one device, but in tests that are marked `all_devices`.
sharding.all_devices = lambda: jax.devices()[:1]


@pytest.fixture(autouse=True)
def _devices(request, monkeypatch):
  if 'all_devices' in request.keywords:
    monkeypatch.setattr(sharding, 'all_devices', jax.devices)


@pytest.fixture(autouse=True, scope='module')
def _programs():
  """Lets go of a file's programs, of which a worker would hold thousands.

  What another file has in common with it is found on disk.
  """
  yield
  jax.clear_caches()
  gc.collect()  # it would come late, and arrays are held by dead cycles


def pytest_addoption(parser):
  parser.addoption(
    '--every-arm',
    action='store_true',
    help='run all arms of the tiny configs, not those of their claims alone',
  )


def pytest_collection_modifyitems(items):
  items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(autouse=True)
def _programs_of_a_long_test(request):
  """Lets go of hundreds of programs, which the next test has no use for.

  With them the tiny configs took more time, and twice the memory.
  """
  yield
  if request.path.name in LONG:
    jax.clear_caches()


@pytest.fixture
def seldom():
  """Has the nets of a config saved and evaluated once, after training."""

  def changed(config):
    for at in ('train', *(f'teachers.{n}.train' for n in config['teachers'])):
      for entry in ('eval_every', 'save_every'):
        config = configs.put(config, f'{at}.{entry}', 100)
    return config

  return changed


@pytest.fixture
def of_the_claim():
  """Cuts a config down to the arms of its claim and the teachers they need."""

  def cut(config, arms=2):
    pair = [config['report']['compare'][side] for side in ('better', 'than')]
    if config['rounds'] and not config['arms']:
      pair = [pair[0]] * 2 if arms == 1 else pair
      compare = dict(zip(('better', 'than'), pair, strict=True))
      own = {'compare': compare, 'controls': {}, 'derived': {}}
      rounds = rounds_of(config, pair)
      return {**config, 'rounds': rounds, 'report': config['report'] | own}
    chosen = [name for name in pair if name in config['arms']][:arms]
    chosen = chosen or [next(iter(config['arms']))]
    entries, own = config['teachers'], students.configs_of(config)
    wanted = {name.removeprefix('teacher ') for name in pair}
    for arm in chosen:
      used = terms.in_use(own[arm]['distill'])
      for entry in own[arm]['students'].values():
        wanted |= build.needs(entry, used)
      wanted.add(own[arm]['data']['generated']['teacher'])
    found, wanted = set(), wanted & set(entries)
    while wanted:
      name = wanted.pop()
      found.add(name)
      needed = build.needs(entries[name], entries[name]['distill'])
      wanted |= (needed & set(entries)) - found
    report = config['report'] | {'controls': {}, 'derived': {}}
    if arms == 1:
      pair = [chosen[0], chosen[0]]
    if len(found) == 1:  # where there is one group, a row calls it `teacher`
      pair = [name.split()[0] for name in pair]
    report['compare'] = dict(zip(('better', 'than'), pair, strict=True))
    return {
      **config,
      'arms': {name: config['arms'][name] for name in chosen},
      'teachers': {name: entries[name] for name in entries if name in found},
      'report': report,
    }

  def rounds_of(config, named):
    """The rounds with the arms that are named, and those they start from."""
    found, left = {}, list(named)
    while left:
      part, _, arm = left.pop().partition('/')
      whole = config['rounds'][part]
      kept = found.setdefault(part, {**whole, 'arms': {}, 'teachers': {}})
      kept['arms'][arm] = whole['arms'][arm]
      own = students.configs_of(configs.override(config, whole, part))[arm]
      used = terms.in_use(own['distill'])
      for entry in own['students'].values():
        for name in build.needs(entry, used) | set(config['teachers']):
          if name not in whole.get('teachers', {}):
            continue
          kept['teachers'][name] = whole['teachers'][name]
          first, kind, *rest = kept['teachers'][name]['restore'].split('/')
          if kind == 'students':
            left.append(f'{first}/{rest[0]}')
    return found

  return cut


@pytest.fixture
def strict_dtypes():
  """Implicit dtype promotion raises; for code of ours alone."""
  with jax.numpy_dtype_promotion('strict'):
    yield


@pytest.fixture
def x64():
  """Double precision, to compare with float64 references."""
  with jax.enable_x64(True):
    yield


def linear_net(width=3, noise=0.0):
  """Logits of a linear map; counts its training calls in its state."""

  def init(key):
    return {
      'params': {'w': jax.random.normal(key, (4, width)) / 2},
      'state': {'calls': jnp.zeros((), jnp.int32)},
    }

  def apply(variables, inputs, *, key=None, train=False):
    x = inputs.reshape(len(inputs), -1)
    if train and noise:
      x = x + noise * jax.random.normal(key, x.shape)
    logits = x @ variables['params']['w']
    calls = variables['state']['calls'] + int(train)
    return {'logits': logits, 'features': x}, {'calls': calls}

  return Net(init, apply)


@pytest.fixture
def make_net():
  return linear_net


@pytest.fixture
def batch():
  random = np.random.default_rng(0)
  return {
    'inputs': random.normal(size=(6, 4)).astype(np.float32),
    'labels': np.array([0, 1, 2, 0, 1, 2], np.int32),
    'id': np.arange(6, dtype=np.int32),
    'epoch': np.zeros(6, np.int32),
  }
