"""Sound files as waves, and waves as features."""

import functools
import io

import numpy as np
import pytest

from jaxkd.data.speech import audio
from jaxkd.errors import UserError

soundfile = pytest.importorskip('soundfile')
av = pytest.importorskip('av')
pytest.importorskip('kaldi_native_fbank')
RATE = 16_000


def tone(rate=RATE, seconds=0.5, hertz=440.0, loud=0.5):
  time = np.arange(int(rate * seconds)) / rate
  return (loud * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


@pytest.fixture
def write(tmp_path):
  def to(name, wave, rate=RATE, **options):
    path = tmp_path / name
    soundfile.write(path, wave, rate, **options)
    return path

  return to


class TestRead:
  @pytest.mark.parametrize('name', ['a.wav', 'a.flac'])
  def test_gives_what_was_written(self, write, name):
    got = audio.read(write(name, tone()))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, tone(), atol=2**-15)

  @pytest.mark.parametrize('rate', [8000, 22_050, 48_000])
  def test_converts_other_rates(self, write, rate):
    path = write('a.wav', tone(rate), rate)
    got, want = audio.read(path), tone()
    assert abs(len(got) - len(want)) <= 1
    inner = slice(400, -400)  # away from the ends of the filter
    np.testing.assert_allclose(got[inner], want[: len(got)][inner], atol=5e-3)
    (note,) = audio.notes([audio.load(path)])
    want = f'1 of 1 sounds: converted from {rate} to 16000 samples a second'
    assert note == want

  def test_averages_channels_and_says_so(self, write):
    both = np.stack([tone(), 0.5 * tone()], axis=1)
    sound = audio.load(write('a.wav', both))
    np.testing.assert_allclose(sound.wave, 0.75 * tone(), atol=2**-14)
    assert audio.notes([sound]) == ('1 of 1 sounds: channels were averaged',)

  def test_says_what_is_clipped(self, write):
    loud = (3 * tone()).clip(-1, 1)
    clipped = audio.load(write('a.wav', loud))
    assert np.abs(clipped.wave).max() <= 1
    whole = audio.load(write('b.wav', tone()))
    assert not audio.notes([whole])
    (note,) = audio.notes([clipped, whole])
    assert note.startswith('1 of 2 sounds are clipped')

  def test_reads_what_av_alone_knows(self, tmp_path):
    path, wave = tmp_path / 'a.g722', tone()
    with av.open(str(path), 'w', format='g722') as file:
      stream = file.add_stream('g722', rate=RATE, layout='mono')
      samples = (wave * 2**15).astype(np.int16)[None]
      frame = av.AudioFrame.from_ndarray(samples, 's16', 'mono')
      frame.sample_rate = RATE
      for packet in (*stream.encode(frame), *stream.encode(None)):
        file.mux(packet)
    got = audio.read(path)
    assert abs(len(got) - len(wave)) < 100
    near = np.correlate(got[1000:2000], wave[1000:2200], 'full').max()
    assert near > 0.9 * np.square(wave[1000:2000]).sum()

  def test_takes_a_header_without_a_length(self, tmp_path):
    """As programs write that write to a pipe."""
    raw = bytearray(wav(tone()))
    for place in (4, 40):
      raw[place : place + 4] = (2**31 - 1).to_bytes(4, 'little')
    (tmp_path / 'a.wav').write_bytes(raw)
    assert len(audio.read(tmp_path / 'a.wav')) == len(tone())


def encoded(wave, rate=RATE, **how):
  file = io.BytesIO()
  soundfile.write(file, wave, rate, **how)
  return file.getvalue()


wav = functools.partial(encoded, format='WAV', subtype='PCM_16')
floats = functools.partial(encoded, format='WAV', subtype='FLOAT')
flac = functools.partial(encoded, format='FLAC')
ogg = functools.partial(encoded, format='OGG')
mp3 = functools.partial(encoded, format='MP3')


