"""``python -m jaxkd.export RUN --to onnx``: a net of a run for other tools."""

import argparse
import sys
from collections.abc import Sequence

from absl import logging

from jaxkd.errors import UserError
from jaxkd.export import api, card


def main(arguments: Sequence[str] | None = None) -> int:
  """Writes a net and says what was written; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog='python -m jaxkd.export',
    description='Writes a net of a finished run as a file for other tools, '
    'with its view and for batches of any size, and checks that the file gives '
    'the same outputs.',
  )
  parser.add_argument(
    'run',
    metavar='RUN',
    help='a workdir, a folder below its nets, or an exported .safetensors file',
  )
  parser.add_argument(
    '--to', default='', metavar='FORMAT',
    help=f'one of {", ".join(api.formats())} (default: by the ending of --out)',
  )  # fmt: skip
  parser.add_argument(
    '--out', default='', metavar='FILE',
    help='what to write (default: in this folder, with the name of the run)',
  )  # fmt: skip
  parser.add_argument(
    '--arm',
    default='',
    help='of the run (default: the one claimed to be better)',
  )
  parser.add_argument(
    '--role', default='', help='of that arm (default: the student)'
  )
  parser.add_argument(
    '--member', type=int, default=0,
    help='which of the trained nets (default: that of the first seed)',
  )  # fmt: skip
  parser.add_argument(
    '--outputs', default='', metavar='NAME,NAME',
    help="outputs of the file (default: those that the run's task uses)",
  )  # fmt: skip
  parser.add_argument(
    '--dtype', default='float32',
    help='of weights in hf: float32 or bfloat16 (default: %(default)s)',
  )  # fmt: skip
  flags = parser.parse_args(arguments)
  try:
    path, about = api.written(
      flags.run,
      flags.out,
      flags.to,
      arm=flags.arm,
      role=flags.role,
      member=flags.member,
      dtype=flags.dtype,
      outputs=tuple(filter(None, flags.outputs.split(','))),
    )
  except UserError as error:
    print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
    return 2
  print('\n'.join(card.said(path, about)))
  return 0


if __name__ == '__main__':
  logging.set_verbosity(logging.ERROR)  # Orbax tells all it does
  sys.exit(main())
