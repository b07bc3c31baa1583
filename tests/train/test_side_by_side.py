"""Work at the same time, on simulated devices."""

import threading
import time

import jax
import jax.numpy as jnp
import pytest

from jaxkd.errors import Stopped, UserError
from jaxkd.train import sharding, side_by_side

pytestmark = pytest.mark.all_devices

WAIT = 60  # seconds, after which a test that hangs has failed


def test_slices_are_disjoint_and_follow_the_work():
  there = jax.devices()
  slices = sharding.slices(dict(small=1.0, large=6.0, none=0.0))
  assert {name: len(own) for name, own in slices.items()} == dict(
    small=1, large=6, none=1
  )
  assert [device for own in slices.values() for device in own] == there
  even = sharding.slices(dict.fromkeys('abc', 2.0))
  assert sorted(map(len, even.values())) == [2, 3, 3]
  with pytest.raises(ValueError, match='9 slices of 8 devices'):
    sharding.slices(dict.fromkeys('abcdefghi', 1.0))


def test_each_has_its_own_devices_and_they_overlap():
  there, meet = jax.devices(), threading.Barrier(2, timeout=WAIT)

  def work(stop):
    meet.wait()  # never, if one came after the other
    mesh = sharding.mesh(1, 8)
    placed = sharding.put(jnp.arange(8), mesh, sharding.DATA)
    alone = jax.jit(lambda x: x + 1)(jnp.zeros(()))
    return sharding.devices(), placed.devices() | alone.devices()

  slices = dict(a=there[:2], b=there[4:8])
  found = side_by_side.run(dict(a=work, b=work), slices)
  assert list(found) == ['a', 'b']
  for name, (devices, used) in found.items():
    assert devices == slices[name]
    assert used == set(slices[name])
  assert sharding.devices() == there


def test_what_is_alone_has_all_devices_and_this_thread():
  here = lambda stop: (threading.current_thread(), sharding.devices())  # noqa: E731
  found = side_by_side.run(dict(a=here), dict(a=jax.devices()))
  assert found == dict(a=(threading.current_thread(), jax.devices()))


def waiting(stop):
  """Trains until it is asked to stop."""
  ends = time.monotonic() + WAIT
  while not stop.is_set():
    assert time.monotonic() < ends
    time.sleep(0.01)
  raise Stopped('stopped after step 3 of 6')


@pytest.mark.parametrize('names', ['ab', 'ba'])
def test_the_first_error_stops_the_others_and_is_reported(names):
  def fails(stop):
    raise UserError('train.learning_rate: too large')

  works = {name: fails if name == 'a' else waiting for name in names}
  slices = dict(a=jax.devices()[:1], b=jax.devices()[1:])
  for stop in (None, threading.Event()):
    with pytest.raises(UserError, match='too large'):
      side_by_side.run(works, slices, stop)


def test_asked_to_stop_all_do():
  stop = threading.Event()
  slices = dict(a=jax.devices()[:1], b=jax.devices()[1:])
  timer = threading.Timer(0.1, stop.set)
  timer.start()
  with pytest.raises(Stopped, match='after step 3'):
    side_by_side.run(dict(a=waiting, b=waiting), slices, stop)
  timer.join()
