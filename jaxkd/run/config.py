"""The entries of a config: their defaults, their types, and overrides.

A config file gives what it wants to say; `complete` adds the rest, so that
every entry has a name on the command line. Inside jaxkd a config is a plain
dict of dicts, and ml_collections stays at the border.
"""

import importlib.util
import inspect
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from jaxkd import files, models, options, tasks
from jaxkd.data import sources
from jaxkd.distill import library
from jaxkd.distill.arguments import find_loss
from jaxkd.errors import UserError, blamed, unknown
from jaxkd.models import given as given_nets
from jaxkd.models import (
  hugging_face,
  hugging_face_vision,
  precision,
  torch_module,
)
from jaxkd.report import wording
from jaxkd.run import old_names
from jaxkd.train import population
from jaxkd.train.optimizer import BY_PATH

SIZES = ('', 'tiny', 'paper')

# Dicts whose entries the named function or model decides, not we.
FREE = (
  'kw',
  'schedule_kw',
  'adapter_kw',
  'teacher_adapter_kw',
  'inputs',
  'parts',
  'by_path',
  'survey',
  'arms',
  'rounds',
  'controls',
  'derived',
)

# What an entry may name, and the entries beside it that belong to what is
# named there: naming another leaves them behind.
OPTIONS = {
  'model': ('kw',),
  'loss': ('kw',),
  'term': ('kw',),
  'name': ('kw',),
  'source': ('kw', 'dir', 'layout'),
  'schedule': ('schedule_kw',),
  'adapter': ('adapter_kw',),
  'teacher_adapter': ('teacher_adapter_kw',),
}

CONFIGS = Path(__file__).parents[1] / 'configs'  # those of jaxkd
# Renamed entries, old name -> new; `*` stands for any one name. Old names are
# read for one release, with a warning.
OLD = {'students.*.correct': 'students.*.logit_shift'}

CACHE_DTYPES = ('float16', 'bfloat16', 'float32')  # of the largest logits

