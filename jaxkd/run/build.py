"""Builds nets from the entries of ``config.teachers`` and ``.students``."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from jaxkd import models, shapes
from jaxkd.data import inputs as inputs_lib
from jaxkd.data import positions, views
from jaxkd.data.sources import Source
from jaxkd.distill import fusion
from jaxkd.distill.roles import AVERAGE, CacheSpec, Role
from jaxkd.errors import UserError, blamed, unknown, within
from jaxkd.logits import factored
from jaxkd.models import given, half, precision, torch_module
from jaxkd.models.external import is_external
from jaxkd.run import terms
from jaxkd.students import compression, inherit
from jaxkd.teachers import specialists
from jaxkd.types import Net

# Arguments of `models.build` that are not for a config's `kw`.
_NOT_OPTIONS = (
  'name', 'num_classes', 'input_shape', 'taps', 'remat', 'before', 'after',
  'freeze', 'dtype', 'at',
)  # fmt: skip
_LARGEST = 2.0  # that ops in front of it make of pixels from 0 to 1


def role(
  entry: Mapping[str, Any],
  source: Source,
  groups: Mapping[str, Role],
  *,
  at: str,
  dtype: str,
  locations: set[str],
  steps: int = 0,
  param_dtype: str = precision.FULL,
) -> Role:
  """Builds the net of an entry, with the outputs that terms look at.

  Args:
    entry: the complete entry of a teacher or a student.
    source: the data, for its shapes and number of classes.
    groups: the teachers that it may read.
    at: the entry's name.
    dtype: the type that the net computes in.
    locations: names of the outputs that terms look at.
    steps: how many steps it trains; 0 if it does not.
    param_dtype: the type of its parameters in a step; see
      `jaxkd.models.precision`.

  Raises:
    UserError: a model, a view or an output that does not exist, or parameters
      that cannot have that type.
  """
  for option in entry['kw']:
    if option in _NOT_OPTIONS:
      raise UserError(f'{at}.kw: {option!r} is set by jaxkd; remove it')
  if steps and torch_module.is_named(entry['model']):
    raise UserError(
      f'{at}.model: {entry["model"]!r} is a net with its weights, which does '
      'not train here; let it be a teacher, and name a model of jaxkd or Flax'
    )
  adapted = bool(entry['kw'].get('lora'))
  if adapted and steps:
    _check_adapted(entry, at)
  reads = pairs(entry['reads'])
  shape = _read(groups, reads, at) if reads else input_shape(entry, source, at)
  found = given_nets(entry, source, shape, at)
  where = f'{at}.restore' if found else f'{at}.model'
  with blamed(where):
    build = _builder(entry, source, shape, at, dtype, param_dtype, found)
    plain = build(())
    with within(f'{where}: '):
      outputs = output_shapes(plain, shape)
      _check_logits(outputs, entry, source, at)
    own = set(outputs)
    quantised = f'{at}.quantize'
    hooks = compression.hooks(plain, entry['quantize'], at=quantised)
    if any(hooks.values()):
      with within(f'{quantised}: '):
        build((), **hooks)
    chosen = f'{at}.train' if at.startswith('teachers.') else 'train'
    if steps and _in_float16(plain, shape):
      here = f'{chosen}.dtype' if dtype == 'float16' else f'{at}.model'
      raise UserError(f'{here}: {half.WHY}')
    taps = tuple(sorted(locations - own))
    net = build(taps, **hooks) if taps or any(hooks.values()) else plain
  fit = models.fitter(
    entry['model'],
    num_classes=classes_of(entry, source),
    at=f'{at}.model',
    **entry['kw'],
  )
  if param_dtype != precision.FULL and (fit or entry['quantize']):
    why = f'{at}.model is fitted' if fit else f'{at}.quantize has levels'
    raise UserError(
      f'{chosen}.param_dtype: {why} that {param_dtype} would round; set it to '
      f'{precision.FULL!r}'
    )
  return Role(
    net,
    entry['views']['train'],
    entry['views']['eval'],
    entry['count'],
    shape,
    reads,
    average_view=entry['views'].get('average', ''),
    at=at,
    **inherit.of_role(entry['init'], entry['freeze'], at=at, adapted=adapted),
    fit=fit,
    compression=compression.compression(
      net, entry['quantize'], entry['prune'], steps=steps, at=at
    ),
    given=found,
  )


def given_nets(
  entry: Mapping[str, Any], source: Source, shape: Any, at: str
) -> given.Given | None:
  """The nets of a group that exist with their weights; None if it has none.

  Args:
    entry: the complete entry of a teacher or a student.
    source: the data, for its number of classes.
    shape: of one example as the nets see it.
    at: the entry's name.

  Raises:
    UserError: an entry that such a group cannot have, or no such nets.
  """
  restore = entry.get('restore', '')
  if not given.is_function(restore):
    return None
  check_restored_model(entry, at)
  if entry['reads'] or _is_special(entry):
    part = 'reads' if entry['reads'] else 'specialize.of'
    raise UserError(
      f'{at}.{part}: {restore} returns finished nets, which see the examples; '
      'leave it empty'
    )
  return given.find(
    restore,
    num_classes=classes_of(entry, source),
    input_shape=shape,
    dtype=entry['train']['dtype'],
    at=at,
    **options_of(entry, source),
  )


def check_restored_model(entry: Mapping[str, Any], at: str) -> None:
  """Refuses another model than the one that is restored with its weights.

  It can be another one where a round changes what is restored.
  """
  if entry['model'] != entry['restore']:
    raise UserError(
      f'{at}.model: it is {entry["model"]!r}, and {at}.restore='
      f'{entry["restore"]!r} takes its place; set it to the same'
    )


def cache_spec(
  name: str,
  entries: Mapping[str, dict],
  stage: str,
  wanted: tuple[str, ...] = (),
) -> CacheSpec | None:
  """Which outputs of a group are cached on disk; None if none are.

  Args:
    name: the group's.
    entries: those of all groups.
    stage: the group's name, unique among all rounds.
    wanted: those that are looked at, of a group without a net, which are cached
      where its entry names none.
  """
  cache = entries[name]['cache']
  if not cache['outputs'] and not is_external(entries[name]['restore']):
    return None

  def described(name):
    entry = entries[name]
    behind = [*entry['reads'][::2], *entry['made_of']]
    if entry['made_of']:
      own = [entry['fuse']]
    else:
      options = [f'{k}={v!r}' for k, v in sorted(entry['kw'].items())]
      own = [
        entry['model'],
        *options,
        entry['quantize'],
        entry['train']['dtype'],
        entry['train']['param_dtype'].removeprefix(precision.FULL),
      ]
    parts = [f'({described(other)})' for other in behind]
    return ' '.join(filter(None, [*own, *entry['reads'][1::2], *parts]))

  outputs = tuple(dict.fromkeys(cache['outputs'] or wanted))
  own = {name: cache[name] for name in ('top', 'top_p', 'temperature', 'dtype')}
  return CacheSpec(
    outputs, dir=cache['dir'], stage=stage, model=described(name), **own
  )


def needs(entry: Mapping[str, Any], distill: Mapping[str, Any]) -> set[str]:
  """The groups that a net reads, starts from or learns from.

  Args:
    entry: the complete entry of a teacher or a student.
    distill: the terms that it trains with.
  """
  found = set(entry['reads'][::2]) | set(entry.get('made_of', ()))
  found.add(entry.get('specialize', {}).get('of', ''))
  found.add(inherit.source(entry['init']))
  for term in distill.values():
    found |= set(terms.groups_of(term))
    if term['fuse_weights'] == fusion.VALIDATION:
      found.add(fusion.validated(terms.groups_of(term)))
  return found - {''}


def pairs(reads: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
  """The groups and locations that an entry's `reads` names in turn."""
  return tuple(zip(reads[::2], reads[1::2], strict=True))


