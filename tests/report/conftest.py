"""Rows that the tests of reports share."""

import pytest

from jaxkd.report import rows, statistics


def _comparison(better, than, mean, half, holds, **other):
  ci95 = None if half is None else [mean - half, mean + half]
  return {'claim': f'{better} beats {than}', 'better': better, 'than': than,
          'mean_difference': mean, 'ci95': ci95, 'seeds': 5,
          'holds': holds, **other}  # fmt: skip


@pytest.fixture
def comparison():
  """What makes the comparison of two arms, on five seeds."""
  return _comparison


@pytest.fixture
def row():
  """A row with everything that a row can have."""
  return {
    'system': 'hinton2015_soft_targets',
    'survey': {
      'work': 1,
      'objective': 'limited data',
      'data': 'decrease | training data',
      'teacher': 'single',
      'knowledge': 'soft labels',
      'method': 'plain',
      'student': 'single, simplified',
      'claim': 'soft targets',
      'cite': 'Hinton et al., 2015',
      'url': 'https://arxiv.org/abs/1503.02531',
    },
    'dataset': 'digits',
    'metric': 'top1',
    'higher_is_better': True,
    'arms': {
      'distilled': {'values': [0.96, 0.95, 0.97, 0.96, 0.96]},
      'shuffled': {'values': [0.96, 0.94, 0.96, None, 0.95]},
      'student': {'values': [0.91, 0.92, 0.93, 0.92, 0.92]},
      'teacher': {'values': [0.985]},
    },
    'comparison': {
      'claim': 'soft targets beat hard labels on few labels',
      'better': 'distilled',
      'than': 'student',
      **statistics.paired(
        [0.96, 0.95, 0.97, 0.96, 0.96], [0.91, 0.92, 0.93, 0.92, 0.92]
      ),
    },
    'comparisons': {
      'shuffled targets': _comparison(
        'distilled', 'shuffled', None, None, None
      ),
    },
    'metrics': {
      'student': {'nll': [0.31, 0.3, 0.29, 0.3, 0.3]},
      'distilled': {
        'nll': [0.21, 0.2, 0.19, 0.2, 0.2],
        'agreement': [0.97, 0.96, 0.97, 0.97, 0.97],
      },
    },
    'sweep': [
      {'temperature': 1.0, 'distilled': [0.93, 0.94], 'best': False},
      {'temperature': 4.0, 'distilled': [0.95, 0.96], 'best': True},
    ],
    'summary': [
      {
        'metric': 'validation/top1',
        'higher_is_better': True,
        'step': [100, 2000, 3000],
        'arms': {
          'student': [0.90, 0.93, 0.915],
          'distilled': [0.9, None, 0.96],
        },
      }
    ],
    'notes': ['One teacher is shared by all seeds.', 'Tried:\nT=1 and T=20.'],
    'tuning': {
      'student': {
        'grid': {'train.learning_rate': [0.001, 0.003]},
        'trials': 2,
        'chosen': {'train.learning_rate': 0.003},
        'split': 'validation',
      },
      'distilled': {
        'grid': {'train.learning_rate': [0.001, 0.003, 0.01]},
        'trials': 3,
        'chosen': {'train.learning_rate': 0.001},
        'split': 'validation',
      },
    },
    'params': {'teacher': 85002, 'student': 2410},
    'cost': {
      'step_ms': 1.2345,
      'teacher_share': 0.312,
      'flops': {'teacher': 170000, 'student': 4800.5},
      'latency_ms': {'student': 0.03125},
    },
    'wall_s': 93.4,
    'device': '2 cores of a CPU',
    'versions': {'jax': '0.10.2', 'flax': '0.12.8'},
    'commit': '0123456789abcdef',
    'config_sha256': 'fedcba9876543210',
    'command': 'python experiments/distill.py --config configs/x.py',
  }


@pytest.fixture
def plain_row(row):
  """One with only what a row must have; a method, not a work."""
  optional = {name.rstrip('?') for name in rows.SCHEMA if name.endswith('?')}
  kept = {name: value for name, value in row.items() if name not in optional}
  return kept | {
    'system': 'at',
    'survey': {},
    'metric': 'nll',
    'higher_is_better': False,
    'arms': {
      'student': {'values': [0.31, 0.3, 0.29]},
      'distilled': {'values': [0.22, 0.2, 0.18]},
    },
    'comparison': {
      'claim': 'distilled beats student',
      'better': 'distilled',
      'than': 'student',
      **statistics.paired(
        [0.22, 0.2, 0.18], [0.31, 0.3, 0.29], higher_is_better=False
      ),
    },
    'cost': {},
    'wall_s': 7260,
    'commit': None,
  }
