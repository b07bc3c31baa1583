"""Programs of RepDistiller: its nets and losses, as its loop puts them."""

from types import SimpleNamespace

from protocol import Lacks

# (weight of the labels, of the divergence of logits, of the method itself), as
# in its scripts.
WEIGHTS = {
  'kd': (0.1, 0.9, 0.0),
  'crd': (1.0, 0.0, 0.8),
  'at': (1.0, 0.0, 1000.0),
  'rkd': (1.0, 0.0, 1.0),
}


def prepare(device):
  """Imports what is needed."""
  import crd.criterion
  import crd.memory
  import distiller_zoo  # noqa: F401
  import models  # noqa: F401

  if device.type == 'cpu':
    # CRD's sampler goes to a GPU when it is made; negatives are given here.
    crd.memory.AliasMethod.cuda = lambda self: None


def logits(found):
  """The logits among what a net gives, which is no more than them."""
  return found


def train(setting, teacher, student):
  """A call of the training step, and what it trains."""
  import torch
  from distiller_zoo import DistillKL
  from torch import nn

  program = setting.request['program']
  labels = nn.CrossEntropyLoss()
  student = student.to(setting.device).train()
  if program == 'plain':
    parameters = list(student.parameters())
    call = setting.step(
      lambda: labels(student(setting.inputs), setting.labels), parameters
    )
    return call, parameters
  if program not in WEIGHTS:
    raise Lacks(program)
  teacher = teacher.to(setting.device).eval()
  own = _method(setting, teacher, student)
  trained = nn.ModuleList([student, *_embeddings(own)])
  divergence, weights = DistillKL(4.0), WEIGHTS[program]

  def loss():
    features, found = student(setting.inputs, is_feat=True, preact=False)
    with torch.no_grad():
      known, given = teacher(setting.inputs, is_feat=True, preact=False)
    terms = (
      labels(found, setting.labels),
      divergence(found, given),  # which it computes for every method
      _compared(setting, own, features, known),
    )
    return sum(w * term for w, term in zip(weights, terms, strict=True))

  parameters = list(trained.parameters())
  return setting.step(loss, parameters), parameters


def net(request, role):
  """A net for small images."""
  from models import model_dict

  if request['side'] > 64 or request[role] not in model_dict:
    raise Lacks(request[role])
  return model_dict[request[role]](num_classes=request['classes'])


def _method(setting, teacher, student):
  """The loss of the method, a module; None for soft targets alone."""
  import torch
  from crd.criterion import CRDLoss
  from distiller_zoo import Attention, RKDLoss

  request = setting.request
  match request['program']:
    case 'at':
      return Attention()
    case 'rkd':
      return RKDLoss()
    case 'crd':
      with torch.no_grad():
        widths = [
          net.eval()(setting.inputs[:2], is_feat=True)[0][-1].shape[1]
          for net in (student, teacher)
        ]
      student.train()
      options = SimpleNamespace(
        s_dim=widths[0],
        t_dim=widths[1],
        feat_dim=128,
        n_data=request['examples'],
        nce_k=request['negatives'],
        nce_t=0.07,
        nce_m=0.5,
      )
      return CRDLoss(options).to(setting.device)
  return None


def _embeddings(own):
  """The parts of a method that train."""
  return [m for m in (getattr(own, f'embed_{x}', None) for x in 'st') if m]


def _compared(setting, own, features, known):
  match setting.request['program']:
    case 'at':
      return sum(own(features[1:-1], known[1:-1]))
    case 'rkd':
      return own(features[-1], known[-1])
    case 'crd':
      return own(features[-1], known[-1], setting.index, setting.negatives)
  return 0.0
