"""Communication between the hosts of one run.

Hosts exchange small texts through JAX's coordination service, which needs no
devices and has time limits. On a single host every function here returns at
once. Any decision that depends on what one host sees (a file, a clock, a
signal) must go through here: if hosts run different programs, they hang.
"""

import contextlib
import itertools
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import jax
from jax._src import distributed  # Orbax, too, reaches the service like this
from jax.experimental import multihost_utils

from jaxkd.errors import UserError

LIMIT = 1800  # seconds that a host waits for the others
HEARTBEAT = 100  # seconds of silence after which a host counts as dead
FAILED = 2  # the exit code of all hosts when one has failed
_FAILURE = 'jaxkd/failure'
_numbers = itertools.count()  # of the exchanges; the same on every host


def count() -> int:
  """How many hosts there are."""
  return jax.process_count()


def is_first() -> bool:
  """Whether this is host 0, which prints and writes for all."""
  return jax.process_index() == 0


def gather(what: str, text: str) -> list[str]:
  """The text of each host, on every host; all must call it.

  Raises:
    UserError: not all hosts have called it within `LIMIT` seconds.
  """
  if count() == 1:
    return [text]
  client = distributed.global_state.client
  if client is None:
    raise UserError(
      f'--hosts: there are {count()} hosts, which are not connected; start '
      'each of them with --hosts=auto'
    )
  key = f'jaxkd/{next(_numbers)}/{what}'
  client.key_value_set(f'{key}/{jax.process_index()}', text)
  try:
    client.wait_at_barrier(key, LIMIT * 1000)
  except jax.errors.JaxRuntimeError as error:
    raise UserError(
      f'--hosts: not all {count()} hosts reached "{what}" within {LIMIT} '
      'seconds; see what the others print, and start the run again on all'
    ) from error
  found = client.key_value_dir_get(f'{key}/')
  return [text for _, text in sorted(found, key=_host)]


def _host(pair: tuple[str, str]) -> int:
  return int(pair[0].rpartition('/')[2])


def broadcast_from_host0(what: str, value: Any) -> Any:
  """The value of host 0, of JSON's types, on every host; all must call it."""
  if count() == 1:
    return value
  return json.loads(gather(what, json.dumps(value) if is_first() else '')[0])


def same(what: str, found: Mapping[str, Any]) -> None:
  """Checks that all hosts have the same values; all must call it.

  Args:
    what: the name of them together, e.g. 'config'.
    found: entry -> this host's value, of JSON's types.

  Raises:
    UserError: a host has another value than host 0.
  """
  said = gather(what, json.dumps(found))
  first = json.loads(said[0])
  for host, text in enumerate(said):
    other = json.loads(text) if text != said[0] else first
    for entry in sorted({*first, *other}):
      there, here = (x.get(entry, 'absent') for x in (other, first))
      if json.dumps(there) != json.dumps(here):  # NaN is not equal to itself
        raise UserError(
          f'host {host} has another {what} than host 0: {entry} is {there} on '
          f'host {host} and {here} on host 0; start the same command, with the '
          'same files, on all'
        )


@contextlib.contextmanager
def raise_everywhere(what: str) -> Iterator[None]:
  """Raises a `UserError` of one host on all hosts; all must enter it.

  Args:
    what: the name of the work inside, e.g. 'to check the config'.

  Raises:
    UserError: that of the first host that has one, on every host.
  """
  failure = None
  try:
    yield
  except UserError as error:
    failure = error
  said = gather(what, json.dumps(str(failure) if failure else ''))
  found = [(host, json.loads(text)) for host, text in enumerate(said)]
  failed = [(host, text) for host, text in found if text]
  if not failed:
    return
  host, text = failed[0]
  if failure and (str(failure) == text or host == jax.process_index()):
    raise failure
  raise UserError(f'on host {host}: {text}')