def behind(names: Iterable[str], nets: Mapping[str, Role]) -> list[str]:
  """The groups of these names and all that they read, in the order of `nets`.

  Groups that are made of others hold these, and so read nothing.
  """
  found, left = set(), list(names)
  while left:
    name = left.pop()
    if name in nets and name not in found:
      found.add(name)
      left += [group for group, _ in nets[name].reads]
  return [name for name in nets if name in found]


def _read(groups, reads: tuple[tuple[str, str], ...], at: str) -> Any:
  """The shape of the groups' outputs for one example, concatenated."""
  each = []
  for group, location in reads:
    outputs = output_shapes(groups[group].net, groups[group].shape)
    if location not in outputs:  # of a group that is made of others
      raise unknown('output', location, outputs, f'{at}.reads')
    factored.check_dense(
      outputs[location], 'a net that reads', entry=f'{at}.reads'
    )
    each.append(outputs[location].shape[1:])
  if any(shape[:-1] != each[0][:-1] for shape in each):
    raise UserError(
      f'{at}.reads: layers of the shapes {", ".join(map(str, each))} cannot '
      'be concatenated; all sizes but the last must be equal'
    )
  return (*each[0][:-1], sum(shape[-1] for shape in each))


def viewed_shape(text: str, source: Source, at: str) -> Any:
  """The shape of one example behind a view."""
  view = views.parse(text, at=at)
  if moved := views.moving(view):
    first = source.splits['train'].fetch(np.arange(1))
    example = jax.tree.map(lambda x: x[0], first)
    with within(f'{at}: '):
      field = positions.positional(example, source.fields)
    if field:
      raise UserError(
        f'{at}: {moved[0]} moves the pixels of {source.name} and not their '
        f'{field}; leave it out, and move both in data.augment'
      )
  _check_around_zero(view, source, at)
  found = views.output_shape(view, source.input_shape, at=at)
  _check_unit(view, source, at)
  return found