_TERM = {
  'loss': '',
  'term': '',  # in place of a loss: what has parameters or a memory of its own
  'at': ('logits', 'logits'),  # of the student, of the teacher
  'of': '',  # the role that it trains; the only one if empty
  'teacher': '',  # a group or a tuple of groups
  'fuse': '',  # how several teachers become one; their mean loss if empty
  'fuse_weights': '',  # how much each of them counts; equally if empty
  'adapter': '',  # of the student's side
  'adapter_kw': {},
  'teacher_adapter': '',
  'teacher_adapter_kw': {},
  'mask': '',  # what counts; a pair where each side has its own
  'inputs': {},  # argument of the loss -> where it comes from
  'kw': {},
  'weight': 1.0,
  'schedule': {'name': '', 'kw': {}},  # of optax; multiplies the weight
  'example_weight': '',
  'top': 0,  # of the teacher's classes that are told apart; 0 for all
  'tail': '',  # what goes for the others, also of a cache; see logits/sparse.py
  'when': '',
  'when_at': 'logits',  # of the teacher, that `when` and `example_weight` see
  'otherwise': '',
}
# What entries of a term were once called, and what to write now.
_MOVED = {
  'critic': "write term='critic' in place of loss, and what stood in critic as "
  'kw=dict(model=..., kw=..., penalty=..., sees_inputs=...)',
  'memory': "write term='memory' in place of loss='contrastive', and what "
  'stood in memory as kw=dict(negatives=..., momentum=...)',
  'adversary': "write term='adversary' in place of loss, and what stood in "
  'adversary as kw=dict(loss=..., option=..., low=..., high=..., ramp=...)',
}
# Losses that no plain comparison can give their arguments, and whose they are.
_OF_TERMS = {'wasserstein_critic': 'critic', 'contrastive': 'memory'}
_TRAIN = {
  'optimizer': {'name': 'adamw', 'kw': {}},
  'learning_rate': 1e-3,
  'schedule': 'cosine',
  'schedule_kw': {},
  'weight_decay': 0.0,  # times the parameters, added to the gradient
  'clip': 0.0,  # largest norm of the gradient; 0 for none
  'accumulate': 1,  # parts that a batch is taken in
  'average': 0.0,  # decay of the running mean of the parameters
  'by_path': {},  # path of what trains -> entries of its own, see BY_PATH
  'parts': {},  # part of the loss -> its terms, for optimisers that want it
  'steps': 1000,
  'batch_size': 64,
  'dtype': 'float32',
  'param_dtype': 'float32',  # of parameters in use; an optimiser's are float32
  'members': 'auto',
  'steps_per_execution': 0,  # 0: several where that is faster
  'mesh': {'member': -1, 'data': -1},  # devices along each axis; -1 for all
  'shard_parameters': False,  # over the devices that share a batch
  'eval_every': 0,  # 0 for twenty times in all
  'save_every': 0,  # 0 for four times in all
  # the metric by which the best step on validation is taken in place of the
  # last; and how many evaluations without a better one end the training, 0 for
  # none
  'early_stopping': {'metric': '', 'patience': 0},
}
_RUN = {'seeds': 5, 'seed': 0}
_VIEWS = {'train': '', 'eval': ''}
_NET = {
  'model': 'mlp',
  'kw': {},
  'count': 1,
  'reads': (),  # groups and layers of theirs, in place of the examples
  'init': 'random',  # or a group, or 'GROUP/PATTERN' of parameters
  'freeze': '',  # a pattern of parameters
  'remat': '',  # a pattern of layers that the backward pass computes again
  'quantize': '',  # of weights and activations; see students/quantize.py
  'prune': '',  # of weights; see students/prune.py
}
_TEACHER = {
  **_NET,
  'classes': 0,  # that it tells apart, if not those of the data
  'per_seed': False,  # every seed of the students has teachers of its own
  'specialize': {
    'of': '',  # a generalist
    'by': 'covariance',  # how its classes are shared out
    'size': 2,  # the most that a specialist has
    'overlap': 1,  # the most specialists that a class has
    'cover': False,  # whether every class is to have one
    'own': 0.5,  # the share of what a specialist sees that is its own
  },
  # of the data, where that is not what all teachers see: 0 and '' for that
  'data': {'fraction': 0.0, 'partition': '', 'unit': '', 'augment': ''},
  'made_of': (),  # groups that this one is, put together
  'fuse': 'mean_probabilities',  # how they are; 'specialists' for those
  'views': _VIEWS,
  'distill': {},
  'train': _TRAIN,
  'restore': '',
  # what is kept on disk of its outputs, and where, if not with the run; of the
  # logits how many of the largest (0 for all), of these as many as have a mass,
  # at a temperature, in what type ('' for float16, in which all is float32)
  'cache': {
    'outputs': (),
    'top': 0,
    'top_p': 1.0,
    'temperature': 1.0,
    'dtype': '',
    'dir': '',
  },
}
_STUDENT = {
  **_NET,
  'views': {**_VIEWS, 'average': ''},  # of its running mean, as a teacher
  # the classes whose logits are shifted after training: 'missing', or '3,7'
  'logit_shift': '',
}
_CONFIG = {
  'name': '',
  'survey': {},
  'task': 'classification',
  'data': {
    'source': 'digits',
    'dir': '',
    'layout': '',  # how to get it and what it looks like, where it is missing
    'kw': {},
    'fraction': {'teachers': 1.0, 'students': 1.0},
    'partition': {'teachers': 'none', 'students': 'none'},
    # the field whose examples both leave together; '' for single examples
    'unit': {'teachers': '', 'students': ''},
    # how examples are moved and mixed, labels too; see data/augment.py
    'augment': {'teachers': '', 'students': ''},
    # what students write of a batch and then learn from, in every step
    'rollout': {'name': '', 'kw': {}},
    'draw': 'own',  # 'shared': teachers and students draw the same fraction
    'order': 'own',
    'together': 1,  # examples of a class that follow one another
    # numbers of the classes that a split keeps; () for all, in validation for
    # those of train
    'classes': {'train': (), 'validation': (), 'test': ()},
    # what the students see in place of it: what makes it, of which teacher
    # (the only one if empty), how much, and where it is kept, if not with the
    # run
    'generated': {
      'name': '',
      'teacher': '',
      'count': 1000,
      'dir': '',
      'kw': {},
    },
  },
  'teachers': {},
  'students': {},
  'distill': {},
  'arms': {},
  'rounds': {},
  'train': _TRAIN | _RUN,
  'report': {
    'metric': 'top1',
    'reach': 0.0,  # a value of it on validation; the row has the steps to it
    # metrics of which the row has what early stopping would have gained
    'early_stopping': (),
    'outputs': (),  # other outputs than the logits that it is measured of too
    'rank': False,  # whether the row's notes have the arms in order
    'compare': {'better': 'distilled', 'than': 'student'},
    'controls': {},
    'derived': {},  # sums of arms, which comparisons may name too
    'notes': (),
    'wandb': '',
  },
  'tune': (),  # grids searched on the validation split, as --tune takes them
  'tune_seeds': 3,  # of each point of a grid
  'tuned': {},  # arm -> what an earlier search found; see `tuned`
}


