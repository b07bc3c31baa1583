"""What the child answers: a line of JSON for each line that it is asked.

The child runs in another Python, so this file imports nothing of jaxkd. It is
asked to `describe` itself, to `make` a program, to `run` one some times and to
`drop` it. An answer is a dict: with `lacks` where the peer has no such program,
with `error` where it failed.
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Lacks(Exception):
  """The peer does not have what is asked for."""


class Made(NamedTuple):
  """A program of the child.

  Attributes:
    call: runs it once; gives its loss, or a number of what it computed.
    facts: what is said of it, e.g. its number of parameters.
  """

  call: Callable[[], Any]
  facts: Mapping[str, Any]


def serve(
  describe: Callable[[], dict],
  make: Callable[[dict], Made],
  wait: Callable[[], None],
) -> None:
  """Answers requests until there are no more.

  What else is printed goes to stderr.

  Args:
    describe: says what the child is: the versions of what it runs.
    make: a program, from the request for it.
    wait: returns when the device has done all that was asked of it.
  """
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)
  made: dict[str, Made] = {}

  def run(name, calls):
    call = made[name].call
    wait()
    begun = time.perf_counter()
    for _ in range(calls):
      value = call()
    wait()
    seconds = time.perf_counter() - begun
    if not math.isfinite(value := float(value)):
      raise ValueError(f'its loss is {value}')
    return {'seconds': seconds}

  def answer(request):
    match request['do']:
      case 'describe':
        return describe()
      case 'make':
        made[request['name']] = program = make(request)
        return dict(program.facts)
      case 'run':
        return run(request['name'], request['calls'])
      case 'drop':
        made.clear()
        return {}
    raise ValueError(f'no such request: {request["do"]}')

  for line in sys.stdin:
    try:
      said = answer(json.loads(line))
    except Lacks as lacks:
      said = {'lacks': str(lacks)}
    except Exception as error:  # the parent shows it and goes on
      text = ' '.join(str(error).split())
      said = {'error': f'{type(error).__name__}: {text}'}
    print(json.dumps(said), file=answers, flush=True)