def _check_around_zero(view: views.View, source: Source, at: str) -> None:
  """Refuses ops on vectors or differences that do not fit what bytes mean."""
  part = views.part_of(view) or 'inputs'
  kind = source.fields.get(part)
  if kind not in positions.AROUND_ZERO:
    return
  names = [op.name for op in view.ops]
  colours = [name for name in names if name in views.OF_COLOURS]
  if colours:
    raise UserError(
      f'{at}: {colours[0]} changes colours, and the {part} of {source.name} '
      'has none; leave it out'
    )
  turns = views.turning(view)
  if turns and kind == positions.VECTORS:
    raise UserError(
      f'{at}: {turns[0]} would move the vectors of {source.name} and leave '
      'their directions as they are; leave it out, or use flip or dihedral in '
      'data.augment, which turn them too'
    )
  fills = views.filling(view)
  if fills:
    raise UserError(
      f'{at}: {fills[0]} puts in bytes of 0, and in the {part} of '
      f'{source.name} {positions.ZERO} stands for zero; put it behind '
      f'standardize({positions.ZERO / 255:.3f}, ...), or use data.augment'
    )


def _check_unit(view: views.View, source: Source, at: str) -> None:
  """Refuses to standardise pixels from 0 to 1 by what bytes have."""
  for mean in views.means(view):
    arrays = inputs_lib.of(source).arrays if mean > _LARGEST else None
    if inputs_lib.is_array(arrays) and arrays.is_unit:
      raise UserError(
        f'{at}: standardize subtracts {mean:g}, and the inputs of '
        f'{source.name} are from 0 to 1 when a view sees them; divide its mean '
        'and its std by 255'
      )


def input_shape(entry: Mapping[str, Any], source: Source, at: str) -> Any:
  """The shape of one example as the entry's net sees it."""
  seen = {}
  for use, text in entry['views'].items():
    if use == 'average' and not text:
      continue
    here = f'{at}.views.{use}'
    with blamed(here):
      seen[use] = viewed_shape(text, source, here)
  for use, shape in seen.items():
    if shape != seen['train']:
      raise UserError(
        f'{at}.views: the net is shown {seen["train"]} by train and {shape} '
        f'by {use}; make all views give one shape'
      )
  return seen['train']


def output_shapes(net: Net, shape: Any) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes of the net's outputs for a batch of one; nothing is computed."""
  inputs, key = shapes.batch(shape), jax.random.key(0)
  return jax.eval_shape(lambda x: net.apply(net.init(key), x)[0], inputs)


def _check_logits(
  outputs: Mapping[str, jax.ShapeDtypeStruct],
  entry: Mapping[str, Any],
  source: Source,
  at: str,
) -> None:
  """Refuses logits for more classes, or fewer, than the data has.

  With fewer, some labels would give NaN; with more, some logits would stand for
  no class, and nobody would notice.
  """
  shape = outputs['logits'].shape if 'logits' in outputs else None
  count = classes_of(entry, source)
  if shape is None or shape[-1:] == (count,):
    return
  todo = 'let it take the argument num_classes and give that many'
  if 'classes' in entry:
    todo += f', or set {at}.classes to as many as it has'
  raise UserError(
    f'the model {entry["model"]} gives logits of shape {list(shape)} for one '
    f'example, and there are {count} classes; {todo}'
  )


