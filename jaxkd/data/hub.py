"""Data sets of Hugging Face ``datasets``, read from disk."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxkd import lookup
from jaxkd.data import folders
from jaxkd.data.text.conversations import Document, Format
from jaxkd.errors import UserError, unknown

_OFFLINE = 'HF_DATASETS_OFFLINE'
_AT_ONCE = 1000  # records


def tables(
  name: str, place: Path, config: str, test: str = ''
) -> dict[str, Any]:
  """The table of each split, or of 'all' where there are no splits.

  Args:
    name: of a data set.
    place: where it is, if it is a path: a file or a folder of parquet, or a
      folder that ``save_to_disk`` has written.
    config: of the data set, where it has several; empty for its default.
    test: the split to test on, by the name that the set has for it; empty for
      one that is called so.

  Raises:
    UserError: it is not there, or cannot be read, or has no such split.
  """
  # The package reads this when it is imported. With 0 it may download.
  os.environ.setdefault(_OFFLINE, '1')
  datasets = lookup.package('datasets', extra='hf', at='data.source')
  with _without_bars(datasets):
    read = _tables(datasets, name, place, config)
  named = read if isinstance(read, dict) else {'train': read}
  if test and test not in named:
    raise unknown('split', test, named, 'data.kw.test')
  if test:
    found = folders.splits({*named} - {test}, where=name)
    found['test'] = test
  else:
    found = folders.splits(named, where=name)
  if found.keys() <= {'train'}:
    found = {'all': found.get('train') or next(iter(named))}
  return {split: named[own] for split, own in found.items()}


def documents(
  tables: dict[str, Any], name: str, form: Format
) -> dict[str, list[Document]]:
  """The documents of each table.

  Args:
    tables: by split, from `tables`.
    name: of the data set.
    form: what its records have.

  Raises:
    UserError: a table has no such records.
  """
  return {
    split: [*_documents(table, form, f'the split {split!r} of {name!r}')]
    for split, table in tables.items()
  }


@contextlib.contextmanager
def _without_bars(datasets: Any) -> Iterator[None]:
  """Keeps the bars of the package out of what is no terminal, such as a log."""
  if sys.stderr.isatty() or datasets.are_progress_bars_disabled():
    yield
    return
  datasets.disable_progress_bars()
  try:
    yield
  finally:
    datasets.enable_progress_bars()


def _tables(datasets: Any, name: str, place: Path, config: str) -> Any:
  """A table, or a dict of them by split."""
  quiet = {'download_config': datasets.DownloadConfig(local_files_only=True)}
  quiet = quiet if os.environ[_OFFLINE] == '1' else {}
  saved = ('dataset_dict.json', 'dataset_info.json', 'state.json')
  try:
    if place.is_file():
      return datasets.load_dataset('parquet', data_files=[str(place)])
    if any((place / file).is_file() for file in saved):
      return datasets.load_from_disk(str(place))
    known = str(place) if place.is_dir() else name
    return datasets.load_dataset(known, config or None, **quiet)
  except Exception as error:  # of many kinds, of many packages
    said = str(error).strip().partition('\n')[0]
    if place.exists():
      raise UserError(
        f'data.source: cannot read {place} with the package datasets: {said}; '
        'name a parquet file, a folder of them, or one of save_to_disk'
      ) from error
    raise UserError(
      f'data.source: {name!r} is no path, and not in the cache of the package '
      f'datasets ({said}); download it with load_dataset, or set {_OFFLINE}=0'
    ) from error


def _documents(table: Any, form: Format, where: str) -> Iterator[Document]:
  for field in form.fields:
    if field not in table.column_names:
      raise UserError(
        f'data.kw.field: {where} has no field {field!r} but '
        f'{", ".join(table.column_names)}; name another, or, of images, say '
        "data.kw.format='images'"
      )
  table = table.select_columns([*form.fields])
  for start in range(0, len(table), _AT_ONCE):
    part = table[start : start + _AT_ONCE]
    for i in range(len(part[form.fields[0]])):
      record = {field: part[field][i] for field in form.fields}
      here = f'data.source: record {start + i} of {where}'
      yield form.read(record, here)
