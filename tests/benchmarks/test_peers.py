"""How peers are measured beside ours; PyTorch has a stand-in here."""

import io
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from benchmarks import speed
from benchmarks.peers import process, side_by_side
from benchmarks.peers.process import Failed, Lacking, Process
from jaxkd.errors import Stopped, UserError
from jaxkd.report import rows
from jaxkd.report import speed as report
from jaxkd.run import config as configs

ROOT = Path(__file__).parents[2]
# Speaks the protocol, without PyTorch; its nets are as large as it is told.
CHILD = f"""
import sys, time
sys.path.insert(0, {str(ROOT / 'benchmarks/peers')!r})
import protocol

peer, folder, device, threads = sys.argv[1:]
calls = []

def describe():
  print('a peer may print')
  if peer == 'torchdistill':
    import no_such_package
  return {{'torch': '9.9', 'threads': int(threads), 'python': '0'}}

def make(request):
  program = request['program']
  if program == 'teacher' and peer == 'RepDistiller':
    raise protocol.Lacks('teacher')
  if program == 'dkd' and peer == 'mdistiller':
    raise ValueError('no such\\noption')
  lost = program in ('lost', 'dkd')
  student = 999 if program == 'teacher' else STUDENT
  facts = {{'teacher': TEACHER, 'student': student, 'trained': student}}
  if program == 'end':
    sys.exit('out of memory')

  def call():
    calls.append(program)
    time.sleep(60 if program == 'long' else 0.001)
    return float('nan') if lost else 1.0

  return protocol.Made(call, {{**facts, 'flops': 2_000_000}})

protocol.serve(describe, make, lambda: None)
"""


@pytest.fixture(scope='module')
def case():
  """Two small residual nets on small images, in batches of 4."""
  usual = speed.images('resnet20', 'resnet8', 4, side=8, num_classes=10)
  config = usual.config
  for role, widths in (
    ('teachers.main', (2, 2, 4, 8)),
    ('students.student', (2, 2, 4, 4)),
  ):
    config = configs.put(config, f'{role}.model', 'resnet')
    config = configs.put(config, f'{role}.kw', {'depth': 8, 'widths': widths})
  return usual._replace(config=config)


@pytest.fixture(scope='module')
def sizes(case):
  return [
    speed.size_of(speed.role_of(case, section, name, {'logits'}))
    for section, name in (('teachers', 'main'), ('students', 'student'))
  ]


@pytest.fixture(scope='module')
def child(tmp_path_factory, sizes):
  path = tmp_path_factory.mktemp('child') / 'child.py'
  teacher, student = sizes
  path.write_text(
    CHILD.replace('TEACHER', str(teacher)).replace('STUDENT', str(student))
  )
  return path


@pytest.fixture
def peer(child):
  command = [sys.executable, str(child), 'mdistiller', '.', 'cpu', '1']
  with Process('mdistiller', command) as started:
    yield started


@pytest.fixture(scope='module')
def measured(case, child):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(side_by_side, 'CHILD', child)
    return side_by_side.measure(
      case,
      sys.executable,
      dict.fromkeys(side_by_side.PEERS, ROOT),
      3,
      programs=('plain', 'teacher', 'dkd'),
    )


