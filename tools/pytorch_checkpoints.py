"""Runs the lines that jaxkd prints for what torch.save wrote.

    python tools/pytorch_checkpoints.py PYTHON

PYTHON is one with torch and safetensors. It writes checkpoints as trainers do;
each is refused by `jaxkd.models.pytorch`, converted there by the lines of the
refusal, as they are printed, and read. All must give the same variables.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

from jaxkd import models
from jaxkd.errors import UserError
from jaxkd.models import pytorch

WRITE = r"""
import argparse, collections, datetime, enum, pathlib, sys
import numpy as np, torch
from torch import nn

torch.manual_seed(0)
norm = nn.BatchNorm2d

class Block(nn.Module):
  def __init__(self, i, o):
    super().__init__()
    self.conv1, self.bn1 = nn.Conv2d(i, o, 3, bias=False), norm(o)
    self.conv2, self.bn2 = nn.Conv2d(o, o, 3, bias=False), norm(o)
    if i != o:
      self.downsample = nn.Sequential(nn.Conv2d(i, o, 1, bias=False), norm(o))

class Net(nn.Module):
  def __init__(self):
    super().__init__()
    self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, bias=False), norm(16)
    self.layer1, self.layer2, self.layer3 = (
      nn.Sequential(Block(i, o)) for i, o in ((16, 16), (16, 32), (32, 64)))
    self.fc = nn.Linear(64, 10)

class Options(dict):
  __getattr__ = dict.get

class Mode(enum.Enum):
  FAST = 1

net = Net()
state = net.state_dict()
optimizer = torch.optim.Adam(net.parameters()).state_dict()
prefixed = lambda prefix: {prefix + k: v for k, v in state.items()}
buffer = torch.cat([v.flatten() for v in state.values()])
shared, start = {}, 0
for k, v in state.items():
  shared[k] = buffer[start:start + v.numel()].view(v.shape)
  start += v.numel()
options = dict(
  lr=np.float64(0.1), path=pathlib.Path('x'), seed=np.arange(3),
  when=datetime.datetime(2020, 1, 1), mode=Mode.FAST)
folder = sys.argv[1]
for name, saved in {
  'plain': state,
  'model': {'epoch': 3, 'model': state, 'accuracy': torch.tensor(71.2),
            'optimizer': optimizer},
  'namespace': {'opt': argparse.Namespace(lr=0.1), 'model': state},
  'timm': {'arch': 'x', 'args': argparse.Namespace(**options),
           'state_dict_ema': {k: v + 1 for k, v in state.items()},
           'state_dict': state},
  'numpy': {'net': state, 'acc': np.float64(95.1), 'epoch': np.int64(2)},
  'options': {'model': state, 'cfg': Options(options)},
  'defaultdict': {'net': state, 'log': collections.defaultdict(list, a=[1])},
  'lightning': {'state_dict': prefixed('model.'), 'hyper_parameters':
                Options(options), 'callbacks': {'x': {}}},
  'ema': {'state_dict_ema': state, 'epoch': 1},
  'nested': {'model_ema': {'module': 0, 'state_dict': prefixed('module.')}},
  'data_parallel': {'state_dict': nn.DataParallel(net).state_dict()},
  'averaged': torch.optim.swa_utils.AveragedModel(net).state_dict(),
  'compiled': torch.compile(nn.DataParallel(net)).state_dict(),
  'channels_last': net.to(memory_format=torch.channels_last).state_dict(),
  'shared': shared,
  'half': {k: v.half() if v.is_floating_point() else v
           for k, v in state.items()},
}.items():
  torch.save(saved, f'{folder}/{name}.pth')
torch.save({'model': state, 'opt': argparse.Namespace(lr=1)},
           f'{folder}/legacy.pth', _use_new_zipfile_serialization=False)
"""


def main(python: str) -> None:
  """Writes, converts, reads and compares."""
  folder = Path(tempfile.mkdtemp())
  subprocess.run([python, '-c', WRITE, str(folder)], check=True)
  net = models.build('resnet8', num_classes=10, input_shape=(32, 32, 3))
  shapes = jax.eval_shape(net.init, jax.random.key(0))
  first = None
  for file in sorted(folder.glob('*.pth'), key=lambda f: f.stem != 'plain'):
    try:
      pytorch.load(file, 'resnet8', shapes)
      raise AssertionError(f'{file} was read')
    except UserError as error:
      lines = re.findall('`([^`]+)`', str(error))
    subprocess.run([python, '-c', '\n'.join(lines)], check=True)
    safe = file.with_suffix('.safetensors')
    found = jax.tree.leaves(pytorch.load(safe, 'resnet8', shapes))
    first = first or found
    tolerance = 1e-3 if file.stem == 'half' else 0
    for a, b in zip(first, found, strict=True):
      np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    print('right:', file.stem)


if __name__ == '__main__':
  main(*sys.argv[1:])
