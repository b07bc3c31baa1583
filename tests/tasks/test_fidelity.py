import numpy as np
import pytest

from jaxkd.tasks import fidelity

random = np.random.default_rng(0)
STUDENT = random.normal(size=(30, 5)).astype(np.float32)
TEACHER = random.normal(size=(30, 5)).astype(np.float32)
BATCH = {'labels': np.zeros(30, np.int32)}


def value(name, student=STUDENT, teachers=TEACHER[None], batch=BATCH):
  metric = fidelity.metrics('main')[name]
  pair = metric.measure(
    {'logits': student}, batch, {'main': {'logits': teachers}}
  )
  return float(metric.value(*map(np.asarray, pair)))


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def test_agreement_and_divergence():
  assert value('agreement') == pytest.approx(
    (STUDENT.argmax(-1) == TEACHER.argmax(-1)).mean()
  )
  p, q = softmax(TEACHER), softmax(STUDENT)
  want = (p * np.log(p / q)).sum(-1).mean()
  assert value('teacher_kl') == pytest.approx(want, rel=1e-4)


def test_a_student_that_is_its_teacher():
  assert value('agreement', TEACHER) == 1
  assert value('teacher_kl', TEACHER) == pytest.approx(0, abs=1e-6)


def test_cka_is_that_of_the_definition():
  log_p = np.log(softmax(TEACHER))
  x = STUDENT - STUDENT.mean(0)
  y = log_p - log_p.mean(0)
  norm = np.linalg.norm
  want = norm(x.T @ y) ** 2 / (norm(x.T @ x) * norm(y.T @ y))
  assert value('cka') == pytest.approx(want, rel=1e-4)
  assert value('cka', 3 * log_p + 1) == pytest.approx(1, rel=1e-4)


def test_several_teachers_are_their_mean():
  both = np.stack([STUDENT, TEACHER])
  p = (softmax(STUDENT) + softmax(TEACHER)) / 2
  assert value('agreement', teachers=both) == pytest.approx(
    (STUDENT.argmax(-1) == p.argmax(-1)).mean()
  )


@pytest.mark.parametrize('name', ['agreement', 'teacher_kl', 'cka'])
def test_padding_counts_for_nothing(name):
  pad = lambda x: np.concatenate([x, 7 * np.ones((4, 5), np.float32)])  # noqa: E731
  batch = {'labels': np.zeros(34, np.int32), 'where': np.arange(34) < 30}
  got = value(name, pad(STUDENT), pad(TEACHER)[None], batch)
  assert got == pytest.approx(value(name), rel=1e-4)