def test_each_peer_has_its_row_of_each_program(measured, sizes):
  _, student = sizes
  found = {(row['program'], row['peer']): row for row in measured['rows']}
  assert list(found) == [
    ('all', 'torchdistill'),
    ('plain step', 'mdistiller'), ('plain step', 'RepDistiller'),
    ('teacher forward', 'mdistiller'),  # RepDistiller of the test lacks it
    ('DKD', 'mdistiller'), ('DKD', 'RepDistiller'),
  ]  # fmt: skip
  for peer in ('mdistiller', 'RepDistiller'):
    row = found['plain step', peer]
    assert row['remark'] == ''
    assert 0 < row['ratio lower quartile'] <= row['ratio']
    assert row['ratio'] <= row['ratio upper quartile']
    assert row['their ms'] > 1  # it sleeps that long
    assert row['lower quartile'] <= row['ms'] <= row['upper quartile']
    assert (row['MFLOPs'] > 0, row['their MFLOPs']) == (True, 2)
    assert row['trained'] == row['trained by them'] == student
    assert row['shapes'] == '4×8×8×3'
  assert found['teacher forward', 'mdistiller']['trained'] is None
  why = found['all', 'torchdistill']
  assert why['remark'] == (
    "ModuleNotFoundError: No module named 'no_such_package'"
  )
  assert why['ms'] is None
  assert found['DKD', 'mdistiller']['remark'] == 'ValueError: no such option'
  lost = found['DKD', 'RepDistiller']
  assert lost['remark'] == 'ValueError: its loss is nan'
  assert lost['ratio'] is lost['ms'] is None


def test_nets_that_differ_have_no_ratio(measured, sizes):
  found = {(row['program'], row['peer']): row for row in measured['rows']}
  row = found['teacher forward', 'mdistiller']
  assert row['ratio'] is row['ratio lower quartile'] is None
  assert row['ms'] > 0
  assert row['remark'] == (
    f'resnet has {sizes[1]} parameters here and 999 there'
  )


def test_no_program_is_begun_once_the_time_is_over(case, child, monkeypatch):
  monkeypatch.setattr(side_by_side, 'CHILD', child)
  found = side_by_side.measure(
    case,
    sys.executable,
    {'mdistiller': ROOT},
    1,
    programs=('teacher', 'plain'),
    within=0,
  )
  assert [row['program'] for row in found['rows']] == ['teacher forward']


def test_versions_and_commits_of_both_sides(measured):
  assert measured['versions']['torch'] == '9.9'
  assert measured['versions']['jax'] == jax.__version__
  assert measured['versions']['mdistiller'] == side_by_side._commit(ROOT)
  assert 'torchdistill' not in measured['versions']
  assert side_by_side._commit(Path('/')) == 'no commit'


def test_peers_come_first_on_the_page(measured):
  held = rows.plain([measured])
  rows.check_shape(held, report.SCHEMA, 'x')
  other = {'name': 'Growth: terms', 'device': 'x', 'rows': [{'s': 1.0}]}
  other['picture'] = 'benchmarks/speed/x.png'
  page = report.page([other, *held])
  first, second = '## Peers: resnet20-resnet8', '## Growth: terms'
  assert 0 < page.index(first) < page.index(second)
  assert '![Growth: terms](benchmarks/speed/x.png)' in page
  output = io.StringIO()
  Console(file=output, width=120).print(side_by_side.table(measured))
  assert 'no_such_package' in output.getvalue()
  assert ' each; ms are ours.' in ' '.join(output.getvalue().split())


@pytest.mark.parametrize('program', ['crd', 'reviewkd', 'at', 'rkd'])
def test_our_terms_of_every_program(case, program, sizes, monkeypatch):
  monkeypatch.setattr(side_by_side, 'EXAMPLES', 40)
  monkeypatch.setattr(side_by_side, 'NEGATIVES', 8)
  made = side_by_side.ours(case, program)
  # Embeddings of 4 and of 8 features; the fusion of three levels.
  fusion = sum(
    (below * 4 + 2 * 4) + (9 * 4 * above + 2 * above)
    for below, above in ((2, 2), (4, 4), (4, 8))
  ) + 2 * (8 * 2 + 2)
  extra = {'crd': 5 * 128 + 9 * 128, 'reviewkd': fusion}.get(program, 0)
  assert made.trained == sizes[1] + extra
  seen = [
    leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(made.program.state)
    if 'seen' in jax.tree_util.keystr(path)
  ]
  assert [x.all() for x in seen] == ([True] if program == 'crd' else [])