class Preemption:
  """Whether the run should stop, asked once a step; all hosts agree.

  When a host gets SIGTERM, JAX's service tells the others and chooses the next
  step that none of them has begun.
  """

  def __init__(self):
    self._steps = itertools.count(1)

  def is_set(self) -> bool:
    return multihost_utils.reached_preemption_sync_point(next(self._steps))


def join(
  hosts: int | None, host: int | None, coordinator: str | None, limit: int
) -> None:
  """Connects this process to the other hosts, before it touches any device.

  If not all hosts come in time, the process exits with one sentence: JAX itself
  would print a C++ stack trace.

  Args:
    hosts: how many there are; None to find this and the rest in the
      environment (Cloud TPU, SLURM, MPI, Kubernetes).
    host: which one this is.
    coordinator: address and port on which the first one listens.
    limit: seconds to wait for all.

  Raises:
    UserError: no other hosts are found, or the port is taken.
  """
  if host == 0:
    _check_port(coordinator)
  where = f' at {coordinator}' if coordinator else ''
  late = threading.Timer(
    limit,
    _leave,
    [
      f'--hosts: the hosts have not all come together{where} in {limit} '
      'seconds; start the same command on every one of them, each with its own '
      '--host, and see that the first one can be reached'
    ],
  )
  late.daemon = True
  late.start()
  try:
    jax.distributed.initialize(
      coordinator,
      hosts,
      host,
      initialization_timeout=limit + 60,  # ours comes first
      heartbeat_timeout_seconds=min(limit, HEARTBEAT),
      shutdown_timeout_seconds=limit,
      # All of a host's devices are one process's, however it was started.
      cluster_detection_method='deactivate' if hosts else None,
    )
  except ValueError as error:
    raise UserError(
      '--hosts=auto: this is no Cloud TPU, SLURM, Open MPI or Kubernetes job; '
      'write --hosts=N --host=I --coordinator=HOST:PORT'
    ) from error
  except (RuntimeError, OSError) as error:
    raise UserError(f'--hosts: {error}') from error
  finally:
    late.cancel()


def _check_port(coordinator: str) -> None:
  """Refuses a port that is taken; JAX would crash without a message."""
  try:
    socket.create_server(
      ('', int(coordinator.rpartition(':')[2])),
      family=socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET,
      dualstack_ipv6=socket.has_dualstack_ipv6(),
    ).close()
  except OSError as error:
    raise UserError(
      f'--coordinator {coordinator}: the first host cannot listen there '
      f'({os.strerror(error.errno)}); choose another port'
    ) from error


class Watch:
  """Ends this process when another host reports that it has failed.

  The main thread may be waiting for that host in a collective operation, which
  only the end of the process interrupts.
  """

  def __init__(self):
    self._over = threading.Event()
    self._thread = threading.Thread(target=self._look, daemon=True)
    self._thread.start()

  def fail(self, sentence: str) -> None:
    """Tells the other hosts, and waits until they have left."""
    self._over.set()
    self._thread.join()
    client = distributed.global_state.client
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # the first counts
      client.key_value_set(
        _FAILURE, f'on host {jax.process_index()}: {sentence}'
      )
    with contextlib.suppress(Exception):  # some may be dead
      jax.distributed.shutdown()

  def _look(self):
    while not self._over.wait(1):
      try:
        found = distributed.global_state.client.key_value_try_get(_FAILURE)
      except (jax.errors.JaxRuntimeError, AttributeError):
        continue  # no failure is reported
      if not self._over.is_set():
        _end(found)


def _end(sentence: str) -> NoReturn:
  """Exits with the other hosts, whatever other threads wait for."""
  with contextlib.suppress(Exception):
    jax.distributed.shutdown()
  _leave(sentence)


def _leave(sentence: str) -> NoReturn:
  sys.stdout.flush()
  print(f'error: {sentence}', file=sys.stderr, flush=True)
  os._exit(FAILED)
