import os
import pathlib
import subprocess
import sys
import threading
import uuid

import jax
import jax.numpy as jnp
import pytest

from jaxkd.run import programs

DIR = 'jax_compilation_cache_dir'
ENABLED = 'jax_enable_compilation_cache'
QUICKEST = 'jax_persistent_cache_min_compile_time_secs'


@pytest.fixture
def unnamed(monkeypatch, tmp_path):
  """No folder of programs is named; the user's cache is `tmp_path`."""
  kept = {name: getattr(jax.config, name) for name in (DIR, ENABLED, QUICKEST)}
  monkeypatch.delenv(QUICKEST.upper(), raising=False)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  jax.config.update(DIR, None)
  jax.config.update(QUICKEST, 1.0)
  yield
  for name, value in kept.items():
    jax.config.update(name, value)


def test_programs_are_kept_in_the_users_cache(unnamed, tmp_path):
  folder = programs.keep()
  assert pathlib.Path(folder).parent == tmp_path / 'jaxkd' / 'programs'
  assert getattr(jax.config, DIR) == folder == programs.keep()
  assert getattr(jax.config, QUICKEST) == 0
  assert not [*pathlib.Path(folder).iterdir()]


def test_processors_have_folders_of_their_own(monkeypatch, tmp_path):
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  monkeypatch.setenv('HOME', str(tmp_path))
  here = programs.directory()
  assert here.parent == tmp_path / '.cache' / 'jaxkd' / 'programs'
  assert here == programs.directory()
  monkeypatch.setattr(programs.platform, 'machine', lambda: 'another')
  assert programs.directory().parent == here.parent
  assert programs.directory() != here


def test_a_folder_of_the_users_is_left_to_the_user(unnamed, tmp_path):
  jax.config.update(DIR, str(tmp_path / 'mine'))
  assert programs.keep() == str(tmp_path / 'mine')
  assert not [*tmp_path.iterdir()]


def test_the_users_limit_is_kept(unnamed, monkeypatch):
  monkeypatch.setenv(QUICKEST.upper(), '1')
  assert programs.keep()
  assert getattr(jax.config, QUICKEST) == 1.0


def test_it_is_off_where_it_is_switched_off(unnamed):
  jax.config.update(DIR, '')
  assert programs.keep() == ''
  jax.config.update(DIR, None)
  jax.config.update(ENABLED, False)
  assert programs.keep() == ''
  assert getattr(jax.config, DIR) is None


def test_a_folder_that_cannot_be_made_is_a_warning(
  unnamed, monkeypatch, tmp_path, caplog
):
  (tmp_path / 'file').touch()
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
  assert programs.keep() == ''
  assert 'compiled programs are not kept' in caplog.text
  assert getattr(jax.config, DIR) is None


def test_what_was_used_longest_ago_is_trimmed(tmp_path):
  for age, name in enumerate(('new-cache', 'old-cache', 'oldest-cache', 'x')):
    (tmp_path / name).write_bytes(b'.' * 10)
    os.utime(tmp_path / name, (1000 - age, 1))
  programs.trim(tmp_path, 20)
  assert {p.name for p in tmp_path.iterdir()} == {'new-cache', 'old-cache', 'x'}
  programs.trim(tmp_path, 9)
  assert {p.name for p in tmp_path.iterdir()} == {'x'}
  programs.trim(tmp_path / 'missing', 9)


def a_program(number):
  def new(x):
    return x * number

  jax.jit(new)(jnp.ones(3)).block_until_ready()


def test_programs_are_counted():
  number = uuid.uuid4().int % 2**20 + 0.5
  x = jnp.ones(3)
  with programs.counted() as outer, programs.counted() as made:
    a_program(number)
  assert made.compiled >= 1 and made.seconds['new'] > 0
  assert made.total == sum(made.seconds.values())
  assert f'{made.compiled} program' in str(made)
  assert outer == made and outer is not made
  jax.clear_caches()
  with programs.counted() as again:
    a_program(number)
  assert 'new' not in again.seconds and again.found >= 1
  assert x.shape == (3,)


def test_threads_count_their_own():
  number = uuid.uuid4().int % 2**20 + 0.25
  with (
    programs.counted() as own,
    programs.counted(of_all_threads=True) as of_all,
  ):
    thread = threading.Thread(target=a_program, args=(number,))
    thread.start()
    thread.join()
  assert 'new' in of_all.seconds and own == programs.Count() and str(own) == ''


def test_a_count_in_words():
  made = programs.Count({'step': 2.5, 'add': 0.25}, compiled=3, found=1)
  assert str(made) == (
    '3 programs compiled in 2.8 s, step in 2.5 s; 1 more found compiled'
  )
  assert str(programs.Count({'add': 1.0}, compiled=1)) == (
    '1 program compiled in 1.0 s'
  )


def test_a_second_process_compiles_nothing(tmp_path):
  code = (
    'import jax, sys\n'
    'from jaxkd.run import launch, programs\n'
    'assert jax.config.jax_compilation_cache_dir is None\n'
    'def main(stop):\n'
    '  with programs.counted() as made:\n'
    '    jax.jit(lambda x: x + 1)(2.0).block_until_ready()\n'
    '  print(made.compiled, made.found)\n'
    'launch.main(main, config=False)\n'
  )
  env = {k: v for k, v in os.environ.items() if 'CACHE' not in k}
  env |= {'XDG_CACHE_HOME': str(tmp_path)}

  def printed(*flags):
    command = [sys.executable, '-c', code, *flags]
    done = subprocess.run(
      command, env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.split()

  (compiled, found), again = printed(), printed()
  assert int(compiled) > 0 and found == '0'
  assert again == ['0', compiled]
  assert printed('--nocompilation_cache') == [compiled, '0']