def size(arg: str | None, *, no_paper: str = '') -> str:
  """The part of ``--config FILE:SIZE`` behind the colon, checked.

  Args:
    arg: what stands there.
    no_paper: why a config cannot be run as in its paper, if it cannot.

  Raises:
    UserError: no such size, or 'paper' where that cannot be.
  """
  if arg == 'paper' and no_paper:
    raise UserError(f'--config ...:paper: {no_paper}; leave :paper out')
  if (arg or '') not in SIZES:
    raise unknown('size', str(arg), SIZES[1:], '--config FILE:SIZE')
  return arg or ''


def _shipped(name: str) -> str:
  """The file of a config of jaxkd's own, of its name without folder and ending.

  What is a file itself, or has a folder or an ending, is left as it is.
  """
  if not name.replace('_', '').isalnum() or Path(name).exists():
    return name
  return str(CONFIGS / f'{name}.py')


def load(file: str, named: Mapping[str, str] | None = None) -> ConfigDict:
  """The complete config of ``FILE`` or ``FILE:SIZE``.

  Args:
    file: the file, or the name of one of jaxkd's own configs.
    named: entry -> what it names in place of what stands in the file, be that
      right or wrong.

  Raises:
    UserError: no such file, or a file that is not a config.
  """
  files.refuse_remote(file, at='--config')
  path, _, arg = file.partition(':')
  path = str(files.path(_shipped(path), at='--config'))
  if not Path(path).is_file():
    folder = Path(path).parent
    there = [p.name for p in folder.glob('*.py')] if folder.is_dir() else []
    raise unknown('config file', Path(path).name, there, f'--config {path}')
  if Path(path).suffix != '.py':
    raise UserError(f'--config {path}: a config is a Python file, NAME.py')
  with blamed(f'--config {path}'):
    module = beside(path)
    if not hasattr(module, 'get_config'):
      raise UserError(f'--config {path}: define get_config(arg=None) there')
    given = module.get_config(arg or None)
    if not isinstance(given, Mapping | ConfigDict):
      raise UserError(
        f'--config {path}: get_config gives {given!r} and should give a '
        'ConfigDict or a dict'
      )
    given = old_names.renamed(plain(given), OLD)
    for entry, name in (named or {}).items():
      given = _named(given, entry.split('.'), name, entry)
    config = complete(given)
  with config.unlocked():
    config.name = config.name or Path(path).stem + (f'_{arg}' if arg else '')
    if arg == 'tiny':
      config.report.notes = (wording.TINY, *config.report.notes)
  return config


def _named(config: Any, path: list[str], name: str, at: str) -> Any:
  """A config in which an entry names another, where it names one at all."""
  kind, *rest = path
  if not isinstance(config, Mapping) or kind not in config:
    return config
  if rest:
    return {**config, kind: _named(config[kind], rest, name, at)}
  made = {**config, kind: name}
  for changed, _ in _named_anew(config, {kind: name}):
    made |= options_after(config, changed, name, at.rpartition('.')[0])
  return made


