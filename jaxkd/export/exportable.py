"""The net that is to be exported, and the examples that it is checked on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import run_files, shapes, tasks
from jaxkd.data import inputs as inputs_lib
from jaxkd.data.inputs import Inputs
from jaxkd.errors import UserError
from jaxkd.logits.factored import is_factored
from jaxkd.run import checks, loaded, stored_nets
from jaxkd.students import stored
from jaxkd.types import Net

EXAMPLES = 64  # that an exported file is checked on


class Exportable(NamedTuple):
  """A net with its variables, and what is known of it.

  Attributes:
    net: the net; ``forward`` is what is exported.
    variables: of one member.
    inputs: what it takes.
    spec: its description, as below a run's ``nets``; empty for a net that is
      of no run.
    member: which member of the folder it is.
    folder: where it was exported to by its run; None for a net of no run.
    config: of the run; empty where that is not known.
  """

  net: loaded.LoadedNet
  variables: dict
  inputs: Inputs
  spec: Mapping[str, Any]
  member: int = 0
  folder: Path | None = None
  config: Mapping[str, Any] = {}

  @property
  def name(self) -> str:
    """What the net is called in messages."""
    return str(self.folder or self.spec.get('model') or 'the net')

  @property
  def place(self) -> str:
    """Which net of its run it is; empty for a net of no run."""
    parts = self.folder.parts if self.folder else ()
    if run_files.NETS not in parts:
      return ''
    below = parts[len(parts) - parts[::-1].index(run_files.NETS) :]
    members = self.spec.get('members', 1)
    which = f' (member {self.member} of {members})' if members > 1 else ''
    return '/'.join(below) + which

  @property
  def task(self) -> str:
    """The task of the run; empty where that is not known."""
    return self.config.get('task') or self.spec.get('task', '')

  def arrays(self) -> dict[str, inputs_lib.Array]:
    """The arrays that the net takes, by the name that a file has for them."""
    paths, _ = jax.tree.flatten_with_path(
      self.inputs.arrays, is_leaf=inputs_lib.is_array
    )
    return {
      jax.tree_util.keystr(path, simple=True, separator='_') or _noun(array): (
        array
      )
      for path, array in paths
    }

  def encoded(self) -> dict[str, stored.Stored]:
    """The quantised weights by path, as their run has stored them."""
    if self.folder is None:
      return {}
    found = stored.encoded(self.folder, self.member)
    return {path: x for path, x in found.items() if x.levels != 'float'}

  def tree(self, leaves: Any) -> Any:
    """The inputs as the net takes them, from its arrays in order."""
    structure = jax.tree.structure(
      self.inputs.arrays, is_leaf=inputs_lib.is_array
    )
    return jax.tree.unflatten(structure, leaves)

  def like(self, net: Net, variables: dict) -> 'Exportable':
    """The same of another net that takes the same."""
    other = loaded.LoadedNet(net.init, net.apply, (), self.inputs)
    return self._replace(net=other, variables=variables)

  def outputs(self, leaves: Any) -> dict[str, Any]:
    """What the net gives, from arrays in the order of `arrays`.

    In full precision: accelerators multiply in less where nothing is said.
    """
    run = jax.jit(lambda variables, x: self.net.forward(variables, x))
    with jax.default_matmul_precision('highest'):
      found = run(self.variables, self.tree(list(map(jnp.asarray, leaves))))
    return {
      name: np.asarray(x.dense() if is_factored(x) else x)
      for name, x in found.items()
    }


def of(
  where: str | Path | tuple[Net, dict],
  *,
  arm: str = '',
  role: str = '',
  member: int = 0,
  inputs: Any = None,
) -> Exportable:
  """Finds what is to be exported.

  Args:
    where: a workdir, a folder below its ``nets``, a file of `jaxkd.export`, or
      ``(net, variables)``.
    arm: as `jaxkd.load` takes it.
    role: as `jaxkd.load` takes it.
    member: as `jaxkd.load` takes it.
    inputs: a batch of what the net takes, where it cannot tell itself.

  Raises:
    UserError: there is no such net, or it is not known what it takes.
  """
  if isinstance(where, tuple):
    net, variables = where
    return _of_net(net, variables, inputs)
  folder = stored_nets.find_net(where, arm=arm, role=role, at='jaxkd.export: ')
  net, variables = stored_nets.load(folder, member=member)
  spec = stored.description(folder)
  known = net.inputs
  if known is None:
    raise UserError(
      f'jaxkd.export: {folder} does not say what the net takes, as it is of an '
      'earlier version of jaxkd; run its config again'
    )
  return Exportable(
    net, variables, known, spec, member, folder, _config(folder)
  )


def _of_net(net: Net, variables: dict, inputs: Any) -> Exportable:
  """A net of one's own, or one that `jaxkd.load` gave."""
  if isinstance(net, loaded.LoadedNet) and net.inputs is not None:
    classes = list(net.classes)
    spec = {'classes': classes, 'num_classes': len(classes), 'view': net.view}
    return Exportable(net, variables, net.inputs, spec)
  if inputs is None:
    raise UserError(
      'jaxkd.export: this net does not say what it takes; give inputs=, a '
      'batch of examples'
    )
  arrays = jax.tree.map(np.asarray, inputs)
  known = inputs_lib.unknown(shapes.example(arrays), 'float32')
  return Exportable(net, variables, known, {}).like(net, variables)


