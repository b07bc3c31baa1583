"""The source of Hugging Face ``datasets``: texts, or images of classes."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxkd.data import conventions as conventions_lib
from jaxkd.data import folders, hub, listing
from jaxkd.data import labels as labels_lib
from jaxkd.data.conventions import Conventions
from jaxkd.data.examples import as_labels
from jaxkd.data.images import hub_images, image_files
from jaxkd.data.source import (
  Source,
  first_split,
  in_memory,
  make_source,
  place,
  split_entry,
  with_sizes,
)
from jaxkd.data.sources.text import texts
from jaxkd.data.text import conversations
from jaxkd.data.text.corpus import Layout
from jaxkd.errors import UserError

_OF_IMAGES = ('inputs', 'labels', 'resize', 'num_classes', 'classes')
_OF_TEXTS = (
  *('field', 'tokens', 'vocabulary', 'eos', 'template', 'learn', 'length'),
  *('packing', 'context', 'too_long', 'prompt'),
)


def hf(
  path: str,
  *,
  dir: str = '',
  config: str = '',
  format: str = '',
  inputs: str = '',
  labels: str = '',
  resize: int | tuple[int, int] = 0,
  num_classes: int = 0,
  classes: tuple | str = (),
  field: str | tuple[str, ...] = '',
  tokens: str = 'words',
  vocabulary: int | None = None,
  eos: str = '',
  template: str = '',
  learn: str = '',
  length: int = 64,
  packing: str = 'windows',
  context: int = 0,
  too_long: str = 'refuse',
  prompt: int = 0,
  test: int | float | str | None = None,
  validation: int | float | None = None,
) -> Source:
  """Texts or images of Hugging Face ``datasets``: parquet, saved, or by name.

  They are read from disk alone: of a name, what the package has in its cache.
  Images are decoded and resized as those of `folder` are, and larger sets when
  they are asked for.

  Args:
    path: of a parquet file, a folder of them or a folder that
      ``save_to_disk`` wrote, absolute or in ``dir``; or the name of a data set.
    dir: a folder.
    config: of the data set, where it has several.
    format: 'images', or what texts are, as in `text`; by default images where
      the set says that a column is, and else 'text'.
    inputs: the column of images; by default 'image', or the only one.
    labels: the column of their classes; by default 'label', or the only one.
    resize: as in `folder`.
    num_classes: as in `npz`, where the set has no names of the classes.
    classes: likewise.
    field: of texts, as in `text`; and so all that follow.
    tokens: likewise.
    vocabulary: likewise.
    eos: likewise.
    template: likewise.
    learn: likewise.
    length: likewise.
    packing: likewise.
    context: likewise.
    too_long: likewise.
    prompt: likewise.
    test: of texts likewise; of images the split to test on, if none is called
      so.
    validation: as in `load`.
  """
  given = dict(locals())
  name, where = f'hf:{path}', place(dir, path)
  split = test if isinstance(test, str) else ''
  tables = hub.tables(path, where, config, split)
  of_images = any(map(hub_images.has_images, tables.values()))
  if format == 'images' or (not format and of_images):
    _check_unused(given, _OF_TEXTS, 'images')
    conventions = conventions_lib.of(num_classes=num_classes, classes=classes)
    if test is not None and not split:
      raise UserError(
        f'data.kw.test: {test} should be the name of a split of {name}; '
        'without it, a set of one split is split 60 : 20 : 20'
      )
    return _images(
      name, where, tables, inputs, labels, resize, conventions, validation
    )
  _check_unused(given, _OF_IMAGES, 'texts')
  known = ('images', *conversations.FIELDS)
  if format and format not in known:
    raise UserError(
      f'data.kw.format: {format!r} should be one of {", ".join(known)}'
    )
  form = conversations.format_of(format or 'text', field)
  return texts(
    name,
    hub.documents(tables, path, form),
    validation,
    None if split else test,
    kind=form.kind,
    tokens=tokens,
    vocabulary=vocabulary,
    eos=eos,
    template=template,
    layout=Layout(length, packing, context, too_long, prompt, learn),
  )


def _check_unused(
  given: Mapping[str, Any], names: tuple[str, ...], what: str
) -> None:
  """Refuses options that say nothing about what is read."""
  parameters = inspect.signature(hf).parameters
  for name in names:
    if given[name] != parameters[name].default:
      raise UserError(
        f'data.kw.{name}: hf:{given["path"]} is read as {what}, of which it '
        'says nothing; remove it, or set data.kw.format'
      )


def _images(
  name: str,
  where: Path,
  tables: Mapping[str, Any],
  inputs: str,
  labels: str,
  resize: image_files.Resize,
  conventions: Conventions,
  validation: int | float | None,
) -> Source:
  """The images of tables."""
  image_files.check_resize(resize)
  if 'train' in tables and 'test' not in tables:
    raise UserError(
      f'data.kw.test: {name} has the splits {", ".join(tables)}; say which to '
      "test on, as in 'validation'"
    )
  first = first_split(name, tables)
  tables = {first: tables[first], **tables}
  at = {split: split_entry(name, split) for split in tables}
  found = {
    split: hub_images.columns(table, inputs, labels, _called(name, split))
    for split, table in tables.items()
  }
  labels = found[first][1]
  names = hub_images.classes_of(tables, labels, name)
  if names and (conventions.num_classes or conventions.classes):
    entry = 'classes' if conventions.classes else 'num_classes'
    raise UserError(
      f'data.kw.{entry}: {labels!r} of {name} names its {len(names)} classes; '
      'remove the entry'
    )
  values, notes = {}, ()
  for split, table in tables.items():
    values[split] = hub_images.labels_of(table, found[split][1])
  if names:
    values = {split: as_labels(own, at[split]) for split, own in values.items()}
  else:
    values, names, notes = labels_lib.read(values, conventions, at)
  files = _listed(where, tables)
  keys = {
    split: listing.key(files, 1, split, *found[split]) for split in tables
  }
  records = {
    split: hub_images.Records(table, found[split][0], _called(name, split))
    for split, table in tables.items()
  }
  kinds = [
    image_files.kind_of_many(records[split], resize, keys[split])
    for split in tables
  ]
  mode = 'L' if all(kind.mode == 'L' for kind in kinds) else 'RGB'
  splits = {
    split: hub_images.examples(
      records[split], values[split], mode, resize, keys[split]
    )
    for split in tables
  }
  source = make_source(
    name, splits, validation, classes=names, conventions=conventions
  )
  told = (
    f'of {split}: {note}'
    for split, kind in zip(tables, kinds, strict=True)
    for note in kind.notes
  )
  source = source._replace(
    splits=in_memory(source, splits),
    resize=resize,
    notes=(*notes, *source.notes, *told),
  )
  top = where if where.is_dir() else where.parent
  return with_sizes(source, files, top) if where.exists() else source


def _listed(where: Path, tables: Mapping[str, Any]) -> listing.Listing:
  """The files that a set is read from."""
  if where.is_dir():
    return listing.gathered(folders.walk(where))
  if where.is_file():
    return listing.of([where])
  return listing.of(
    file['filename'] for table in tables.values() for file in table.cache_files
  )


def _called(name: str, split: str) -> str:
  """What messages call a split."""
  return split_entry(name, split).removeprefix('data.source: ')