def _check_adapted(entry: Mapping[str, Any], at: str) -> None:
  """Refuses adapters of what has not been trained, or is not plain."""
  if entry['init'] == inherit.RANDOM:
    raise UserError(
      f'{at}.kw.lora: the parameters beside the adapters do not train and '
      f'would stay random; name a group of teachers to start from in {at}.init'
    )
  for other in ('quantize', 'prune'):
    if entry[other]:
      raise UserError(
        f'{at}.{other}: adapters are merged when training is over, and what is '
        f'compressed cannot be; leave it empty, or {at}.kw.lora'
      )


def options_of(entry: Mapping[str, Any], source: Source) -> dict[str, Any]:
  """The options of a net; special tokens are those of the data's tokenizer."""
  kw, tokenizer = dict(entry['kw']), getattr(source, 'tokenizer', None)
  for name in ('pad', 'bos', 'eos'):
    if name in kw and kw[name] is None and tokenizer is not None:
      kw[name] = getattr(tokenizer.special, name)
  return kw


def _in_float16(net: Net, shape: Any) -> bool:
  """Whether the net computes in float16."""
  key = jax.random.key(0)
  return half.computes_in_float16(
    lambda x: net.apply(net.init(key), x), shapes.batch(shape)
  )


def layers(
  entry: Mapping[str, Any], shape: Any, source: Source, at: str
) -> dict[str, jax.ShapeDtypeStruct]:
  """Every layer that a term can look at, with its shape for one example."""
  found = given_nets(entry, source, shape, at)
  return models.tap_shapes(
    entry['model'],
    num_classes=classes_of(entry, source) + _is_special(entry),
    input_shape=shape,
    at=f'{at}.model',
    made=found and found.made,
    **entry['kw'],
  )


def locations(
  distill: Mapping[str, Any], name: str, *, teacher: bool
) -> dict[str, str]:
  """The outputs of a net that the terms in use look at.

  Args:
    distill: the complete terms.
    name: of the net.
    teacher: whether it teaches, or trains by these terms.

  Returns:
    Output -> the entry of a term that looks at it, e.g. ``'distill.hint.at'``.
  """
  used, found = terms.in_use(distill), {}
  others = [term['otherwise'] for term in used.values()]
  used |= {other: distill[other] for other in others if other in distill}
  for called, term in used.items():
    groups, seen = terms.groups_of(term), set()
    student, taught = terms.outputs_of(term)
    if teacher and name in groups:
      seen |= taught
    if not teacher and term['of'] in ('', name):
      seen |= student
    # A peer is seen as a teacher is, and so is the net's own running mean.
    own = AVERAGE in groups and term['of'] in ('', name)
    if not teacher and (name in groups or own):
      seen |= taught
    for output in seen - found.keys():
      part = '.at' if output in jax.tree.leaves(term['at']) else ''
      found[output] = f'distill.{called}{part}'
  return found


def classes_of(entry: Mapping[str, Any], source: Source) -> int:
  """The number of classes of a net's logits."""
  return entry.get('classes') or source.num_classes


def _is_special(entry: Mapping[str, Any]) -> bool:
  """Whether the net is a specialist, with one more class for all others."""
  return bool(entry.get('specialize', {}).get('of'))


def _builder(entry, source, shape, at, dtype, param_dtype, found):
  special = _is_special(entry)
  made = found and found.made

  def build(taps, **hooks):
    with within(f'{at}: '):
      net = models.build(
        entry['model'],
        num_classes=classes_of(entry, source) + special,
        input_shape=shape,
        taps=taps,
        remat=entry['remat'],
        freeze=entry['freeze'],
        **hooks,
        dtype=dtype,
        at=f'{at}.restore' if found else f'{at}.model',
        made=made,
        **options_of(entry, source),
      )
    if found:
      net = net._replace(init=lambda key: found.first)
    if special:
      net = specialists.specialist(net, source.num_classes)
    return traced_once(precision.rounding(net, param_dtype))

  return build


def traced_once(net: Net) -> Net:
  """The net, traced only once for all programs of the run."""
  return net._replace(
    init=jax.jit(net.init, inline=True),
    apply=jax.jit(net.apply, static_argnames='train', inline=True),
  )