def examples(
  given: Exportable, inputs: Any = None
) -> tuple[list[np.ndarray], str]:
  """Examples that a file is checked on, and what they are in words.

  Args:
    given: the net.
    inputs: a batch of one's own.

  Returns:
    Arrays [N, ...] in the order of ``given.arrays()``: those given; else the
    first of the run's test split, where its data is there and is what the net
    takes; else drawn numbers.
  """
  if inputs is not None:
    batch = inputs_lib.take(given.inputs, jax.tree.map(np.asarray, inputs))
    return [np.asarray(x) for x in jax.tree.leaves(batch)], 'examples given'
  drawn = [_drawn(array) for array in given.arrays().values()]
  if not given.config:
    return drawn, 'drawn examples'
  try:
    split = checks.load(given.config).splits['test']
    batch = split.fetch(np.arange(min(EXAMPLES, len(split))))['inputs']
    batch = inputs_lib.take(given.inputs, batch)
  except (UserError, KeyError):  # as of an earlier version's config
    return drawn, "drawn examples, as the run's data is not here or another"
  return [np.asarray(x) for x in jax.tree.leaves(batch)], 'test examples'


def outputs_of(given: Exportable) -> tuple[str, ...]:
  """The outputs that the run's task looks at; empty for all there are."""
  if not given.task:
    return ()
  found = getattr(tasks.find(given.task), 'OUTPUT', 'logits')
  return (found,) if isinstance(found, str) else tuple(found)


def _drawn(array: inputs_lib.Array) -> np.ndarray:
  """Random values in the range of an array's, [`EXAMPLES`, ...]."""
  draw, shape = np.random.default_rng(0), (EXAMPLES, *array.shape)
  if array.dtype == 'uint8':
    return draw.integers(0, 256, shape, np.uint8)
  if array.is_integer:
    high = 2 if array.high is None else int(array.high) + 1
    return draw.integers(array.low or 0, high, shape).astype(array.dtype)
  low, high = (0.0, 1.0) if array.low is None else (array.low, array.high)
  return draw.uniform(low, high, shape).astype(np.float32)


def _noun(array: inputs_lib.Array) -> str:
  """What a net's only input is called."""
  if array.is_image:
    return 'images'
  return 'tokens' if array.is_integer else 'inputs'


def _config(folder: Path) -> Mapping[str, Any]:
  """The config of the run that a net is of; empty where there is none."""
  files = (parent / run_files.CONFIG for parent in folder.parents)
  file = next((each for each in files if each.is_file()), None)
  try:
    found = json.loads(file.read_text()) if file else {}
  except ValueError:
    return {}
  return found if {'task', 'data'} <= found.keys() else {}
