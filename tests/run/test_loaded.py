"""A loaded net takes what its run gave it, and refuses anything else."""

import json
import shutil
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import jaxkd
from jaxkd import boxes
from jaxkd.data import inputs as inputs_lib
from jaxkd.data import sources
from jaxkd.errors import UserError
from jaxkd.report import terminal
from jaxkd.run import checks, loaded, stored_nets
from jaxkd.run import config as configs
from jaxkd.train import checkpoint

SIDE = 8


def photograph(path, label, index):
  """Bright on the left or above, of a size of its own, in colours."""
  draw = np.random.default_rng(2 * index + label)
  height, width = draw.integers(20, 40, 2)
  pixels = draw.integers(0, 120, (height, width, 3), np.uint8)
  half = np.s_[:, : width // 2] if label else np.s_[: height // 2]
  pixels[half] += 100
  Image.fromarray(pixels).save(path)


def config(root, **changes):
  return dict(
    data=dict(source=f'folder:{root}', kw=dict(resize=SIDE)),
    teachers=dict(main=dict(kw=dict(widths=(8,)), views=dict(eval='noise(0)'))),
    students=dict(
      student=dict(
        kw=dict(widths=(8,)),
        views=dict(train='resize(6)', eval='resize(6)'),
      )
    ),
    distill=dict(
      labels=dict(loss='cross_entropy'), soft=dict(loss='kl', teacher='main')
    ),
    report=dict(compare=dict(better='student', than='teacher')),
    train=dict(
      steps=20, batch_size=16, seeds=1, learning_rate=0.01, members='vmap'
    ),
    name='photographs',
    **changes,
  )


class Runs(dict):
  """Takes the place of wandb."""

  def init(self, *, id, **given):
    summary = {} if id not in self else self[id].summary
    self[id] = Run(given, summary)
    return self[id]


class Run:
  step = 0

  def __init__(self, given, summary):
    self.given, self.summary, self.log = given, summary, lambda *_, **__: None

  def __enter__(self):
    return self

  def __exit__(self, *error):
    pass


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
  root = tmp_path_factory.mktemp('photographs')
  for split, count in (('train', 20), ('test', 8)):
    for label, name in enumerate(('above', 'left')):
      (root / split / name).mkdir(parents=True)
      for i in range(count):
        photograph(root / split / name / f'{i}.png', label, len(split) * 99 + i)
  return root


@pytest.fixture(scope='module')
def finished(photographs, tmp_path_factory):
  directory, runs = tmp_path_factory.mktemp('finished'), Runs()
  with pytest.MonkeyPatch.context() as patched:
    wandb = types.ModuleType('wandb')
    wandb.init = runs.init
    patched.setitem(sys.modules, 'wandb', wandb)
    given = config(photographs)
    given['report'] = {**given['report'], 'wandb': 'mine'}
    row = jaxkd.run(given, directory, console=Console(quiet=True))
  return directory, row, runs


def files(root):
  return sorted((root / 'test').glob('*/*.png'))


def test_files_give_what_the_run_has_measured(photographs, finished):
  directory, row, _ = finished
  net, variables = jaxkd.load(directory)
  assert net.classes == ('above', 'left')
  assert net.input_shape == (SIDE, SIDE, 3)
  paths = files(photographs)
  predicted = net.apply(variables, net.read(*paths))[0]['logits'].argmax(-1)
  right = [
    net.classes[i] == p.parent.name for i, p in zip(predicted, paths, strict=1)
  ]
  assert np.mean(right) == pytest.approx(row['arms']['student']['values'][0])
  assert 'resize(6)' in repr(net) and '[N, 8, 8, 3] of uint8' in repr(net)


def test_raw_images_are_refused(photographs, finished):
  net, variables = jaxkd.load(finished[0])
  raw = np.stack([np.asarray(Image.open(files(photographs)[0]))])
  small = net.read(files(photographs)[0])
  for given, message in (
    (raw, 'as data.kw.resize=8 did in the run: net.read'),
    (small[0], r'inputs\[None\]'),
    (small.astype(np.float32), 'divide bytes by 255'),
    (small.astype(np.int32), 'type int32'),
    (small[:, ::2, ::2], r'was given \[1, 4, 4, 3\]'),
    # That is what its first layer takes, behind its view.
    (np.zeros((1, 6, 6, 3), np.uint8), r'\[N, 8, 8, 3\]'),
  ):
    with pytest.raises(UserError, match=message):
      net.apply(variables, given)
  logits, _ = net.apply(variables, small)
  other, _ = net.apply(variables, (small / 255).astype(np.float32))
  np.testing.assert_allclose(logits['logits'], other['logits'], rtol=1e-5)
  with pytest.raises(UserError, match='was given'):
    jax.jit(net.apply)(variables, raw)
  lost, _ = jax.jit(net.apply)(variables, small.astype(np.float32))
  assert np.isnan(lost['logits']).all()


def test_images_of_any_size_are_predicted(photographs, finished):
  net, variables = jaxkd.load(finished[0])
  paths = files(photographs)
  found = net.predict(variables, *paths)
  logits = net.apply(variables, net.read(*paths))[0]['logits']
  p = jax.nn.softmax(logits)
  for each, row in zip(found, p, strict=True):
    assert each.name == net.classes[row.argmax()]
    assert each.probability == pytest.approx(float(row.max()), abs=1e-5)
    assert next(iter(each.probabilities)) == each.name
    assert sum(each.probabilities.values()) == pytest.approx(1, abs=1e-5)
  raw = np.asarray(Image.open(paths[0]))
  floats = raw.astype(np.float32) / 255
  for given in (raw, floats, raw[::-1][::-1]):
    (again,) = net.predict(variables, given)
    # Pillow rounds bytes, and floats not.
    assert again.probability == pytest.approx(found[0].probability, abs=0.02)
  mixed = net.predict(variables, raw, floats)
  assert mixed[0].probability == pytest.approx(mixed[1].probability, abs=0.02)


def test_what_is_no_image_is_not_predicted(photographs, finished, tmp_path):
  net, variables = jaxkd.load(finished[0])
  for given, message in (
    ((), 'pass one file or array'),
    ((tmp_path / 'x.png',), 'there is no file'),
    ((np.zeros((2, 9, 9, 3), np.uint8),), '2 × 9 × 9 × 3 is no image'),
    ((np.zeros((9, 9), np.uint8),), r'each image by itself, RGB, \[H, W, 3\]'),
    ((np.full((9, 9, 3), 7.0),), 'from 0 to 1'),
    (([1, 2],), 'a list is no image'),
  ):
    with pytest.raises(UserError, match=message):
      net.predict(variables, *given)
  lost = jax.tree.map(lambda x: x * jnp.nan, variables)
  (found,) = net.predict(lost, files(photographs)[0])
  assert found.name is None and np.isnan(found.probability)
  assert all(map(np.isnan, found.probabilities.values()))


@pytest.mark.parametrize('index', [0, 11])
def test_the_lines_at_the_end_of_a_run_predict(
  index, photographs, finished, tmp_path, monkeypatch, capsys
):
  directory, row, _ = finished
  monkeypatch.chdir(tmp_path)
  predicts = stored_nets.prediction(directory, 'classification')
  console = Console(width=80)
  console.print(terminal.console(row, directory, predicts), soft_wrap=True)
  said = capsys.readouterr().out.splitlines()
  start = said.index('import jaxkd')
  lines = said[start : start + 3]
  assert said[start - 1].endswith('in Python:')
  assert said[start + 3].startswith('Or put the row and')
  file = files(photographs)[index]
  Image.open(file).save(tmp_path / 'mine.png')
  # As the run sees it.
  source = sources.load(f'folder:{photographs}', resize=SIDE)
  net, variables = jaxkd.load(directory)
  one = source.splits['test'].fetch(np.array([index]))['inputs']
  np.testing.assert_array_equal(one, net.read(file))
  wanted = net.classes[net.apply(variables, one)[0]['logits'].argmax()]
  exec('\n'.join(lines), {})
  assert capsys.readouterr().out == f'{wanted}\n'


def test_a_run_that_goes_on_gives_no_other_arm_or_round(finished, tmp_path):
  net = next((finished[0] / 'nets' / 'students').glob('*/student'))

  def run(name, students, **changes):
    made = json.loads((finished[0] / 'config.json').read_text()) | changes
    shutil.copytree(net, tmp_path / name / 'nets' / students / 'student')
    (tmp_path / name / 'config.json').write_text(json.dumps(made))
    return tmp_path / name

  report = dict(compare=dict(better='distilled', than='student'))
  arms = run(
    'arms', 'students/student', arms=dict(distilled={}, student={}),
    report=report,
  )  # fmt: skip
  rounds = run('rounds', 'r01/students/student', rounds=dict(r01={}, r02={}))
  for folder, left in ((arms, 'distilled'), (rounds, 'r02')):
    with pytest.raises(
      UserError, match=f'not finished.*no students of {left} '
    ):
      jaxkd.load(folder)
    assert jaxkd.load(folder, arm='student')
    (folder / 'row.json').write_text('{}')
  assert jaxkd.load(rounds)


def test_what_takes_no_files_has_no_such_line(finished, tmp_path):
  for task in ('retrieval', 'segmentation', 'translation'):
    assert stored_nets.prediction(finished[0], task) == ''
  objects = stored_nets.prediction(finished[0], 'detection')
  assert objects == "print(net.predict(variables, 'mine.png')[0])"
  assert stored_nets.prediction(tmp_path, 'classification') == ''


def test_a_detector_predicts_objects():
  anchors = boxes.anchors((8, 8), 4, ((4, 4),))  # of four cells

  def forward(variables, x, **_):
    logits = jnp.full((len(x), 4, 2), -200.0).at[:, 3, 1].set(2.0)
    outputs = {
      'logits': logits + variables,
      'offsets': jnp.zeros((len(x), 4, 4)),
      'anchors': jnp.broadcast_to(anchors, (len(x), *anchors.shape)),
    }
    return outputs, {}

  known = inputs_lib.unknown((8, 8, 3))
  net = loaded.LoadedNet(dict, forward, ('a', 'b'), known, logits='sigmoids')
  image = np.zeros((8, 8, 3), np.float32)
  found, same = net.predict(0.0, image, image)
  assert found.names == same.names == ('b',)
  np.testing.assert_allclose(found.boxes, [[0.5, 0.5, 1, 1]], atol=1e-6)
  np.testing.assert_allclose(found.scores, [1 / (1 + np.exp(-2))], rtol=1e-5)
  (lost,) = net.predict(np.nan, image)
  assert np.isnan(lost.scores).all() and lost.scores.size


def test_jobs_have_runs_of_weights_and_biases(finished):
  _, row, runs = finished
  assert sorted(run.given['name'] for run in runs.values()) == [
    'photographs/students/student',
    'photographs/teachers/main',
  ]
  for run in runs.values():
    arm = {'students': 'student', 'teachers': 'teacher'}[run.given['job_type']]
    assert run.summary['test/top1'] == row['arms'][arm]['values'][0]
    assert run.given['config']['train']['seeds'] == 1


def restored(photographs, folder, **changes):
  given = config(photographs)
  main = dict(
    given['teachers']['main'], restore=str(folder / 'nets/teachers/main')
  )
  return {**given, 'teachers': dict(main={**main, **changes})}


def explained(given):
  complete = configs.plain(configs.complete(given))
  return checks.prepare(complete, 'unused')[0]


def test_restored_teachers_of_other_classes_are_refused(
  photographs, finished, tmp_path
):
  for split in ('train', 'test'):
    (tmp_path / split).mkdir()
    for old, new in (('above', 'left'), ('left', 'zebra')):
      (tmp_path / split / new).symlink_to(photographs / split / old)
      for file in (photographs / split / old).iterdir():
        assert file.exists()
  given = restored(tmp_path, finished[0])
  message = "restore: class 0 is 'above' there and 'left' in folder:.*classes=2"
  with pytest.raises(UserError, match=message):
    explained(given)
  same = restored(tmp_path, finished[0], classes=2)
  assert not explained(same).notes


def test_restored_teachers_that_are_shown_something_else_are_told(
  photographs, finished
):
  assert explained(restored(photographs, finished[0])).notes == ()
  other = restored(photographs, finished[0], views=dict(eval=''))
  assert explained(other).notes == (
    'the restored teachers main were evaluated with the view '
    "'noise(0.0)' and have '' here",
  )


def test_nets_of_earlier_versions_are_loaded_with_a_word(
  finished, tmp_path, caplog
):
  variables, spec = checkpoint.load(finished[0] / 'nets/teachers/main')
  del spec['inputs']
  nets = {}
  for view in ('', 'noise(0)'):
    folder = tmp_path / (view or 'none')
    checkpoint.export(folder, variables, {**spec, 'view': view})
    nets[view], own = jaxkd.load(folder)
    said = caplog.records[-1].getMessage()
    assert 'run its config again' in said
    assert ('sizes and ranges' in said) == bool(view)
    assert isinstance(nets[view], loaded.LoadedNet)
    for images in (np.zeros((1, SIDE, SIDE, 3), t) for t in (np.uint8, 'f4')):
      assert nets[view].apply(own, images)[0]['logits'].shape == (1, 2)
    with pytest.raises(UserError, match='did not record how'):
      nets[view].read(tmp_path / 'x.png')
  assert nets[''].input_shape == (SIDE, SIDE, 3)
  assert nets['noise(0)'].input_shape is None
  with pytest.raises(UserError, match=r'takes \[N, 8, 8, 3\], and was given'):
    nets[''].apply(own, np.zeros((1, 9, 9, 3), np.uint8))