def beside(file: str | Path, name: str = '') -> ModuleType:
  """A config file as a module, for others that start from it.

  Args:
    file: its path; with `name`, that of a file in the same folder.
    name: of the file.
  """
  path = Path(file).with_name(name) if name else Path(file)
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def complete(config: Mapping[str, Any]) -> ConfigDict:
  """A config with an entry for everything that can be set.

  Done where a config comes in; all that is inside takes it complete and plain.
  Entries are in the order of their names, however a file orders them. Teachers
  train as students do but for what their own ``train`` says.

  Raises:
    UserError: an entry that does not exist, or of a wrong type.
  """
  given = old_names.renamed(plain(config), OLD)
  made = merge(_CONFIG, given, '')
  for section in ('teachers', 'students', 'distill', 'arms', 'rounds'):
    for name in made[section]:
      if not re.fullmatch(r'[A-Za-z_]\w*', str(name)):
        raise UserError(
          f'{section}: {name!r} cannot be a name; take letters, digits and _'
        )
  made['distill'] = _terms(made['distill'], 'distill')
  for name, entry in made['teachers'].items():
    made['teachers'][name] = _teacher(entry, made, f'teachers.{name}')
  for name, entry in made['students'].items():
    made['students'][name] = _net(_STUDENT, entry, f'students.{name}')
  for at, train in _trains(made):
    train['by_path'] = {
      path: _own(train, entry, f'{at}.by_path.{path}')
      for path, entry in train['by_path'].items()
    }
  return ConfigDict(made, type_safe=True).lock()


def _teacher(entry: Mapping[str, Any], config: Mapping, at: str) -> dict:
  """A complete group of teachers of a config."""
  # It has terms of its own, and so no parts of the students'.
  train = {k: config['train'][k] for k in _TRAIN}
  train |= {'parts': {}, 'by_path': {}}
  made = _net({**_TEACHER, 'train': train}, entry, at)
  if made['specialize']['of']:
    loss, output = 'jaxkd.teachers.specialists:cross_entropy', 'specialist'
    mask = ''
  else:
    task = tasks.find(config['task'])
    loss, mask = task.GROUND_TRUTH, getattr(task, 'MASK', '')
    output = getattr(task, 'OUTPUT', 'logits')
  truth = {'labels': {'loss': loss, 'at': (output, output), 'mask': mask}}
  terms = made['distill'] or truth
  return {**made, 'distill': _terms(terms, f'{at}.distill')}


def _net(default: Mapping[str, Any], entry: Mapping[str, Any], at: str) -> dict:
  """A complete net, with what its model takes by default."""
  given, entry = entry, merge(default, entry, at)
  name, weights = entry['model'], entry.get('restore', '')
  if torch_module.is_named(name) and weights not in ('', name):
    raise UserError(
      f'{at}.restore: {name!r} comes with its weights, and {weights!r} is '
      f'something else; leave one of {at}.model and {at}.restore out'
    )
  entry |= _with_weights(entry, name)
  weights, model = entry.get('restore', ''), given.get('model')
  if hugging_face.is_folder(weights):
    here = f'{at}.restore'
    if model in (None, models.family_of(weights, at=here)):
      entry['model'] = weights  # whose config.json has its options
    folder = hugging_face.folder(weights, at=here)
    if 'views' not in given and hugging_face_vision.family(folder):
      text = hugging_face_vision.view(folder).text
      entry['views'] = {**entry['views'], 'train': text, 'eval': text}
  if given_nets.has_model(weights) and model != weights:
    _check_left_behind(given, weights, at)
    left = {'kw': {}} if model else {}
    entry |= {'model': weights, **left}
  named = 'restore' if entry['model'] == weights else 'model'
  options = models.defaults(entry['model'], at=f'{at}.{named}')
  return {**entry, 'kw': {**plain(options), **entry['kw']}}


def _with_weights(entry: Mapping, model: str) -> dict:
  """What a model that comes with its weights makes of ``restore``."""
  before = entry.get('restore')  # None of a student, which is not restored
  free = before == '' or (before and torch_module.is_named(before))
  return {'restore': model} if free and torch_module.is_named(model) else {}