def test_turns_of_processes_begin_rested(monkeypatch):
  rests = []
  monkeypatch.setattr(speed.time, 'sleep', rests.append)
  run = lambda calls: 0.02 * calls  # noqa: E731
  times = speed.interleaved({'a': speed.Elsewhere(run, flops=0)}, samples=2)
  assert rests == [speed.REST] * (speed.WARM_UP + 2)
  np.testing.assert_allclose(times['a'], 0.02)


def test_the_child_answers_one_after_another(peer):
  assert peer.ask('describe')['threads'] == 1
  assert peer.ask('make', name='x', program='plain')['flops'] == 2_000_000
  seconds = peer.program('x', 0).run(4)
  assert seconds >= 0.004
  with pytest.raises(Failed, match='ValueError: no such option'):
    peer.ask('make', name='y', program='dkd')
  peer.ask('make', name='lost', program='lost')
  with pytest.raises(Failed, match='its loss is nan'):
    peer.ask('run', name='lost', calls=1)
  peer.ask('drop')
  with pytest.raises(Failed, match='KeyError'):
    peer.ask('run', name='x', calls=1)


def test_what_a_peer_lacks(child):
  command = [sys.executable, str(child), 'RepDistiller', '.', 'cpu', '1']
  with Process('RepDistiller', command) as peer, pytest.raises(Lacking):
    peer.ask('make', name='x', program='teacher')


def test_a_child_that_ends(peer):
  said = r'^mdistiller: its process has ended \(1\): out of memory$'
  with pytest.raises(UserError, match=said):
    peer.ask('make', name='x', program='end')
  with pytest.raises(UserError, match=said):
    peer.ask('describe')


def test_a_child_that_gives_no_answer(peer, monkeypatch):
  peer.ask('make', name='x', program='long')
  monkeypatch.setattr(process, 'ANSWER', 0)
  with pytest.raises(UserError, match='no answer to run for 0 s'):
    peer.ask('run', name='x', calls=1)


def test_asked_to_stop_in_the_middle_of_a_step(child):
  stop = threading.Event()
  command = [sys.executable, str(child), 'mdistiller', '.', 'cpu', '1']
  begun = time.monotonic()
  with Process('mdistiller', command, stop) as peer:
    peer.ask('make', name='x', program='long')
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(Stopped):
      peer.ask('run', name='x', calls=1)
  assert time.monotonic() - begun < 30


def test_a_python_that_is_not_there():
  with pytest.raises(UserError, match='--torch_python: /none/python cannot be'):
    Process('mdistiller', ['/none/python'])


@pytest.mark.parametrize(
  ('python', 'folders', 'said'),
  [
    ('', {'mdistiller': '.'}, 'name a Python that has it with --torch_python'),
    ('python', {'mdistiller': ''}, 'name a clone with --mdistiller=DIR'),
    ('python', {'mdistiller': '/none'}, '--mdistiller: there is no folder'),
  ],
)
def test_what_is_missing_is_named(python, folders, said):
  with pytest.raises(UserError, match=said):
    side_by_side.check(python, folders)


def test_pytorch_cannot_use_every_device(monkeypatch):
  monkeypatch.setattr(side_by_side.jax, 'default_backend', lambda: 'tpu')
  with pytest.raises(UserError, match='cannot use the tpu'):
    side_by_side.check('python', {'mdistiller': str(ROOT)})


def test_the_nets_that_are_measured(monkeypatch):
  assert list(side_by_side.cases()) == [
    'resnet20-resnet8', 'resnet32x4-resnet8x4'
  ]  # fmt: skip
  monkeypatch.setattr(side_by_side.jax, 'default_backend', lambda: 'gpu')
  cases = side_by_side.cases('bfloat16')
  large = cases['resnet50-resnet18']
  assert (large.input_shape, large.num_classes) == ((224, 224, 3), 1000)
  assert speed.titled(large) == 'resnet50-resnet18, bfloat16'
