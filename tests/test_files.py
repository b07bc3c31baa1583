"""Paths mean the same wherever they are written."""

from pathlib import Path

import numpy as np
import pytest

import jaxkd
from benchmarks import speed
from jaxkd import files
from jaxkd.data import array_files, prepared, sources
from jaxkd.data.text import pretrained
from jaxkd.errors import UserError
from jaxkd.models import hugging_face, pytorch
from jaxkd.report import __main__ as report
from jaxkd.report import rows
from jaxkd.run import config as configs
from jaxkd.run import pipeline, sweep


def test_what_a_path_stands_for(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.setenv('RUNS', '~/runs')
  for text, meant in (
    ('~', tmp_path),
    ('~/a b', tmp_path / 'a b'),
    ('$HOME/x', tmp_path / 'x'),
    ('${HOME}x', Path(f'{tmp_path}x')),
    ('$RUNS/x', tmp_path / 'runs/x'),
    ('a/../b', Path('a/../b')),
    ('/tmp/~/5$', Path('/tmp/~/5$')),
    ('C:/x', Path('C:/x')),
    ('', Path()),
  ):
    assert files.path(text, at='--workdir') == meant
    assert files.path(Path(text), at='--workdir') == meant


def test_what_a_library_writes_for_its_owner_alone_is_as_other_files(tmp_path):
  file, other = tmp_path / 'own', tmp_path / 'other'
  file.touch(0o600)
  files.share(file)
  other.touch()
  assert file.stat().st_mode == other.stat().st_mode


def test_pointers_of_git_lfs_are_told_from_damaged_files(tmp_path):
  text = 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n'
  for name in ('a/0.jpg', 'b/0.jpg', 'x.npz', 'model.safetensors', 'x.json'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
  x, net = tmp_path / 'x.npz', tmp_path / 'model.safetensors'
  for read, place in (
    (lambda: sources.load(f'folder:{tmp_path}'), r'^data\.source: .*a.0\.jpg'),
    (lambda: sources.load(f'npz:{x}'), r'^data\.source: .*x\.npz'),
    (lambda: array_files.read(x, unnamed='', at='here'), r'^here: .*x\.npz'),
    (lambda: pytorch.load(net, 'resnet8', {}), 'model.safetensors'),
    (lambda: [*hugging_face.tensors(tmp_path)], 'model.safetensors'),
    (lambda: hugging_face.read_json(tmp_path / 'x.json'), r'x\.json'),
    (lambda: pretrained.tokenizer(tmp_path / 'x.json'), r'tokens: .*x\.json'),
    (lambda: pretrained.sentencepiece(net), 'tokens: .*model.safetensors'),
  ):
    with pytest.raises(UserError, match=f'{place} is a pointer of Git LFS'):
      read()


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('$NOT_SET/x', "--workdir: .*'NOT_SET', which is not set"),
    ('a/${NOT_SET}/x', "'NOT_SET', which is not set"),
    ('$EMPTY/x', "'EMPTY', which is not set or is empty"),
    ('~no_such_user_here/x', 'a user who is not known'),
    ('s3://bucket/x', "--workdir: 's3://bucket/x' is not on a local disk"),
    ('gs://bucket', 'not on a local disk'),
    ('HTTPS://host/x', 'not on a local disk'),
    (Path('s3://bucket/x'), 'not on a local disk'),
    ('$BUCKET/x', 'not on a local disk'),
    ('file:///tmp/x', 'without file://'),
  ],
)
def test_what_is_no_local_path(text, message, monkeypatch):
  monkeypatch.setenv('EMPTY', '')
  monkeypatch.setenv('BUCKET', 's3://bucket')
  monkeypatch.delenv('NOT_SET', raising=False)
  with pytest.raises(UserError, match=message):
    files.path(text, at='--workdir')


REMOTE = 's3://bucket/x'