def _check_left_behind(given: Mapping, weights: str, at: str) -> None:
  """Refuses options of a model whose place another takes, with its weights."""
  if not given.get('model'):
    return
  name, kw = given['model'], plain(given.get('kw', {}))
  defaults = plain(models.defaults(name, at=f'{at}.model'))
  own = [o for o in kw if o not in defaults or kw[o] != defaults[o]]
  if own:
    raise UserError(
      f'{at}.kw: {", ".join(own)} would be of the model {name}, and '
      f'{at}.restore={weights!r} takes its place; set {at}.model={weights!r} '
      'too'
    )


def _own(train: Mapping[str, Any], entry: Mapping[str, Any], at: str) -> dict:
  """What is said of a path; the rest stays that of `train`, whatever it is."""
  whole = merge({name: train[name] for name in BY_PATH}, entry, at)
  return {name: whole[name] for name in entry}


def _terms(terms: Mapping[str, Any], at: str) -> dict:
  """Complete terms, with what each loss takes by default."""
  made = {}
  for name, entry in terms.items():
    here = f'{at}.{name}'
    _refuse_moved(entry, here)
    entry = merge(_TERM, entry, here)
    if entry['term'] and entry['loss']:
      raise UserError(
        f'{here}.term: {entry["term"]!r} is in place of a loss, and there is '
        f'{here}.loss={entry["loss"]!r}; leave one of them empty'
      )
    if entry['term']:
      options = term_options(entry['term'], at=f'{here}.term')
    else:
      options = loss_options(entry['loss'], at=f'{here}.loss')
    made[name] = {**entry, 'kw': {**options, **entry['kw']}}
  return made


def _refuse_moved(entry: Any, at: str) -> None:
  """Refuses what a term was told in another way before."""
  given = entry if isinstance(entry, Mapping | ConfigDict) else {}
  for name, now in _MOVED.items():
    if name in given:
      raise UserError(f'{at}.{name}: {now}')
  if given.get('loss') in _OF_TERMS:
    raise UserError(
      f'{at}.loss: {given["loss"]} needs more than both sides and the batch; '
      f"write term='{_OF_TERMS[given['loss']]}' in place of loss"
    )


def term_options(name: str, *, at: str) -> dict[str, Any]:
  """The options of a factory of terms that have a value by default."""
  return plain(library.options(name, at=at))


def loss_options(name: str, *, at: str) -> dict[str, Any]:
  """The options of a loss that have a value by default."""
  parameters = inspect.signature(find_loss(name, at=at)).parameters.values()
  return {
    p.name: plain(p.default)
    for p in parameters
    if p.kind is p.KEYWORD_ONLY and p.default not in (p.empty, None)
  }


def plain(config: Any) -> Any:
  """A config as dicts, tuples and plain values."""
  if isinstance(config, ConfigDict):
    config = config.to_dict()
  if isinstance(config, Mapping):
    return {key: plain(value) for key, value in config.items()}
  if isinstance(config, list | tuple):
    return tuple(plain(value) for value in config)
  return config


def merge(default: Mapping, given: Mapping, at: str) -> dict:
  """Defaults with what is given instead, entry by entry.

  Raises:
    UserError: an entry that does not exist, or of a wrong type.
  """
  if not isinstance(given, Mapping):
    raise UserError(f'{at}: {given!r} should be a dict of entries')
  made = plain(default)
  for kind, name in _named_anew(default, given):
    # `complete` adds the options of a model or a loss.
    if kind not in ('model', 'loss', 'term'):
      made |= options_after(default, kind, name, at)
  for name, value in given.items():
    here = f'{at}.{name}' if at else name
    if name not in default:
      raise unknown('entry', name, default, at or 'config')
    if isinstance(default[name], Mapping):
      # The user's own names, or options that a model or function knows.
      open_ended = name in FREE or (not default[name])
      made[name] = (
        plain(_mapping(value, here))
        if open_ended
        else merge(default[name], value, here)
      )
    else:
      made[name] = typed(value, default[name], here)
  return made


