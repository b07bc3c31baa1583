"""The page of all names that a config can use, with their options.

What is listed is what would be found: the same functions as in the errors that
name what is known.
"""

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import optax

from jaxkd import losses, models, options, tasks
from jaxkd.data import augment, sources, views
from jaxkd.distill import adapters, library, regions
from jaxkd.report import markdown
from jaxkd.teachers import generated
from jaxkd.train import optimizer

_LONGEST = 60  # characters of a default that is shown
_NAMED = ('tfds', 'translation')  # sources with a name, no path, after a colon
# What jaxkd fills of the arguments of models, adapters and regions.
_OF_MODELS = ('num_classes', 'input_shape', 'dtype', 'rngs')
_OF_ADAPTERS = ('student', 'teacher', 'image')
_OF_REGIONS = ('boxes', 'valid', 'anchors')


def page() -> str:
  """All of docs/names.md."""
  parts = [_INTRODUCTION.format(version=optax.__version__)]
  for title, (entry, made) in {
    'Sources': ('data.source', _sources()),
    'Augmentation': ('data.augment', _functions(augment.ops(), 2)),
    'Views': ('VIEW.train, VIEW.eval', _functions(views.ops(), 2)),
    'Models': ('teachers.NAME.model, students.NAME.model', _models()),
    'Tasks': ('task', _tasks()),
    'Losses': ('distill.NAME.loss', _losses()),
    'Terms': ('distill.NAME.term', _public(library, library.GIVEN)),
    'Adapters': (
      'distill.NAME.adapter, distill.NAME.teacher_adapter',
      _public(adapters, _OF_ADAPTERS),
    ),
    'Regions': ('distill.NAME.mask', _public(regions, _OF_REGIONS)),
    'Generators': (
      'data.generated.name', _functions(generated.generators(), 3)
    ),
    'Optimisers': (
      'train.optimizer.name', _functions(optimizer.optimizers(), 1)
    ),
    'Schedules': ('train.schedule', _schedules()),
  }.items():  # fmt: skip
    header = ['Name', 'Options', 'What it is']
    parts += [f'## {title}', f'`{entry}`', markdown.table(header, list(made))]
  return '\n\n'.join(parts) + '\n'


def is_of_here(text: str) -> bool:
  """Whether a page was made with the optax that is installed here."""
  words = ' '.join(text.split())
  return f'those of optax {optax.__version__}.' in words


_INTRODUCTION = """\
# Names

<!-- Made by `python -m jaxkd.report`; edit the docstrings. -->

The names that a config can use, with their options. Options of views are
written in brackets, `noise(0.1)`; those of models, sources, losses and all
others go into the entry `kw` beside the name. Options are shown with their
defaults; one without a default is required. In place of any of these names,
`package.module:attribute` names your own. Optimisers and schedules are those of
optax {version}."""


def _functions(found: Mapping[str, Callable], filled: int) -> Iterator:
  """Functions of which jaxkd fills the first arguments."""
  for name, function in sorted(found.items()):
    first = [*_parameters(function)][:filled]
    yield _line(name, function, [*first, 'other', 'examples'])


def _public(module: Any, filled: Collection[str]) -> Iterator[list[str]]:
  for name in sorted(module.__all__):
    yield _line(name, getattr(module, name), filled)


def _sources() -> Iterator[list[str]]:
  for name in sorted(sources.NAMES):
    function = sources.find(name)
    first, *_ = _parameters(function).values()
    after_colon = first.kind != first.KEYWORD_ONLY
    shown = f'{name}:{"NAME" if name in _NAMED else "PATH"}'
    filled = [first.name] if after_colon else []
    yield _line(shown if after_colon else name, function, filled)


def _models() -> Iterator[list[str]]:
  families = models.families()
  for name in sorted(families):
    module = families[name]
    doc = inspect.getdoc(module)
    line = _line(name, module.Model, _OF_MODELS, doc)
    if named := sorted(getattr(module, 'NAMED', {})):
      line[2] += f' Published: {", ".join(f"`{each}`" for each in named)}.'
    yield line


def _tasks() -> Iterator[list[str]]:
  files = tasks.files()
  for name in sorted(files):
    yield [f'`{name}`', '', _first(inspect.getdoc(files[name]))]


def _losses() -> Iterator[list[str]]:
  for name in sorted(losses.__all__):
    function = getattr(losses, name)
    takes = _parameters(function).values()
    arrays = {p.name for p in takes if p.kind != p.KEYWORD_ONLY}
    line = _line(name, function, arrays | {'where', 'valid', 'key'})
    line[0] = f'[`{name}`](losses.md#{name})'
    yield line


def _schedules() -> Iterator[list[str]]:
  for full in optimizer.schedules():
    name = full.removesuffix('_schedule')
    short = name.removesuffix('_decay')
    if f'{short}_schedule' not in optimizer.schedules():
      name = short
    function = getattr(optax, full)
    line = _line(name, function, given := optimizer.filled(function, 1.0, 1))
    if given.get('init_value') == 0.0:  # it rises to the learning rate
      line[1] = ', '.join(filter(None, ('`init_value=0.0`', line[1])))
    yield line


def _line(
  name: str, function: Callable, filled: Collection[str], doc: str | None = None
) -> list[str]:
  """A name, its options and the first sentence of its documentation."""
  shown = [
    _option(parameter)
    for parameter in _parameters(function).values()
    if parameter.name not in filled
    and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
  ]
  said = _first(doc or inspect.getdoc(function))
  return [f'`{name}`', ', '.join(shown), said]


def _parameters(function: Callable) -> Mapping[str, inspect.Parameter]:
  return options.parameters_of(function)


def _option(parameter: inspect.Parameter) -> str:
  """An option with its default, as a config would have it."""
  default = parameter.default
  if default is parameter.empty:
    return f'`{parameter.name}`'
  if callable(default):
    default = getattr(default, '__name__', type(default).__name__)
  text = str(dict(default)) if isinstance(default, Mapping) else repr(default)
  text = text if len(text) <= _LONGEST else '...'
  return f'`{parameter.name}={text}`'


def _first(doc: str | None) -> str:
  """The first sentence of a text, in Markdown."""
  text = ' '.join((doc or '').split('\n\n')[0].split())
  text = re.split(r'(?<=[.:]) (?=[A-Z])', text)[0].removesuffix(':')
  text = re.sub(r'`([^`<]+?)\s+<([^>]+)>`_', r'[\1](\2)', text)
  text = re.sub(r':\w+:`([^`]+)`', r'`\1`', text)
  return text.replace('``', '`')
