"""The end of a run: its row and curves, and a finished run shown again."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from jaxkd import run_files, tasks
from jaxkd.data.sources import Source
from jaxkd.errors import UserError
from jaxkd.models import cost
from jaxkd.report import made_with, progress, record, rows
from jaxkd.run import checks, export, provenance, stored_nets, work, workdir
from jaxkd.run.plan import Round
from jaxkd.run.types import Stage
from jaxkd.train import hosts


class Found(NamedTuple):
  """What the stages of a run found.

  Attributes:
    stages: the populations that were trained or restored, in order.
    tuned: what tuning chose, by arm.
    weights: the weights of teachers that were found on the validation split,
      by their names.
  """

  stages: list[Stage]
  tuned: dict[str, dict]
  weights: dict


def write(
  found: Found,
  config: Mapping[str, Any],
  source: Source,
  rounds: list[Round],
  directory: Path,
  *,
  steps: Mapping[str, cost.Step],
  command: str,
  began: Mapping[str, str],
  ended: Mapping[str, str],
  since: float | None,
  compiled: float,
  quickly: bool,
) -> dict:
  """Writes row.json, pictures, examples and report.html; returns the row.

  Args:
    found: what the stages found.
    config: of the run.
    source: its data.
    rounds: its plan.
    directory: the workdir.
    steps: the cost of each arm's step.
    command: what started the run, for the row.
    began: the provenance of its data and code when it began.
    ended: the same now.
    since: when it started, by `time.perf_counter`; None if it was resumed.
    compiled: seconds of compiling.
    quickly: whether that was done quickly rather than well.
  """
  from jaxkd.report import html, plots  # Matplotlib is slow to import

  row = record.row(
    config, source, rounds, found.stages, found.tuned, steps, command
  )
  row |= _origin(ended)
  row['notes'] += _upgrade(began, ended)
  row['notes'] += [work.NOTE] if quickly else []
  if found.weights:
    row['weights'] = found.weights
  row['wall_s'] = None if since is None else time.perf_counter() - since
  row['cost']['compile_s'] = round(compiled, 3)
  series = getattr(tasks.find(config['task']), 'SERIES', {})
  along = {m for _, places in series.values() for m in places.values()}
  histories = {s.name: s.history for s in found.stages if s.history}
  plots.curves(histories, directory / run_files.CURVES, without=along)
  row = rows.plain(row)
  rows.save(directory / run_files.ROW, row)
  if config['report']['rank']:
    plots.costs(row, directory / run_files.COSTS)
  if series:
    plots.series(row, series, directory / run_files.SERIES)
  export.show(config, source, rounds, directory)
  predicts = stored_nets.prediction(directory, config['task'])
  html.save(row, config, directory, predicts)
  return row


def shown_again(
  config: dict[str, Any], directory: Path, console: Console
) -> dict:
  """The row of a run that has finished, if it would be the same again.

  Raises:
    UserError: data or code have changed since, or cannot be read.
  """
  file, first = directory / run_files.ROW, hosts.is_first()
  row, how = None, ''
  with (
    progress.shows_passes(console),
    hosts.raise_everywhere('what was finished'),
  ):
    try:
      origin = provenance.of(config, checks.load(config))
      provenance.check_imported(config)
    except UserError as error:
      raise UserError(f'{error}; what the run found is in {file}') from error
    if first:
      row = rows.load(file)
      how = workdir.check_finished(directory, origin)
  hosts.same('provenance', provenance.checksums(origin))
  if first:
    when = f'on {row["finished"]}' if 'finished' in row else 'earlier'
    console.print(
      f'finished {when}{how}, not run again (--overwrite does)', highlight=False
    )
  return hosts.broadcast_from_host0('the row', row)


def _origin(origin: Mapping[str, str]) -> dict:
  """What a row says of when and from what it was made."""
  return {
    'commit': origin[workdir.COMMIT],
    'finished': made_with.now(),
    'provenance': provenance.checksums(origin),
  }


def _upgrade(began: Mapping[str, str], ended: Mapping[str, str]) -> list[str]:
  """A note where a run went on with another jaxkd than it began with."""
  first, last = workdir.jaxkd_of(began), workdir.jaxkd_of(ended)
  return (
    [] if first == last else [f'it began with {first} and ended with {last}']
  )
