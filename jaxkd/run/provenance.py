"""Provenance: checksums of the data, nets and code behind a run's numbers.

The same config on other labels, with a changed loss or a retrained teacher is
another run. Each of these has a checksum in the workdir and in the row.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

import jaxkd
from jaxkd import files, source_code
from jaxkd.data import cache, fingerprint, folders
from jaxkd.data.sources import Source
from jaxkd.errors import UserError, within
from jaxkd.models import external, given, hugging_face, pytorch
from jaxkd.report import made_with
from jaxkd.run import build, stored_nets, workdir
from jaxkd.run.plan import Round, configs_of
from jaxkd.students import stored
from jaxkd.teachers import recorded

_QUOTED = re.compile(r"""'([^']+)'|"([^"]+)\"""")  # texts among arguments
# What these sections hold has no part in what a run computes.
_TOLD = ('name', 'survey', 'report')


def of(
  config: Mapping[str, Any], source: Source, rounds: Iterable[Round] = ()
) -> dict[str, str]:
  """The provenance of a run of a config, by name.

  Args:
    config: complete.
    source: the data that it names.
    rounds: its plan, if there is one: files of outputs that it has read are not
      read once more.

  Returns:
    The version and commit of jaxkd, and SHA-256 checksums of the data, of what
    teachers are restored from, of files that options name, and of the code of
    each module that the config names.

  Raises:
    UserError: one of these files cannot be read.
  """
  found = {
    workdir.VERSION: jaxkd.__version__,
    workdir.COMMIT: made_with.commit(),
    **fingerprint.of_source(source),
  }
  computed = {k: v for k, v in config.items() if k not in _TOLD}
  for entry, value in workdir.flat(computed).items():
    for text in _paths(entry, value):
      name = entry if text == value else f'{entry} ({text})'
      found[name] = _of_path(text, entry)
  read = [r.external for part in rounds for r in part.teachers.values()]
  known = {each.name: each.checksum for each in read if each}
  for prefix, own in configs_of(dict(config)).items():
    for name, teacher in own['teachers'].items():
      restore, at = teacher['restore'], f'teachers.{name}.restore'
      # What an earlier round leaves has no other origin than the run itself.
      if restore and restore.partition('/')[0] not in config['rounds']:
        if given.is_function(restore):
          found[f'{prefix}{at}'] = _given(teacher, source, f'teachers.{name}')
          continue
        if restore.startswith(external.HOST):
          continue  # its code is among that of all modules that are named
        if restore not in known:
          known[restore] = _restored(restore, at)
        found[f'{prefix}{at}'] = known[restore]
  code = source_code.named(computed)
  return found | {f'code of {name}': each for name, each in code.items()}


def checksums(provenance: Mapping[str, str]) -> dict[str, str]:
  """The checksums alone; a row has the version of jaxkd in other entries."""
  told = (workdir.VERSION, workdir.COMMIT)
  return {k: v for k, v in provenance.items() if k not in told}


def check_imported(config: Mapping[str, Any]) -> None:
  """Refuses imported code whose files have changed.

  Raises:
    UserError: a module has changed since this process imported it.
  """
  for name, file in source_code.outdated(config).items():
    raise UserError(
      f'{file} has changed since this process imported {name}; start a new '
      'process, or importlib.reload the module'
    )


def _restored(restore: str, at: str) -> str:
  """A checksum of the variables in a folder, or of files of weights."""
  if restore.startswith(external.OUTPUTS):
    return recorded.checksum(restore, at=at)
  if restore.startswith(pytorch.PREFIX):
    path = files.path(restore.removeprefix(pytorch.PREFIX), at=at)
    return files.checksum(path, at=at)
  if hugging_face.is_folder(restore):
    return _of_weights(hugging_face.folder(restore, at=at), at)
  with within(f'{at}: '):
    variables, _ = stored.load(stored_nets.find_net(restore, at=f'{at}: '))
  return cache.fingerprint([variables])


def _given(entry: Mapping[str, Any], source: Source, at: str) -> str:
  """A checksum of the variables that a function gives."""
  shape = build.input_shape(entry, source, at)
  return build.given_nets(entry, source, shape, at).checksum


def _of_weights(path: Path, at: str) -> str:
  """A checksum of a folder of Hugging Face: of what `restore` reads there."""
  with within(f'{at}: '):
    read = [path / hugging_face.CONFIG, *hugging_face.weight_files(path)]
  found = ''.join(files.checksum(file, at=at) for file in read)
  return hashlib.sha256(found.encode()).hexdigest()


def _paths(entry: str, value: Any) -> list[str]:
  """The files and folders that an option names, as they are written.

  An option stands in a ``kw``, or in quotes in the text of a view or an op:
  ``'mine:table("a.npy")'``. What options of the data name is in the data.
  """
  found = []
  for text in () if entry.startswith('data.kw.') else jax.tree.leaves(value):
    if isinstance(text, str):
      found += [text] if 'kw.' in entry else []
      found += [one or other for one, other in _QUOTED.findall(text)]
  return [text for text in dict.fromkeys(found) if _is_path(text)]


def _is_path(text: str) -> bool:
  path = files.expanded(text)
  # A word may also be the name of a folder that is there by chance.
  return os.path.isfile(path) or ('/' in text and os.path.isdir(path))


def _of_path(text: str, at: str) -> str:
  """A checksum of a file, or of all that is in a folder."""
  path = Path(files.expanded(text))
  if path.is_file():
    return files.checksum(path, at=at)
  found = hashlib.sha256()
  with within(f'{at}: '):
    for file in folders.below(path):
      line = f'{file.relative_to(path)} {files.checksum(file, at=at)}\n'
      found.update(line.encode())
  return found.hexdigest()
