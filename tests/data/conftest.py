"""Data of this machine stays out of the tests."""

import json

import pytest

from jaxkd.data import fingerprint, index
from jaxkd.data.images import glyphs, image_files
from jaxkd.data.sources import images as image_sources
from jaxkd.data.speech import frames, voices

CHAT = """{% for message in messages %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}"""


@pytest.fixture(autouse=True)
def no_data_of_this_machine(tmp_path, monkeypatch):
  monkeypatch.setattr(
    image_sources, 'DEBIAN_FASHION_MNIST', tmp_path / 'debian'
  )
  monkeypatch.setattr(glyphs, 'FONTS', tmp_path / 'fonts')
  monkeypatch.setattr(glyphs, 'CACHE', tmp_path / 'glyphs')
  monkeypatch.setattr(frames, 'SOUNDS', tmp_path / 'prompts')
  monkeypatch.setattr(frames, 'CACHE', tmp_path / 'speech')
  monkeypatch.setattr(image_files, 'CACHE', tmp_path / '.headers')
  monkeypatch.setattr(index, 'CACHE', tmp_path / '.labels')
  monkeypatch.setattr(fingerprint, 'CACHE', tmp_path / '.checksums')
  monkeypatch.setattr(voices, 'CACHE', tmp_path / '.voices')
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))


@pytest.fixture(scope='session')
def byte_level(tmp_path_factory):
  """A folder with a byte-level tokenizer.json, as GPT-2, Llama 3 and Qwen have.

  Pieces are the bytes, 'ab', 'bc', 'the' and '\\n\\n'; chats are ChatML.
  """
  tokenizers = pytest.importorskip('tokenizers')
  alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  merges = [('a', 'b'), ('b', 'c'), ('t', 'h'), ('th', 'e'), ('Ċ', 'Ċ')]
  pieces = [*alphabet, *(''.join(pair) for pair in merges)]
  numbers = {piece: i for i, piece in enumerate(pieces)}
  made = tokenizers.Tokenizer(tokenizers.models.BPE(numbers, merges))
  made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  made.decoder = tokenizers.decoders.ByteLevel()
  made.add_special_tokens(['<|endoftext|>', '<|im_start|>', '<|im_end|>'])
  made.enable_truncation(3)  # which some files ask for
  made.enable_padding(length=8)
  folder = tmp_path_factory.mktemp('byte_level')
  made.save(str(folder / 'tokenizer.json'))
  said = {
    'bos_token': None,
    'eos_token': '<|im_end|>',
    'pad_token': {'content': '<|endoftext|>'},
    'chat_template': CHAT,
  }
  (folder / 'tokenizer_config.json').write_text(json.dumps(said))
  (folder / 'config.json').write_text('{"bos_token_id": 261}')
  return folder


@pytest.fixture(scope='session')
def metaspace(tmp_path_factory):
  """A folder with a tokenizer.json of words that begin with a space.

  It puts a space before a text, composes characters, and does not know all.
  """
  tokenizers = pytest.importorskip('tokenizers')
  pieces = ['<unk>', '<s>', '</s>', '▁', '▁un', 'happy', '▁happy', 'é', 'x']
  pieces += [*'unhapy', '▁u', 'ha', 'pp', 'py', 'hapy', '▁h']
  model = tokenizers.models.Unigram(
    [(piece, -float(i)) for i, piece in enumerate(pieces)], unk_id=0
  )
  made = tokenizers.Tokenizer(model)
  made.normalizer = tokenizers.normalizers.NFC()
  made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
  made.decoder = tokenizers.decoders.Metaspace()
  made.add_special_tokens(['<s>', '</s>'])
  folder = tmp_path_factory.mktemp('metaspace')
  made.save(str(folder / 'tokenizer.json'))
  (folder / 'special_tokens_map.json').write_text(
    '{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}'
  )
  return folder
