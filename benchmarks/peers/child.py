"""Trains nets of a peer in PyTorch: a process that `process.py` starts.

  python child.py PEER FOLDER DEVICE THREADS

PEER is mdistiller, RepDistiller or torchdistill, FOLDER its clone, DEVICE `cpu`
or `cuda`. The peer's own models, losses and distillers are imported; the step
is that of its trainer without data loading, accuracies and logging.
"""

import contextlib
import importlib
import platform
import sys

import protocol

PEERS = {
  'mdistiller': 'of_mdistiller',
  'RepDistiller': 'of_repdistiller',
  'torchdistill': 'of_torchdistill',
}


class Setting:
  """What all programs of a child have in common, for one request.

  Attributes:
    device: a `torch.device`.
    inputs: images, [B, 3, H, W].
    labels: their classes, [B].
    index: the numbers of the examples, [B].
    negatives: those of each example's positive and negatives, [B, 1 + K].
    request: the entries of the request for the program.
  """

  def __init__(self, device, request):
    import torch

    self.device, self.request = device, request
    size, side = request['batch'], request['side']
    draw = torch.Generator().manual_seed(0)
    self.inputs = torch.randn(size, 3, side, side, generator=draw).to(device)
    self.labels = torch.randint(request['classes'], (size,), generator=draw).to(
      device
    )
    self.index = torch.arange(size).to(device)
    self.negatives = None
    if request['program'] == 'crd':
      drawn = torch.randint(
        request['examples'], (size, request['negatives']), generator=draw
      )
      own = torch.arange(size)[:, None]
      self.negatives = torch.cat([own, drawn], 1).to(device)

  def computing(self):
    """The context in which nets and losses compute in the type asked for."""
    import torch

    if self.request['dtype'] == 'float32':
      return contextlib.nullcontext()
    dtype = getattr(torch, self.request['dtype'])
    return torch.autocast(self.device.type, dtype=dtype)

  def step(self, loss, parameters):
    """A call of the training step, given what computes its loss.

    Args:
      loss: ``() -> loss``, a tensor with one value.
      parameters: what is trained.
    """
    import torch

    sgd = torch.optim.SGD(list(parameters), **self.request['sgd'])

    def call():
      sgd.zero_grad()
      with self.computing():
        value = loss()
      value.backward()
      sgd.step()
      return value.detach()

    return call

  def forward(self, net, logits):
    """A call of a net's forward pass in evaluation.

    Args:
      net: the module.
      logits: ``(what the net gives) -> its logits``.
    """
    import torch

    net.eval()

    def call():
      with torch.no_grad(), self.computing():
        return logits(net(self.inputs)).mean()

    return call


def _program(peer, setting):
  """A call of what is asked for, and facts about it.

  Args:
    peer: its module, with ``net(request, role)``, ``logits(what a net gives)``
      and ``train(setting, teacher, student)``, which gives a call of the
      training step and the parameters that it trains.
    setting: what the program has in common with others.
  """
  teacher, student = (
    peer.net(setting.request, role) for role in ('teacher', 'student')
  )
  facts = {
    'teacher': _count(teacher.parameters()),
    'student': _count(student.parameters()),
  }
  if setting.request['program'] == 'teacher':
    return setting.forward(teacher.to(setting.device), peer.logits), facts
  call, parameters = peer.train(setting, teacher, student)
  return call, {**facts, 'trained': _count(parameters)}


def _count(parameters):
  """The number of values that train."""
  return sum(p.numel() for p in parameters if p.requires_grad)


def main(peer, folder, device, threads):
  """Answers until the parent has no more requests."""

  def describe():
    import torch

    torch.set_num_threads(int(threads))
    if device == 'cuda':
      if not torch.cuda.is_available():
        raise RuntimeError('this PyTorch sees no GPU')
      torch.backends.cudnn.benchmark = True  # as the peers have it
    sys.path.insert(0, folder)
    found = {
      'python': platform.python_version(),
      'torch': torch.__version__,
      'threads': torch.get_num_threads(),
    }
    importlib.import_module(PEERS[peer]).prepare(torch.device(device))
    if vision := sys.modules.get('torchvision'):
      found['torchvision'] = vision.__version__
    return found

  def make(request):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(0)
    setting = Setting(torch.device(device), request)
    call, facts = _program(importlib.import_module(PEERS[peer]), setting)
    with FlopCounterMode(display=False) as counter:
      call()
    return protocol.Made(call, {**facts, 'flops': counter.get_total_flops()})

  def wait():
    if device == 'cuda':
      import torch

      torch.cuda.synchronize()

  protocol.serve(describe, make, wait)


if __name__ == '__main__':
  main(*sys.argv[1:])