def last_page_cut(content):
  return content[: content.rindex(b'OggS')]


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('a.wav', b'', 'is empty'),
    ('a.wav', wav(tone()[:0]), 'has no samples'),
    ('a.wav', wav(np.zeros(8000)), 'is silent'),
    ('a.wav', wav(np.stack([tone(), -tone()], 1)), 'is silent, as they cancel'),
    ('a.wav', wav(tone())[:9000], '8956 of 16000 bytes .* truncated'),
    ('a.flac', flac(tone())[:4000], r'\(.*\); get it again'),
    ('a.mp3', mp3(tone())[:1000], 'of 8000 samples are there'),
    ('a.ogg', ogg(tone())[:-40], 'truncated'),
    ('a.ogg', last_page_cut(ogg(tone(seconds=5))), 'truncated'),
    ('a.wav', b'no sound' * 100, r'\(.*\); get it again'),
    ('a.txt', b'no sound' * 100, 'has no sound'),
    ('a.wav', floats(tone() * 2**15), 'samples of up to 16384'),
    ('a.wav', floats(tone() * np.nan), 'NaN or infinity; get it again'),
    (
      'a.wav',
      wav(tone(), rate=1),
      'has 1 samples a second; rates are 1,0',
    ),
    ('a.wav', wav(tone(), rate=10**6), 'has 1,000,000 samples a second'),
  ],
)
def test_a_bad_file_is_named(tmp_path, name, content, message):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(UserError, match=rf'^data\.source: .*{name}.*{message}'):
    audio.read(tmp_path / name)


def test_a_file_must_be_there(tmp_path):
  with pytest.raises(UserError, match=r'^at: there is no sound file .*a\.wav'):
    audio.read(tmp_path / 'a.wav', at='at')
  with pytest.raises(UserError, match='there is no sound file'):
    audio.read(tmp_path / ('a' * 5000))


def test_as_many_bands_as_there_can_be():
  assert audio.log_mel(tone(), bins=126).shape[1] == 126


class TestLogMel:
  def test_is_deterministic_and_loudest_where_the_tone_is(self):
    got = audio.log_mel(tone())
    assert got.shape == (1 + (len(tone()) - 400) // 160, 40)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, audio.log_mel(tone()))
    mel = lambda hertz: 1127 * np.log(1 + hertz / 700)  # noqa: E731
    ends = mel(20), mel(8000)
    band = 41 * (mel(440) - ends[0]) / (ends[1] - ends[0]) - 1
    assert abs(got.mean(0).argmax() - band) < 1

  def test_follows_the_level(self):
    """Twice as loud is four times the energy."""
    up = audio.log_mel(tone(loud=0.5)) - audio.log_mel(tone(loud=0.25))
    np.testing.assert_allclose(up[:, 2:8], np.log(4), atol=1e-3)

  @pytest.mark.parametrize(
    ('wave', 'options', 'message'),
    [
      (tone()[:399], {'name': 'a.wav'}, 'a.wav has 399 samples, less than one'),
      (tone()[:0], {}, 'has 0 samples'),
      (tone()[None], {}, r'is float32 \[1, 8000\]'),
      (np.zeros(800, int), {}, r'is int64 \[800\]'),
      (np.full(800, np.nan), {}, 'holds NaN'),
      (tone(), {'bins': 0}, '0 bands should be 3 to'),
      (tone(), {'bins': 127}, '127 bands should be 3 to 126'),
      (tone(), {'bins': 96, 'rate': 8000}, '8000 samples .* no 96 bands'),
      (tone(), {'shift': 0.0}, 'cannot follow after 0.0 s'),
      (tone(), {'high': 9000.0}, 'from 20 to 9000 Hz cannot be'),
    ],
  )
  def test_refuses_what_has_no_features(self, wave, options, message):
    with pytest.raises(UserError, match=f'^data.source: .*{message}'):
      audio.log_mel(wave, **options)


@pytest.mark.parametrize(
  ('package', 'use'),
  [
    ('soundfile', lambda path: audio.read(path)),
    ('kaldi_native_fbank', lambda path: audio.log_mel(tone())),
  ],
)
def test_a_missing_package_is_named(write, monkeypatch, package, use):
  path = write('a.wav', tone())
  monkeypatch.setitem(__import__('sys').modules, package, None)
  message = rf"^data\.source: the package {package} .*'jaxkd\[speech\]'"
  with pytest.raises(UserError, match=message):
    use(path)
