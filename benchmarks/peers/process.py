"""The parent's side: a peer in a process of its own, asked over a pipe."""

import contextlib
import json
import os
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import speed
from jaxkd.errors import UserError

ANSWER = 600  # seconds until an answer is given up
TICK = 0.1  # seconds between looks at whether to stop


class Failed(Exception):
  """The child answered with an error, and goes on.

  Attributes:
    peer: whose child it is.
  """

  def __init__(self, why: str, peer: str):
    super().__init__(why)
    self.peer = peer


class Lacking(Exception):
  """The peer does not have what it was asked for."""


class Process:
  """A child that answers requests, see `protocol.py`.

  It ends when its input does, so at the latest with this process.

  Args:
    name: of the peer, for messages.
    command: what starts the child.
    stop: when set, waiting for an answer ends.
  """

  def __init__(
    self,
    name: str,
    command: Sequence[str],
    stop: threading.Event | None = None,
  ):
    self.name, self._stop = name, stop
    self._said = tempfile.TemporaryFile('w+')  # noqa: SIM115
    # Of this Python's packages the child's should see none; and the folders
    # of peers stay as they are.
    own = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    try:
      self._child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=self._said,
        text=True,
        env={**own, 'PYTHONDONTWRITEBYTECODE': '1'},
      )
    except OSError as error:
      self._said.close()
      raise UserError(
        f'--torch_python: {command[0]} cannot be run: {error.strerror}; name '
        'the Python that has PyTorch'
      ) from error
    self._answers: queue.Queue[str] = queue.Queue()
    self._reader = threading.Thread(target=self._read, daemon=True)
    self._reader.start()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    with contextlib.suppress(BrokenPipeError):
      self._child.stdin.close()
    try:
      self._child.wait(1)
    except subprocess.TimeoutExpired:  # in the middle of a step
      self._child.kill()
      self._child.wait()
    self._reader.join()
    self._child.stdout.close()
    self._said.close()

  def ask(self, do: str, **entries: Any) -> dict[str, Any]:
    """The answer to a request.

    Raises:
      Lacking: the peer does not have it.
      Failed: it did not work.
      Stopped: `stop` was set.
      UserError: the child has ended, or gives no answer.
    """
    try:
      print(
        json.dumps({'do': do, **entries}), file=self._child.stdin, flush=True
      )
    except BrokenPipeError:
      raise self._ended() from None
    begun = time.monotonic()
    while True:
      speed.check_stop(self._stop)
      try:
        line = self._answers.get(timeout=TICK)
        break
      except queue.Empty:
        if time.monotonic() - begun > ANSWER:
          raise UserError(
            f'{self.name} has given no answer to {do} for {ANSWER} s; measure '
            'it with smaller nets or batches'
          ) from None
    if not line:
      raise self._ended()
    answer = json.loads(line)
    if 'lacks' in answer:
      raise Lacking(answer['lacks'])
    if 'error' in answer:
      raise Failed(answer['error'], self.name)
    return answer

  def program(self, name: str, flops: int) -> speed.Elsewhere:
    """What was made under a name, to be timed."""
    return speed.Elsewhere(
      lambda calls: self.ask('run', name=name, calls=calls)['seconds'], flops
    )

  def _read(self) -> None:
    for line in self._child.stdout:
      self._answers.put(line)
    self._answers.put('')

  def _ended(self) -> UserError:
    code = self._child.wait()
    self._said.seek(0)
    last = (self._said.read().strip().splitlines() or ['without a word'])[-1]
    return UserError(f'{self.name}: its process has ended ({code}): {last}')