@pytest.mark.parametrize(
  ('use', 'at'),
  [
    (lambda: pipeline.run(small(), REMOTE), '--workdir'),
    (lambda: sweep.run([], REMOTE), '--workdir'),
    (lambda: jaxkd.load(REMOTE), r'jaxkd\.load'),
    (lambda: configs.load(f'{REMOTE}.py:tiny'), '--config'),
    (lambda: sources.load(REMOTE), r'data\.source'),
    (lambda: sources.load(f'npz:{REMOTE}'), r'data\.source'),
    (lambda: sources.load(f'folder:{REMOTE}'), r'data\.source'),
    (lambda: sources.load(f'parallel:{REMOTE}', languages=('a', 'b')),
     r'data\.source'),
    (lambda: sources.load('npz:x', dir=REMOTE), r'data\.dir'),
    (lambda: sources.load('fashion_mnist', dir=REMOTE), r'data\.dir'),
    (lambda: sources.load('glyphs', dir=REMOTE), r'data\.dir'),
    (lambda: sources.load('tfds:x', dir=REMOTE), r'data\.dir'),
    (lambda: sources.load('os.path:join', dir=REMOTE), r'data\.dir'),
    (lambda: pytorch.load(REMOTE, 'mlp', {}), 'path'),
    (lambda: prepared.folder(REMOTE, at='--data_dir'), '--data_dir'),
    (lambda: speed.check_out(REMOTE), '--out'),
    (lambda: rows.load(REMOTE), 'row'),
  ],
)  # fmt: skip
def test_remote_paths_are_refused_before_anything_runs(
  use, at, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=f'^{at}: .* is not on a local disk'):
    use()
  assert not list(tmp_path.iterdir())


def test_reports_too(capsys):
  for flag in ('--rows', '--speed', '--out'):
    assert report.main([flag, REMOTE]) == 2
    assert capsys.readouterr().err.startswith(f"{flag}: 's3:/bucket/x' is not")


def test_sources_read_what_is_meant(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.setenv('FILE', 'data.npz')
  inputs, labels = np.random.default_rng(0).random((30, 4)), np.arange(30) % 3
  np.savez(tmp_path / 'data.npz', inputs=inputs, labels=labels)
  for name, dir in (
    ('npz:~/data.npz', ''),
    ('npz:$HOME/$FILE', ''),
    ('npz:data.npz', '~'),
    ('npz:~/data.npz', '/elsewhere'),
    ('npz:${FILE}', '$HOME'),
  ):
    source = sources.load(name, dir=dir)
    assert len(source.splits['train']) == 18
    assert source.name == name  # as it was written


@pytest.mark.parametrize(
  'changes',
  [
    {'teachers.main.restore': REMOTE},
    {'teachers.main.restore': f'pytorch:{REMOTE}'},
    {
      'teachers.main.cache.dir': REMOTE,
      'teachers.main.cache.outputs': ('logits',),
    },
    {
      'data.generated.dir': REMOTE,
      'data.generated.name': 'noise',
      'data.generated.count': 8,
    },
  ],
)
def test_remote_paths_in_entries_are_refused(changes, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = small()
  for entry, value in changes.items():
    config = configs.put(config, entry, value)
  at = next(iter(changes))
  with pytest.raises(UserError, match=f'^{at}: .* is not on a local disk'):
    pipeline.run(config, 'run')
  assert not list(tmp_path.iterdir())


def small():
  given = dict(
    data=dict(
      source='synthetic', kw=dict(shape=(4, 4, 1), num_classes=3, size=60)
    ),
    teachers=dict(main=dict(kw=dict(widths=(4,)))),
    students=dict(student=dict(kw=dict(widths=(4,)))),
    distill=dict(soft=dict(loss='kl', teacher='main')),
    report=dict(compare=dict(better='student', than='teacher')),
    train=dict(steps=2, seeds=1, batch_size=8, members='vmap'),
  )
  return configs.plain(configs.complete(given))
