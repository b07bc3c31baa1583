"""From the entries of ``config.teachers`` and ``config.students`` to nets."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd import models, shapes
from jaxkd.data import views
from jaxkd.data.sources import Source
from jaxkd.distill import fusion, terms
from jaxkd.distill.step import Kept, Role, teach
from jaxkd.errors import UserError, blamed, unknown, within
from jaxkd.models import half
from jaxkd.students import compression, inherit
from jaxkd.teachers import many, specialists
from jaxkd.types import Net

# Arguments of `models.build` that are not for a config's `kw`.
_NOT_OPTIONS = (
  'name', 'num_classes', 'input_shape', 'taps', 'remat', 'before', 'after',
  'freeze', 'dtype', 'at',
)  # fmt: skip


def role(
  entry: Mapping[str, Any],
  source: Source,
  groups: Mapping[str, Role],
  *,
  at: str,
  dtype: str,
  locations: set[str],
  steps: int = 0,
) -> Role:
  """A net that shows what the terms want to see of it.

  Args:
    entry: the complete entry of a teacher or a student.
    source: the data, for its shapes and number of classes.
    groups: the teachers that it may read.
    at: the entry's name.
    dtype: what the net computes in.
    locations: names of the outputs that terms look at.
    steps: how many it trains; 0 if it does not.

  Raises:
    UserError: a model, a view or an output that is not there.
  """
  for option in entry['kw']:
    if option in _NOT_OPTIONS:
      raise UserError(f'{at}.kw: {option!r} is not for the config to set')
  reads = pairs(entry['reads'])
  shape = _read(groups, reads, at) if reads else input_shape(entry, source, at)
  with blamed(f'{at}.model'):
    build = _builder(entry, source, shape, at, dtype)
    plain = build(())
    with within(f'{at}.model: '):
      outputs = output_shapes(plain, shape)
      _check_logits(outputs, entry, source, at)
    own = set(outputs)
    quantised = f'{at}.quantize'
    hooks = compression.hooks(plain, entry['quantize'], at=quantised)
    if any(hooks.values()):
      with within(f'{quantised}: '):
        build((), **hooks)
    if steps and _in_float16(plain, shape):
      chosen = f'{at}.train' if at.startswith('teachers.') else 'train'
      here = f'{chosen}.dtype' if dtype == 'float16' else f'{at}.model'
      raise UserError(f'{here}: {half.WHY}')
    taps = tuple(sorted(locations - own))
    net = build(taps, **hooks) if taps or any(hooks.values()) else plain
  return Role(
    net,
    entry['views']['train'],
    entry['views']['eval'],
    entry['count'],
    shape,
    reads,
    entry['init'],
    entry['freeze'],
    entry['views'].get('average', ''),
    at,
    fit=models.fitter(
      entry['model'],
      num_classes=classes_of(entry, source),
      at=f'{at}.model',
      **entry['kw'],
    ),
    compression=compression.compression(
      net, entry['quantize'], entry['prune'], steps=steps, at=at
    ),
  )


def joined(
  entry: Mapping[str, Any],
  entries: Mapping[str, dict],
  groups: Mapping[str, Role],
  source: Source,
  *,
  at: str,
) -> Role:
  """A group that is made of others: what they predict together.

  They see the examples as this group does if it has views of its own, else
  each as it does by itself. A view that gives several copies of an example, as
  `jaxkd.data.views.turns` does, is for all of them to be fused too.

  Args:
    entry: its complete entry.
    entries: those of all groups.
    groups: the nets of those before it.
    source: the data, for its shapes.
    at: the entry's name.

  Raises:
    UserError: a group or a fusion that is not there, or does not fit.
  """
  names, fuse = entry['made_of'], entry['fuse']
  for name in names:
    if name not in groups:
      raise unknown('teacher', name, groups, f'{at}.made_of')
  known = (*many.FUSIONS, many.SPECIALISTS)
  if fuse not in known:
    raise unknown('fusion', fuse, known, f'{at}.fuse')
  special = [bool(entries[name]['specialize']['of']) for name in names]
  for kind in ('quantize', 'prune'):
    if entry[kind]:
      raise UserError(
        f'{at}.{kind}: the group is made of others; set it for these'
      )
  if fuse == many.SPECIALISTS and (
    special != [False, True] or entries[names[0]]['count'] > 1
  ):
    raise UserError(
      f'{at}.made_of: {names!r} should be one generalist and then a group of '
      'specialists'
    )
  if fuse != many.SPECIALISTS and any(special):
    raise UserError(f"{at}.fuse: set it to 'specialists', which {names} are")
  inside = {name: groups[name] for name in behind(names, groups)}
  seeing = {name: role for name, role in inside.items() if not role.reads}
  wanted = {name: role.shape for name, role in seeing.items()}

  def viewed(use, field):
    """How each of them sees an example, and the shape of that."""
    theirs = {name: getattr(role, field) for name, role in seeing.items()}
    text, here = entry['views'][use], f'{at}.views.{use}'
    if not text:
      return theirs, wanted
    given = _seen(text, source, here)
    return (jax.tree.map(lambda _, x=x: x, theirs) for x in (text, given))

  view, shape = viewed('train', 'view')
  eval_view, other = viewed('eval', 'eval_view')
  if shape != other:
    raise UserError(
      f'{at}.views: its nets are shown {shape} by train and {other} by eval; '
      'make both give one shape'
    )
  copies = _copies(shape, wanted, f'{at}.views')
  if copies and fuse == many.SPECIALISTS:
    raise UserError(f'{at}.views: specialists see one copy of an example')

  def outputs(variables, inputs):
    if not copies:
      found = teach(inside, variables, inputs)
      return [found[name] for name in names]
    merged = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), inputs)
    found = teach(inside, variables, merged)
    return [_as_nets(found[name]['logits'], copies) for name in names]

  net = many.together(
    {name: role.net for name, role in inside.items()},
    {name: entries[name]['count'] for name in inside},
    outputs,
    fuse,
    most=max(entries[name]['specialize']['overlap'] for name in names),
  )
  return Role(_traced_once(net), view, eval_view, shape=shape, at=at)


def _copies(given: Any, wanted: Any, at: str) -> int:
  """How many copies of an example are shown to nets that take one; 0 for one.

  Args:
    given: shapes of what is shown.
    wanted: shapes of what the nets take, the same tree.
    at: the config entry.

  Raises:
    UserError: shapes of something else.
  """
  sizes = map(shapes.flat, (given, wanted))
  found = set()
  for shown, one in zip(*sizes, strict=True):
    if shown not in (one, (*shown[:1], *one)):
      raise UserError(
        f'{at}: {shown} would be shown to nets that take {one}; give views of '
        'that shape, or of several such examples'
      )
    found.add(0 if shown == one else shown[0])
  return found.pop()


def _as_nets(logits: Array, copies: int) -> dict[str, Array]:
  """Logits of copies, [T, B · copies, K], as those of T · copies nets."""
  split = logits.reshape(len(logits), -1, copies, logits.shape[-1])
  return {'logits': jnp.concatenate(jnp.moveaxis(split, 2, 1))}


def kept(name: str, entries: Mapping[str, dict], stage: str) -> Kept | None:
  """What is kept on disk of a group's outputs, if anything.

  Args:
    name: the group's.
    entries: those of all groups.
    stage: what the group is called among those of all rounds.
  """
  cache = entries[name]['cache']
  if not cache['outputs']:
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
      ]
    parts = [f'({described(other)})' for other in behind]
    return ' '.join(filter(None, [*own, *entry['reads'][1::2], *parts]))

  outputs = tuple(dict.fromkeys(cache['outputs']))
  return Kept(outputs, cache['top'], cache['dir'], stage, described(name))


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
  """The shape of what groups give at locations for one example, together."""
  each = []
  for group, location in reads:
    if group not in groups:
      raise unknown('teacher', group, groups, f'{at}.reads')
    outputs = output_shapes(groups[group].net, groups[group].shape)
    each.append(outputs[location].shape[1:])
  if any(shape[:-1] != each[0][:-1] for shape in each):
    raise UserError(
      f'{at}.reads: layers of the shapes {", ".join(map(str, each))} cannot '
      'be put one behind the other; all but the last size must be the same'
    )
  return (*each[0][:-1], sum(shape[-1] for shape in each))


def _seen(text: str, source: Source, at: str) -> Any:
  """The shape of one example as a view makes it."""
  view = views.parse(text, at=at)
  moved = views.moving(view)
  if moved and len(source.splits['train'].index.each) > 1:
    raise UserError(
      f'{at}: {moved[0]} moves the pixels of {source.name} and not their '
      'labels; leave it out'
    )
  return views.output_shape(view, source.input_shape, at=at)


def input_shape(entry: Mapping[str, Any], source: Source, at: str) -> Any:
  """The shape of one example as the entry's net sees it."""
  seen = {}
  for use, text in entry['views'].items():
    if use == 'average' and not text:
      continue
    here = f'{at}.views.{use}'
    with blamed(here):
      seen[use] = _seen(text, source, here)
  for use, shape in seen.items():
    if shape != seen['train']:
      raise UserError(
        f'{at}.views: the net is shown {seen["train"]} by train and {shape} '
        f'by {use}; make all views give one shape'
      )
  return seen['train']