def override(config: dict, partial: Mapping, at: str) -> dict:
  """A config with some entries changed, as an arm or a round does.

  What is named anew brings options of its own; see `options_after`. Terms,
  students and, for a round, groups of teachers may be added.

  Raises:
    UserError: an entry that does not exist, or of a wrong type.
  """
  partial = _mapping(partial, at)
  if config.keys() >= _TERM.keys():
    _refuse_moved(partial, at)
  made = dict(config)
  for kind, name in _named_anew(config, partial):
    made |= options_after(config, kind, name, at)
  # Elsewhere it is a number or a text, e.g. in data.fraction.
  if isinstance(config.get('teachers'), Mapping) and 'teachers' in partial:
    made['teachers'] = config['teachers'] | _new_teachers(config, partial, at)
    config = made
  for name, value in partial.items():
    here = f'{at}.{name}'
    if name not in config and _is_new(value, at, 'distill', 'loss', 'term'):
      made[name] = _terms({name: value}, at)[name]
    elif name not in config and _is_new(value, at, 'students', 'model'):
      made[name] = _net(_STUDENT, value, here)
    elif name not in config:
      raise unknown('entry', name, config, at)
    elif name in FREE:
      made[name] = {**made[name], **plain(_mapping(value, here))}
    elif isinstance(config[name], Mapping):
      made[name] = override(config[name], value, here)
    else:
      made[name] = typed(value, config[name], here)
  return made


def _new_teachers(config: dict, partial: Mapping, at: str) -> dict:
  """The groups that a round brings, which train as its students do."""
  given = _mapping(partial['teachers'], f'{at}.teachers')
  train = override(config['train'], partial.get('train', {}), f'{at}.train')
  return {
    name: _teacher(entry, {**config, 'train': train}, f'{at}.teachers.{name}')
    for name, entry in given.items()
    if name not in config['teachers']
    and _is_new(entry, f'{at}.teachers', 'teachers', 'model')
  }


def _is_new(value: Any, at: str, section: str, *named: str) -> bool:
  """Whether an arm brings a term or a role: it names its loss or model."""
  is_dict = isinstance(value, Mapping)
  new = is_dict and any(name in value for name in named)
  return at.endswith(f'.{section}') and new


def _named_anew(config: Mapping, given: Mapping) -> list[tuple[str, str]]:
  """The names of an entry that are given and are not what it has."""
  return [
    (kind, given[kind])
    for kind in OPTIONS
    if isinstance(config.get(kind), str)
    and isinstance(given.get(kind), str)
    and given[kind] != config[kind]
  ]


def options_after(config: Mapping, kind: str, name: str, at: str) -> dict:
  """The entries that belong to a name, once another is named.

  A model's are those of the new one, and a loss's too but for the ones that
  both have, as are those of a term in place of a loss. The others start without
  any, but for a source that only reads another place (``folder:A``,
  ``folder:B``), which keeps what it has.

  Args:
    config: the entry as it is.
    kind: which of `OPTIONS` is named.
    name: what it is to be.
    at: the entry, for error messages.
  """
  if kind == 'model':
    kw = plain(models.defaults(name, at=f'{at}.model')) if name else {}
    return {'kw': kw, **_with_weights(config, name)}
  if kind in ('loss', 'term') and at.endswith('.kw'):
    return {}  # an option of a term, which has no options of its own
  if kind in ('loss', 'term') and name:
    of, other = (
      (loss_options, 'term') if kind == 'loss' else (term_options, 'loss')
    )
    options = of(name, at=f'{at}.{kind}')
    kept = {k: v for k, v in config.get('kw', {}).items() if k in options}
    return {'kw': {**options, **kept}, other: ''}
  if kind == 'source':
    old, new = (text.partition(':')[0] for text in (config[kind], name))
    if old == new and old in sources.NAMES:
      return {}
  return {
    option: type(config[option])()
    for option in OPTIONS[kind]
    if option in config
  }


def put(config: dict, entry: str, value: Any) -> dict:
  """A config with the entry called ``a.b.c`` changed."""
  name, _, rest = entry.partition('.')
  if name not in config:
    raise unknown('entry', name, config, entry)
  return {**config, name: put(config[name], rest, value) if rest else value}


