"""Sound files as waves, and waves as log-Mel features."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxkd import lookup
from jaxkd.errors import UserError

SILENT = 4 / 2**15  # the range of samples up to which a sound is silent
CLIPPED = 1e-3  # the share of samples at full scale above which it is said
_FULL = 0.999  # of samples that count as clipped
_OVERSHOOT = 2.0  # what codecs may add to full scale; beyond is another unit
_STREAMED = 2**31 - 2**20  # lengths from here on mean an unknown one
_LARGEST_PAGE = 27 + 255 + 255 * 255  # bytes of an Ogg page
_END_OF_STREAM = 4  # among the flags of one
_FEWEST_BINS, _MOST_BINS = 3, 126  # that Kaldi makes at 16 kHz
_SLOWEST, _FASTEST = 1_000, 768_000  # rates that recorders have


class Sound(NamedTuple):
  """What a sound file holds.

  Attributes:
    wave: mono, float32 [n], from -1 to 1.
    rate: of the file, in samples a second, before any resampling.
    channels: of the file; ``wave`` is their mean.
    clipped: the share of samples at full scale.
  """

  wave: np.ndarray
  rate: int
  channels: int
  clipped: float


def read(
  path: str | Path, rate: int = 16_000, *, at: str = 'data.source'
) -> np.ndarray:
  """The wave of a sound file, mono, float32 [n], from -1 to 1.

  As `load`, which also tells what was converted.
  """
  return load(path, rate, at=at).wave


def load(
  path: str | Path, rate: int = 16_000, *, at: str = 'data.source'
) -> Sound:
  """Reads a sound file: WAV, FLAC, Ogg and MP3, and G.722 and the like by av.

  Channels are averaged. Another rate is converted by a polyphase filter, that
  of `scipy.signal.resample_poly`.

  Args:
    path: of the file.
    rate: in samples a second.
    at: the config entry that the file belongs to, for errors.

  Raises:
    UserError: a file that is missing, empty, truncated, silent or no sound, or
      a package that is not installed.
  """
  if rate < 1:
    raise UserError(f'{at}: {rate} is no rate; give samples a second')
  if not os.path.isfile(path):  # which takes paths of any length
    raise UserError(f'{at}: there is no sound file {path}')
  path = Path(path)
  if not path.stat().st_size:
    raise UserError(f'{at}: the sound file {path} is empty; remove it')
  samples, own = _samples(path, at)
  check_rate(own, path, at)
  if not samples.size:
    raise UserError(f'{at}: the sound file {path} has no samples; remove it')
  loudest = np.abs(samples).max()
  if not np.isfinite(loudest):
    raise UserError(
      f'{at}: the sound file {path} holds NaN or infinity; get it again, or '
      'remove it'
    )
  if loudest > _OVERSHOOT:
    raise UserError(
      f'{at}: the sound file {path} holds samples of up to {loudest:.6g}; '
      'floats must be from -1 to 1, so divide them by full scale'
    )
  wave = samples.mean(axis=1)
  if np.ptp(wave) <= SILENT:
    if np.ptp(samples, axis=0).max() > SILENT:
      raise UserError(
        f'{at}: the mean of the channels of the sound file {path} is silent, '
        'as they cancel out; keep one of them'
      )
    raise UserError(f'{at}: the sound file {path} is silent; remove it')
  if own != rate:
    wave = _resampled(wave, own, rate)
  return Sound(
    wave.clip(-1, 1).astype(np.float32),
    own,
    samples.shape[1],
    float((np.abs(samples) >= _FULL).mean()),
  )


def notes(
  sounds: Sequence[Sound], rate: int = 16_000, *, of: int = 0
) -> tuple[str, ...]:
  """Sentences on how sounds were converted, and on those that are clipped.

  Args:
    sounds: as `load` gave them; their waves are not looked at.
    rate: what they were converted to.
    of: how many sounds there are, where these are only some.
  """
  many = f'{len(sounds)} sounds'
  if of > len(sounds):
    many += f' looked at (of {of:,})'
  said = []
  several = sum(sound.channels > 1 for sound in sounds)
  if several:
    said.append(f'{several} of {many}: channels were averaged')
  for own in sorted({sound.rate for sound in sounds} - {rate}):
    count = sum(sound.rate == own for sound in sounds)
    said.append(
      f'{count} of {many}: converted from {own} to {rate} samples a second'
    )
  clipped = sum(sound.clipped > CLIPPED for sound in sounds)
  if clipped:
    said.append(
      f'{clipped} of {many} are clipped: more than one of '
      f'{round(1 / CLIPPED):,} samples is at full scale'
    )
  return tuple(said)


def check_bins(bins: int, at: str = 'data.kw.bins') -> None:
  """Refuses numbers of Mel bands that `log_mel` does not make."""
  if not _FEWEST_BINS <= bins <= _MOST_BINS:
    raise UserError(
      f'{at}: {bins} bands should be {_FEWEST_BINS} to {_MOST_BINS}'
    )


def check_rate(rate: int, path: str | Path, at: str = 'data.source') -> None:
  """Refuses rates that no recorder has, and that take forever to convert."""
  if not _SLOWEST <= rate <= _FASTEST:
    raise UserError(
      f'{at}: the sound file {path} says that it has {rate:,} samples a '
      f'second; rates are {_SLOWEST:,} to {_FASTEST:,}, so correct or remove it'
    )


def log_mel(
  wave: np.ndarray,
  bins: int = 40,
  rate: int = 16_000,
  *,
  length: float = 0.025,
  shift: float = 0.01,
  low: float = 20.0,
  high: float = 0.0,
  name: str = 'the wave',
  at: str = 'data.source',
) -> np.ndarray:
  """Logarithms of the energies in Mel bands, as Kaldi has them, by its rules.

  Without dither, so the same wave always gives the same features; the wave is
  scaled to 16-bit integers, pre-emphasised by 0.97, and windowed by a Povey
  window. Frames lie wholly inside of the wave.

  Args:
    wave: mono, float [n], from -1 to 1.
    bins: number of bands.
    rate: samples a second.
    length: of a frame, in seconds.
    shift: from one frame to the next, in seconds.
    low: where the lowest band begins, in Hertz.
    high: where the highest one ends; 0 for half of the rate.
    name: of the wave, for errors.
    at: the config entry that it belongs to, for errors.

  Returns:
    float32 [frames, bins].

  Raises:
    UserError: a wave of less than a frame, or bands that cannot be.
  """
  wave = np.asarray(wave)
  if wave.ndim != 1 or wave.dtype.kind != 'f':
    raise UserError(
      f'{at}: {name} is {wave.dtype} {list(wave.shape)}; a wave is float [n]'
    )
  top = high or rate / 2
  if not 0 < shift <= length:
    raise UserError(
      f'{at}: a frame of {length} s cannot follow after {shift} s; use a shift '
      'above 0 and up to the length'
    )
  if not 0 <= low < top <= rate / 2:
    raise UserError(
      f'{at}: bands from {low:g} to {top:g} Hz cannot be; they must lie '
      f'between 0 and {rate / 2:g} Hz'
    )
  check_bins(bins, at)
  if len(wave) < length * rate:
    raise UserError(
      f'{at}: {name} has {len(wave)} samples, less than one frame of '
      f'{round(length * rate)}; remove it'
    )
  if not np.isfinite(wave).all():  # Kaldi's floor would hide a NaN
    raise UserError(f'{at}: {name} holds NaN or infinity')
  fbank = lookup.package('kaldi_native_fbank', extra='speech', at=at)
  options = fbank.FbankOptions()
  options.frame_opts.samp_freq = rate
  options.frame_opts.dither = 0.0
  options.frame_opts.frame_length_ms = 1000 * length
  options.frame_opts.frame_shift_ms = 1000 * shift
  options.mel_opts.num_bins = bins
  options.mel_opts.low_freq = low
  options.mel_opts.high_freq = high
  try:
    made = fbank.OnlineFbank(options)
  except ValueError as error:  # a band without any frequency
    raise UserError(
      f'{at}: frames of {length} s at {rate} samples a second have no {bins} '
      'bands; use fewer'
    ) from error
  made.accept_waveform(rate, (wave * 2**15).astype(np.float32).tolist())
  made.input_finished()
  frames = [made.get_frame(i) for i in range(made.num_frames_ready)]
  return np.stack(frames).astype(np.float32)


def _samples(path: Path, at: str) -> tuple[np.ndarray, int]:
  """The samples, float32 [n, channels], and their rate."""
  soundfile = lookup.package('soundfile', extra='speech', at=at)
  try:
    with soundfile.SoundFile(path) as file:
      found = file.read(dtype='float32', always_2d=True)
      _check_length(file.extra_info, path, at)
      if file.format == 'OGG':
        _check_last_page(path, at)
      if len(found) < file.frames < _STREAMED:  # an MP3 that was cut short
        raise _unreadable(
          path, f'{len(found)} of {file.frames} samples are there', at
        )
      return found, file.samplerate
  except soundfile.LibsndfileError as error:
    unknown = error.code == 1  # a format that libsndfile does not know
    if not unknown:
      raise _unreadable(path, error.error_string, at) from error
  return _samples_by_av(path, at)


def _samples_by_av(path: Path, at: str) -> tuple[np.ndarray, int]:
  av = lookup.package('av', extra='speech', at=at)
  try:
    with av.open(str(path)) as file:
      if not file.streams.audio:
        raise UserError(f'{at}: {path} has no sound; remove it')
      stream = file.streams.audio[0]
      to_floats = av.AudioResampler(format='fltp')
      parts = [
        part.to_ndarray()
        for frame in (*file.decode(stream), None)
        for part in to_floats.resample(frame)
      ]
      rate, channels = stream.rate, stream.channels
  except av.FFmpegError as error:
    raise _unreadable(path, error.strerror, at) from error
  parts = parts or [np.zeros((channels, 0), np.float32)]
  return np.concatenate(parts, axis=1).T, rate


def _check_length(log: str, path: Path, at: str) -> None:
  """Refuses a WAV file that is shorter than its header says.

  libsndfile reads what is there, and puts the difference into its log. A
  program that writes to a pipe cannot know the length, and gives the largest.
  """
  found = re.search(r'^data *: (\d+) \(should be (\d+)\)', log, re.MULTILINE)
  if found and int(found[2]) < int(found[1]) < _STREAMED:
    raise _unreadable(
      path, f'{found[2]} of {found[1]} bytes are there: it is truncated', at
    )


def _check_last_page(path: Path, at: str) -> None:
  """Refuses an Ogg file that stops before its stream does (RFC 3533, §6).

  The last page is whole, and has the flag of the end of a stream. libsndfile
  takes what is there for all of it.
  """
  with path.open('rb') as file:
    file.seek(max(0, path.stat().st_size - _LARGEST_PAGE))
    read = file.read()
  page = read[max(read.rfind(b'OggS'), 0) :]
  flags, lengths = page[5:6], page[27 : 27 + sum(page[26:27])]
  whole = len(page) >= 27 + len(lengths) + sum(lengths)
  if not whole or not sum(flags) & _END_OF_STREAM:
    raise _unreadable(path, 'its stream has no end: it is truncated', at)


def _unreadable(path: Path, why: str, at: str) -> UserError:
  return UserError(
    f'{at}: cannot read the sound file {path} ({why.rstrip(".")}); get it '
    'again, or remove it'
  )


def _resampled(wave: np.ndarray, own: int, rate: int) -> np.ndarray:
  from scipy import signal  # slow to import

  common = math.gcd(own, rate)
  return signal.resample_poly(wave, rate // common, own // common)