def output_shapes(net: Net, shape: Any) -> dict[str, jax.ShapeDtypeStruct]:
  """What the net gives for a batch of one; nothing is computed."""
  inputs, key = shapes.batch(shape), jax.random.key(0)
  return jax.eval_shape(lambda x: net.apply(net.init(key), x)[0], inputs)


def _check_logits(
  outputs: Mapping[str, jax.ShapeDtypeStruct],
  entry: Mapping[str, Any],
  source: Source,
  at: str,
) -> None:
  """Refuses logits that tell apart more classes, or fewer, than they should.

  Labels that they have no place for would give NaN, and places that no label is
  for nothing that a reader sees.
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


def _in_float16(net: Net, shape: Any) -> bool:
  """Whether the net computes in it."""
  key = jax.random.key(0)
  return half.computes_in_float16(
    lambda x: net.apply(net.init(key), x), shapes.batch(shape)
  )


def layers(
  entry: Mapping[str, Any], shape: Any, source: Source, at: str
) -> dict[str, jax.ShapeDtypeStruct]:
  """Every layer that a term can look at, with its shape for one example."""
  return models.tap_shapes(
    entry['model'],
    num_classes=classes_of(entry, source) + _is_special(entry),
    input_shape=shape,
    at=f'{at}.model',
    **entry['kw'],
  )


def locations(
  distill: Mapping[str, Any], name: str, *, teacher: bool
) -> set[str]:
  """Names of the outputs of a net that the terms in use look at."""
  used = [*terms.in_use(distill).values()]
  used += [distill[t['otherwise']] for t in used if t['otherwise'] in distill]
  found = set()
  for term in used:
    groups = terms.groups_of(term)
    if teacher and name in groups:
      found |= _flat(term['at'][1])
    if not teacher and term['of'] in ('', name):
      found |= _flat(term['at'][0])
    # A peer is seen as a teacher is, and so is the net's own running mean.
    own = terms.AVERAGE in groups and term['of'] in ('', name)
    if not teacher and (name in groups or own):
      found |= _flat(term['at'][1])
  return found


def _flat(location) -> set[str]:
  if isinstance(location, str):
    return {location}
  return set().union(*map(_flat, location))


def classes_of(entry: Mapping[str, Any], source: Source) -> int:
  """How many classes a net tells apart."""
  return entry.get('classes') or source.num_classes


def _is_special(entry: Mapping[str, Any]) -> bool:
  """Whether the net has a dustbin, one more class than there are."""
  return bool(entry.get('specialize', {}).get('of'))


def _builder(entry, source, shape, at, dtype):
  special = _is_special(entry)

  def build(taps, **hooks):
    try:
      net = models.build(
        entry['model'],
        num_classes=classes_of(entry, source) + special,
        input_shape=shape,
        taps=taps,
        remat=entry['remat'],
        freeze=entry['freeze'],
        **hooks,
        dtype=dtype,
        at=f'{at}.model',
        **entry['kw'],
      )
    except UserError as error:
      if str(error).startswith(at):
        raise
      raise UserError(f'{at}: {error}') from error
    if special:
      net = specialists.specialist(net, source.num_classes)
    return _traced_once(net)

  return build


def _traced_once(net: Net) -> Net:
  """The net, traced once for all programs of the run that it is a part of."""
  return net._replace(
    init=jax.jit(net.init, inline=True),
    apply=jax.jit(net.apply, static_argnames='train', inline=True),
  )