def get(config: Mapping, entry: str, at: str = '') -> Any:
  """The value of the entry called ``a.b.c``."""
  for name in entry.split('.'):
    if not isinstance(config, Mapping) or name not in config:
      known = config if isinstance(config, Mapping) else ()
      raise unknown('entry', name, known, at or entry)
    config = config[name]
  return config


def tuned(file: str | Path) -> dict[str, dict]:
  """What a run found in its search, for the entry `tuned` of another run.

  Args:
    file: the run's tuning.json.
  """
  found = json.loads(
    files.path(file, at='jaxkd.run.config.tuned', remote=True).read_text()
  )
  return {
    arm: dict(
      grid=tuple((entry, tuple(v)) for entry, v in result['grid'].items()),
      values=tuple(result['values']),
    )
    for arm, result in found.items()
  }


def as_json(config: Mapping) -> str:
  """The same text for the same config, whatever order it was written in."""
  return json.dumps(plain(config), indent=2, sort_keys=True) + '\n'


def check_numbers(config: Mapping) -> None:
  """Refuses numbers that make no sense, by the entry's name."""
  _at_least(1, config['train'], 'seeds', 'train')
  _at_least(1, config, 'tune_seeds')
  _at_least(0, config['train'], 'seed', 'train')
  if config['train']['seed'] + config['train']['seeds'] > 2**31:
    raise UserError(
      f'train.seed: {config["train"]["seed"]} should be below 2147483648'
    )
  for at, train in _trains(config):
    _check_train(train, at)
  for section in ('teachers', 'students'):
    for name, entry in config[section].items():
      _check_net(entry, f'{section}.{name}')
  for name, entry in config['teachers'].items():
    _check_teacher(entry, f'teachers.{name}')
  for at, term in _all_terms(config):
    _check_term(term, at)


def _check_train(train: Mapping, at: str) -> None:
  for name in ('steps', 'batch_size', 'accumulate'):
    _at_least(1, train, name, at)
  for name in (
    'eval_every',
    'save_every',
    'steps_per_execution',
    'weight_decay',
    'clip',
    'average',
  ):
    _at_least(0, train, name, at)
  _at_least(0, train, 'early_stopping.patience', at)
  stopping = train['early_stopping']
  if stopping['patience'] and not stopping['metric']:
    raise UserError(
      f'{at}.early_stopping.patience: name the metric that it waits for in '
      f'{at}.early_stopping.metric, or set it to 0'
    )
  known = ('auto', *population.MODES)
  if train['members'] not in known:
    raise unknown('way to run', train['members'], known, f'{at}.members')
  if train['dtype'] not in models.FLOATS:
    raise unknown(
      'floating-point type', train['dtype'], models.FLOATS, f'{at}.dtype'
    )
  if train['param_dtype'] not in precision.KNOWN:
    raise unknown(
      'type of parameters',
      train['param_dtype'],
      precision.KNOWN,
      f'{at}.param_dtype',
    )
  _check_rate(train, at)
  for path, entry in train['by_path'].items():
    here = f'{at}.by_path.{path}'
    _check_rate({**train, **entry}, here)
    for name in ('weight_decay', 'clip'):
      _at_least(0, {**train, **entry}, name, here)
  if train['average'] >= 1:
    raise UserError(f'{at}.average: {train["average"]} should be below 1')
  if train['batch_size'] % train['accumulate']:
    raise UserError(
      f'{at}.accumulate: {train["accumulate"]} parts do not divide a batch '
      f'of {train["batch_size"]}'
    )


def _check_net(entry: Mapping, at: str) -> None:
  _at_least(1, entry, 'count', at)
  if hugging_face.is_folder(entry['init']):
    raise UserError(
      f'{at}.init: {entry["init"]!r} is no group of teachers; write '
      f"teachers.base=dict(restore={entry['init']!r}), and {at}.init='base'"
    )
  dropout = entry['kw'].get('dropout', 0)
  if not (isinstance(dropout, int | float) and 0 <= dropout < 1):
    raise UserError(
      f'{at}.kw.dropout: {dropout!r} should be a number from 0 to below 1'
    )
  if len(entry['reads']) % 2:
    raise UserError(
      f'{at}.reads: {entry["reads"]!r} should be a group and '
      "one of its layers, e.g. ('main', 'stages/2'), or several such pairs "
      'one after another'
    )


