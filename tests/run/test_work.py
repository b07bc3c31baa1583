"""Whether a run has little to compute, and what that changes."""

import io

import pytest
from rich.console import Console

from jaxkd import compilation
from jaxkd.models import cost
from jaxkd.run import checks, overview, pipeline, work
from jaxkd.run import config as configs

TRAIN, TEACHER = (8, 2), (4, 5)  # batch and steps


def complete(**changes):
  given = dict(
    data=dict(source='synthetic', kw=dict(shape=(4,), num_classes=3, size=120)),
    teachers=dict(
      main=dict(
        model='mlp',
        kw=dict(widths=(8,)),
        count=3,
        train=dict(steps=TEACHER[1], batch_size=TEACHER[0], eval_every=2),
      )
    ),
    students=dict(student=dict(model='mlp', kw=dict(widths=(4,)))),
    distill=dict(soft=dict(loss='kl', teacher='main')),
    arms=dict(student={}, again={}),
    train=dict(
      steps=TRAIN[1],
      batch_size=TRAIN[0],
      seeds=2,
      eval_every=1,
      members='vmap',
    ),
    report=dict(metric='nll', compare=dict(better='again', than='student')),
  )
  return configs.plain(configs.complete({**given, **changes}))


@pytest.fixture
def planned(tmp_path):
  source, rounds = checks.prepare(complete(), tmp_path)
  steps = overview.describe(Console(file=io.StringIO()), source, rounds)
  return rounds, steps, source


def test_a_run_is_small_up_to_a_number_of_flops(planned, monkeypatch):
  (part,), steps, source = planned
  role = {**part.teachers, **part.students['student']}
  teacher, student = (
    cost.cost(role[name].net, role[name].shape).flops
    for name in ('main', 'student')
  )
  validation, test = (len(source.splits[s]) for s in ('validation', 'test'))
  # After the steps 2, 4 and 5, and after each of the students' two.
  seen = 3 * TEACHER[0] * TEACHER[1] + test + 3 * validation
  own = TRAIN[1] * steps['student'].flops
  own += (test + 2 * validation) * student
  # Equal arms train once.
  total = 3 * teacher * seen + 2 * own
  for little, found in ((total, True), (total - 1, False)):
    monkeypatch.setattr(work, 'LITTLE', little)
    assert work.is_little(*planned) is found
  monkeypatch.setattr(work.jax, 'default_backend', lambda: 'gpu')
  monkeypatch.setattr(work, 'LITTLE', total)
  assert not work.is_little(*planned)


def test_an_arm_of_an_earlier_round_counts(tmp_path, monkeypatch):
  own = dict(distill=dict(soft=dict(kw=dict(temperature=2.0))))
  first = dict(arms=dict(third=own), train=dict(steps=1000))
  config = complete(
    rounds=dict(r1=first, r2={}),
    report=dict(compare=dict(better='r2/again', than='r2/student')),
  )
  source, rounds = checks.prepare(config, tmp_path)
  steps = overview.describe(Console(file=io.StringIO()), source, rounds)
  assert [len(part.arms) for part in rounds] == [3, 2]
  one = 2 * 1000 * steps['student'].flops
  for little, found in ((1.9 * one, False), (3 * one, True)):
    monkeypatch.setattr(work, 'LITTLE', little)
    assert work.is_little(rounds, steps, source) is found


def test_a_small_run_compiles_quickly_and_says_so(tmp_path, monkeypatch):
  quick, once = [], compilation.once

  def counted(function, **options):
    quick.append(function)
    return once(function, **options)

  monkeypatch.setattr(compilation, 'once', counted)
  found = {}
  for little in (0, 1e12):
    monkeypatch.setattr(work, 'LITTLE', little)
    row = pipeline.run(complete(), tmp_path / f'{little:g}')
    found[little] = row['arms']['student']['values'], len(quick)
    assert (work.NOTE in row['notes']) is bool(little)
    quick.clear()
    compilation.jit(abs)
    assert not quick  # only meanwhile
  (well, few), (soon, many) = found.values()
  assert many > few
  assert soon == pytest.approx(well, rel=1e-4)
