"""Cached teacher outputs: read from disk and not computed in the step.

If the view of a group is not random, its outputs depend on the example alone,
and the cache has one row for each example. If the view is random, they depend
on (seed, epoch, example), and the cache has one row for each example that a
member meets, in the order in which it does, whatever the batch size is. If
seeds see examples of their own or have teachers of their own, each seed has its
own line of such rows.
"""

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxkd import compilation, files, shapes, source_code
from jaxkd.data import cache, fingerprint, views
from jaxkd.data.examples import ArrayExamples
from jaxkd.data.loader import Loader, ahead
from jaxkd.data.sources import Source
from jaxkd.distill.contexts import shown, teach
from jaxkd.distill.roles import CacheSpec, Group, Role
from jaxkd.errors import Stopped, UserError, unknown
from jaxkd.logits import SparseLogits, factored, packed
from jaxkd.run.types import Session
from jaxkd.train import sharding

_NEAR = 64  # rows that are read together where they follow one another
_AT_ONCE = 2**28  # bytes of outputs that are computed together
_SPARSE = 'logits.'  # before the names of the arrays of sparse logits


class CachedOutputs:
  """The cached outputs of one group, as one population sees them.

  Args:
    name: the group's.
    roles: its net, and those of the groups that it reads.
    variables: of these nets, [T, ...], or [M, T, ...] where their axis is 0.
    axes: the axis of members in the variables of each group: 0 or None.
    source: the data.
    loader: the batches of the population.
    seeds: of its members.
    weights: of the training examples for its members, [M, N].
    steps: how many steps it takes.
    root: the folder for caches whose entry names none.
    split: of the data, that the examples are.

  Raises:
    UserError: an output that does not exist, `top` above the number of classes,
      or several hosts.
  """

  def __init__(
    self,
    name: str,
    roles: Mapping[str, Role],
    variables: Mapping[str, dict],
    axes: Mapping[str, int | None],
    *,
    source: Source,
    loader: Loader,
    seeds: Sequence[int],
    weights: np.ndarray,
    steps: int,
    root: Path,
    split: str = 'train',
  ):
    self._at, self._spec = f'teachers.{name}.cache', roles[name].cache
    if jax.process_count() > 1:
      raise UserError(
        f'{self._at}.outputs: caching works on a single host only; run on one '
        'host, or leave this empty'
      )
    self._name, self._roles, self._loader = name, roles, loader
    self._variables, self._axes, self._split = variables, axes, split
    self._external = roles[name].external
    self._views = {n: r.view for n, r in roles.items() if not r.reads}
    parsed = [views.parse(text) for text in jax.tree.leaves(self._views)]
    self._draws = any(views.draws(v, source.input_shape) for v in parsed)
    if self._external:  # which takes what the view shows, and not its net
      self._view, self._views = roles[name].view, {name: ''}
    self._text = ' and '.join(dict.fromkeys(view.recorded for view in parsed))
    # Members of one seed differ in nothing that a teacher could see.
    own = self._draws or 0 in axes.values()
    self._seeds = list(dict.fromkeys(seeds)) if own else [0]
    self._line = np.array([self._seeds.index(s) if own else 0 for s in seeds])
    self._same = self._line.tolist() == list(range(self.lines))
    self._member = [self._line.tolist().index(i) for i in range(self.lines)]
    if self._draws:
      rows = steps * loader.batch_size
      order = np.array([loader.order == 'shared', loader.together])
      met = [order, np.array(self._seeds), weights[self._member]]
    else:
      seen = weights[self._member] if own else weights.any(0)[None]
      met = [np.flatnonzero(each).astype(np.int32) for each in seen]
      rows = max(map(len, met))
      self._ids = met
      self._row = np.zeros(seen.shape, np.int32)
      for line, ids in enumerate(met):
        self._row[line, ids] = np.arange(len(ids))
    id = np.zeros(1, np.int32)
    one = loader.examples.fetch(id)['inputs']
    if self._external:
      one = shapes.batch(roles[name].shape)
    given = jax.eval_shape(self._outputs, self._of(0), one, id, id, 0)
    self._given = {
      at: jax.ShapeDtypeStruct((x.shape[0], *x.shape[2:]), x.dtype)
      for at, x in given.items()
    }
    coded = jax.eval_shape(self._encode, given)
    self.layout = cache.Layout(
      {
        at: jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
        for at, x in coded.items()
      },
      self.lines,
      rows,
      _NEAR if self._draws else 1,
      compressed=self._spec.top_p < 1,
    )
    below = Path(self._spec.stage, cache.fingerprint(met)[:12])
    own = self._spec.dir
    place = root
    if own:
      place = files.path(own, at=f'{self._at}.dir', remote=True)
    self.folder = files.absolute(place) / below
    self._shown = self.folder if own else f"the workdir's {root.name}/{below}"
    self._cache: cache.Cache | None = None

  @property
  def lines(self) -> int:
    """How many lines of rows there are."""
    return len(self._seeds)

  @property
  def in_memory(self) -> bool:
    """Whether looking up reads no disk."""
    return self._cache.in_memory

  def __str__(self) -> str:
    spec, layout = self._spec, self.layout
    names = [
      f'{at} (the {spec.top} largest)' if at == 'logits' and spec.top else at
      for at in spec.outputs
    ]
    some = 'up to ' if layout.compressed else ''
    count = f'{layout.rows:,}'
    count = count if self.lines == 1 else f'{self.lines} × {count}'
    what = 'views of examples' if self._draws else 'examples'
    return (
      f'{self._at}: {", ".join(names)} of {count} {what}, '
      f'{some}{cache.size(layout.on_disk)}, in {self._shown}'
    )

  def check(self) -> None:
    """Checks the disk before anything trains.

    Raises:
      UserError: the disk is too small, or the folder holds something else.
    """
    if self._spec.dir:  # what is in a workdir, `workdir.enter` looks at
      cache.find(self.folder, self.layout, self._facts(), self._at)
    cache.check_room(self.folder, self.layout, self._at)

  def keep(
    self,
    progress: Callable,
    say: Callable[[str], None],
    stop: threading.Event | None,
  ) -> None:
    """Finds the cache, or writes it, and opens it.

    Raises:
      UserError: the cache there is damaged or of other outputs, or the disk is
        full.
      Stopped: `stop` was set; the next run goes on from what is written.
    """
    facts = self._facts()
    facts['teacher'] = cache.fingerprint(
      sharding.fetch(self._of(line)) for line in range(self.lines)
    )
    sought = self.folder, self.layout, facts, self._at
    is_new = not cache.find(*sought)
    if is_new:
      say(str(self))
      with cache.drafted(*sought) as draft:
        if draft is not None:
          self._write(draft, progress, stop)
      cache.find(*sought)
    self._cache = cache.Cache(self.folder, self.layout, self._at)
    for note in self.notes() if is_new else ():
      say(f'{self._at}: {note}')

  def notes(self) -> list[str]:
    """What the row says of what is kept, once it is."""
    spec, read = self._spec, min(cache.BLOCK, self.layout.rows)
    most = 'up to ' if self.layout.compressed else ''
    found = [
      f'outputs of the teachers {self._name} take {most}{self._bytes()} on disk'
    ]
    if spec.top_p == 1:
      return found
    return [
      *found,
      f'of the teachers {self._name}, {self._kept(read):.1f} classes are kept '
      f'on average (at most {spec.top}, for a probability of {spec.top_p:g}), '
      f'in {read:,} of {self.layout.rows:,} examples',
    ]

  def look(self, step: int, id: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs of the group for the batch of a step.

    Args:
      step: its number.
      id: its examples, [M, B], or [B] where all members see the same.

    Returns:
      location -> outputs, of the shape of `id` and then [T, ...].
    """
    if self._draws:
      size = id.shape[-1]
      found = self._cache.span(step * size, (step + 1) * size)
      if not self._same:
        found = {name: x[self._line] for name, x in found.items()}
      if id.ndim == 1:
        found = {name: x[0] for name, x in found.items()}
    else:
      line = self._line[:, None] if id.ndim > 1 else self._line[0]
      found = self._cache.take(line, self._row[line, id])
    return self._decode(found)

  def blank(self, id: np.ndarray) -> dict[str, np.ndarray]:
    """Zeros of the shape of what `look` gives."""
    arrays = self.layout.arrays.items()
    return self._decode(
      {at: np.zeros((*id.shape, *x.shape), x.dtype) for at, x in arrays}
    )

  def _facts(self) -> dict[str, Any]:
    """Everything that the rows depend on but the parameters, by name."""
    spec, sparse = self._spec, {}
    if spec.top:
      sparse = {
        'top_p': spec.top_p,
        'temperature': spec.temperature,
        'dtype': packed.dtype_of(spec.top, self._classes, spec.dtype),
      }
    return {
      'model': spec.model,
      'view': self._text,
      'data': fingerprint.of_examples(self._loader.examples)['inputs'],
      'outputs': list(spec.outputs),
      'top': spec.top,
      **sparse,
      **source_code.fact([spec.model, self._text]),
    }

  def _of(self, line: int) -> dict:
    """The variables that a line was computed with."""
    own = lambda x: x[self._member[line]]  # noqa: E731
    return {
      name: tree if self._axes[name] is None else shapes.mapped(own, tree)
      for name, tree in self._variables.items()
    }

  def _examples(self, line: int, start: int, stop: int):
    """The numbers of the examples of rows, and their epochs."""
    if self._draws:
      member = 0 if self._loader.order == 'shared' else self._member[line]
      return self._loader.stream(member, start, stop)
    ids = self._ids[line]  # what is behind the last of them is filled up
    id = ids[np.minimum(np.arange(start, stop), len(ids) - 1)]
    return id, np.zeros_like(id)

  def _write(self, draft: cache.Draft, progress, stop) -> None:
    """Computes the missing rows, shard by shard, on all devices."""
    size = min(cache.BLOCK, self.layout.rows, self._at_once())
    mesh = sharding.mesh(1, size)
    mesh = mesh if mesh.size > 1 else None

    @compilation.jit
    def view(inputs, epoch, id, seed):
      batch = {'inputs': inputs, 'epoch': epoch, 'id': id}
      return shown(self._view, batch, seed)

    @compilation.jit
    def run(variables, inputs, epoch, id, seed):
      return self._encode(self._outputs(variables, inputs, epoch, id, seed))

    missing = draft.missing()
    stage = f'outputs/{self._spec.stage}'
    with progress(stage, len(missing)) as show:
      held, variables = None, None
      for done, (line, begin, end) in enumerate(missing, 1):
        if line != held:
          held, variables = line, sharding.put(self._of(line), mesh)
        parts = []
        for start in range(begin, end, size):
          if stop is not None and stop.is_set():
            raise Stopped(
              f'{stage} stopped with {done - 1} of {len(missing)} parts'
            )
          id, epoch = self._examples(line, start, start + size)
          seed = np.uint32(self._seeds[line])
          if self._external:
            inputs = self._external.outputs(
              self._split,
              id,
              lambda id=id, epoch=epoch, seed=seed: jax.device_get(
                view(self._fetched(id), epoch, id, seed)
              ),
            )
          else:
            inputs = self._fetched(id)
          batch = sharding.put((inputs, epoch, id), mesh, sharding.DATA)
          parts.append(sharding.fetch(run(variables, *batch, seed)))
        rows = jax.tree.map(lambda *x: np.concatenate(x), *parts)
        draft.write(line, begin, {n: x[: end - begin] for n, x in rows.items()})
        show(done, {})

  def _fetched(self, id: np.ndarray) -> Any:
    """The inputs of examples, as the data have them."""
    return self._loader.examples.fetch(id)['inputs']

  def _outputs(self, variables, inputs, epoch, id, seed) -> dict[str, Array]:
    """The outputs of the group that are cached, [T, B, ...]."""
    batch = {'inputs': inputs, 'epoch': epoch, 'id': id}
    seen = shown(self._views, batch, seed)
    given = teach(self._roles, variables, seen)[self._name]
    for at in self._spec.outputs:
      if at not in given:
        raise unknown('output', at, given, f'{self._at}.outputs')
    kept = {at: given[at] for at in self._spec.outputs}
    factored.check_dense(kept, 'a cache', entry=f'{self._at}.outputs')
    return kept

  def _encode(self, given: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs as they are stored, [B, T, ...]."""
    found = {at: jnp.moveaxis(x, 0, 1) for at, x in given.items()}
    spec = self._spec
    if not spec.top:
      return found
    logits = found.pop('logits')
    classes = logits.shape[-1]
    if spec.top > classes:
      raise UserError(
        f'{self._at}.top: there are {classes} classes and not {spec.top}; use '
        f'{classes} or fewer, or 0 for the logits as they are'
      )
    largest = SparseLogits.of(
      logits, spec.top, temperature=spec.temperature, top_p=spec.top_p
    )
    dtype = packed.dtype_of(spec.top, classes, spec.dtype)
    arrays = packed.pack(largest, dtype)
    return {**found, **{f'{_SPARSE}{name}': x for name, x in arrays.items()}}

  def _decode(self, found: dict[str, np.ndarray]) -> dict[str, Any]:
    """The inverse; the largest logits stay sparse."""
    if not self._spec.top:
      return found
    whole = {at: x for at, x in found.items() if not at.startswith(_SPARSE)}
    arrays = {
      at.removeprefix(_SPARSE): x for at, x in found.items() if at not in whole
    }
    logits = packed.unpack(arrays, self._classes, self._spec.temperature)
    return {**whole, 'logits': logits}

  @property
  def _classes(self) -> int:
    return self._given['logits'].shape[-1]

  def _bytes(self) -> str:
    """The size of an example's outputs, and of what one of its labels has."""
    layout = self.layout
    row = layout.nbytes // (layout.lines * layout.rows)
    said = f'{row:,} bytes an example'
    logits = self._given.get('logits')
    labels = math.prod(logits.shape[1:-1]) if logits else 1
    return f'{said}, or {row / labels:,.0f} a label,' if labels > 1 else said

  def _at_once(self) -> int:
    """How many rows to compute together, a power of 2."""
    row = sum(x.size * x.dtype.itemsize for x in self._given.values())
    return 2 ** max(0, (_AT_ONCE // row).bit_length() - 1)

  def _kept(self, read: int) -> float:
    """How many classes are kept on average in so many rows of the first line.

    By label that counts, where labels have the shape of what is kept.
    """
    rows = self._cache.span(0, read)[f'{_SPARSE}{packed.LOG_PROBS}'][0]
    kept = (~np.isneginf(rows.astype(np.float32))).sum(-1)  # [rows, T, ...]
    id, _ = self._examples(0, 0, read)
    valid = self._loader.examples.fetch(id).get('valid')
    if np.shape(valid) == (len(kept), *kept.shape[2:]):
      kept = np.moveaxis(kept, 1, -1)[valid]
    return float(kept.mean())


def of_split(
  session: Session, name: str, group: Group, split: str
) -> CachedOutputs:
  """What a group without a net gives for a split, in evaluation.

  It is written once, and kept beside what is for training. No net would compute
  it, so it is looked up in evaluation, too.

  Args:
    session: what the stages have in common.
    name: the group's.
    group: see `jaxkd.teachers.external`.
    split: of the data, of which it has outputs.
  """

  def made():
    role, examples = group.role, session.source.splits[split]
    spec = CacheSpec(
      tuple(role.external.shapes),
      dir=role.cache.dir,
      stage=f'{role.cache.stage}/{split}',
      model=role.cache.model,
    )
    weights = np.ones((1, len(examples)), np.float32)
    found = CachedOutputs(
      name,
      {name: role._replace(view=role.eval_view, cache=spec)},
      {name: group.variables},
      {name: None},
      source=session.source,
      loader=Loader(examples, weights, [0], 1),
      seeds=[0],
      weights=weights,
      steps=1,
      root=session.outputs,
      split=split,
    )
    found.keep(session.progress, session.say, session.stop)
    return found

  return session.memo.get(('outputs', name, split), made)


class Batches:
  """A loader's batches, with the cached outputs of teachers for them.

  Args:
    loader: the batches.
    outputs: of each group.
    members: of the population.
  """

  def __init__(
    self, loader: Loader, outputs: Mapping[str, CachedOutputs], members: int
  ):
    self.outputs, self._loader = dict(outputs), loader
    # What members see of the same examples may still be their own.
    each = loader.order == 'shared' and any(
      o.lines > 1 for o in outputs.values()
    )
    self._lead = (members,) if each else ()

  def check(self) -> None:
    """See `CachedOutputs.check`."""
    for own in self.outputs.values():
      own.check()

  def keep(
    self,
    progress: Callable,
    say: Callable[[str], None],
    stop: threading.Event | None = None,
  ) -> None:
    """Writes the outputs that are missing on disk; call it before `batch`.

    Args:
      progress: see `jaxkd.run.types.Session`.
      say: see there.
      stop: see there.
    """
    for own in self.outputs.values():
      own.keep(progress, say, stop)

  def notes(self) -> tuple[str, ...]:
    """What the row says of the cached outputs."""
    return tuple(note for own in self.outputs.values() for note in own.notes())

  def example(self) -> dict[str, Any]:
    """A batch, zeros in place of the cached outputs."""
    return self._with_outputs(self._loader.batch(0), CachedOutputs.blank)

  def batch(self, step: int) -> dict[str, Any]:
    """The batch of a step; ``cached_outputs`` has the outputs by group."""
    look = lambda own, id: own.look(step, id)  # noqa: E731
    return self._with_outputs(self._loader.batch(step), look)

  def iterate(
    self, start: int, stop: int, part: np.ndarray | None = None
  ) -> Iterator[dict[str, Any]]:
    """The batches of the steps start, ..., stop - 1.

    Of several hosts, each fetches its part; caching works on one host only.
    """
    if not self.outputs:
      yield from self._loader.iterate(start, stop, part)
      return
    examples = isinstance(self._loader.examples, ArrayExamples)
    if examples and all(own.in_memory for own in self.outputs.values()):
      yield from map(self.batch, range(start, stop))
    else:
      yield from ahead(self.batch, start, stop)

  def _with_outputs(self, batch, look):
    if self._lead:
      batch = jax.tree.map(
        lambda x: np.broadcast_to(x, (*self._lead, *x.shape)), batch
      )
    if not self.outputs:
      return batch
    found = {name: look(own, batch['id']) for name, own in self.outputs.items()}
    return {**batch, 'cached_outputs': found}