def _check_teacher(entry: Mapping, at: str) -> None:
  _at_least(0, entry, 'classes', at)
  _at_least(0, entry, 'cache.top', at)
  if not all(isinstance(name, str) for name in entry['cache']['outputs']):
    raise UserError(
      f'{at}.cache.outputs: {entry["cache"]["outputs"]!r} should '
      "be names of outputs, e.g. ('logits',)"
    )
  if entry['cache']['top'] and 'logits' not in entry['cache']['outputs']:
    raise UserError(
      f"{at}.cache.top: it is about the logits; add 'logits' to "
      f'{at}.cache.outputs, or set it to 0'
    )
  cache = entry['cache']
  for name, value in (('top_p', 1), ('temperature', 1), ('dtype', '')):
    if cache[name] != value and not cache['top']:
      raise UserError(
        f'{at}.cache.{name}: it is about the largest logits; say how many are '
        f'kept in {at}.cache.top, or leave it {value!r}'
      )
  if not 0 < cache['top_p'] <= 1:
    raise UserError(
      f'{at}.cache.top_p: {cache["top_p"]} should be above 0 and at most 1'
    )
  if not 0 < cache['temperature'] < math.inf:
    raise UserError(
      f'{at}.cache.temperature: {cache["temperature"]} should be above 0 and '
      'finite'
    )
  if cache['dtype'] not in ('', *CACHE_DTYPES):
    raise UserError(
      f'{at}.cache.dtype: {cache["dtype"]!r} should be one of '
      f'{", ".join(CACHE_DTYPES)}, or empty'
    )
  if not 0 < entry['specialize']['own'] < 1:
    raise UserError(
      f'{at}.specialize.own: {entry["specialize"]["own"]} should '
      'be above 0 and below 1'
    )


def _check_term(term: Mapping, at: str) -> None:
  if len(term['at']) != 2 or not _is_location(term['at']):
    raise UserError(
      f'{at}.at: {term["at"]!r} should be the output of the '
      "student and that of the teacher, e.g. ('logits', 'logits')"
    )
  weight = term['weight']
  if not 0 <= weight < math.inf:
    raise UserError(
      f'{at}.weight: {weight} should be a finite number, 0 or more'
    )
  if ':' in term['term']:  # whose options mean what they want
    return
  temperature = term['kw'].get('temperature', 1.0)
  number = isinstance(temperature, int | float)
  if not (number and 0 < temperature < math.inf):
    raise UserError(
      f'{at}.kw.temperature: {temperature!r} should be above 0 and finite'
    )


def _check_rate(train, at):
  rate = train['learning_rate']
  if not 0 < rate < math.inf:
    raise UserError(f'{at}.learning_rate: {rate} should be above 0 and finite')


def _is_location(at: Any) -> bool:
  if isinstance(at, tuple):
    return bool(at) and all(map(_is_location, at))
  return isinstance(at, str)


def _trains(config):
  yield 'train', config['train']
  for name, teacher in config['teachers'].items():
    yield f'teachers.{name}.train', teacher['train']


def _all_terms(config):
  for name, term in config['distill'].items():
    yield f'distill.{name}', term
  for group, teacher in config['teachers'].items():
    for name, term in teacher['distill'].items():
      yield f'teachers.{group}.distill.{name}', term


def _at_least(least, config, entry, at=''):
  value = get(config, entry)
  if not least <= value < math.inf:
    here = f'{at}.{entry}' if at else entry
    raise UserError(f'{here}: {value} should be {least} or more, and finite')


def _mapping(value: Any, at: str) -> Mapping:
  if not isinstance(value, Mapping | ConfigDict):
    raise UserError(f'{at}: {value!r} should be a dict of entries')
  return value


def typed(value: Any, default: Any, at: str) -> Any:
  """The value, if it is of the type of what it replaces.

  Raises:
    UserError: it is not.
  """
  value, kind = plain(value), type(default)
  names = kind in (str, tuple) and at.endswith(('.teacher', '.mask'))
  options.check_type(value, str | tuple if names else kind, at=at)
  return value if names else kind(value)
